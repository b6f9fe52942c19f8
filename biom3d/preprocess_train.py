"""`python -m biom3d.preprocess_train`: preprocess, then train one fold, in one go."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from biom3d import preprocess, train
from biom3d.cli import run_step
from biom3d.errors import ConfigError, DataError
from biom3d.events import Reporter
from biom3d.files import is_taken

DESCRIPTION = """Preprocess a data set and train a model on it, in one go.

  biom3d preprocess_train --img_path images/ --msk_path masks/ --num_classes 1 --desc nuclei

The model folder is logs/<time>-nuclei_fold0; predict with `biom3d pred --log` and that folder."""


def build_parser() -> argparse.ArgumentParser:
    """Return the options of preprocess, and the fold."""
    parser = preprocess.build_parser()
    parser.prog, parser.description = "python -m biom3d.preprocess_train", DESCRIPTION
    parser.add_argument("--fold", type=int, default=0, help="which fold is kept for validation (default 0)")
    parser.add_argument("--run_dir", metavar="DIR", help="model folder to make")
    train.add_compute_options(parser)
    return parser


def execute(args: argparse.Namespace, report: Reporter) -> None:
    """Run both steps."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("torchrun is for train alone; use --processes N here, or preprocess first")
    if args.run_dir and is_taken(Path(args.run_dir)):  # said before the work, not after half of it
        raise DataError(f"'{args.run_dir}' exists; choose another --run_dir")
    _, outputs = preprocess.preprocess(args, report)
    options = ["--config", str(outputs.plan), "--fold", str(args.fold)]
    if args.run_dir:
        options += ["--run_dir", args.run_dir]
    print(train.run([*options, *train.compute_options(args)], report))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the step; return its exit code."""
    return run_step("preprocess_train", build_parser(), execute, argv)


if __name__ == "__main__":
    raise SystemExit(main())
