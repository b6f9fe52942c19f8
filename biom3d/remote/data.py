"""Data that lies on a host under a name: data sets are sent there, models and results looked at and brought here.

Everything is below the working folder: `data/<data set>/{images,masks}` and `logs/<model>`, as in a workflow's folder.
"""

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from biom3d.errors import ConfigError, DataError, HostError
from biom3d.remote import commands, questions
from biom3d.remote.host import Entry, Host, Say
from biom3d.remote.job import WORK, content_hash
from biom3d.remote.local import LocalHost
from biom3d.remote.manifest import stand_in, write_manifest
from biom3d.remote.progress import size_text
from biom3d.remote.resident import IsWanted
from biom3d.remote.site import shown

if TYPE_CHECKING:
    from biom3d.remote.resident import Residents

DATASETS, MODELS = "data", "logs"
KINDS = ("images", "masks")
CONTENT = ".biom3d-content"  # in a data set's folder, written with it: a hash of names and contents, and all of them
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
RUN = re.compile(r"fold_\d+")
IS_TAKEN, NOT_SENT, IN_USE = 65, 66, 67
NAMED = 3  # names in a message; more are counted


@dataclass(frozen=True)
class Differences:
    """How files that were sent are now, by their names below the data set: not there, of other content, or added."""

    missing: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return them for a message: `missing: images/a.tif; changed: images/b.tif, images/c.tif`."""
        kinds = (("missing", self.missing), ("changed", self.changed), ("not of it", self.added))
        return "; ".join(f"{word}: {_named(names)}" for word, names in kinds if names)


def send_dataset(
    host: Host, name: str, images: Path, masks: Path | None, say: Say, is_repaired: bool = False
) -> PurePosixPath:
    """Bring a data set to `data/<name>` on the host, whole or not at all; return where it is.

    What the host has already is not sent again. The files there are read-only. What lacks there of a data set that was
    sent before is put back; what was changed there or added only if `is_repaired`, for then that goes.

    Raises:
        ConfigError: the name is no name, or belongs to another data set, or that was changed there.
        DataError: a folder is not there or empty.
    """
    return _send(host, DATASETS, name, [("images", images), *([("masks", masks)] if masks else [])], say, is_repaired)


def send_model(host: Host, name: str, folder: Path, say: Say, is_repaired: bool = False) -> PurePosixPath:
    """Bring a trained model to `logs/<name>` on the host; otherwise as `send_dataset`.

    Raises:
        DataError: `folder` holds no folds.
    """
    runs = sorted(path for path in folder.glob("fold_*") if RUN.fullmatch(path.name))
    if not runs:
        raise DataError(f"'{folder}' holds no fold_0, fold_1, ...; give the folder of a trained model, logs/MODEL")
    return _send(host, MODELS, name, [(run.name, run) for run in runs], say, is_repaired)


def _send(
    host: Host, parent: str, name: str, folders: Sequence[tuple[str, Path]], say: Say, is_repaired: bool
) -> PurePosixPath:
    place = _workdir(host) / parent / name
    if not NAME.fullmatch(name):
        raise ConfigError(f"'{name}' is no name for a data set or model; wanted letters, digits, '_', '.' and '-'")
    entries = _identify(host, folders)
    digest = content_hash(entries)
    is_there = _is_there(host, place, digest)
    if is_there:
        found = _compare(host, f"{parent}/{name}", entries)
        if found is None:
            say("the same is there already; nothing was sent")
            return place
        if (found.changed or found.added) and not is_repaired:
            raise ConfigError(
                f"{host.name}: '{place}' is not any more what was sent there ({found}); --repair makes it so again"
                " (what was changed or added there goes), or choose another name"
            )
        say(f"'{place}' is not whole any more ({found}); putting it right")
    folder = host.root / "jobs" / digest[:24]  # named like a job's, so that `clean` finds what a killed client leaves
    host.stage(folder, entries, say)
    host.write(folder / WORK / CONTENT, _content(digest, entries))
    move = questions.replace_dataset if is_there else questions.place_dataset
    done = host.run(move(folder / WORK, place))
    host.run(commands.remove_folder(folder))
    if done.code == IS_TAKEN and _is_there(host, place, digest):  # somebody was faster with the same
        return place
    _raise_if_failed(host, done.code, done.err)
    return place


def _identify(host: Host, folders: Sequence[tuple[str, Path]]) -> tuple[Entry, ...]:
    for kind, folder in folders:
        if not folder.is_dir():
            raise DataError(f"{kind}: '{folder}' is no folder; give the folder that holds them")
    entries = host.identify(folders)
    for kind, folder in folders:
        if not any(entry.name.startswith(f"{kind}/") for entry in entries):
            raise DataError(f"{kind}: no file in '{folder}'; give the folder that holds them")
    return entries


def _is_there(host: Host, place: PurePosixPath, digest: str) -> bool:
    if host.run(questions.exists(place)).code:
        return False
    if (host.read(place / CONTENT) or b"").split(b"\n")[0] == digest.encode():
        return True
    raise _taken(host, place)


def _content(digest: str, entries: Sequence[Entry]) -> bytes:
    """Return the file CONTENT: the hash of all, then a line of hash and name for each file."""
    names = json.dumps({entry.name: entry.key for entry in entries}, ensure_ascii=True, sort_keys=True, indent=0)
    return f"{digest}\n{names}\n".encode()


def read_content(content: bytes | None) -> dict[str, str]:
    """Return name -> hash of what was sent; nothing where that was not noted."""
    with suppress(ValueError, AttributeError):
        found = json.loads((content or b"").partition(b"\n")[2] or b"{}")
        return {str(name): str(key) for name, key in found.items()}
    return {}


def _compare(host: Host, path: str, entries: Sequence[Entry]) -> Differences | None:
    """Compare what lies at `path` with what was sent; None if it is the same."""
    wanted = {entry.name: entry.key for entry in entries}
    found = residents_of(host).describe(path, lambda name: name != CONTENT, lambda line: None)
    return differences(wanted, {item.name: item.key for item in found.files})


def differences(wanted: Mapping[str, str], there: Mapping[str, str]) -> Differences | None:
    """Compare names and hashes; None if they are the same."""
    found = Differences(
        tuple(sorted(wanted.keys() - there.keys())),
        tuple(sorted(name for name in wanted.keys() & there.keys() if wanted[name] != there[name])),
        tuple(sorted(there.keys() - wanted.keys())),
    )
    return found if found != Differences() else None


def residents_of(host: Host) -> "Residents":
    """Return what lies in the working folder of a host over SSH."""
    from biom3d.remote.ssh import SSHHost

    assert isinstance(host, SSHHost)
    return host.residents


def remove_sent(host: Host, path: str) -> int:
    """Remove a data set or a model that was sent; return the bytes that this frees.

    Raises:
        ConfigError: it was not sent, or a job uses it.
    """
    workdir = _workdir(host)
    name = relative_name(path, workdir)
    keys = set(read_content(host.read(workdir / name / CONTENT)).values())
    done = host.run(questions.remove_dataset(host.root, workdir / name, f"tmp-{uuid.uuid4().hex[:12]}"))
    if done.code == NOT_SENT:
        raise ConfigError(
            f"{host.name}: '{workdir / name}' was not brought by 'biom3d remote send'; such a data set is data/NAME,"
            " such a model logs/NAME; what else lies there is not touched"
        )
    if done.code == IN_USE:
        raise ConfigError(f"{host.name}: job {shown(done.out)} uses '{name}'; wait until it has ended, or cancel it")
    _raise_if_failed(host, done.code, done.err)
    host.let_go(keys)
    return int(done.out or 0)


def _taken(host: Host, place: PurePosixPath) -> ConfigError:
    return ConfigError(
        f"{host.name}: another data set or model is at '{place}'; choose another name, it is never overwritten"
    )


def get(host: Host, path: str, target: Path, say: Say) -> Path:
    """Bring a file or folder from the working folder on the host to `target`, or into it if that is a folder.

    Raises:
        ConfigError: the path leads out of the working folder, or something is here already.
        DataError: nothing is there.
    """
    workdir = _workdir(host)
    name = relative_name(path, workdir)
    final = target / PurePosixPath(name).name if target.is_dir() else target
    if final.exists() or final.is_symlink():
        raise ConfigError(f"'{final}' is here already, and is not overwritten; remove it or choose another name")
    folder = host.root / "jobs" / uuid.uuid4().hex[:24]
    try:
        done = host.run(questions.link_workdir(folder, workdir))
        _raise_if_failed(host, done.code, done.err)
        missing = host.collect(folder, [(name, final)], say)
    finally:
        host.run(commands.remove_folder(folder))  # the link, not what it leads to
    if not missing:
        _tell_if_changed(host, name, say)
    if missing:
        raise DataError(
            f"{host.name}: there is no '{workdir / name}'; see: biom3d remote datasets, biom3d remote models"
        )
    return final


def note_residents(host: Host, wanted: Mapping[str, IsWanted], folder: Path, say: Say) -> dict[str, str]:
    """Ask what lies at each path below the working folder there, and write that down below `folder` where it is new.

    Returns the paths of which nothing can be used, and why.

    Raises:
        ConfigError: the host is this machine.
    """
    workdir = _workdir(host)
    sent: set[str] = set()
    lost: dict[str, str] = {}
    for path, is_wanted in wanted.items():
        try:
            manifest = residents_of(host).describe(path, is_wanted, say)
        except DataError as error:
            lost[path] = str(error)
            continue
        sent.add("/".join(PurePosixPath(path).parts[:2]))
        if not manifest.files:
            lost[path] = f"{host.name}: there is nothing to use in '{path}' in '{workdir}'; was it sent whole?"
            continue
        is_known = (folder / stand_in(path)).exists()
        if write_manifest(manifest, folder):
            size = size_text(manifest.size)
            say(f"{path}: {len(manifest.files)} file(s), {size}, on {host.name}{', changed there' if is_known else ''}")
    for top in sorted(sent):
        _tell_if_changed(host, top, say)
    return lost


def _tell_if_changed(host: Host, name: str, say: Say) -> None:
    """Warn if a data set or model is not what was sent under its name."""
    top = "/".join(PurePosixPath(name).parts[:2])
    wanted = read_content(host.read(_workdir(host) / top / CONTENT))
    if not wanted:
        return
    found = residents_of(host).describe(top, lambda below: below != CONTENT, lambda line: None)
    if different := differences(wanted, {item.name: item.key for item in found.files}):
        say(
            f"warning: '{top}' on {host.name} is not what was sent there ({different}); 'biom3d remote send' puts"
            " it right"
        )


def relative_name(path: str, workdir: PurePosixPath) -> str:
    """Return a path of the host as a name below its working folder; ConfigError if it leads elsewhere."""
    given = PurePosixPath(path)
    name = given.relative_to(workdir) if given.is_relative_to(workdir) else given
    if name.is_absolute() or ".." in name.parts or not name.parts:
        raise ConfigError(f"'{path}' is not in the working folder there; give a path below '{workdir}'")
    return str(name)


def dataset_rows(host: Host) -> list[tuple[str, ...]]:
    """Return name, number of images, of masks, and size of each data set of the host."""
    rows = _list(host, DATASETS, KINDS)
    return [(name, images, masks, size_text(int(size))) for size, images, masks, name in rows]


def model_rows(host: Host) -> list[tuple[str, ...]]:
    """Return name, number of files and size of each model of the host."""
    return [(name, files, size_text(int(size))) for size, files, name in _list(host, MODELS, (".",))]


def _list(host: Host, parent: str, kinds: tuple[str, ...]) -> list[list[str]]:
    done = host.run(questions.list_folders(host.root.parent / parent, kinds))
    _raise_if_failed(host, done.code, done.err)
    rows = [line.split(" ", len(kinds) + 1) for line in done.out.decode(errors="replace").splitlines()]
    return [row for row in rows if len(row) == len(kinds) + 2]


def _named(names: Sequence[str]) -> str:
    """Return a few names fit for a message, and how many there are more."""
    shown_names = ", ".join(shown(name.encode("utf-8", "surrogateescape")) for name in names[:NAMED])
    return f"{shown_names} and {len(names) - NAMED} more" if len(names) > NAMED else shown_names


def _workdir(host: Host) -> PurePosixPath:
    if isinstance(host, LocalHost):
        raise ConfigError(
            "jobs of this profile run on this machine: its data are here, nothing is to be sent or brought"
        )
    return host.root.parent


def _raise_if_failed(host: Host, code: int, err: bytes) -> None:
    if code:
        raise HostError(f"{host.name}: a command failed there with exit code {code}: {shown(err)}; run the doctor")
