"""Pure drawing: learning curves, and outlines over three orthogonal planes. Numbers in, a figure out.

Colours are those of Okabe and Ito (2008), which people with any kind of colour vision can tell apart.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from biom3d.errors import ConfigError
from biom3d.files import atomic_path

ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
CURVE_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, "#000000")
CLASS_COLOURS = (ORANGE, SKY, GREEN, YELLOW, PURPLE, VERMILION, BLUE)
SUFFIXES = (".png", ".svg", ".pdf")
DPI = 150
LINE_WIDTH = 1.2
VIEW_INCHES = 5.0  # the longer side of a view
TRUTH_DASHES = (0, (2, 1.5))
MAX_KEYS = 5  # classes that the key names
GAP, HEAD, FOOT = 0.06, 0.6, 0.38  # inches between panels, above and below the views

Planes = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Curve:
    """The learning curve of one run: a value an epoch (NaN where there is none)."""

    name: str
    epoch: np.ndarray
    train_loss: np.ndarray
    val_loss: np.ndarray
    val_dice: np.ndarray


@dataclass(frozen=True)
class View:
    """Three orthogonal planes through one voxel, each as (y, x), (z, x) and (y, z).

    Attributes:
        title: what is special about this place.
        point: the voxel (z, y, x) in which the planes meet.
        image: intensities, 0 (black) to 1 (white).
        pred, true: labels; `true` is None where the truth is not known.
    """

    title: str
    point: tuple[int, int, int]
    image: Planes
    pred: Planes
    true: Planes | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (z, y, x) of the volume."""
        return (self.image[1].shape[0], self.image[0].shape[0], self.image[0].shape[1])


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, SVG or PDF by the suffix of `path`: atomically, equal bytes every time."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"cannot draw to '{path}': wanted a name that ends in {', '.join(SUFFIXES)}")
    undated = {".png": "Software", ".svg": "Date", ".pdf": "CreationDate"}[path.suffix.lower()]
    with atomic_path(path) as temporary, rc_context({"svg.hashsalt": "biom3d"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # names may be in any script; a box stands for it
        figure.savefig(temporary, dpi=DPI, metadata={undated: None})


def _plain(text: str) -> str:
    """Return `text` so that matplotlib takes no dollar for the begin of a formula, nor a tab for a sign."""
    return "".join(c if c.isprintable() else " " for c in text).replace("$", r"\$")


def draw_curves(curves: Sequence[Curve], title: str) -> Figure:
    """Draw loss and validation Dice by epoch, one colour a run; the best epoch carries a dot."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(_plain(title), fontsize=13, fontweight="bold")
    losses, dices = figure.subplots(1, 2, gridspec_kw={"wspace": 0.08})
    for place, curve in enumerate(curves):
        colour = CURVE_COLOURS[place % len(CURVE_COLOURS)]
        marker = "o" if len(curve.epoch) == 1 else None  # a line of one point would be invisible
        losses.plot(curve.epoch, curve.train_loss, color=colour, linestyle=":", marker=marker)
        losses.plot(curve.epoch, curve.val_loss, color=colour, marker=marker)
        dices.plot(curve.epoch, curve.val_dice, color=colour, label=_plain(_with_best(curve)))
        _mark_best(dices, curve, colour)
    _finish_curves(losses, dices)
    return figure


def _with_best(curve: Curve) -> str:
    if np.isnan(curve.val_dice).all():
        return f"{curve.name}: no validation"
    best = int(np.nanargmax(curve.val_dice))
    return f"{curve.name}: best {curve.val_dice[best]:.3f}, epoch {curve.epoch[best]:g}"


def _mark_best(axes: Axes, curve: Curve, colour: str) -> None:
    if not np.isnan(curve.val_dice).all():
        best = int(np.nanargmax(curve.val_dice))
        axes.plot(curve.epoch[best], curve.val_dice[best], "o", color=colour, markeredgecolor="white", ms=8)


def _finish_curves(losses: Axes, dices: Axes) -> None:
    for axes, label in ((losses, "loss (lower is better)"), (dices, "validation Dice (higher is better)")):
        axes.set_xlabel("epoch", fontsize=11)
        axes.set_ylabel(label, fontsize=11)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    dices.set_ylim(0, 1.02)
    styles = [Line2D([], [], color="0.3", linestyle=":"), Line2D([], [], color="0.3")]
    losses.legend(styles, ["training", "validation"], frameon=False, fontsize=10)
    dices.legend(loc="lower right", frameon=True, framealpha=0.9, edgecolor="none", fontsize=10)


def draw_overlay(views: Sequence[View], spacing_um: Sequence[float] | None, title: str) -> Figure:
    """Draw views side by side: grey image, outlines of prediction and truth, in true proportions.

    One class: the prediction is orange and the truth blue. Several: a colour a class, the truth dashed.
    """
    panels = _place_panels(views[0].shape, spacing_um)
    step = max(panel.left + panel.width for panel in panels) + 4 * GAP
    height = max(panel.top + panel.height for panel in panels)
    size = (max(len(views) * step, 4.6), height + HEAD + FOOT)
    figure = Figure(figsize=size, facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(0.5, 1 - 0.08 / size[1], _plain(title), ha="center", va="top", fontsize=13, weight="bold")
    labels = _labels_in(views)
    for place, view in enumerate(views):
        left = (size[0] - len(views) * step) / 2 + place * step + 2 * GAP
        _draw_view(figure, view, panels, (left, size[1] - HEAD), labels)
    if spacing_um is not None:
        _draw_scale_bar(figure.axes[0], spacing_um[2], views[0].shape[2])
    _draw_key(figure, labels, any(view.true is not None for view in views))
    return figure


def _labels_in(views: Sequence[View]) -> list[int]:
    planes = [plane for view in views for plane in (*view.pred, *(view.true or ()))]
    return sorted({int(label) for plane in planes for label in np.unique(plane) if label})


@dataclass(frozen=True)
class _Panel:
    """Where one plane goes in a view, in inches from the view's top left; `turned`: rows become columns."""

    left: float
    top: float
    width: float
    height: float
    turned: bool = False


def _place_panels(shape: Sequence[int], spacing_um: Sequence[float] | None) -> list[_Panel]:
    """Decide where a view's planes go: (y, x) top left, (z, x) below it, (y, z) to its right.

    A volume taller than wide would leave a hole there: its planes stand in a row, with z downwards. A 2D
    image has one plane.
    """
    z, y, x = np.asarray(shape) * (spacing_um or (1.0, 1.0, 1.0)) * (shape[0] > 1, 1, 1)
    in_a_row = z > max(x, y)
    z, y, x = np.asarray((z, y, x)) * VIEW_INCHES / (max(2 * x + y, z) if in_a_row else z + max(x, y))
    first = _Panel(0, 0, x, y)
    if shape[0] == 1:
        return [first]
    if in_a_row:
        return [first, _Panel(x + GAP, 0, x, z), _Panel(2 * (x + GAP), 0, y, z, turned=True)]
    return [first, _Panel(0, y + GAP, x, z), _Panel(x + GAP, 0, z, y)]


def _draw_view(
    figure: Figure, view: View, panels: Sequence[_Panel], corner: tuple[float, float], labels: Sequence[int]
) -> None:
    """Draw a view whose top left corner is `corner` (inches from the figure's lower left)."""
    width, height = figure.get_size_inches()
    z, y, x = view.point
    for place, panel in enumerate(panels):
        bottom = corner[1] - panel.top - panel.height
        axes = figure.add_axes(
            ((corner[0] + panel.left) / width, bottom / height, panel.width / width, panel.height / height)
        )
        planes = [view.image[place], view.pred[place], None if view.true is None else view.true[place]]
        column, row = ((x, y), (x, z), (z, y))[place]
        if panel.turned:
            planes, column, row = [None if plane is None else plane.T for plane in planes], row, column
        _draw_plane(axes, planes, labels)
        if len(panels) > 1:
            _draw_crossing(axes, column, row)
            _write(axes, f"{'zyx'[place]} = {view.point[place]}", (0, 1), (4, -4), "left", "top")
        if place == 0:
            axes.set_title(view.title, fontsize=10, loc="left", pad=4)


def _draw_plane(axes: Axes, planes: Sequence[np.ndarray | None], labels: Sequence[int]) -> None:
    """Draw one plane of the image with outlines; `planes` are image, prediction, and truth or None."""
    image, pred, true = planes
    assert image is not None
    assert pred is not None
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, aspect="auto")
    for place, label in enumerate(labels):
        colour = CLASS_COLOURS[place % len(CLASS_COLOURS)]
        if true is not None:
            if len(labels) == 1:  # broad, so that it shows below an equal prediction
                _outline(axes, true == label, SKY, "-", 1.8 * LINE_WIDTH)
            else:
                _outline(axes, true == label, colour, TRUTH_DASHES)
        _outline(axes, pred == label, colour, "-")
    axes.set_xlim(-0.5, image.shape[1] - 0.5)
    axes.set_ylim(image.shape[0] - 0.5, -0.5)
    axes.set_axis_off()


def _outline(axes: Axes, mask: np.ndarray, colour: str, style: Any, line_width: float = LINE_WIDTH) -> None:
    """Draw the border of a mask; one that leaves the picture is closed at its edge."""
    if mask.any():
        height, width = mask.shape
        padded = np.pad(mask, 1).astype(np.float32)
        axes.contour(
            np.arange(-1, width + 1),
            np.arange(-1, height + 1),
            padded,
            levels=[0.5],
            colors=[colour],
            linewidths=line_width,
            linestyles=[style],
        )


def _draw_crossing(axes: Axes, column: int, row: int) -> None:
    """Mark with fine lines where the two other planes cut this one."""
    axes.axvline(column, color="white", linewidth=0.6, linestyle=(0, (1, 3)), alpha=0.7)
    axes.axhline(row, color="white", linewidth=0.6, linestyle=(0, (1, 3)), alpha=0.7)


def _write(axes: Axes, text: str, corner: tuple[float, float], shift: tuple[float, float], ha: str, va: str) -> None:
    """Write small white text with a dark rim, `shift` points away from a corner of the plane."""
    axes.annotate(
        text, corner, xycoords="axes fraction", xytext=shift, textcoords="offset points", ha=ha, va=va,
        color="white", fontsize=8, path_effects=[withStroke(linewidth=2, foreground="black")],
    )  # fmt: skip


def _draw_scale_bar(axes: Axes, voxel_um: float, width: int) -> None:
    """Draw a bar of 1, 2 or 5 times a power of ten µm, about a fifth of the plane, at its lower right."""
    wanted = voxel_um * width / 4
    power = 10.0 ** np.floor(np.log10(wanted))
    length = float(max(step * power for step in (1, 2, 5) if step * power <= wanted))
    share = length / (voxel_um * width)
    rim = [withStroke(linewidth=5, foreground="black")]
    axes.plot([0.97 - share, 0.97], [0.03, 0.03], color="white", linewidth=3, solid_capstyle="butt",
              transform=axes.transAxes, path_effects=rim)  # fmt: skip
    _write(axes, length_text(length), (0.97 - share / 2, 0.03), (0, 4), "center", "bottom")


def length_text(micrometres: float) -> str:
    """Write a length in the unit that a reader expects: nm, µm or mm."""
    for unit, factor in (("mm", 1e3), ("µm", 1.0)):
        if micrometres >= factor:
            return f"{micrometres / factor:g} {unit}"
    return f"{micrometres * 1e3:g} nm"


def _draw_key(figure: Figure, labels: Sequence[int], with_true: bool) -> None:
    if len(labels) <= 1:
        handles = [_key_line("prediction", ORANGE)] + [_key_line("truth", SKY)] * with_true
    else:
        handles = [_key_line(f"class {v}", CLASS_COLOURS[i]) for i, v in enumerate(labels[:MAX_KEYS])]
        if with_true:
            handles += [_key_line("prediction", "0.3"), _key_line("truth", "0.3", TRUTH_DASHES)]
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False, fontsize=10,
                  borderaxespad=0.2)  # fmt: skip


def _key_line(text: str, colour: str, style: Any = "-") -> Line2D:
    return Line2D([], [], color=colour, linestyle=style, linewidth=2, label=text)
