"""`biom3d server`: for the administrator of a server that runs jobs of others; on it, without torch and paramiko."""

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from biom3d.cli import add_subcommand, days, print_table, run_step, step_parser
from biom3d.errors import ConfigError
from biom3d.server import clean as cleaning
from biom3d.server import people
from biom3d.server.card import write_card
from biom3d.server.gatekeeper import (
    allow_images,
    allow_steps,
    find_config,
    find_log,
    find_workdir,
    gate_words,
    install_gate,
    own_card,
    read_settings,
)
from biom3d.server.keys import read_public_key
from biom3d.server.options import add_init_options, hand_out, read_wish, shower
from biom3d.server.report import read_notes, report_month, report_text
from biom3d.server.setup import ask_here, set_up
from biom3d.server.sshd import PORT, Places, run
from biom3d.server.survey import ask_facts

if TYPE_CHECKING:
    from biom3d.events import Reporter

EXPLAIN = """A server that runs jobs of several people: set it up, and say who may use it.

  biom3d server init /srv/biom3d                                   folders, checks, and the card for users
  biom3d server authorize anna.pub --name anna --expires 2027-06-30  let a person in, for biom3d's own commands only
  biom3d server people                                             who may log in
  biom3d server clean --older-than 90d                             what nobody uses any more

docs/server.md explains it in order."""
COMMANDS = {
    "init": "make folders (and an environment), check the server, print its card; twice changes nothing",
    "authorize": "let a person log in with a key, for biom3d's own commands only",
    "revoke": "let a person log in no more",
    "allow-image": "let people with the gate use the images of ours that are there now, as after an update",
    "people": "list who may log in, from where and until when",
    "report": "what each person's jobs took in a month: hours, cores, GPUs",
    "clean": "show data sets and rests of jobs that nobody uses, and remove them with --yes",
    "run": "in the image 'server': start sshd, without root",
}


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of `biom3d server`."""
    parser = step_parser("server", EXPLAIN)
    parser.prog = "biom3d server"
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    made = {name: add_subcommand(commands, name, summary) for name, summary in COMMANDS.items()}
    made["init"].add_argument("workdir", type=Path, metavar="WORKDIR", help="folder for data and jobs")
    made["init"].add_argument(
        "--address", default="", metavar="HOST", help="by which users reach it (default: its name)"
    )
    made["init"].add_argument(
        "--entry-point",
        action="store_true",
        help="let people with the gate run steps by hand, too, on CPU cores: ssh HOST python -m biom3d.pred ...",
    )
    add_init_options(made["init"])
    _add_people(made)
    made["allow-image"].add_argument(
        "images", nargs="*", metavar="IMAGE", help="others too: an id (sha256:...), a digest (NAME@sha256:...) or a tag"
    )
    made["allow-image"].add_argument(
        "--config", type=Path, metavar="FILE", help="of the gate (default: ~/.biom3d-gate.json)"
    )
    made["report"].add_argument("--month", metavar="YYYY-MM", help="in UTC (default: this one)")
    made["report"].add_argument(
        "--log", type=Path, nargs="+", metavar="FILE", help="logs of the gate (default: that of its configuration)"
    )
    made["clean"].add_argument("workdir", type=Path, nargs="?", metavar="WORKDIR", help="default: of 'init'")
    made["clean"].add_argument(
        "--older-than", type=days, default=90.0, metavar="90d", help="what nobody used for so long (default: 90d)"
    )
    made["clean"].add_argument("--yes", action="store_true", help="remove it; without, it is only shown")
    made["clean"].add_argument("--dry-run", action="store_true", help="only show it, which is the default")
    made["clean"].add_argument(
        "--log", type=Path, nargs="+", metavar="FILE", help="logs of the gate, for the people (default: as for report)"
    )
    made["run"].add_argument("--port", type=int, default=PORT, help=f"where sshd listens (default: {PORT})")
    made["run"].add_argument("--gate", action="store_true", help="people of /keys may run biom3d's own commands only")
    return parser


def _add_people(made: dict[str, argparse.ArgumentParser]) -> None:
    made["authorize"].add_argument("key", type=Path, metavar="KEY.pub", help="the person's public key")
    for name in ("authorize", "revoke"):
        made[name].add_argument("--name", required=True, metavar="NAME", help="of the person, such as anna")
    for name in ("authorize", "revoke", "people"):
        made[name].add_argument("--file", type=Path, metavar="FILE", help="instead of ~/.ssh/authorized_keys")
    command = made["authorize"]
    command.add_argument("--expires", type=_day, metavar="DATE", help="last day on which the key is good: 2027-06-30")
    command.add_argument(
        "--from", dest="sources", metavar="LIST", help="addresses it is good from: 10.0.0.0/8,192.0.2.7"
    )
    command.add_argument("--workdir", type=Path, metavar="DIR", help="folder the person works in (default: of 'init')")
    command.add_argument("--gate", type=Path, metavar="PATH", help="program that checks every command (default: ours)")
    command.add_argument("--config", type=Path, metavar="FILE", help="of the gate (default: ~/.biom3d-gate.json)")
    command.add_argument("--no-gate", action="store_true", help="let the person run ANY command as this account")


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' is no day; wanted such as 2027-06-30") from error


def execute(args: argparse.Namespace, report: "Reporter") -> None:
    """Run one subcommand."""
    ACTIONS[args.command](args, report)


def _init(args: argparse.Namespace, report: "Reporter") -> None:
    workdir = PurePosixPath(args.workdir.expanduser().absolute())
    args.inner_port = args.inner_port or args.port
    card = set_up(ask_here, read_wish(args, workdir, args.address), report.info, shower(report))
    write_card(card, Path(card.workdir) / "card.yaml")
    hand_out(card, args, report, str(Path(card.workdir) / "card.yaml"))
    if args.entry_point:
        home = people.account_home()
        install_gate(home)  # an older one does not know what this sets
        facts = ask_facts(ask_here, workdir)
        where = allow_steps(find_config(None, home), facts, card.environment)
        report.info(f"people with the gate may run steps by hand, in '{where}': ssh HOST python -m biom3d.pred ...")
    report.info(
        f"who has a key for '{card.workdir}' reads and changes all below it; a folder of one's own goes beside it:"
        f" biom3d server authorize ... --workdir {card.workdir}-NAME"
    )


def _authorize(args: argparse.Namespace, report: "Reporter") -> None:
    home = people.account_home()
    key = read_public_key(args.key)
    command = ""
    if args.no_gate:
        report.warn(f"without the gate {args.name} may run any command as this account, and use its container engine")
    else:
        workdir = find_workdir(args.workdir, home)
        gate = gate_words(args.gate, home, workdir)
        command = people.forced_command(gate, args.name, workdir, find_config(args.config, home))
    today = datetime.now(UTC).astimezone().date()
    grant = people.Grant(
        name=people.check_name(args.name),
        key=key,
        expires=people.check_expiry(args.expires, today) if args.expires else None,
        sources=people.read_sources(args.sources) if args.sources else (),
        command=command,
    )
    path = args.file or people.authorized_keys()
    is_new = people.edit(path, lambda text: people.authorize(text, grant))
    report.info(f"{grant.name} may log in with {key.fingerprint}" + ("" if is_new else ", as before"))
    card = own_card(people.workdir_of(grant), home)
    if card:
        report.info(f"{grant.name}'s own card, which names this folder: '{card}'")
    for folder in people.find_loose_modes(path):
        report.warn(f"sshd ignores '{path}' while others may write to '{folder}'; run: chmod go-w '{folder}'")


def _revoke(args: argparse.Namespace, report: "Reporter") -> None:
    name = people.check_name(args.name)
    people.edit(args.file or people.authorized_keys(), lambda text: people.revoke(text, name))
    report.info(f"{name} may log in no more; what runs in that name goes on")


def _allow_image(args: argparse.Namespace, report: "Reporter") -> None:
    home = people.account_home()
    facts = ask_facts(ask_here, PurePosixPath(find_workdir(None, home)))
    if not facts.image_ids and not args.images:
        raise ConfigError(
            f"no image of ours is there ({facts.engine_error or facts.engine or 'no container engine'}); bring one:"
            " biom3d images build cpu, or from a user's computer: biom3d remote send-image"
        )
    for line in allow_images(find_config(args.config, home), facts, args.images):
        report.info(line)


def _people(args: argparse.Namespace, report: "Reporter") -> None:
    path = args.file or people.authorized_keys()
    grants = list(people.read_grants(path.read_bytes())) if path.is_file() else []
    rows = []
    for grant in sorted(grants, key=lambda grant: grant.name):
        kind = grant.key.kind.removeprefix("ssh-")
        until, sources = str(grant.expires or "-"), ",".join(grant.sources) or "-"
        may = grant.command or people.SHELL
        rows.append((grant.name, until, sources, f"{kind} {grant.key.fingerprint}", may))
    print_table(("NAME", "UNTIL", "FROM", "KEY", "MAY RUN"), rows)


def _report(args: argparse.Namespace, report: "Reporter") -> None:
    logs = args.log or [find_log(people.account_home())]
    print(report_text(report_month(logs, args.month or f"{datetime.now(UTC):%Y-%m}")), end="")


def _clean(args: argparse.Namespace, report: "Reporter") -> None:
    home, now = people.account_home(), time.time()
    workdir = find_workdir(args.workdir and args.workdir.expanduser().absolute(), home)
    settings = read_settings(home)
    host, runtime = cleaning.open_here(workdir, str(settings.get("engine_socket") or ""))
    unused = cleaning.find_unused(host, runtime, args.older_than, now)
    logs = args.log or [log for log in (find_log(home),) if log.is_file()]
    whose = cleaning.read_people(note for log in logs for note in read_notes(log))
    print_table(("WHAT", "NAME", "PERSON", "UNUSED", "SIZE"), cleaning.table(unused, whose))
    for line in (*cleaning.notes(unused, whose), cleaning.usage_text(workdir, float(settings.get("quota_gb") or 0))):
        report.info(line)
    if args.dry_run or not args.yes:
        report.info("nothing was removed; --yes removes it")
        return
    for name in cleaning.remove_unused(host, runtime, unused, now):
        report.warn(f"data set '{name}' stays: a job has taken it up meanwhile")
    report.info("removed")


def _run(args: argparse.Namespace, report: "Reporter") -> None:
    run(Places(), args.port, args.gate, report)


ACTIONS = {
    "init": _init,
    "authorize": _authorize,
    "revoke": _revoke,
    "allow-image": _allow_image,
    "people": _people,
    "report": _report,
    "clean": _clean,
    "run": _run,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `biom3d server`; exit code as in the step contract."""
    return run_step("server", build_parser(), execute, argv)


if __name__ == "__main__":
    sys.exit(main())
