"""Kill a step (SIGKILL) before each of its changes to the file system, and see what is left: for test_killed.py.

    python -m tests.bad_input.killer STEP UNITS CHANGES OPTION...

UNITS is a comma-separated list of patterns of what appears whole or not at all, the last of them only where all
others are of the same run; CHANGES are the audit events of Python to kill before, or `all`. Before each run out/ is a
copy of old/ where that exists. Every run is a process of its own, forked so that the libraries are loaded once. After
each kill the same command runs again, undisturbed, and must make what a first run makes. Prints the number of kills.
"""

import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from importlib import import_module
from pathlib import Path

import torch

ALL = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
MAX_KILLS = 400
OUT, OLD, MODULES = Path("out"), Path("old"), Path("modules")  # the last: what a run imports
State = Mapping[str, str]


def kill_before(number: int, changes: Sequence[str]) -> None:
    """Make the change `number` of this process its end."""
    seen = 0

    def hook(event: str, args: tuple[object, ...]) -> None:
        nonlocal seen
        if event in changes and (event != "open" or opens_to_write(args)):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def opens_to_write(args: tuple[object, ...]) -> bool:
    flags = args[2]
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) and args[0] != os.devnull


def run(main: Callable[[list[str]], int], options: list[str], kill: int = 0, changes: Sequence[str] = ()) -> bool:
    """Run a step in a process of its own; say whether it came to its end, which must be a good one."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if kill:
            kill_before(kill, changes)
        code = main(options)
        if not MODULES.exists():
            MODULES.write_text("\n".join(sys.modules))
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, -signal.SIGKILL):
        raise SystemExit(f"exit code {code} after kill {kill}")
    return code == 0


def state_of(root: Path, pattern: str = "") -> State:
    """Return name -> hash of all files below `root`, or of those of one unit; without times and random names."""
    found = [root] if not pattern else sorted(root.glob(pattern))
    files = [file for path in found for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
    return {str(file.relative_to(root)): digest(file) for file in files if file.is_file()}


def digest(file: Path) -> str:
    content = file.read_bytes()
    if file.name.endswith(".ome.tif"):
        content = re.sub(rb"urn:uuid:[0-9a-f-]{36}", b"", content)
    if file.name == "log.csv":
        content = re.sub(rb",[^,\n]*\n", b"\n", content)  # the seconds of an epoch
    if file.suffix == ".pth":
        saved = torch.load(file, weights_only=True)
        content = b"".join(tensor.numpy().tobytes() for tensor in saved["model"].values())
    return sha256(content).hexdigest()


def start_afresh() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    if OLD.exists():
        shutil.copytree(OLD, OUT)
    else:
        OUT.mkdir()


def main(step: str, units: list[str], changes: Sequence[str], options: list[str]) -> None:
    """Kill and repeat until a run ends before its kill."""
    step_main = import_module(f"biom3d.{step}").main
    start_afresh()
    old = state_of(OUT)
    run(step_main, options)
    new = state_of(OUT)
    for name in MODULES.read_text().splitlines():
        with suppress(ImportError):  # names that only look like modules
            import_module(name)
    for kill in range(1, MAX_KILLS):
        start_afresh()
        if run(step_main, options, kill, changes):
            print(kill - 1)
            return
        check_units(units, old, new, kill)
        run(step_main, options)
        left = state_of(OUT)
        if left != new:
            raise SystemExit(f"after kill {kill} a second run made {sorted(dict(left.items() ^ new.items()))}")
    raise SystemExit(f"no end after {MAX_KILLS} kills")


def check_units(units: list[str], old: State, new: State, kill: int) -> None:
    """Stop where a unit is neither absent, nor as before, nor as it will be, or the last is there among others."""
    ages = [age_of(path, old, new) for pattern in units for path in sorted(OUT.glob(pattern))]
    if None in ages:
        raise SystemExit(f"kill {kill} left something half done: {sorted(state_of(OUT))}")
    if OUT.joinpath(units[-1]).exists() and len(set(ages)) > 1:
        raise SystemExit(f"kill {kill} left old and new together: {ages} of {units}")


def age_of(path: Path, old: State, new: State) -> str | None:
    name = str(path.relative_to(OUT))
    found = state_of(OUT, name)
    for age, state in (("new", new), ("old", old)):
        if found == {file: hash_ for file, hash_ in state.items() if file == name or file.startswith(f"{name}/")}:
            return age
    return None


if __name__ == "__main__":
    events = ALL if sys.argv[3] == "all" else (sys.argv[3],)
    main(sys.argv[1], sys.argv[2].split(","), events, sys.argv[4:])
