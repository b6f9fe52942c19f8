"""A row of the table that got another name, with the same files: its results go along."""

from collections.abc import Callable, Iterator
from pathlib import Path

from biom3d_workflow import records
from biom3d_workflow.project import Project

SUFFIXES = (".log", ".jsonl", ".tsv")  # of the logs of a step
Moves = list[tuple[Path, Path]]


def follow(project: Project, identify: Callable[..., str], say: Callable[[str], None]) -> list[tuple[str, str]]:
    """Rename the results of rows that were renamed; `identify` says what a job is to be made of.

    The check of a data set is made of its files and options, whatever it is called: by that an old name is known.
    Returns the old names and the new ones.
    """
    followed = list(find(project, identify))
    for old, name in followed:
        rename(old, name)
        say(f"data set '{name}' has the files of '{old}', which is no row any more: its results are taken along")
    return followed


def find(project: Project, identify: Callable[..., str]) -> Iterator[tuple[str, str]]:
    """Yield the old names and the new ones of rows that were renamed and have no results yet, see `follow`."""
    lost = _old_names(project)
    for name in project.datasets if lost else ():
        if name in project.unreadable or any(_places(name)):
            continue
        wanted = identify("check", name)
        old = [other for other, made_of in lost.items() if made_of == wanted]
        if len(old) == 1:
            del lost[old[0]]
            yield old[0], name


def _old_names(project: Project) -> dict[str, str]:
    """Return data sets that were checked and are in no row any more, with what their check was made of."""
    names = [path.stem for path in Path("results/check").glob("*.json") if path.stem not in project.datasets]
    found = {name: records.identity(records.read(f"results/check/{name}.json")) for name in names}
    return {name: made_of for name, made_of in found.items() if made_of}


def _places(name: str) -> Iterator[Path]:
    """Yield all that is there of a data set."""
    yield from (path for path in [Path(f"results/check/{name}.json")] if path.exists())
    for folder in ("data/pred", "results"):
        for pattern in (name, f"{name}.partial"):
            yield from (path for path in Path(folder).glob(f"*/{pattern}") if path.parent.name != "check")


def rename(old: str, new: str) -> None:
    """Give what is there of a data set another name, with its logs and Snakemake's notes; the check last.

    Killed in between, the next run finds the check, and with it the rest.
    """
    logs = (path for suffix in SUFFIXES for path in Path("logs/steps").rglob(f"{old}{suffix}"))
    check = Path(f"results/check/{old}.json")
    places = [path for path in _places(old) if path != check]
    for path in [*logs, *places, check]:
        target = path.with_name(new + path.name.removeprefix(old))
        if target.exists():
            continue
        for output in [name for name in records.names() if _is_below(name, path)]:
            _move_note(output, str(target) + output.removeprefix(str(path)), old, new)
        path.rename(target)


def _is_below(output: str, path: Path) -> bool:
    return output == str(path) or output.startswith(f"{path}/")


def _move_note(output: str, target: str, old: str, new: str) -> None:
    note = records.read(output)
    if note is None:
        return
    sums = note.get("input_checksums") or {}
    note["input_checksums"] = {_renamed(name, old, new): value for name, value in sums.items()}
    note["input"] = [_renamed(name, old, new) for name in note.get("input") or []]
    records.write(target, note)
    records.forget(output)


def _renamed(name: str, old: str, new: str) -> str:
    """Return a path of ours with the new name of the data set; others as they are."""
    parts = name.split("/")
    is_ours = name.startswith(("results/", "data/pred/"))
    return (
        "/".join(new + part.removeprefix(old) if _is_name(part, old) else part for part in parts) if is_ours else name
    )


def _is_name(part: str, old: str) -> bool:
    return part in (old, f"{old}.json")
