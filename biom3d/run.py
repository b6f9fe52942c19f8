"""`biom3d run`: the workflow with a plain front: one screen, perhaps a question, a line for each job, a table."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from biom3d.errors import Biom3dError, ConfigError
from biom3d.sources import find_sources

DESCRIPTION = """Segment all data sets of config/datasets.tsv with the models of config/config.yaml.

  biom3d run                 do what is missing or out of date, on this machine
  biom3d run -n              only say what that would be
  biom3d run --profile NAME  elsewhere: docker, slurm, or a profile made by `biom3d remote add NAME`

First it says on one screen what will be trained, predicted and replaced, and how long that takes; where no training
has been measured on this machine, it tries a few batches of made-up data. A trained model is replaced only after a
question, if somebody is there to answer. At the end there is a table. Every other word goes to Snakemake (docs: its
`--help`): `biom3d run --cores 8`, `biom3d run results/check/NAME.json`."""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line; what it does not know is for Snakemake."""
    parser = argparse.ArgumentParser(
        prog="biom3d run", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--profile", default="local", metavar="NAME", help="where: a folder of profiles/, or yours (default: local)"
    )
    parser.add_argument("--yes", action="store_true", help="replace trained models without a question")
    parser.add_argument("--no_measure", action="store_true", help="do not try batches to forecast the time")
    return parser


def command(args: argparse.Namespace, words: Sequence[str], folder: Path) -> list[str]:
    """Return Snakemake's command for a project folder.

    Raises:
        ConfigError: no configuration is there.
        DataError: no workflow is there.
    """
    sources = folder if (folder / "workflow" / "Snakefile").is_file() else find_sources()
    if not (folder / "config" / "config.yaml").is_file():
        raise ConfigError(
            f"no config/config.yaml in '{folder}'; go to your project's folder, or make one: biom3d init PROJECT"
        )
    ours = sources / "profiles" / args.profile
    where = ["--workflow-profile", str(ours)] if (ours / "profile.yaml").is_file() else ["--profile", args.profile]
    front = ["--logger", "biom3d"]
    front += [] if args.no_measure else ["--logger-biom3d-measure"]
    front += [] if args.yes else ["--logger-biom3d-ask"]
    snakefile = sources / "workflow" / "Snakefile"
    return [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), *where, *front, *words]


def main(argv: Sequence[str] | None = None) -> int:
    """Become Snakemake: whoever stops this process stops it. Return 2 where it could not be started."""
    args, words = build_parser().parse_known_args(argv)
    try:
        if find_spec("snakemake") is None:
            raise ConfigError("Snakemake is not in this Python; `make setup` makes an environment with it")
        become(command(args, [word for word in words if word != "--"], Path.cwd()))
    except Biom3dError as error:
        print(f"run: error: {error}", file=sys.stderr)
        return error.exit_code


def become(words: list[str]) -> NoReturn:
    """Let this process be another program, which finds this Python first."""
    environ = os.environ | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(words[0], words, environ)  # noqa: S606 - words of ours, no shell


if __name__ == "__main__":
    raise SystemExit(main())
