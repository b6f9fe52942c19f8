"""`python -m biom3d.plan`: show or explain how a model will be configured, without touching the data."""

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

from biom3d.cli import run_step, step_parser, text_file
from biom3d.config import Plan, dump, save_plan
from biom3d.errors import ConfigError
from biom3d.events import Reporter, duration_text
from biom3d.files import write_json
from biom3d.options import add_data_options, add_request_options, add_threads_option, keys_from, plan_order

DESCRIPTION = """Show how a model would be configured for a data set on this machine.

  biom3d plan --img_path images/ --msk_path masks/ --explain

The plan is a file: edit it, then give it to `preprocess --base_config`."""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = step_parser("plan", DESCRIPTION)
    add_data_options(parser)
    add_request_options(parser)
    parser.add_argument("--desc", default="unet_default", metavar="NAME", help="name of the model")
    parser.add_argument("--out", type=text_file, metavar="FILE", help="write the plan here (default: print it)")
    parser.add_argument("--explain", action="store_true", help="say in words why each value was chosen")
    parser.add_argument(
        "--measure",
        type=text_file,
        metavar="FILE",
        help="train a few made-up batches, and write into FILE (JSON) how long a training takes on this machine",
    )
    add_threads_option(parser)
    return parser


def execute(args: argparse.Namespace, report: Reporter) -> None:
    """Print or write the plan."""
    from biom3d.data.dataset import find_cases
    from biom3d.data.planner import plan_cases

    if args.ct_norm and not (args.msk_path or args.msk_key):
        raise ConfigError("--ct_norm measures intensities inside the objects; give --msk_path too")
    cases = find_cases(args.img_path, args.msk_path, report.info, keys_from(args))
    plan = plan_cases(plan_order(args), cases, report)
    if args.out:
        save_plan(plan, Path(args.out))
        report.info(f"plan '{args.out}'")
    if args.measure:
        _measure(plan, args, report)
    if args.explain:
        print(explain(plan))
    elif not args.out and not args.measure:
        print(dump(plan), end="")


def _measure(plan: Plan, args: argparse.Namespace, report: Reporter) -> None:
    """Write what a training costs here."""
    from biom3d.training.trial import fold_seconds, try_plan

    speed = try_plan(plan, args.threads)
    seconds = fold_seconds(plan, speed)
    facts = {"training_s": speed.training_s, "validation_s": speed.validation_s, "fold_s": seconds}
    write_json(args.measure, facts)
    report.info(f"a batch takes {speed.training_s:.2f} s here, a fold about {duration_text(seconds)}")


def explain(plan: Plan) -> str:
    """Return the plan in words: every choice, its value and its reason."""
    lines = [
        f"{plan.desc}: {plan.num_classes} class(es), {plan.num_channels} channel(s), {'2D' if plan.is_2d else '3D'}"
    ]
    shown = _values(plan)
    for key, reason in plan.why.items():
        lines.append(f"  {key}: {shown[key]}" if key in shown else f"  {key}")
        lines += textwrap.wrap(reason, 96, initial_indent="      because ", subsequent_indent="      ")
    return "\n".join(lines)


def _values(plan: Plan) -> dict[str, str]:
    """Return the values that have a reason, as a person writes them."""
    sure = round(plan.batch_size * plan.foreground_rate)
    return {
        "preset": plan.request.preset or "none" if plan.request else "none",
        "num_pools": ", ".join(f"{axis} {n} x" for axis, n in zip("zyx", plan.num_pools, strict=True)),
        "patch_size": " x ".join(map(str, plan.patch_size)) + " voxels (z, y, x)",
        "batch_size": f"{plan.batch_size} patches",
        "width": f"{plan.width} features in the first stage",
        "spacing_um": "unknown" if plan.spacing_um is None else " x ".join(f"{s:g}" for s in plan.spacing_um) + " µm",
        "normalisation": plan.normalisation.scheme,
        "num_epochs": f"{plan.num_epochs} of {plan.num_steps} batches"
        + (f", at most {plan.max_minutes:g} minutes" if plan.max_minutes else ""),
        "optimizer": plan.optimizer,
        "learning_rate": f"{plan.learning_rate:g}",
        "foreground_rate": f"{plan.foreground_rate:g}: {sure} of {plan.batch_size} patches",
        "prior_correction": "yes" if plan.prior_correction else "no",
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the step; return its exit code."""
    return run_step("plan", build_parser(), execute, argv)


if __name__ == "__main__":
    raise SystemExit(main())
