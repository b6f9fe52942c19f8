"""Outputs that stay on a host: only later jobs there read them, so a small folder here stands for them.

They lie in the host's store; the folder of the job that made them stays too, and holds them as long as they are wanted:
until the folder here is gone. Then `release` lets go of them there.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from biom3d.errors import DataError
from biom3d.files import atomic_path, remove, write_json
from biom3d.remote.host import Entry
from biom3d.remote.manifest import Item

FILE = "on-server.json"  # in the folder that stands for an output
HELD = "held"  # below the records of a client: what it has to let go of one day


@dataclass(frozen=True)
class Held:
    """An output: on which host, made by which job, its name in the working folder, its files (names below it)."""

    host: str
    job: str
    name: str
    files: tuple[Item, ...]


def put_stand_in(held: Held, target: Path) -> None:
    """Put a folder at `target` that stands for the output."""
    with atomic_path(target) as folder:
        folder.mkdir()
        write_json(folder / FILE, _to_json(held))


def stood_for(folder: Path) -> Held | None:
    """Return what a folder stands for; None if it is one like others."""
    try:
        return _from_json(json.loads((folder / FILE).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def entries_of(held: Held, name: str, folder: Path) -> tuple[Entry, ...]:
    """Return entries for what a job finds under `name`; `folder` stands for it."""
    return tuple(Entry(f"{name}/{item.name}", folder / FILE, item.key, item.size) for item in held.files)


def gone(folder: Path, host: str) -> DataError:
    """Remove a folder that stands for what the host does not have; return the error to raise."""
    remove(folder)
    return DataError(
        f"{host}: what '{folder}' stands for is no longer there: somebody cleaned up, or it was made on"
        " another host; the same command makes it again"
    )


def drop_elsewhere(parent: Path, host: str | None) -> None:
    """Remove the folders in `parent` that stand for what another host than `host` has: it has to be made anew."""
    for folder in parent.iterdir() if parent.is_dir() else ():
        held = stood_for(folder)
        if held is not None and held.host != host:
            remove(folder)


def note(records: Path, held: Held) -> None:
    """Remember that the host holds an output for us."""
    write_json(records / HELD / f"{held.job}.json", _to_json(held))


def unwanted(records: Path, workdir: Path, host: str) -> list[Held]:
    """Return what the host holds for us though nothing here stands for it any more."""
    held = [_from_json(json.loads(file.read_bytes())) for file in sorted((records / HELD).glob("*.json"))]
    return [one for one in held if one.host == host and _job_of(workdir / one.name) != one.job]


def forget(records: Path, held: Held) -> None:
    """Forget what the host holds no longer."""
    remove(records / HELD / f"{held.job}.json")


def _job_of(folder: Path) -> str:
    held = stood_for(folder)
    return held.job if held else ""


def _to_json(held: Held) -> dict[str, object]:
    rows = [{"name": item.name, "size": item.size, "sha256": item.key} for item in held.files]
    return {"host": held.host, "job": held.job, "output": held.name, "files": rows}


def _from_json(content: dict[str, object]) -> Held:
    rows: list[dict[str, object]] = content["files"]  # type: ignore[assignment]
    files = tuple(Item(str(row["name"]), int(str(row["size"])), str(row["sha256"])) for row in rows)
    return Held(str(content["host"]), str(content["job"]), str(content["output"]), files)
