"""`biom3d images`: build, verify, lock, save and load the images that steps run in."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from biom3d import engine
from biom3d.cli import add_subcommand, run_step, step_parser
from biom3d.errors import ConfigError
from biom3d.images.archive import layers_of, load_image, save_image
from biom3d.images.base import ensure_base
from biom3d.images.build import build_image, revision
from biom3d.images.keys import image_of
from biom3d.images.lock import read_lock
from biom3d.images.page import write_page
from biom3d.images.plan import plan_base, plan_build
from biom3d.images.record import lock_images
from biom3d.images.table import Table, load_table
from biom3d.images.verify import check_image
from biom3d.images.wheels import resolve, resolve_installer

if TYPE_CHECKING:
    from biom3d.events import Reporter

EXPLAIN = """Images for the steps, from one table (containers/images.yaml) and one template.

  biom3d images build cpu        make the image, ask it what it holds, and name it only if its labels are true
  biom3d images build --dry-run  print the commands that do the same
  biom3d images save cpu FILE    for a host without a registry; there: biom3d images load FILE

DOCKER_HOST is honoured; Podman's Docker-compatible socket works too."""
COMMANDS = {
    "list": "list the table and which images are here",
    "base": "make the base that images start from",
    "build": "build images that are not here yet, and verify them",
    "verify": "start images and compare what they hold with labels and table",
    "resolve": "write the hashed locks of wheels anew (containers/locks/)",
    "lock": "write what is known of the images into containers/images.lock.yaml",
    "save": "write an image as one compressed file",
    "load": "read such a file",
    "layers": "print the layers of an image, for `save --have` elsewhere",
    "table": "write the table of docs/images.md from the lock",
}


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of `biom3d images`."""
    parser = step_parser("images", EXPLAIN)
    parser.prog = "biom3d images"
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    made = {name: add_subcommand(commands, name, summary) for name, summary in COMMANDS.items()}
    for name in ("build", "verify", "resolve", "lock"):
        made[name].add_argument("variants", nargs="*", metavar="VARIANT", help="rows of the table; none: all to build")
    for name in ("save", "layers"):
        made[name].add_argument("variant", metavar="VARIANT", help="row of the table")
    for name in ("base", "build"):
        made[name].add_argument("--dry-run", action="store_true", help="print the commands, do nothing")
    made["base"].add_argument("bases", nargs="*", metavar="BASE", help="rows of `bases`; none: all")
    made["build"].add_argument("--again", action="store_true", help="build anew what is there, and without any cache")
    made["resolve"].add_argument("--upgrade", action="store_true", help="take new versions")
    made["save"].add_argument("file", type=Path, metavar="FILE", help="such as cpu.tar.zst")
    made["save"].add_argument(
        "--without", metavar="IMAGE", help="leave out the layers of this image of ours; the receiver has it"
    )
    made["save"].add_argument(
        "--have", type=Path, metavar="LIST", help="leave out the layers in this file, made there by `images layers`"
    )
    made["load"].add_argument("file", type=Path, metavar="FILE", help="what `save` wrote")
    return parser


def execute(args: argparse.Namespace, report: "Reporter") -> None:
    """Run one subcommand."""
    ACTIONS[args.command](args, report)


def _rows(args: argparse.Namespace) -> tuple[Table, list[str]]:
    """Return the table and the rows that were asked for; those built by others only when named."""
    table = load_table()
    names = args.variants or [name for name, row in table.images.items() if not row.reference]
    for name in names:
        table.variant(name)
    return table, names


def _list(args: argparse.Namespace, report: "Reporter") -> None:
    table, client = load_table(), engine.connect()
    for name in table.images:
        try:
            image = image_of(table, name)
        except ConfigError as error:
            print(f"{name}\t-\t{error}")
            continue
        state = "here" if engine.find_image(client, image.reference) else "not here"
        print(f"{name}\t{state}\t{image.reference}")


def _base(args: argparse.Namespace, report: "Reporter") -> None:
    table = load_table()
    for name in args.bases or table.bases:
        if name not in table.bases:
            raise ConfigError(f"unknown base '{name}'; known: {', '.join(table.bases)}")
        if args.dry_run:
            print("\n".join(plan_base(table, name).commands()))
        else:
            print(f"{name}\t{ensure_base(engine.connect(), table, name, report)}")


def _build(args: argparse.Namespace, report: "Reporter") -> None:
    table, names = _rows(args)
    if args.dry_run:
        for name in names:
            print("\n".join(plan_build(table, name, revision(table.root)).commands()))
        return
    client = engine.connect()
    for name in names:
        print(build_image(client, table, name, report, again=args.again).reference)


def _verify(args: argparse.Namespace, report: "Reporter") -> None:
    table, names = _rows(args)
    client = engine.connect()
    for name in names:
        image = image_of(table, name)
        engine.need_image(client, image.reference, f"run: biom3d images build {name}")
        facts = check_image(client, table, image)
        print(
            f"{image.reference}\ttorch {facts.torch}\tCUDA {facts.cuda or 'none'}\tPython {facts.python}\t"
            f"{facts.version}\tuid {facts.uid}\t{facts.size / 1e6:.0f} MB\tas its labels say"
        )


def _resolve(args: argparse.Namespace, report: "Reporter") -> None:
    table, names = _rows(args)
    resolve_installer(table)
    for name in names:
        resolve(table, name, args.upgrade, report)


def _lock(args: argparse.Namespace, report: "Reporter") -> None:
    table, names = _rows(args)
    lock_images(engine.connect(), table, names, report)


def _save(args: argparse.Namespace, report: "Reporter") -> None:
    table, client = load_table(), engine.connect()
    have = set(args.have.read_text().split()) if args.have else set()
    if args.without:
        known = args.without in table.images
        have |= set(layers_of(client, image_of(table, args.without).reference if known else args.without))
    image = image_of(table, args.variant)
    engine.need_image(client, image.reference, f"run: biom3d images build {args.variant}")
    size = save_image(client, image.reference, args.file, have, report)
    print(f"{args.file}\t{size / 1e6:.1f} MB\t{image.reference}")


def _load(args: argparse.Namespace, report: "Reporter") -> None:
    print("\n".join(load_image(engine.connect(), args.file, report)))


def _layers(args: argparse.Namespace, report: "Reporter") -> None:
    print("\n".join(layers_of(engine.connect(), image_of(load_table(), args.variant).reference)))


def _table(args: argparse.Namespace, report: "Reporter") -> None:
    table = load_table()
    print(write_page(table, read_lock(table.root)))


ACTIONS = {
    "list": _list,
    "base": _base,
    "build": _build,
    "verify": _verify,
    "resolve": _resolve,
    "lock": _lock,
    "save": _save,
    "load": _load,
    "layers": _layers,
    "table": _table,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `biom3d images` and return its exit code."""
    return run_step("images", build_parser(), execute, argv)


if __name__ == "__main__":
    sys.exit(main())
