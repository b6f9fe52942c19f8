"""Training without the volumes that cannot be used: which they are, and why (`--skip_bad`)."""

from collections.abc import Sequence

from biom3d.data.pairing import ANY, Case, Keys, pair_volumes, refuse
from biom3d.data.survey import Question, survey_case
from biom3d.errors import DataError
from biom3d.events import Reporter


def find_good_cases(
    images: Sequence[str], masks: Sequence[str] | None, question: Question, report: Reporter, keys: Keys = ANY
) -> tuple[list[Case], tuple[str, ...]]:
    """Return the cases that can be used, and one line for each thing that was left out with its reason.

    Every volume is read once. Raises DataError where nothing is left.
    """
    pairing = pair_volumes(images, masks, keys)
    good, lost = [], list(pairing.problems)
    for case in report.track(pairing.cases, "looking for bad volumes", unit="case"):
        _, findings = survey_case(case, question)
        errors = [one.message for one in findings if one.kind == "error"]
        lost += errors
        if not errors:
            good.append(case)
    if not good:
        refuse(lost)
        raise DataError(f"no volume in {', '.join(map(str, images))}")
    tell_left_out(lost, report)
    if pairing.unmasked:
        report.info(pairing.coverage())
    return good, tuple(lost)


def tell_left_out(lost: Sequence[str], report: Reporter) -> None:
    """Say what is left out, each as a warning."""
    for problem in lost:
        report.warn(f"left out: {problem}")
