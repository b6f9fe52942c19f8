import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def snakemake(home, *words):
    env = {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home / "config")}
    command = [str(Path(sys.executable).parent / "snakemake"), *words]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def test_a_fresh_clone_leads_on_to_the_profile_remote(tmp_path):
    done = snakemake(tmp_path, "--profile", "remote", "-n")
    assert done.returncode == 1
    assert "biom3d: there is no profile 'remote' yet; `biom3d remote add remote --host HOST` writes it" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--profile", "local"], "snakemake --workflow-profile local"),
        (["--profile=gpu1"], "`biom3d remote add gpu1 --host HOST`"),
        (["--profile", "mine"], ""),
        (["--profile", "/no/such"], ""),
        (["-n"], ""),
    ],
)
def test_only_a_profile_that_is_not_there_is_told(words, said, tmp_path, monkeypatch, capsys):
    from snakemake_executor_plugin_ssh.lead import lead_on

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("SNAKEMAKE_PROFILE", raising=False)
    (tmp_path / "snakemake" / "mine").mkdir(parents=True)
    monkeypatch.setattr(sys, "argv", ["/env/bin/snakemake", *words])
    lead_on()
    err = capsys.readouterr().err
    assert said in err
    assert bool(said) == bool(err)
    monkeypatch.setattr(sys, "argv", ["/env/bin/pytest", *words])
    lead_on()
    assert not capsys.readouterr().err
