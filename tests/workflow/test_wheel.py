"""The wheel: installed outside the checkout it makes a project, and runs the workflow that it brought."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.workflow.conftest import ROOT, SMALL_CONFIG

PARTS = ("biom3d", "config", "profiles", "workflow", "pyproject.toml", "README.md", "LICENSE")
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
LOCAL = ("--no-deps", "--no-index")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this checkout, built from a copy of what goes into it."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in PARTS:
        source, target = ROOT / name, folder / "source" / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    build = [*PIP, "wheel", *LOCAL, "--no-build-isolation", "--wheel-dir", str(folder), str(folder / "source")]
    subprocess.run(build, check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """An environment with the wheel; what it depends on comes from the one that tests, where ours is not visible."""
    folder = tmp_path_factory.mktemp("installed") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    subprocess.run([*PIP, "--python", str(folder / "bin/python"), "install", *LOCAL, str(wheel)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "others.pth").write_text(
        sysconfig.get_path("purelib") + "\n"
    )  # its .pth files, so the checkout, do not count
    return folder


def test_the_wheel_holds_the_workflow_the_profiles_and_the_types(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    ours = [
        path.relative_to(ROOT)
        for name in ("workflow/rules", "workflow/lib", "workflow/schemas", "profiles", "config")
        for path in (ROOT / name).rglob("*")
        if path.suffix in (".smk", ".py", ".yaml", ".tsv")
    ]
    assert len(ours) > 40
    assert {f"biom3d/project/{path.as_posix()}" for path in [*ours, Path("workflow/Snakefile")]} <= names
    assert {"biom3d/py.typed", "snakemake_logger_plugin_biom3d/__init__.py"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith(("workflow/", "tests/"))]


@pytest.mark.system
def test_a_project_outside_the_checkout_runs_to_its_results(environment, tmp_path):
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    environ["PATH"] = os.pathsep.join([str(environment / "bin"), os.defpath])

    def biom3d(*words: str, cwd: Path = tmp_path) -> str:
        command = [str(environment / "bin/biom3d"), *words]
        done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    packaged = next(environment.glob("lib/python*")) / "site-packages/biom3d/project"
    biom3d("synth", "made", "--count", "3", "--shape", "8", "16", "16", "--cells", "3")
    biom3d("init", "study", "--images", "made/images", "--masks", "made/masks", "--model", "tiny")
    study = tmp_path / "study"
    assert (study / "workflow").resolve() == packaged / "workflow"
    (study / "config/config.yaml").write_text(SMALL_CONFIG)
    biom3d("run", "--no_measure", "--cores", "2", cwd=study)
    assert "cross-validated" in (study / "results/summary.csv").read_text()
    assert (study / "report.html").is_file()
    assert biom3d("results", "--orphans", cwd=study) == ""


@pytest.mark.parametrize("name", ["config.yaml", "datasets.tsv"])
def test_a_project_of_the_demo_has_its_configuration_and_table(name, environment, tmp_path):
    command = [environment / "bin/python", "-m", "biom3d.init", tmp_path / "demo", "--demo"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"cd {tmp_path / 'demo'} && biom3d demo data/demo && biom3d run\n"
    assert (tmp_path / "demo/config" / name).read_bytes() == (ROOT / "config" / name).read_bytes()
