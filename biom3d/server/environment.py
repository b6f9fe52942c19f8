"""The server's own Python with the step package, `WORKDIR/env`: planned as commands, then made and asked."""

import hashlib
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from biom3d.errors import ConfigError, HostError
from biom3d.server.survey import Ask, Facts

DISTRIBUTION = "biom3d-workflow"
FOLDER = "env"
MARK = ".biom3d-env"  # written last, so that what was broken off is made anew
INDEX = "https://download.pytorch.org/whl"
# Build of torch -> requirement and index, None for PyPI's own; the versions of containers/images.yaml.
TORCH: dict[str, tuple[str, str | None]] = {
    "cpu": ("torch==2.13.0+cpu", f"{INDEX}/cpu"),
    "cuda": ("torch==2.13.0", None),
    "cuda-legacy": ("torch==2.7.1+cu126", f"{INDEX}/cu126"),
}
PROBE = (
    "import importlib.metadata, json, torch; print(json.dumps([importlib.metadata.version('biom3d-workflow'),"
    " torch.__version__, torch.cuda.is_available()]))"
)


@dataclass(frozen=True)
class Source:
    """Where the step package comes from: pip's index, a wheel, a folder of wheels, a checkout; as the server sees it.

    `digest` changes with the content, so that a new wheel of the same name is installed.
    """

    path: str = ""
    digest: str = ""
    is_folder_of_wheels: bool = False


@dataclass(frozen=True)
class EnvironmentPlan:
    """How the environment is made: `commands` in the working folder, and a `recipe` that changes with what they do."""

    torch: str
    commands: tuple[str, ...]
    recipe: str


def find_source(source: Path | None) -> Source:
    """Return what `--from` means; ConfigError if it means nothing."""
    if source is None:
        return Source()
    path = source.expanduser().absolute()
    if path.is_file() and path.suffix == ".whl" and path.name.startswith("biom3d_workflow-"):
        return Source(str(path), hashlib.sha256(path.read_bytes()).hexdigest())
    if path.is_dir() and (path / "pyproject.toml").is_file():
        return Source(str(path), str(sorted(file.stat().st_mtime_ns for file in path.glob("biom3d/**/*.py"))))
    wheels = sorted(path.glob("biom3d_workflow-*.whl")) if path.is_dir() else []
    if wheels:
        return Source(str(path), hashlib.sha256(wheels[-1].read_bytes()).hexdigest(), is_folder_of_wheels=True)
    raise ConfigError(
        f"--from '{source}' is no wheel 'biom3d_workflow-...whl', no folder with it and the wheels it needs, and no"
        " checkout; give one of these, or leave it out to ask pip's index"
    )


def plan_environment(facts: Facts, source: Source, build: str | None = None) -> EnvironmentPlan:
    """Return how the environment is made for a build of torch (None: the one that the GPUs need).

    Raises:
        ConfigError: there is no Python that fits.
    """
    if not facts.pythons:
        raise ConfigError(
            "no Python 3.11, 3.12 or 3.13 with its module venv is there; run: sudo apt-get install python3 python3-venv"
        )
    build = build or facts.torch_build
    torch, index = TORCH[build]
    extra = "" if build == "cuda-legacy" else "[engine]"  # the extra wants the newer torch
    where = ["--no-index", "--find-links", source.path] if source.is_folder_of_wheels else []
    known = ["--extra-index-url", index] if index and not where else []
    name = f"{source.path if source.path and not where else DISTRIBUTION}{extra}"
    pip = [f"{FOLDER}/bin/python", "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
    commands = (
        shlex.join([facts.pythons[0][0], "-m", "venv", "--clear", FOLDER]),
        shlex.join([*pip, *where, *known, name, torch]),
    )
    return EnvironmentPlan(
        torch, commands, hashlib.sha256("\n".join([*commands, source.digest]).encode()).hexdigest()[:16]
    )


def make_environment(ask: Ask, facts: Facts, plan: EnvironmentPlan, say: Callable[[str], None]) -> str:
    """Make the environment unless it is there, and return what it says of itself.

    Raises:
        HostError: a command failed, or the environment does not work.
    """
    folder = PurePosixPath(facts.workdir)
    enter = f"cd -- {shlex.quote(str(folder))} && "
    mark = f"{FOLDER}/{MARK}"
    if _ask(ask, f"{enter}cat {mark} 2>/dev/null || true").strip() == plan.recipe:
        return _probe(ask, enter)
    # What somebody else made is not ours to clear.
    foreign = _ask(ask, f"{enter}[ -e {FOLDER} ] && [ ! -e {mark} ] && [ ! -e {mark}-unfinished ] && echo yes; true")
    if foreign.strip():
        raise ConfigError(f"'{folder / FOLDER}' is there and was not made by biom3d; move it away, or leave out --env")
    for place, command in enumerate(plan.commands, start=1):
        say(f"environment: {place} of {len(plan.commands)}: {command}")
        unfinished = f" && : > {mark}-unfinished" if place == 1 else ""
        _ask(ask, f"{enter}{command} </dev/null{unfinished}")
    told = _probe(ask, enter)
    _ask(ask, f"{enter}printf %s {plan.recipe} > {mark} && rm -f {mark}-unfinished")
    return told


def _probe(ask: Ask, enter: str) -> str:
    out = _ask(ask, f"{enter}exec {FOLDER}/bin/python -I -c {shlex.quote(PROBE)}")
    version, torch, has_gpu = json.loads(out.splitlines()[-1])
    return f"{DISTRIBUTION} {version}, torch {torch}, {'sees a GPU' if has_gpu else 'computes on the CPU'}"


def _ask(ask: Ask, line: str) -> str:
    done = ask(line, b"")
    if done.code:
        lines = [text for text in done.err.decode(errors="replace").splitlines() if text.strip()]
        raise HostError(
            f"'{line.partition(' && ')[2]}' failed: {' | '.join(lines[-3:])[:500]}; mend it and run it again"
        )
    return done.out.decode(errors="replace")
