"""A trained model as one zip: pack run folders, and unpack them again without trusting the file.

    fold_<k>/plan.yaml, log/config.yaml, log/log.csv, log/folds.csv, log/training_set.json,
               model/<desc>_best.pth
    manifest.json      format, version of biom3d, desc, number of folds, size and SHA-256 of every file

The state that training resumes from stays at home: it is twice the size of the weights and predicts nothing.
Equal runs give an equal zip, byte for byte (names sorted, one fixed date, nothing compressed: weights hardly
shrink), so that a hash tells whether two packages are the same model.
"""

import hashlib
import json
import re
import stat
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from biom3d import __version__
from biom3d.errors import ConfigError, DataError
from biom3d.files import atomic_path

FORMAT = "biom3d-model"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
SMALL_FILES = ("plan.yaml", "log/config.yaml", "log/log.csv", "log/folds.csv", "log/training_set.json")
BEST = "_best.pth"
MAX_BYTES = 32 << 30  # a fold of the largest network has 0.25 GB; nothing of ours comes near
MAX_MANIFEST_BYTES = 1 << 20
MAX_RATIO = 100  # deflate reaches 1000 on zeros; plans and logs stay below 20
CHUNK = 1 << 20
FileFacts = dict[str, Any]  # size and sha256
_DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip can hold


@dataclass(frozen=True)
class Package:
    """What goes into the zip: the model's name, and `members`, pairs of name in the zip and file here."""

    desc: str
    members: tuple[tuple[str, Path], ...]

    @property
    def folds(self) -> list[str]:
        """The fold folders in the zip, in order."""
        return _folds(name for name, _ in self.members)


def plan_package(runs: Sequence[Path]) -> Package:
    """Decide what to pack of run folders, `logs/<model>/fold_<k>`, one a fold.

    Raises DataError where a folder is no finished run, ConfigError where two are the same fold or two models.
    """
    members: list[tuple[str, Path]] = []
    folds: dict[str, Path] = {}
    descs: dict[str, Path] = {}
    for position, run in enumerate(runs):
        best = _best_checkpoint(run)
        descs[best.name.removesuffix(BEST)] = run
        fold = f"fold_{_fold_number(run, position)}"
        if fold in folds:
            raise ConfigError(f"'{folds[fold]}' and '{run}' are both {fold}; give each fold once")
        folds[fold] = run
        files = [run / name for name in SMALL_FILES if (run / name).is_file()]
        members += [(f"{fold}/{path.relative_to(run).as_posix()}", path) for path in [*files, best]]
    if len(descs) != 1:
        found = ", ".join(f"'{desc}' in '{run}'" for desc, run in descs.items())
        raise ConfigError(f"these runs are of different models ({found}); pack one model at a time")
    return Package(next(iter(descs)), tuple(sorted(members)))


def _best_checkpoint(run: Path) -> Path:
    if not run.is_dir():
        raise DataError(f"no run folder '{run}'; give a folder made by train, such as logs/<model>/fold_0")
    found = sorted((run / "model").glob(f"*{BEST}"))
    if len(found) != 1:
        raise DataError(f"'{run}/model' holds {len(found)} files '*{BEST}', wanted one; give a finished run of train")
    if not _is_safe(f"fold_0/{found[0].name}"):
        raise DataError(f"the name of '{found[0]}' cannot be packed; rename it without backslash and colon")
    if not any((run / name).is_file() for name in SMALL_FILES[:2]):
        raise DataError(f"'{run}' holds neither plan.yaml nor log/config.yaml; give a finished run of train")
    return found[0]


def _fold_number(run: Path, position: int) -> int:
    """Read k from `fold_<k>`, or `..._fold<k>` as Biom3d names its runs; else count."""
    found = re.search(r"fold_?(\d+)$", run.resolve().name)
    return int(found[1]) if found else position


def pack_model(runs: Sequence[Path], out: Path) -> dict[str, Any]:
    """Write the zip of run folders to `out`, atomically; return its manifest. Raises like `plan_package`."""
    package = plan_package(runs)
    with atomic_path(out) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        files = {name: _add_file(archive, name, path) for name, path in package.members}
        manifest = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "biom3d_version": __version__,
            "desc": package.desc,
            "folds": len(package.folds),
            "files": files,
        }
        archive.writestr(_entry(MANIFEST), json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    return manifest


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _DATE)
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    entry.create_system = 3  # Unix, on every system
    return entry


def _add_file(archive: zipfile.ZipFile, name: str, path: Path) -> FileFacts:
    entry = _entry(name)
    entry.file_size = path.stat().st_size
    with path.open("rb") as source, archive.open(entry, "w") as target:
        return _copy(source, target)


def _copy(source: IO[bytes], target: IO[bytes]) -> FileFacts:
    """Copy a stream; return its size and SHA-256, as the manifest has them."""
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(CHUNK):
        digest.update(chunk)
        size += len(chunk)
        target.write(chunk)
    return {"size": size, "sha256": digest.hexdigest()}


def unpack_model(zip_path: Path, folder: Path, max_bytes: int = MAX_BYTES) -> list[Path]:
    """Unpack a model package below `folder` and return its run folders, `folder/fold_<k>`, in order of k.

    Nothing is written before names and sizes are checked; each run folder appears when all its files have the
    hash of the manifest. Raises DataError for whatever is not a package of ours: no zip, no manifest, files
    that differ from it, names that lead elsewhere, links, more than `max_bytes` in all.
    """
    try:
        with zipfile.ZipFile(zip_path) as archive:
            files = _read_manifest(archive)
            _check_entries(archive, files, max_bytes)
            return [_unpack_fold(archive, files, fold, folder) for fold in _folds(files)]
    except DataError as error:
        raise DataError(f"model package '{zip_path}': {error}") from error
    except FileNotFoundError as error:
        raise DataError(f"no model package '{zip_path}'; check the path") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise DataError(f"'{zip_path}' is damaged or no zip ({error}); copy it again") from error


def _read_manifest(archive: zipfile.ZipFile) -> dict[str, FileFacts]:
    """Return what the manifest says of each file."""
    if MANIFEST not in archive.namelist():
        raise DataError(f"holds no {MANIFEST}; give a zip made by `biom3d export model`")
    entry = archive.getinfo(MANIFEST)
    _check_entry(entry)
    if entry.file_size > MAX_MANIFEST_BYTES:
        raise DataError(f"its {MANIFEST} has {entry.file_size} bytes, wanted at most {MAX_MANIFEST_BYTES}")
    try:
        manifest = json.loads(archive.read(entry))
        kind, version = manifest["format"], int(manifest["format_version"])
        files = {str(name): _facts(value) for name, value in manifest["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"its {MANIFEST} cannot be read ({error!r}); pack the model again") from error
    if kind != FORMAT or version > FORMAT_VERSION:
        wanted = f"'{FORMAT}' up to version {FORMAT_VERSION}"
        raise DataError(f"its format is '{kind}' version {version}, wanted {wanted}; update biom3d")
    return files


def _facts(value: dict[str, Any]) -> FileFacts:
    return {"size": int(value["size"]), "sha256": str(value["sha256"])}


def _check_entries(archive: zipfile.ZipFile, files: dict[str, FileFacts], max_bytes: int) -> None:
    """Refuse names, sizes and kinds of entries that a package of ours never has."""
    names = archive.namelist()
    if sorted(names) != sorted([*files, MANIFEST]):
        odd = sorted(set(names) ^ {*files, MANIFEST}) or sorted({n for n in names if names.count(n) > 1})
        raise DataError(f"files and {MANIFEST} disagree about {odd[:5]}; pack the model again")
    total = sum(entry.file_size for entry in archive.infolist())
    if total > max_bytes:
        raise DataError(f"would take {total} bytes, at most {max_bytes} are allowed; is it really a model?")
    for entry in archive.infolist():
        _check_entry(entry)
        if entry.filename != MANIFEST and not _is_safe(entry.filename):
            raise DataError(f"'{entry.filename}' would not land inside a fold_<k> folder; do not trust this zip")


def _check_entry(entry: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG) or entry.is_dir():
        raise DataError(f"'{entry.filename}' is a link or no plain file; do not trust this zip")
    if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"'{entry.filename}' is encrypted or of an unusual compression; pack the model again")
    if entry.file_size > MAX_RATIO * max(entry.compress_size, 1):
        raise DataError(
            f"'{entry.filename}' would grow from {entry.compress_size} to {entry.file_size} bytes, "
            f"more than {MAX_RATIO} times; do not trust this zip"
        )


def _is_safe(name: str) -> bool:
    parts = name.split("/")
    harmless = all(part not in ("", ".", "..") and not re.search(r"[\\:\x00-\x1f]", part) for part in parts)
    return harmless and len(parts) > 1 and re.fullmatch(r"fold_\d{1,4}", parts[0]) is not None


def _folds(names: Iterable[str]) -> list[str]:
    return sorted({name.split("/")[0] for name in names}, key=lambda fold: int(fold.removeprefix("fold_")))


def _unpack_fold(archive: zipfile.ZipFile, files: dict[str, FileFacts], fold: str, folder: Path) -> Path:
    with atomic_path(folder / fold) as temporary:
        for name in sorted(files):
            if name.startswith(f"{fold}/"):
                target = temporary.joinpath(*name.split("/")[1:])
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as source, target.open("wb") as file:
                    found = _copy(source, file)
                if found != files[name]:
                    raise DataError(f"'{name}' is not the file that was packed (SHA-256 differs); copy it again")
    return folder / fold
