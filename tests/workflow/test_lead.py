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
        (["--profile", "old"], "renew it with: biom3d remote renew old"),
        (["--profile", "theirs"], ""),
        (["--profile", "/no/such"], ""),
        (["-n"], ""),
    ],
)
def test_only_a_profile_that_is_not_there_is_told(words, said, tmp_path, monkeypatch, capsys):
    from snakemake_executor_plugin_host.lead import lead_on

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("SNAKEMAKE_PROFILE", raising=False)
    for name, text in (
        ("mine", "executor: host\nhost-address: a\n"),
        ("old", "executor: ssh\nssh-host: a\n"),
        ("theirs", "executor: ssh\nssh-target: a\n"),  # of another plugin
    ):
        (tmp_path / "snakemake" / name).mkdir(parents=True)
        (tmp_path / "snakemake" / name / "profile.yaml").write_text(text)
    monkeypatch.setattr(sys, "argv", ["/env/bin/snakemake", *words])
    lead_on()
    err = capsys.readouterr().err
    assert said in err
    assert bool(said) == bool(err)
    monkeypatch.setattr(sys, "argv", ["/env/bin/pytest", *words])
    lead_on()
    assert not capsys.readouterr().err
