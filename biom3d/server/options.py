"""What `server init` and `remote init` share of their command lines."""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from biom3d.server.card import Card, card_text, qr_text, write_card
from biom3d.server.environment import TORCH, find_source
from biom3d.server.judge import Finding
from biom3d.server.setup import Wish

if TYPE_CHECKING:
    from biom3d.events import Reporter


def add_init_options(command: argparse.ArgumentParser) -> None:
    """Add what `server init` and `remote init` share."""
    command.add_argument("--name", default="", dest="label", metavar="NAME", help="of the server, on the card")
    command.add_argument("--port", type=int, metavar="PORT", help="by which users reach it (default: sshd's own)")
    command.add_argument("--inner-port", type=int, metavar="PORT", help="of sshd, if a router passes --port on to it")
    command.add_argument("--jump", default="", metavar="USER@HOST:PORT", help="hosts on the way, with commas between")
    command.add_argument("--env", action="store_true", help="make WORKDIR/env, a Python with the steps: no containers")
    command.add_argument(
        "--from", type=Path, dest="source", metavar="PATH", help="for --env: a wheel, a folder of wheels, a checkout"
    )
    command.add_argument("--torch", choices=sorted(TORCH), help="for --env (default: what nvidia-smi says)")
    command.add_argument("--card", type=Path, metavar="FILE", help="write the card there too, .yaml or .json")
    command.add_argument("--qr", action="store_true", help="print the card as a QR code as well")


def read_wish(args: argparse.Namespace, workdir: PurePosixPath, address: str) -> Wish:
    """Return what the options of `init` ask for."""
    return Wish(
        workdir=workdir,
        name=args.label,
        address=address,
        port=args.port,
        inner_port=args.inner_port,
        jump=args.jump,
        has_environment=args.env,
        source=find_source(args.source),
        build=args.torch,
    )


def shower(report: "Reporter") -> Callable[[Finding], None]:
    """Return what shows the findings of checks, to people and programs."""

    def show(finding: Finding) -> None:
        print(finding, flush=True)
        report.event("check", **dataclasses.asdict(finding))

    return show


def hand_out(card: Card, args: argparse.Namespace, report: "Reporter", file: str = "") -> None:
    """Print the card, and write it where it was asked for; `file` is where it is anyway."""
    if args.card:
        write_card(card, args.card)
        file = str(args.card)
    print(f"\n{card_text(card, Path(file or 'card.yaml').name)}", flush=True)
    if args.qr:
        print(qr_text(card))
    where = f"is in '{file}'" if file else "can be written with --card FILE"
    report.info(f"the card {where}; give it to users on a way that you trust: it says which server is the right one")
