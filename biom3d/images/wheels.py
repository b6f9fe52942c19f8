"""Wheels: hashed locks per image, a checked folder of files for each, and our own packages built on this machine."""

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from biom3d.errors import Biom3dError, ConfigError, OutputError
from biom3d.events import Reporter
from biom3d.files import atomic_path, scratch_folder
from biom3d.images.keys import package_files
from biom3d.images.table import Table

CACHE = ".cache/wheels"
UV = ".cache/lock/bin/uv"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"  # the CPU builds, where this machine's pip knows no other place
GLIBC = 36  # of Debian bookworm; wheels for an older one work


@dataclass(frozen=True)
class Requirement:
    """One line of a lock: the files with one of `hashes` (SHA-256) and no others may be installed."""

    name: str
    version: str
    hashes: frozenset[str]

    def text(self) -> str:
        """Return the line for pip."""
        return " ".join([f"{self.name}=={self.version}", *(f"--hash=sha256:{value}" for value in sorted(self.hashes))])


def read_requirements(path: Path) -> list[Requirement]:
    """Read a lock written by `resolve`; ConfigError for a line without version or hash."""
    text = re.sub(r"\\\n", " ", path.read_text(encoding="utf-8"))
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    found = [_parse(line, path) for line in lines if line]
    if not found:
        raise ConfigError(f"'{path}' names no package; write it anew with: biom3d images resolve {path.stem}")
    return found


def _parse(line: str, path: Path) -> Requirement:
    match = re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", line)
    hashes = frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})", line))
    if not match or not hashes:
        raise ConfigError(
            f"'{path}': '{line[:60]}' has no exact version or no hash; write it anew: biom3d images resolve"
        )
    return Requirement(normal(match[1]), match[2], hashes)


def normal(name: str) -> str:
    """Return a package name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def checked_wheels(folder: Path, requirements: Sequence[Requirement]) -> tuple[list[Path], list[Requirement]]:
    """Return the wheels of `folder` that are what the lock says, and the requirements that lack one.

    Raises:
        ConfigError: a wheel has another hash than the lock.
    """
    files = {_wheel_key(path): path for path in sorted(folder.glob("*.whl"))}
    good, missing = [], []
    for wanted in requirements:
        path = files.get((wanted.name, wanted.version))
        if path is None:
            missing.append(wanted)
        elif _sha256(path) in wanted.hashes or _is_built_here(path, wanted):
            good.append(path)
        else:
            raise ConfigError(
                f"'{path}' is not the file of the lock (its SHA-256 is {_sha256(path)[:16]}...); remove it and run "
                "again, and if it comes back the index or the way to it has been tampered with"
            )
    return good, missing


def _wheel_key(path: Path) -> tuple[str, str]:
    name, version = path.name.split("-")[:2]
    return normal(name), version


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_built_here(path: Path, wanted: Requirement) -> bool:
    """Say whether a wheel was built from a source archive of the lock; its `.from` file tells both hashes."""
    with contextlib.suppress(OSError, ValueError):
        source, wheel = path.with_name(path.name + ".from").read_text().split()
        return source in wanted.hashes and wheel == _sha256(path)
    return False


def download_command(requirements: Path, folder: Path, python: str) -> list[str]:
    """Return the pip command that fetches the wheels of a lock for the Python of a base, whatever Python runs here."""
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in range(GLIBC, 4, -1)]
    platforms += [f"manylinux{name}_x86_64" for name in ("2014", "2010", "1")]
    return [
        *("python", "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary", ":all:"),
        *("--implementation", "cp", "--python-version", python),
        *(word for name in platforms for word in ("--platform", name)),
        *("--requirement", str(requirements), "--dest", str(folder)),
    ]


def wheel_folder(table: Table, variant: str) -> Path:
    """Return where the wheels of a row lie on this machine."""
    return table.root / CACHE / variant


def fetch_wheels(table: Table, variant: str, report: Reporter) -> list[Path]:
    """Return the wheels of a row, all hashes checked; what is missing is downloaded or built first.

    Raises:
        ConfigError: a hash is wrong, or a wheel does not exist.
        OutputError: the disk is full.
    """
    return fetch(table.lock_of(variant), wheel_folder(table, variant), table.base_of(variant).python,
                 table.variant(variant).sdists, report)  # fmt: skip


def fetch_installer(table: Table, python: str, report: Reporter) -> Path:
    """Return the wheel of the pip that installs inside the builder."""
    lock = table.root / "containers/locks/pip.txt"
    wheels = fetch(lock, table.root / CACHE / "pip", python, (), report)
    if _wheel_key(wheels[0]) != ("pip", table.pip):
        raise ConfigError(f"'{lock}' holds {wheels[0].name}, the table wants pip {table.pip}; biom3d images resolve")
    return wheels[0]


def fetch(lock: Path, folder: Path, python: str, sdists: Sequence[str], report: Reporter) -> list[Path]:
    """Return the wheels of a lock in `folder`; see `fetch_wheels`."""
    requirements = read_requirements(lock)
    with _disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    _, missing = checked_wheels(folder, requirements)
    if missing:
        report.info(f"fetching {len(missing)} of {len(requirements)} wheels into {folder}")
        plain = [item for item in missing if item.name not in map(normal, sdists)]
        for chosen, is_source in ((plain, False), ([item for item in missing if item not in plain], True)):
            if chosen:
                _download(chosen, folder, python, is_source)
    good, missing = checked_wheels(folder, requirements)
    if missing:
        raise ConfigError(f"no wheel for {missing[0].name}=={missing[0].version} in '{folder}'; is it in the index?")
    return good


def _download(requirements: Sequence[Requirement], folder: Path, python: str, is_source: bool) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        lines = Path(scratch) / "requirements.txt"
        lines.write_text("\n".join(item.text() for item in requirements) + "\n")
        if not is_source:
            with _disk_errors(folder):
                _pip(download_command(lines, folder, python)[1:], torch=True)
            return
        command = ["download", "--no-deps", "--require-hashes", "--no-binary", ":all:", "--requirement", str(lines)]
        _pip(["-m", "pip", *command, "--dest", f"{scratch}/sources"])
        for source in sorted(Path(scratch, "sources").iterdir()):
            _pip(["-m", "pip", "wheel", "--no-deps", "--wheel-dir", f"{scratch}/wheels", str(source)])
            for wheel in Path(scratch, "wheels").glob("*.whl"):
                shutil.move(wheel, folder / wheel.name)
                note = folder / f"{wheel.name}.from"
                note.write_text(f"{_sha256(source)} {_sha256(folder / wheel.name)}\n")


def build_packages(table: Table, variant: str, folder: Path) -> list[Path]:
    """Build the row's packages of this checkout into `folder` as wheels, the same bytes every time."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in table.variant(variant).packages:
        package = table.packages[name]
        with tempfile.TemporaryDirectory() as scratch:
            for path in package_files(table.root, package):
                target = Path(scratch) / path
                target.parent.mkdir(parents=True, exist_ok=True)
                blank = str(path) in package.blank
                target.write_bytes(b"" if blank else (table.root / package.path / path).read_bytes())
            build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
            _pip(["-m", "pip", *build, "--wheel-dir", str(folder), scratch], SOURCE_DATE_EPOCH=str(table.epoch))
    return sorted(folder.glob("*.whl"))


def resolve(table: Table, variant: str, upgrade: bool, report: Reporter) -> None:
    """Write the lock of a row with `uv`, for the Python and system of its base; `upgrade`: newer versions."""
    row = table.variant(variant)
    if row.reference:
        raise ConfigError(f"image '{variant}' is built by others; there is nothing to resolve")
    extras = [name for name in row.requires if re.fullmatch(r"[a-z0-9-]+", name)]
    exact = [name for name in row.requires if name not in extras]
    source = ["pyproject.toml", *(word for name in extras for word in ("--extra", name))] if extras else ["-"]
    options = ["--python-version", table.base_of(variant).python, *(["--upgrade"] if upgrade else [])]
    if "+" in row.torch:  # torch's CPU builds are not on PyPI: where pip is configured to look, else their own index
        options += ["--find-links", os.environ.get("PIP_FIND_LINKS") or _pip_links() or f"{TORCH_INDEX}/torch/"]
    _compile(table, table.lock_of(variant), [*source, *options], exact, [f"torch=={row.torch}"])
    report.info(f"{table.lock_of(variant)} written")


def resolve_installer(table: Table) -> None:
    """Write the lock of the pip that installs inside the builder."""
    _compile(
        table, table.root / "containers/locks/pip.txt", ["-", "--python-version", "3.11"], [f"pip=={table.pip}"], []
    )


def _compile(
    table: Table, lock: Path, arguments: Sequence[str], requirements: Sequence[str], overrides: Sequence[str]
) -> None:
    uv = shutil.which("uv") or str(table.root / UV)
    if not Path(uv).is_file():
        raise ConfigError(f"'uv' is neither on the path nor at '{uv}'; `make lock` puts it there")
    with scratch_folder(lock.parent) as scratch, atomic_path(lock) as temporary:
        if lock.exists():
            shutil.copy(lock, temporary)
        (scratch / "overrides.txt").write_text("\n".join(overrides) + "\n")
        command = [uv, "pip", "compile", *arguments, "--quiet", "--generate-hashes", "--no-header", "--no-annotate"]
        command += ["--python-platform", "x86_64-manylinux_2_28"]
        command += ["--override", str(scratch / "overrides.txt"), "--output-file", str(temporary)]
        done = subprocess.run(command, cwd=table.root, input="\n".join(requirements), capture_output=True, text=True)
        if done.returncode:
            raise ConfigError(f"no set of packages fits for '{lock.stem}': {' '.join(done.stderr.split())[:500]}")
        found = {f"{item.name}=={item.version}" for item in read_requirements(temporary)}
        if lost := [wanted for wanted in overrides if wanted not in found]:
            raise ConfigError(f"{lost[0]} is not what was found for '{lock.stem}'; is there such a version?")


def _pip_links() -> str:
    command = [sys.executable, "-m", "pip", "config", "get", "global.find-links"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def _pip(arguments: Sequence[str], torch: bool = False, **environment: str) -> None:
    """Run pip; its errors in one line. `torch`: if it finds no CPU build, try again with torch's own index as well."""
    command = [sys.executable, *arguments, "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode and torch and "No matching distribution found for torch==" in done.stderr:
        command += ["--extra-index-url", TORCH_INDEX]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode:
        raise _pip_error(done.stderr)


def _pip_error(text: str) -> Biom3dError:
    if "No space left on device" in text:
        return OutputError("the disk is full while fetching wheels; free some space and run the same command again")
    if "DO NOT MATCH THE HASHES" in text:
        name = re.search(r"\n\s+(\S+==\S+|\S+) from ", text)
        return ConfigError(
            f"the index serves another file than the lock for {name[1] if name else 'a package'}; the download is "
            "thrown away; if you trust the new file: biom3d images resolve"
        )
    if missing := re.search(r"No matching distribution found for (\S+)", text):
        return ConfigError(
            f"no wheel of {missing[1]} to be had, not by this machine's pip configuration (index, find-links); "
            "check the network, or put the wheel into a folder and set PIP_FIND_LINKS=FOLDER"
        )
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("WARNING")]
    return Biom3dError(f"pip failed: {' '.join(lines[-3:])[:500]}")


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    from biom3d.files import output_error

    try:
        yield
    except OSError as error:
        raise output_error(folder, error) from error
