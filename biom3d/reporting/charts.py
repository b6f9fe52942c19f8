"""Lines of a chart as coordinates: the page draws them as SVG. Numbers in, numbers out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from biom3d.reporting.trainings import Epoch, Fold, longest

WIDTH, HEIGHT = 460.0, 230.0
LEFT, RIGHT, TOP, BOTTOM = 40.0, 12.0, 10.0, 34.0
MOST_POINTS = 400  # of a line: more are not seen


@dataclass(frozen=True)
class Tick:
    """A place on an axis, in pixels, and its text."""

    at: float
    text: str


@dataclass(frozen=True)
class Curve:
    """One line: points for SVG, its colour's number, dotted or not."""

    points: str
    colour: int
    is_dotted: bool = False


@dataclass(frozen=True)
class Dot:
    """The best epoch of a fold."""

    x: float
    y: float
    colour: int
    text: str


@dataclass(frozen=True)
class Chart:
    """One chart: title, axes, lines."""

    title: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    curves: tuple[Curve, ...]
    dots: tuple[Dot, ...] = ()


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / ((self.high - self.low) or 1)
        return round(self.start + share * (self.end - self.start), 1)


def loss_chart(folds: Sequence[Fold]) -> Chart:
    """Draw the losses: training dotted, validation solid."""
    lines = [
        (place, is_dotted, [(epoch.number, getattr(epoch, name)) for epoch in fold.epochs])
        for place, fold in enumerate(folds)
        for name, is_dotted in (("train_loss", True), ("val_loss", False))
    ]
    values = [value for *_, points in lines for _, value in points if value is not None]
    low, high = min(values, default=0.0), max(values, default=1.0)
    return _chart("Loss: dotted training, solid validation", folds, lines, steps_between(low, high))


def dice_chart(folds: Sequence[Fold]) -> Chart:
    """Draw the Dice on the validation volumes, from 0 to 1."""
    lines = [(place, False, [(epoch.number, epoch.val_dice) for epoch in f.epochs]) for place, f in enumerate(folds)]
    return _chart("Validation Dice, best epoch marked", folds, lines, [0.0, 0.25, 0.5, 0.75, 1.0], with_best=True)


def _chart(
    title: str,
    folds: Sequence[Fold],
    lines: Sequence[tuple[int, bool, list[tuple[int, float | None]]]],
    steps: Sequence[float],
    with_best: bool = False,
) -> Chart:
    last = longest(folds)
    x = _Scale(1, max(last, 2), LEFT, WIDTH - RIGHT)
    y = _Scale(steps[0], steps[-1], HEIGHT - BOTTOM, TOP)
    curves = [Curve(points, place, dotted) for place, dotted, line in lines for points in _runs(line, x, y)]
    dots = [_dot(fold, best, place, x, y) for place, fold in enumerate(folds) if with_best and (best := fold.best)]
    digits = max(0, -math.floor(math.log10(steps[1] - steps[0]) + 1e-9))
    digits = 2 if steps[1] - steps[0] == 0.25 else digits
    return Chart(
        title,
        tuple(Tick(x(epoch), str(epoch)) for epoch in epochs_to_name(last)),
        tuple(Tick(y(value), f"{value:.{digits}f}") for value in steps),
        tuple(curves),
        tuple(dots),
    )


def _dot(fold: Fold, best: Epoch, place: int, x: _Scale, y: _Scale) -> Dot:
    text = f"{fold.name}: best Dice {best.val_dice:.3f} in epoch {best.number}"
    return Dot(x(best.number), y(best.val_dice or 0), place, text)


def _runs(line: Sequence[tuple[int, float | None]], x: _Scale, y: _Scale) -> list[str]:
    """Return the points of each stretch without a gap; a single point becomes a short dash."""
    step = max(1, math.ceil(len(line) / MOST_POINTS))
    kept = [point for index, point in enumerate(line) if index % step == 0 or index == len(line) - 1]
    stretches: list[list[str]] = [[]]
    for epoch, value in kept:
        if value is None:
            stretches.append([])
        else:
            stretches[-1].append(f"{x(epoch)},{y(value)}")
    return [" ".join(points if len(points) > 1 else points * 2) for points in stretches if points]


def steps_between(low: float, high: float) -> list[float]:
    """Return round numbers around a range: 3 to 6 of them, in equal steps of 1, 2 or 5 times a power of ten."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= span / 4)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, max(last, first + 1) + 1)]


def epochs_to_name(last: int) -> list[int]:
    """Return the first epoch, round ones, and none too close to another."""
    if last <= 6:
        return list(range(1, max(last, 2) + 1))
    step = next(f * 10**p for p in range(9) for f in (1, 2, 5) if f * 10**p >= last / 6)
    return [1, *range(step, last + 1, step)] if step > 1 else list(range(1, last + 1))
