"""Who may import whom: the layers of docs/developer.md, read from the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import biom3d

ROOT = Path(biom3d.__file__).parent
# What each part may import, besides itself; the lower a part, the fewer. A step may import everything but steps.
BASE = {"errors", "files", "events", "config", "cpu"}
ALLOWED = {
    "errors": set(),
    "cpu": set(),
    "neighbour": set(),
    "completion": set(),  # of `cli`, which names the modules to it
    "files": {"errors"},
    "steps": set(),
    "events": {"errors", "files"},
    "config": {"errors", "files"},
    "surroundings": set(),
    "io": {"errors", "files"},
    "memory": {"errors"},
    "metrics": BASE | {"io"},
    "figures": BASE | {"io"},
    "views": BASE | {"io", "figures"},
    "reporting": BASE,
    "planning": BASE,
    "models": BASE,
    "compat": BASE | {"data", "planning"},
    "options": BASE | {"data"},
    "data": BASE | {"io", "planning"},
    "training": BASE | {"data", "models", "planning"},
    "engine": {"errors"},
    "images": BASE | {"cli", "engine"},
    "sources": {"errors"},
    "run": {"errors", "sources"},  # starts Snakemake
    "server": BASE | {"cli", "remote"},  # the gate is made from the templates of remote commands
    "remote": BASE | {"cli", "engine", "images", "server"},  # the doctor asks for this checkout's images; cards
    "export": BASE
    | {"cli", "io", "data", "options", "training"},  # the step is its __main__; the rest writes and packs results
    "prediction": BASE | {"data", "io", "memory", "models", "training"},
}
STEPS = {"init", "check", "plan", "preprocess", "train", "pred", "eval", "quality", "report", "results"}
STEPS |= {"synth", "demo"}
COMMANDS = STEPS | {"export", "images", "preprocess_train", "remote", "run", "server"}
# What runs several steps by its purpose.
COMPOSITE = {"preprocess_train": {"preprocess", "train"}, "api": {"plan", "preprocess", "train", "pred"}}
HEAVY = ("torch", "paramiko", "docker", "matplotlib", "skimage", "scipy", "zarr", "nibabel", "h5py", "tifffile")


def imports_of(path: Path) -> set[str]:
    """Return the parts of biom3d that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "biom3d":
            names |= {f"biom3d.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.split(".")[1] for name in names if name.startswith("biom3d.")} - {"__version__"}


def files_of(part: str) -> list[Path]:
    folder = ROOT / part
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [ROOT / f"{part}.py"]


def parts() -> list[str]:
    names = {p.stem if p.suffix == ".py" else p.name for p in ROOT.iterdir() if p.suffix == ".py" or p.is_dir()}
    return sorted(names - {"__init__", "__main__", "__pycache__", "cli"})


@pytest.mark.parametrize("part", [p for p in parts() if p not in STEPS])
def test_a_part_imports_only_what_lies_below_it(part):
    allowed = ALLOWED[part] | {part} if part in ALLOWED else set(parts()) - STEPS | COMPOSITE[part] | {"cli"}
    for path in files_of(part):
        assert imports_of(path) <= allowed, path


@pytest.mark.parametrize("step", sorted(STEPS))
def test_steps_do_not_import_each_other(step):
    for path in files_of(step):
        assert not imports_of(path) & (STEPS - {step}), path


@pytest.mark.parametrize("command", ["", *sorted(COMMANDS)])
def test_help_loads_nothing_heavy(command):
    code = (
        "import sys\nfrom biom3d.cli import main\n"
        f"try: main({[command, '--help'] if command else ['--help']})\nexcept SystemExit: pass\n"
        f"print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "usage:" in done.stdout


def test_the_engine_knows_nothing_of_snakemake():
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                name = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
                assert not (name or "").startswith("snakemake"), path


def test_no_command_line_goes_through_a_shell_of_python():
    """Ruff's S602 to S605 say so too; this holds also where somebody silences them."""
    parts = ("biom3d", "workflow", "containers", "tests", "bench")
    for path in [path for part in parts for path in (ROOT.parent / part).rglob("*.py")]:
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            name, words = ast.unparse(call.func), {word.arg for word in call.keywords}
            assert name not in ("os.system", "os.popen", "subprocess.getoutput"), path
            assert not (name.startswith("subprocess.") and "shell" in words), path
