"""Cases on disk + what was asked -> the plan for them."""

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from biom3d.config import Fingerprint, Plan, PlanRequest, SpacingUm, check_plan, load_plan
from biom3d.data.dataset import read_case, read_headers
from biom3d.data.labels import PLAIN, Coding
from biom3d.data.pairing import Case
from biom3d.data.sanity import unit_problem
from biom3d.errors import ConfigError
from biom3d.events import Reporter
from biom3d.io import Header
from biom3d.io.mapped import forget_pages
from biom3d.planning.fingerprint import make_fingerprint
from biom3d.planning.machine import describe_machine
from biom3d.planning.plan import learning_of, make_plan

SAMPLES = 10_000  # voxels per volume for intensity percentiles


@dataclasses.dataclass(frozen=True)
class PlanOrder:
    """What is asked of a plan for a data set.

    `base` is a plan to use as it is but for `changes`; `coding` and `spacing_um` tell how to read the files.
    """

    desc: str
    request: PlanRequest
    base: Path | None = None
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)
    coding: Coding = PLAIN
    spacing_um: SpacingUm | None = None


def plan_cases(order: PlanOrder, cases: Sequence[Case], report: Reporter) -> Plan:
    """Return a new plan for the cases, or the base plan with what the data say."""
    headers = read_headers(cases, order.spacing_um, report)
    _refuse_other_unit(order, cases, headers)
    base = load_plan(order.base) if order.base is not None else None
    is_ct = order.request.ct_norm and base is None
    facts = make_fingerprint(
        [header.shape for header in headers],
        [order.spacing_um or header.spacing_um for header in headers],
        headers[0].is_2d,
        samples=_sample_intensities(order, cases, report) if is_ct else [],
    )
    if base is None:
        return check_plan(make_plan(order.desc, facts, order.request, describe_machine()), "plan")
    if (base.num_channels, base.is_2d) != (facts.num_channels, facts.is_2d):
        wanted, found = _kind(base.num_channels, base.is_2d), _kind(facts.num_channels, facts.is_2d)
        raise ConfigError(f"{order.base}: made for {wanted}, the data are {found}; use another plan")
    return check_plan(_changed(base, order, facts), str(order.base))


def _refuse_other_unit(order: PlanOrder, cases: Sequence[Case], headers: Sequence[Header]) -> None:
    """Raise ConfigError where the given spacing is that of the files in another unit."""
    for case, header in zip(cases, headers, strict=True):
        if order.spacing_um and header.spacing_um:
            problem = unit_problem(case.name, order.spacing_um, header.spacing_um)
            if problem:
                raise ConfigError(problem)


def _changed(base: Plan, order: PlanOrder, facts: Fingerprint) -> Plan:
    """Return the plan `base` with what was asked for; another optimiser brings its own rate and weight decay."""
    changes = dict(order.changes)
    optimizer = changes.get("optimizer", base.optimizer)
    if optimizer != base.optimizer:
        steps = changes.get("num_epochs", base.num_epochs) * changes.get("num_steps", base.num_steps)
        rate, decay = learning_of(optimizer, steps)
        changes = {"learning_rate": rate, "weight_decay": decay, **changes}
    if "max_minutes" in changes:  # to be fitted anew
        changes = {"fitted_from": "", "earlier_lengths": (), **changes}
    why = base.why | {key: "asked for" for key in changes if key in base.why}
    return dataclasses.replace(base, **changes, desc=order.desc, fingerprint=facts, why=why)


def _sample_intensities(order: PlanOrder, cases: Sequence[Case], report: Reporter) -> list[np.ndarray]:
    """Sample object voxels of all cases, for "ct" normalisation."""
    rng = np.random.default_rng(order.request.seed)
    samples = []
    for case in report.track(cases, "intensities", unit="volume"):
        with tempfile.TemporaryDirectory() as folder:
            loaded = read_case(case, order.request.num_classes, order.coding, Path(folder))
            samples.append(sample_object_voxels(loaded.image, loaded.labels, rng))
    if not sum(part.shape[1] for part in samples):
        raise ConfigError("--ct_norm measures intensities inside the objects, but all masks are empty")
    return samples


def sample_object_voxels(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return up to `SAMPLES` intensities (c, n) of `image` (c, z, y, x) where `mask` (z, y, x) is not 0."""
    counts = np.zeros(len(mask), np.int64)
    for z, plane in enumerate(mask):
        counts[z] = np.count_nonzero(plane)
        forget_pages(mask)
    total = int(counts.sum())
    chosen = rng.choice(total, SAMPLES, replace=False) if total > SAMPLES else np.arange(total)
    before = np.cumsum(counts) - counts  # voxels of objects in the planes above
    planes = np.searchsorted(before, chosen, "right") - 1
    values = np.empty((len(image), len(chosen)))
    for z in np.unique(planes):
        mine = planes == z
        inside = np.flatnonzero(mask[z])[chosen[mine] - before[z]]
        values[:, mine] = image[:, z].reshape(len(image), -1)[:, inside]
        forget_pages(mask)
        forget_pages(image)
    return values


def _kind(channels: int, is_2d: bool) -> str:
    return f"{channels} channel(s) in {'2D' if is_2d else '3D'}"
