"""The command lines of `remote init`, `remote keygen` and `remote add --card`."""

import argparse
import dataclasses
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from biom3d.errors import ConfigError
from biom3d.remote.profile import Settings, open_host, read_profile

if TYPE_CHECKING:
    from biom3d.events import Reporter

COMMANDS = {
    "keygen": "make your key for a server, and show what to send to its administrator",
    "init": "for administrators: set a server up from here, and print its card",
}


def add_options(made: dict[str, argparse.ArgumentParser]) -> None:
    """Add the options of `add --card`, `keygen` and `init`."""
    from biom3d.server.options import add_init_options

    made["add"].add_argument(
        "--card", type=Path, metavar="FILE", help="the server's card, instead of --host and others"
    )
    made["keygen"].add_argument("--file", type=Path, metavar="FILE", help="instead of ~/.ssh/id_ed25519_NAME")
    made["keygen"].add_argument("--no-passphrase", action="store_true", help="whoever reads the file has the key then")
    made["init"].add_argument(
        "--address", default="", metavar="HOST", help="by which users reach it (default: as you do)"
    )
    add_init_options(made["init"])


def settings_to_add(args: argparse.Namespace, report: "Reporter") -> Settings:
    """Return the settings of the profile to write; with a card, the server's host key was compared with it.

    Raises:
        ConfigError: neither host nor card was given, or the card is wrong.
        HostError: the server is not the card's.
    """
    fields = (field.name for field in dataclasses.fields(Settings))
    values = {name: getattr(args, name) for name in fields if getattr(args, name) is not None}
    if not args.card:
        if "address" not in values:
            raise ConfigError("give the server's card (--card FILE) or its name or address (--host HOST)")
        return Settings(**values)
    from biom3d.remote.card import settings_of, trust
    from biom3d.remote.profile import check
    from biom3d.server.card import read_card

    card = read_card(args.card)
    settings = settings_of(card, args.name, Settings(**values))
    check(settings)
    report.info(f"the host key is that of the card: {trust(card, settings)}")
    return settings


def keygen(args: argparse.Namespace, report: "Reporter") -> None:
    """Make a key pair and show its public part."""
    from biom3d.remote import keygen as keys
    from biom3d.remote.auth import find_person

    path = args.file.expanduser().absolute() if args.file else keys.key_path(args.name)
    keys.check_free(path)
    phrase = keys.ask_passphrase(find_person(), args.no_passphrase)
    if not phrase:
        report.warn("the key has no passphrase: whoever can read its file can use it")
    pair = keys.make_pair(phrase, keys.comment_of(args.name))
    public = keys.write_pair(pair, path)
    print(pair.public, end="", flush=True)
    report.info(keys.advice(args.name, public))


def init(args: argparse.Namespace, report: "Reporter") -> None:
    """Set up the server of a profile and print its card."""
    from biom3d.remote import setup
    from biom3d.server.options import hand_out, read_wish, shower

    settings = read_profile(args.name)
    host = open_host(settings, Path.cwd())
    args.label = args.label or (args.name if "/" not in args.name else "")
    try:
        wish = read_wish(args, PurePosixPath(settings.workdir or "biom3d"), args.address)
        card = setup.init(host, settings, wish, report.info, shower(report))
    finally:
        host.close()
    hand_out(card, args, report)
