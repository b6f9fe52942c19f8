"""One HTML file from a project's folder: what it tells is gathered, small pictures are put in, a template writes it."""

import base64
import hashlib
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biom3d import __version__
from biom3d.events import duration_text
from biom3d.reporting import charts, record
from biom3d.reporting.previews import read_preview, size_of
from biom3d.reporting.results import DONE, TROUBLE, Line, Pair, Picture, Quality, Results, Score, read_results
from biom3d.reporting.trainings import Training, read_trainings

if TYPE_CHECKING:
    from jinja2.utils import markupsafe  # type: ignore[attr-defined]

# Bytes of all small pictures; written as text they are a third larger. Up to some hundred data sets the worst picture
# of each is there; others only while the page stays below 10 MB.
PICTURE_BYTES, WORST_BYTES = 6_500_000, 20_000_000
KINDS = {
    "held-out": "volumes that the model did not learn from",
    "cross-validated": "the model learned from these volumes, but each was segmented by the folds that did not see it",
    "training": "volumes that the model learned from: such a score says nothing about new images",
    "unknown": "nothing records what the model learned from",
}
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Thumbnail:
    """A picture of the gallery; `uri` holds it."""

    picture: Picture
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Gallery:
    """Pictures of one data set by one model, and how many more lie in the folder."""

    pair: Pair
    thumbnails: tuple[Thumbnail, ...]
    left_out: int


@dataclass(frozen=True)
class ModelMean:
    """The mean over all volumes of one model, of one kind and class."""

    model: str
    kind: str
    label: int
    datasets: int
    cases: int
    dice: float


@dataclass(frozen=True)
class Story:
    """All that the page tells."""

    title: str
    results: Results
    trainings: Sequence[Training]
    galleries: Sequence[Gallery]
    request: record.Request
    surroundings: Sequence[record.Surroundings]
    times: Sequence[record.StepTime]
    counts: dict[str, int] = field(default_factory=dict)
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def class_of(self, model: str, label: int) -> str:
        """Return the name of a class of a model, or its number."""
        names = self.class_names.get(model, ())
        return names[label - 1] if 0 < label <= len(names) else str(label)

    @property
    def scored(self) -> list[tuple[Pair, Score]]:
        """Return every line of the table of scores."""
        return [(pair, score) for pair in self.results.pairs for score in pair.scores]

    @property
    def looked_at(self) -> int:
        """Return how many volumes were looked at without the truth."""
        return sum(len(pair.quality) for pair in self.results.pairs)

    @property
    def unusual(self) -> list[tuple[Pair, Quality]]:
        """Return the volumes that look unusual, the most suspicious first."""
        found = [(pair, volume) for pair in self.results.pairs for volume in pair.flagged]
        return sorted(found, key=lambda item: (-item[1].suspicion, item[0].order, item[1].case))

    @property
    def not_compared(self) -> list[str]:
        """Return what kept volumes from being looked at in full."""
        notes = (note for pair in self.results.pairs for volume in pair.quality for note in volume.notes.split("; "))
        return sorted({note for note in notes if note})

    @property
    def kinds(self) -> dict[str, str]:
        """Return the kinds of scores that occur, and what they mean."""
        there = {score.kind for _, score in self.scored if score.kind}
        return {kind: KINDS.get(kind, "") for kind in sorted(there)}


def write_page(folder: Path, configs: Sequence[Path]) -> str:
    """Return the page about a project's folder."""
    return render(gather(folder, configs))


def gather(folder: Path, configs: Sequence[Path]) -> Story:
    """Read all that the page tells."""
    results = read_results(folder)
    lines = results.outcome.lines
    counts = {
        "done": sum(line.state in DONE for line in lines),
        **{state: sum(line.state == state for line in lines) for state in TROUBLE},
    }
    return Story(
        title=folder.resolve().name,
        results=results,
        trainings=read_trainings(folder, results.outcome),
        galleries=_fill_galleries(results.pairs),
        request=record.read_request(folder, configs),
        surroundings=record.read_surroundings(folder),
        times=record.read_times(folder),
        class_names=record.read_class_names(folder, configs),
        counts={state: count for state, count in counts.items() if count},
    )


def _fill_galleries(
    pairs: Sequence[Pair], room: int = PICTURE_BYTES, room_for_worst: int = WORST_BYTES
) -> list[Gallery]:
    """Take the worst picture of each pair, the worst of all first, then the second ones, until there is no room."""
    shown: dict[tuple[str, str], list[Thumbnail]] = {(pair.model, pair.dataset): [] for pair in pairs}
    used = 0
    ranked = [(rank, pair.pictures[rank].order, pair) for pair in pairs for rank in range(len(pair.pictures))]
    for rank, _, pair in sorted(ranked, key=lambda item: item[:2]):
        thumbnail = _make_thumbnail(pair.pictures[rank])
        if thumbnail is None:
            continue
        used += len(thumbnail.uri) * 3 // 4
        if used > (room if rank else room_for_worst):
            break
        shown[pair.model, pair.dataset].append(thumbnail)
    return [
        Gallery(pair, tuple(found), len(pair.pictures) - len(found))
        for pair in pairs
        if pair.pictures
        for found in [shown[pair.model, pair.dataset]]
    ]


def _make_thumbnail(picture: Picture) -> Thumbnail | None:
    """Return the small picture as a data URI, or None where the file is no picture."""
    try:
        small = read_preview(picture.path)
        width, height = size_of(small)
    except OSError:
        return None
    return Thumbnail(picture, f"data:image/webp;base64,{base64.b64encode(small).decode()}", width, height)


def model_means(story: Story) -> list[ModelMean]:
    """Return means over the volumes of several data sets of a model; kinds and classes are never mixed."""

    def key(item: tuple[Pair, Score]) -> tuple[str, str, int]:
        return item[0].model, item[1].kind, item[1].label

    means = []
    for (model, kind, label), group in groupby(sorted(story.scored, key=key), key=key):
        scores = [score for _, score in group]
        values = [value for score in scores for value in score.values]
        if len(scores) > 1 and values:
            mean = statistics.fmean(values)
            means.append(ModelMean(model, kind, label, len(scores), sum(s.cases for s in scores), mean))
    return means


def render(story: Story) -> str:
    """Write the page. Every value is escaped: names of data sets and files are other people's."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "score": _score_text,
        "length_in": _length_text,
        "time": _time_text,
        "data_size": _memory_text,
        "breakable": _breakable,
    }
    parts: dict[str, Any] = {name: (HERE / f"page.{name}").read_text(encoding="utf-8") for name in ("css", "js")}
    hashes = {name: _csp_hash(text) for name, text in parts.items()}
    return environment.get_template("page.html.j2").render(
        story=story,
        means=model_means(story),
        charts=charts,
        parts=counted_parts(story),
        has_classes=len({score.label for _, score in story.scored}) > 1 or bool(story.class_names),
        trouble=trouble_of(story.results.outcome.lines),
        plan_text=record.plan_text,
        version=__version__,
        hashes=hashes,
        **parts,
    )


def counted_parts(story: Story) -> list[str]:
    """Say what the rows of the run are, so that they add up to what became of them."""
    lines = story.results.outcome.lines
    pairs, trainings = len(story.results.pairs), len(story.trainings)
    parts = [_count(pairs, "segmentation") + " (a data set by a model)", _count(trainings, "model") + " to train"]
    rest = len(lines) - pairs - trainings if lines else 0
    return [*parts, _count(rest, "other row")] if rest > 0 else parts


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _breakable(text: object) -> "markupsafe.Markup":
    """Escape a name, and let lines end after the marks in it and not within its words."""
    # it is Jinja's, and no package that we ask for
    from jinja2.utils import markupsafe  # type: ignore[attr-defined]

    return markupsafe.Markup("<wbr>").join(re.split(r"(?<=[_./-])(?!$)", str(text)))


def trouble_of(lines: Sequence[Line]) -> list[Line]:
    """Return what is not done, failures first, and what is kept of an earlier run for a reason."""
    order = (*TROUBLE, "kept")
    asking = [line for line in lines if line.state in TROUBLE or (line.state == "kept" and line.why)]
    return sorted(asking, key=lambda line: (order.index(line.state), line.dataset, line.model))


def _csp_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _score_text(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _length_text(value: float | None, unit: str) -> str:
    """Write a distance; those of scanners are mm."""
    if value is not None and unit == "µm" and value >= 1000:
        value, unit = value / 1000, "mm"
    return _score_text(value, 2) + (f" {unit}" if value is not None else "")


def _time_text(seconds: float | None) -> str:
    return "–" if seconds is None else duration_text(seconds)


def _memory_text(megabytes: float | None) -> str:
    if megabytes is None:
        return "–"
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:.0f} MB"
