"""Results that a run is going to replace are kept until the new ones are whole, and come back where they are not.

Snakemake removes a job's outputs before it starts. So before the first job all outputs that are to be made anew are
linked into `.biom3d/kept` (links cost no room), with Snakemake's notes of them, and `.biom3d/run.json` says what the
run is to make. `settle` sees what became of it: at the end of the run, and (after a kill or a power cut) at the start
of the next one. The last models that were replaced stay in
`.biom3d/replaced`, and come back by themselves when their options do (`bring_back`).
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from biom3d_workflow import records
from biom3d_workflow.identity import fact, longer, of_all_folds

FOLDER = Path(".biom3d")
KEPT, REPLACED, RUN = FOLDER / "kept", FOLDER / "replaced", FOLDER / "run.json"
# Trainings, as long or shorter, to take or to go on with, and predictions of a part: inputs, while outputs are removed.
EARLIER = FOLDER / "earlier"
ENTRY = "entry.json"
STAY = ("preprocess", "train")  # rules whose replaced results stay: small, and dear
VERSIONS = 4  # of each; more than one, since a plan is whole, and replaced, long before the trainings that follow it
Say = Callable[[str], None]
Identify = Callable[..., str]


@dataclass(frozen=True)
class Job:
    """A job of a run: its rule and wildcards, what it is to make, of what, and what of that is temporary."""

    rule: str
    wildcards: tuple[str, ...]
    outputs: tuple[str, ...]
    identity: str = ""
    temporary: tuple[str, ...] = ()
    benchmark: str = ""  # Snakemake writes it when it sees the job end, and finds the results as old as it

    @property
    def name(self) -> str:
        """Return what people call it, such as `train nuclei 0`."""
        return " ".join((self.rule, *self.wildcards))

    @property
    def place(self) -> Path:
        """Return where it is below a folder of entries."""
        return Path(self.rule, *self.wildcards) if self.wildcards else Path(self.rule, "all")


@dataclass(frozen=True)
class Entry:
    """Results that were kept: in `folder` the files `0`, `1`, ..., in the order of the job's outputs."""

    job: Job
    folder: Path
    notes: tuple[records.Record | None, ...]  # of the outputs, then of temporary ones

    @property
    def identity(self) -> str | None:
        """Return what the results were made of."""
        return records.identity(self.notes[0])


def keep(jobs: Iterable[Job]) -> None:
    """Note what a run is to make, and keep what of it is there.

    Raises:
        OSError: it cannot be kept; nothing has been removed.
    """
    jobs = list(jobs)
    for job in jobs:
        if any(os.path.lexists(output) for output in job.outputs):
            _add(KEPT, job)
    _write(RUN, {"jobs": [asdict(job) for job in jobs]})


def settle(say: Say) -> None:
    """See what became of the last run's jobs: what is whole stays, what is not gives way to what was there before."""
    back, taken, old = [], [], []
    for job in _jobs_of_run():
        entry = _read(KEPT / job.place)
        if _is_untouched(job, entry):
            for output in job.outputs:
                records.mark_complete(output)
            old.append(job)
        elif _is_whole(job, entry):
            _retire(entry)
        elif _is_made_unseen(job, entry):
            _note(job)
            taken.append(job)
            _retire(entry)
        elif entry:
            _restore(entry)
            back.append(job)
    waiting = [fold for job in (*old, *back) if job.rule == "train" for fold in _keep_together(job)]
    shutil.rmtree(KEPT, ignore_errors=True)
    shutil.rmtree(EARLIER, ignore_errors=True)
    RUN.unlink(missing_ok=True)
    for jobs, text in (
        (taken, "ended well when Snakemake no longer saw it; taken"),
        (back, "kept as it was before"),
        (waiting, "trained anew; waits until all folds are, with the old ones in its place; the next run takes it"),
    ):
        for line in _count(jobs):
            say(f"{line}: {text}")


def _keep_together(job: Job) -> list[Job]:
    """Let the other folds of a model be as the old one that `job` makes anew and has not: a model is of one kind.

    The new ones lie among the replaced ones, from where a run brings them back that still wants them.
    """
    changed = []
    wanted = of_all_folds(records.identity(records.read(job.outputs[0])))
    for entry in list(entries(REPLACED / "train" / job.wildcards[0])) if wanted else ():
        there = records.identity(records.read(entry.job.outputs[0]))
        is_old = of_all_folds(entry.identity) == wanted
        if entry.job.wildcards != job.wildcards and is_old and there and of_all_folds(there) != wanted:
            _exchange(entry)
            changed.append(entry.job)
    return changed


def bring_back(identify: Identify, say: Say) -> list[tuple[Job, str]]:
    """Bring back replaced models that are asked for again, in exchange for those that are there.

    `identify` returns what a job is to be made of, by its rule and wildcards. Returns what `take_away` needs.
    """
    changed = []
    for entry in entries(REPLACED):
        try:
            wanted = identify(entry.job.rule, *entry.job.wildcards)
        except KeyError:  # no such model any more
            continue
        there = records.identity(records.read(entry.job.outputs[0]))
        if entry.identity == wanted and there != wanted:
            _exchange(entry)
            changed.append((entry.job, there or ""))
    for line in _count([job for job, _ in changed if job.rule == "train"]):
        say(f"{line}: asked for again, and brought back from '{REPLACED}'; what replaced it lies there now")
    return changed


def take_away(changed: Iterable[tuple[Job, str]]) -> None:
    """Undo `bring_back`, after a dry run that had to see what a run would find."""
    for job, before in changed:
        if entry := next((e for e in entries(REPLACED / job.place) if (e.identity or "") == before), None):
            _exchange(entry)
        else:
            _retire(_add(FOLDER / "exchange", job))
            for output in (*job.outputs, *job.temporary):
                remove(Path(output))
                records.forget(output)


def _exchange(entry: Entry) -> None:
    """Put replaced results back to their places; what is there is replaced now."""
    current = _add(FOLDER / "exchange", entry.job) if os.path.lexists(entry.job.outputs[0]) else None
    _restore(entry)
    shutil.rmtree(entry.folder)
    _retire(current)


def _retire(entry: Entry | None) -> None:
    """Keep results that were replaced, where that is worth it, and with them the last few before them."""
    if entry is None or entry.job.rule not in STAY:
        return
    name = hashlib.sha256((entry.identity or "").encode()).hexdigest()[:12]
    _move(entry.folder, REPLACED / entry.job.place / name)
    os.utime(REPLACED / entry.job.place / name / ENTRY)
    versions = (other.folder for other in entries(REPLACED / entry.job.place))
    for folder in sorted(versions, key=lambda path: (path / ENTRY).stat().st_mtime_ns)[:-VERSIONS]:
        shutil.rmtree(folder, ignore_errors=True)


def offer_earlier(runs: Iterable[tuple[str, str]], is_forced: bool) -> None:
    """Lay trained folders where the step finds them that trains the same, or the same for longer.

    It takes as it is what is of the same arrays: preprocessing that runs again, for a fold that is missing or for
    images that were only touched, is no reason to train again. Where somebody asked for that (`is_forced`) it does.

    `runs`: each model folder, and what it is to be made of.
    """
    for run, wanted in runs:
        there = records.identity(records.read(run))
        is_same = there == wanted and not is_forced
        if Path(run).is_dir() and not records.is_incomplete(run) and (is_same or longer(there, wanted)):
            _offer(run)


def offer_predictions(predictions: Iterable[tuple[str, str, Sequence[str]]]) -> None:
    """Lay predictions where the same model finds those of images that have not changed, where others have.

    `predictions`: each folder, what it is to be made of, and the images.
    """
    for folder, wanted, images in predictions:
        try:
            made = Path(folder).stat().st_mtime
        except OSError:
            continue
        old = records.identity(records.read(folder))
        if old is None or fact(old, "model") != fact(wanted, "model") or records.is_incomplete(folder):
            continue
        if old != wanted or any(_is_newer(image, made) for image in images):
            _offer(folder)


def _offer(folder: str) -> None:
    (EARLIER / folder).parent.mkdir(parents=True, exist_ok=True)
    link(Path(folder), EARLIER / folder)


def _is_newer(image: str, made: float) -> bool:
    try:
        return Path(image).stat().st_mtime > made
    except OSError:
        return False


def entries(folder: Path) -> Iterator[Entry]:
    """Yield what is kept in a folder."""
    for path in sorted(folder.rglob(ENTRY)):
        if entry := _read(path.parent):
            yield entry


def link(source: Path, target: Path) -> None:
    """Make `target` the same as `source`, of the same age; it takes no room where the file system has hard links."""
    if source.is_dir() and not source.is_symlink():
        target.mkdir(parents=True)
        with os.scandir(source) as found:
            for item in found:
                link(Path(item.path), target / item.name)
        shutil.copystat(source, target)
        return
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _add(folder: Path, job: Job) -> Entry:
    """Keep the outputs of a job that are there, below `folder`."""
    place, new = folder / job.place, folder / f"{job.place}.new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for index, output in enumerate(job.outputs):
        if os.path.lexists(output):
            link(Path(output), new / str(index))
    notes = [records.read(output) for output in (*job.outputs, *job.temporary)]
    _write(new / ENTRY, {**asdict(job), "notes": notes})
    _move(new, place)
    return Entry(job, place, tuple(notes))


def _restore(entry: Entry) -> None:
    """Put kept results back to their places, with their notes; temporary files of other ones go."""
    for index, output in enumerate(entry.job.outputs):
        target, source = Path(output), entry.folder / str(index)
        remove(target)
        if os.path.lexists(source):
            target.parent.mkdir(parents=True, exist_ok=True)
            age = source.lstat().st_mtime_ns
            source.rename(target)
            os.utime(target, ns=(age, age), follow_symlinks=False)
    for output in entry.job.temporary:
        remove(Path(output))
    for output, note in zip((*entry.job.outputs, *entry.job.temporary), entry.notes, strict=True):
        if note is None:
            records.forget(output)
        else:
            records.write(output, note)
        records.mark_complete(output)


def _is_untouched(job: Job, entry: Entry | None) -> bool:
    """Say whether the job never started: what was there is there, or nothing was."""
    if entry is None:
        return not any(os.path.lexists(o) or records.is_incomplete(o) for o in job.outputs)
    return _is_there(job) and all(
        records.read(output) == note and _is_same(Path(output), entry.folder / str(index))
        for index, (output, note) in enumerate(zip(job.outputs, entry.notes, strict=False))
    )


def _is_whole(job: Job, entry: Entry | None) -> bool:
    """Say whether Snakemake saw the job end well."""
    if not _is_there(job) or any(records.is_incomplete(output) for output in job.outputs):
        return False
    notes = [records.read(output) for output in job.outputs]
    old = entry.notes if entry else (None,) * len(notes)
    return all(note is not None and note != before for note, before in zip(notes, old, strict=False))


def _is_made_unseen(job: Job, entry: Entry | None) -> bool:
    """Say whether the job ended well after Snakemake was killed: what a step made is whole, or not under its name."""
    if not _is_there(job) or not all(records.is_incomplete(output) for output in job.outputs):
        return False
    return entry is None or not any(
        _is_same(Path(output), entry.folder / str(index)) for index, output in enumerate(job.outputs)
    )


def _is_there(job: Job) -> bool:
    return all(os.path.lexists(output) and not _is_empty(Path(output)) for output in job.outputs)


def _is_empty(path: Path) -> bool:
    """Say whether it is a folder that Snakemake made for a job, and nothing more."""
    return path.is_dir() and not any(path.iterdir())


def _note(job: Job) -> None:
    """Write what Snakemake would have written."""
    if job.benchmark and Path(job.benchmark).exists():
        os.utime(job.benchmark)
    for output in job.outputs:
        begun = records.place(records.INCOMPLETE, output).stat().st_mtime
        old = records.read(output) or {}
        note = {"rule": job.rule, "params": [repr(job.identity)], "incomplete": False, "starttime": begun}
        records.write(output, {**old, **note, "endtime": time.time(), "record_format_version": records.FORMAT})
        records.mark_complete(output)


def _is_same(one: Path, other: Path) -> bool:
    """Say whether two are the same files, by their numbers on the disk, or else by size and age."""
    facts = [_first_file(path) for path in (one, other)]
    if None in facts:
        return facts[0] == facts[1]
    a, b = (path.lstat() for path in facts if path is not None)
    return (a.st_ino, a.st_dev) == (b.st_ino, b.st_dev) or (a.st_size, a.st_mtime_ns) == (b.st_size, b.st_mtime_ns)


def _first_file(path: Path) -> Path | None:
    if not path.is_dir() or path.is_symlink():
        return path if os.path.lexists(path) else None
    files = (Path(folder, name) for folder, _, names in os.walk(path) for name in sorted(names))
    return next(files, None)


def _jobs_of_run() -> list[Job]:
    try:
        found = json.loads(RUN.read_text(encoding="utf-8"))["jobs"]
    except (OSError, ValueError, KeyError):
        return []
    return [_job(job) for job in found]


def _job(facts: dict[str, Any]) -> Job:
    lists = {name: tuple(facts[name]) for name in ("wildcards", "outputs", "temporary")}
    return Job(rule=facts["rule"], identity=facts["identity"], benchmark=facts["benchmark"], **lists)


def _read(folder: Path) -> Entry | None:
    try:
        facts = json.loads((folder / ENTRY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return Entry(_job(facts), folder, tuple(facts["notes"]))


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(json.dumps(value), encoding="utf-8")
    temporary.replace(path)


def _move(source: Path, target: Path) -> None:
    """Rename a folder; what was there goes."""
    old = target.with_name(f"{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        target.rename(old)
    source.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def remove(path: Path) -> None:
    """Remove a file or a folder; nothing there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _count(jobs: Iterable[Job]) -> Iterator[str]:
    """Yield jobs in words: each training, the others by rule."""
    by_rule: dict[str, list[Job]] = {}
    for job in jobs:
        by_rule.setdefault(job.rule, []).append(job)
    for rule, found in by_rule.items():
        if rule == "train" or len(found) == 1:
            yield from (job.name for job in found)
        else:
            yield f"{len(found)} x {rule}"
