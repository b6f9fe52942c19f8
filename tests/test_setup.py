"""The set-up: locks that fit pyproject.toml, and a Makefile that knows when nothing is to be done."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
TARGETS = ["help", "setup", "slurm", "demo", "run", "report", "test", "lint", "soak", "bench", "lock", "clean"]


def locked(name: str) -> dict[str, list[str]]:
    """Versions of every package in a lock (several where they depend on the Python version)."""
    versions: dict[str, list[str]] = {}
    lock = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    for package, version in re.findall(r"^([\w.-]+)==([\w.+!]+)", lock, re.MULTILINE):
        versions.setdefault(package, []).append(version)
    return versions


def make(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture
def clone(tmp_path) -> Path:
    """What `make setup` looks at, in a folder with a space in its name, and an environment that is ready."""
    folder = tmp_path / "my clone"
    shutil.copytree(ROOT / "requirements", folder / "requirements")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    (folder / ".venv").mkdir()
    stamp = re.search(r"\.venv/\.ready-cpu-\w+", make("-n", "setup", "TORCH=cpu", cwd=folder).stdout)
    assert stamp
    (folder / stamp.group()).touch()
    (folder / ".venv/.installed").touch()
    return folder


def is_ready(clone: Path, *arguments: str) -> bool:
    return make("-q", "setup", *arguments, cwd=clone).returncode == 0


@pytest.mark.parametrize("lock", ["cpu.lock", "cuda.lock"])
@pytest.mark.parametrize("wanted", PROJECT["dependencies"] + EXTRAS["workflow"] + EXTRAS["dev"])
def test_every_dependency_is_locked_at_a_version_that_fits(wanted, lock):
    requirement = Requirement(wanted)
    versions = locked(lock)[requirement.name.lower()]
    assert all(requirement.specifier.contains(version) for version in versions)


def test_every_package_that_is_imported_is_declared():
    declared = {
        Requirement(text).name.lower() for group in [PROJECT["dependencies"], *EXTRAS.values()] for text in group
    }
    owners = packages_distributions()
    ours = {"biom3d", "biom3d_workflow", "snakemake_executor_plugin_host", "snakemake_logger_plugin_biom3d"}
    undeclared = {}
    for path in [*ROOT.glob("biom3d/**/*.py"), *ROOT.glob("workflow/**/*.py")]:
        for name in imported(path) - ours - sys.stdlib_module_names:
            if not declared & {owner.lower() for owner in owners.get(name, [name])}:
                undeclared[name] = path.relative_to(ROOT)
    assert undeclared == {}


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def test_what_make_slurm_adds_is_locked_at_a_version_that_fits_and_installed_by_nothing_else():
    requirement = Requirement(EXTRAS["slurm"][0])
    assert all(requirement.specifier.contains(version) for version in locked("slurm.lock")[requirement.name])
    assert not set(locked("slurm.lock")) & set(locked("cpu.lock"))


@pytest.mark.parametrize("lock", ["cpu.lock", "cuda.lock", "slurm.lock"])
def test_every_locked_package_has_a_hash(lock):
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
    assert len(re.findall(r"^[\w.-]+==.*\\\n    --hash=sha256:", text, re.MULTILINE)) == len(
        re.findall(r"^[\w.-]+==", text, re.MULTILINE)
    )


def test_the_default_lock_brings_no_cuda():
    assert [name for name in locked("cpu.lock") if name == "torch" or name.startswith(("nvidia", "cuda"))] == []


def test_torch_is_the_same_version_everywhere():
    (version,) = locked("cuda.lock")["torch"]
    assert EXTRAS["engine"] == EXTRAS["cuda"] == [f"torch=={version}"]
    for script, line in (("setup.sh", f"torch=={version}+cpu\n"), ("lock.sh", f"TORCH={version}\n")):
        assert line in (ROOT / "requirements" / script).read_text(encoding="utf-8")


def test_help_is_the_default_and_names_every_target():
    assert re.findall(r"^  (\w+) +\w", make().stdout, re.MULTILINE) == TARGETS


def test_the_tests_are_the_last_thing_that_make_test_runs():
    assert make("-n", "test").stdout.splitlines()[-1].endswith("-m pytest")


def test_an_unknown_kind_of_torch_is_refused():
    done = make("setup", "TORCH=rocm")
    assert done.returncode != 0
    assert "give TORCH=cpu or TORCH=cuda" in done.stderr


def test_a_ready_environment_is_left_alone(clone):
    assert is_ready(clone)


def test_an_interrupted_set_up_is_done_again(clone):
    next((clone / ".venv").glob(".ready-*")).unlink()
    assert not is_ready(clone)


def test_another_lock_means_another_environment(clone):
    with (clone / "requirements/cpu.lock").open("a") as lock:
        lock.write("# changed\n")
    assert not is_ready(clone)


def test_asking_for_cuda_means_another_environment(clone):
    assert not is_ready(clone, "TORCH=cuda")


def test_a_cuda_environment_stays_one_without_being_asked_again(clone):
    stamp = next((clone / ".venv").glob(".ready-cpu-*"))
    stamp.unlink()
    (clone / ".venv/.ready-cuda-0").touch()
    assert "setup.sh cuda" in make("-n", "setup", cwd=clone).stdout


def test_a_python_that_does_not_fit_is_named_and_nothing_is_changed(clone):
    next((clone / ".venv").glob(".ready-*")).unlink()
    done = make("setup", "PYTHON=/bin/false", cwd=clone)
    assert done.returncode != 0
    assert "PYTHON=/bin/false is not a Python 3.11, 3.12 or 3.13" in done.stderr
    assert [path.name for path in (clone / ".venv").iterdir()] == [".installed"]
