"""`python -m biom3d.check`: look at a data set and say all that is wrong with it, before any work."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from biom3d.cli import run_step, step_parser, text_file
from biom3d.errors import ConfigError
from biom3d.events import STRICT, Reporter
from biom3d.files import write_json
from biom3d.options import add_data_options, add_skip_option, coding_from, keys_from, spacing_from

if TYPE_CHECKING:
    from biom3d.data.survey import CaseFacts, Finding, Question

DESCRIPTION = """Look at a data set and say what is wrong with it, before any work.

  biom3d check --img_path images/ --msk_path masks/ --num_classes 1

Every problem is named at once, each with its file and what to do; exit code 2. Without masks only the images
are checked; masks may be there for a part of them. Several folders: --img_path A B --msk_path C D."""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = step_parser("check", DESCRIPTION)
    add_data_options(parser)
    add_skip_option(parser)
    parser.add_argument(
        "--num_classes",
        type=int,
        metavar="N",
        help="classes of objects, the background not counted (default: labels are counted, not judged)",
    )
    parser.add_argument("--out", type=text_file, metavar="FILE", help="write the facts of the data set here, as JSON")
    return parser


def execute(args: argparse.Namespace, report: Reporter) -> None:
    """Survey the data set; write the facts where nothing is wrong, else raise all problems as one error."""
    from biom3d.data.pairing import pair_volumes, refuse
    from biom3d.data.remarks import lines_passed_over
    from biom3d.data.survey import Finding, survey_case, survey_set

    question = _question(args)
    pairing = pair_volumes(args.img_path, args.msk_path, keys_from(args))
    problems = list(pairing.problems)
    unread = lines_passed_over([*args.img_path, *(args.msk_path or ())])
    facts, findings, left_out = [], [Finding("warning", line) for line in unread], []
    for case in report.track([*pairing.cases, *pairing.unmasked], "reading", unit="case"):
        fact, found = survey_case(case, question)
        bad = [one.message for one in found if one.kind == "error"]
        if args.skip_bad and bad:
            left_out += bad
            continue
        facts.append(fact)
        findings += found
    if args.skip_bad:
        is_any_good = any(args.msk_path is None or one.case.mask for one in facts)
        left_out, problems = _leave_out(left_out, problems, is_any_good, report)
    findings += survey_set(facts, question)
    findings += [Finding("note", pairing.coverage())] if pairing.unmasked else []
    if args.strict:
        findings = [Finding("error", one.message + STRICT) if one.kind == "warning" else one for one in findings]
    _tell(findings, report)
    refuse([*problems, *(one.message for one in findings if one.kind == "error")])
    result = summarise(facts, findings, question) | ({"left_out": left_out} if left_out else {})
    if args.out:
        write_json(args.out, result)
    print("\n".join(table(result)), flush=True)
    report.event("done", cases=len(facts), warnings=len(result["warnings"]))


def _leave_out(bad: list[str], unpaired: list[str], is_any_good: bool, report: Reporter) -> tuple[list[str], list[str]]:
    """Return what is left out, as it was told, and what remains as problems: everything where no case is good."""
    from biom3d.data.skipping import tell_left_out

    lost = [*unpaired, *bad]
    if not is_any_good:
        return [], lost
    tell_left_out(lost, report)
    return lost, []


def summarise(facts: Sequence["CaseFacts"], findings: Sequence["Finding"], question: "Question") -> dict[str, Any]:
    """Return the facts of the data set as JSON-ready values; `voxels` is class -> number of voxels."""
    return {
        "num_cases": len(facts),
        "num_classes": question.num_classes,
        "instances": question.coding.instances,
        "cases": [_case(one, question) for one in facts],
        "warnings": [one.message for one in findings if one.kind == "warning"],
        "notes": [one.message for one in findings if one.kind == "note"],
    }


def table(result: dict[str, Any]) -> list[str]:
    """Return the facts for people, a few lines."""
    from biom3d.io.units import spacing_in_unit, told_unit

    cases = result["cases"]
    first = cases[0]
    shapes = sorted((case["shape"][1:] for case in cases), key=lambda shape: shape[0] * shape[1] * shape[2])
    kinds = "2D" if "Z" not in first["axes"] else "3D"
    types = "/".join(sorted({case["dtype"] for case in cases}))
    lines = [
        f"cases    {len(cases)}, {kinds}, {first['shape'][0]} channel(s), {types}, values "
        f"{min(case['min'] for case in cases):g} to {max(case['max'] for case in cases):g}",
        f"shape    {_range([_by(shape) for shape in (shapes[0], shapes[-1])])} (z, y, x)",
    ]
    spacings = sorted(case["spacing_um"] for case in cases if case["spacing_um"])
    unit = told_unit((case["unit"], case["spacing_um"]) for case in cases)
    sizes = [_by(f"{size:.4g}" for size in spacing_in_unit(spacing, unit)) for spacing in spacings]
    lines.append(f"spacing  {_range([sizes[0], sizes[-1]])} {unit} (z, y, x)" if sizes else "spacing  unknown")
    return lines + _class_lines([case["voxels"] for case in cases if case["voxels"] is not None])


def _question(args: argparse.Namespace) -> "Question":
    from biom3d.data.survey import Question

    if args.num_classes is not None and args.num_classes < 1:
        raise ConfigError(f"--num_classes {args.num_classes}: wanted at least 1")
    if args.instances and (args.num_classes or 1) != 1:
        raise ConfigError(
            f"--instances makes one class of all labels, --num_classes is {args.num_classes}; leave one of them out"
        )
    coding = coding_from(args, args.num_classes)
    return Question(1 if args.instances else args.num_classes or len(coding.values) or None, coding, spacing_from(args))


def _tell(findings: Sequence["Finding"], report: Reporter) -> None:
    for finding in findings:
        if finding.kind == "warning":
            report.warn(finding.message)
        elif finding.kind == "note":
            report.info(f"note: {finding.message}")


def _case(facts: "CaseFacts", question: "Question") -> dict[str, Any]:
    from biom3d.data.survey import class_voxels, spacing_of

    image = facts.image
    assert image is not None  # else it was an error
    voxels = class_voxels(facts)
    return {
        "name": facts.case.name,
        "image": str(facts.case.image),
        "mask": None if facts.case.mask is None else str(facts.case.mask),
        "shape": list(image.header.shape),
        "dtype": image.header.dtype.name,
        "axes": image.header.axes,
        "spacing_um": spacing_of(facts, question),
        "unit": "µm" if question.spacing_um else image.header.unit,
        "channel_names": list(image.header.channel_names),
        "min": image.low,
        "max": image.high,
        "digest": image.digest,
        "voxels": None if voxels is None else {str(label): count for label, count in sorted(voxels.items())},
    }


def _class_lines(counts: list[dict[str, int]]) -> list[str]:
    labels = sorted({int(label) for count in counts for label in count})
    if not labels:
        return []
    if len(labels) > 20:
        return [f"labels   {len(labels)} values from {labels[0]} to {labels[-1]}"]
    total = sum(sum(count.values()) for count in counts)
    lines = []
    for label in labels:
        found = [count.get(str(label), 0) for count in counts]
        share = 100 * sum(found) / total
        name = "background" if label == 0 else f"class {label}"
        lines.append(f"labels   {name}: {share:.3g} % of the voxels, in {sum(map(bool, found))} of {len(found)} masks")
    return lines


def _by(sizes: Any) -> str:
    return " x ".join(map(str, sizes))


def _range(ends: Sequence[str]) -> str:
    return ends[0] if ends[0] == ends[-1] else f"{ends[0]} to {ends[-1]}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the step; return its exit code."""
    return run_step("check", build_parser(), execute, argv)


if __name__ == "__main__":
    raise SystemExit(main())
