"""`biom3d remote`: make a host known, look at it and at what runs and lies there; no Snakemake needed."""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from biom3d.cli import add_subcommand, days, print_table, run_step, step_parser
from biom3d.errors import HostError
from biom3d.remote import setup_verbs
from biom3d.remote.claims import KEEPS
from biom3d.remote.profile import (
    OWN,
    list_profiles,
    open_host,
    open_runtime,
    read_profile,
    renew_profile,
    write_profile,
)
from biom3d.remote.runtime import KINDS, VENV

if TYPE_CHECKING:
    from biom3d.events import Reporter
    from biom3d.remote.host import Host
    from biom3d.remote.runtime import Runtime

EXPLAIN = """Hosts that run jobs, each a Snakemake profile of yours.

  biom3d remote add gpu1 --host gpu1.example.org --user lab    once; from then on: snakemake --profile gpu1
  biom3d remote doctor gpu1                                    what is missing there, and how to mend it

Passwords are asked for, or come from an agent, a keyring or BIOM3D_SSH_PASSWORD; never give one as an option."""
COMMANDS = {
    "add": "write your Snakemake profile for a host",
    **setup_verbs.COMMANDS,
    "renew": "rewrite a profile that an older version made, whose executor was called 'ssh'",
    "list": "list your profiles that run jobs on hosts",
    "doctor": "check a host, and say how to mend what is wrong",
    "jobs": "list the jobs that run there or have ended there",
    "logs": "print the log of a job",
    "cancel": "stop a job; the same command goes on later",
    "gpus": "list the GPUs, and who uses them",
    "clean": "show what could be removed there, and remove it with --yes",
    "datasets": "list the data sets there",
    "models": "list the models there",
    "send": "send a data set under a name of its own",
    "send-model": "send a trained model under a name of its own",
    "remove": "remove a data set or a model that was sent",
    "get": "bring a file or folder here",
    "send-image": "bring an image of this machine to the engine there; only the layers that it lacks",
}
CHOICES = {"runtime": KINDS, "keep": KEEPS}
TYPES: dict[str, Callable[[str], object]] = {"port": int, "parallel": int, "bandwidth_mb_s": float}


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of `biom3d remote`."""
    parser = step_parser("remote", EXPLAIN)
    parser.prog = "biom3d remote"
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    made = {name: add_subcommand(commands, name, summary) for name, summary in COMMANDS.items()}
    for name, command in made.items():
        if name != "list":
            command.add_argument("name", metavar="NAME", help="of the profile")
    _add_settings(made["add"])
    setup_verbs.add_options(made)
    for name in ("logs", "cancel"):
        made[name].add_argument("job", metavar="JOB", help="its id, the beginning of it, or its name")
    made["logs"].add_argument("-f", "--follow", action="store_true", help="go on until the job ends")
    made["logs"].add_argument(
        "--step-events", action="store_true", help="not the log but the events of the step at work, JSON, one a line"
    )
    made["cancel"].add_argument("--others", action="store_true", help="also if somebody else has started it")
    made["clean"].add_argument(
        "--older-than", type=days, default=30.0, metavar="30d", help="what nobody touched for so long (default: 30d)"
    )
    made["clean"].add_argument("--yes", action="store_true", help="remove it; without, it is only shown")
    made["clean"].add_argument("--dry-run", action="store_true", help="only show it, which is the default")
    made["send"].add_argument("dataset", metavar="DATASET", help="its name there")
    made["send"].add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of images")
    made["send"].add_argument("--masks", type=Path, metavar="DIR", help="folder of masks")
    made["send-model"].add_argument("model", metavar="MODEL", help="its name there")
    made["send-model"].add_argument(
        "--log", type=Path, required=True, metavar="DIR", help="its folder here, logs/MODEL"
    )
    made["send-image"].add_argument(
        "image",
        nargs="?",
        default="cpu",
        metavar="IMAGE",
        help="row of containers/images.yaml (default: cpu), or a name",
    )
    for name in ("send", "send-model"):
        made[name].add_argument(
            "--repair", action="store_true", help="make it again what was sent; what was changed or added there goes"
        )
    made["remove"].add_argument("path", metavar="PATH", help="data/NAME or logs/NAME")
    made["get"].add_argument("path", metavar="PATH", help="on the host, below workdir")
    made["get"].add_argument("dest", type=Path, metavar="DEST", help="here: a new name, or a folder to put it in")
    return parser


def _add_settings(command: argparse.ArgumentParser) -> None:
    for field, (_, reason) in OWN.items():
        flag = "--host" if field == "address" else f"--{field.replace('_', '-')}"
        if field == "check_store":
            command.add_argument(flag, action="store_true", help=reason)
        elif field in CHOICES:
            command.add_argument(flag, choices=CHOICES[field], help=reason)
        else:
            command.add_argument(flag, dest=field, type=TYPES.get(field, str), metavar=_metavar(flag), help=reason)
    command.add_argument("--replace", action="store_true", help="replace your profile of this name")


def _metavar(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_").upper()


def execute(args: argparse.Namespace, report: "Reporter") -> None:
    """Run one subcommand."""
    ALONE[args.command](args, report) if args.command in ALONE else _with_host(args, report)


def _add(args: argparse.Namespace, report: "Reporter") -> None:
    path = write_profile(args.name, setup_verbs.settings_to_add(args, report), args.replace)
    report.info(f"wrote '{path}'")
    if Path(args.name).exists():
        report.warn(f"'{args.name}' is also a file or folder here, which Snakemake would take; use: --profile '{path}'")
    report.info(f"next: biom3d remote doctor {args.name}   then: snakemake --profile {args.name}")


def _renew(args: argparse.Namespace, report: "Reporter") -> None:
    report.info(f"renewed '{renew_profile(args.name)}': executor and keys have the names of today")


def _list(args: argparse.Namespace, report: "Reporter") -> None:
    rows = [
        (name, settings.address, settings.user or "-", settings.workdir or "-", str(path))
        for name, settings, path in list_profiles()
    ]
    print_table(("NAME", "HOST", "USER", "WORKDIR", "FILE"), rows)


def _doctor(args: argparse.Namespace, report: "Reporter") -> None:
    from biom3d.remote.doctor import FAIL, examine

    failed = []
    for finding in examine(read_profile(args.name), Path.cwd()):
        print(finding, flush=True)
        report.event("check", **dataclasses.asdict(finding))
        failed += [finding.what] if finding.state == FAIL else []
    if failed:
        raise HostError(f"'{args.name}' cannot be used yet ({', '.join(failed)}); the lines above say how to mend it")


ALONE = {
    "add": _add,
    "renew": _renew,
    "list": _list,
    "doctor": _doctor,
    "keygen": setup_verbs.keygen,
    "init": setup_verbs.init,
}


def _with_host(args: argparse.Namespace, report: "Reporter") -> None:
    settings = read_profile(args.name)
    host = open_host(settings, Path.cwd())
    try:
        if args.command in SUPERVISED:
            SUPERVISED[args.command](host, open_runtime(settings, host), args, report)
        else:
            HOSTED[args.command](host, args, report)
    finally:
        host.close()


def _jobs(host: "Host", runtime: "Runtime", args: argparse.Namespace, report: "Reporter") -> None:
    from biom3d.remote.verbs import job_rows, list_jobs
    from biom3d.remote.watch import find_progress

    jobs = list_jobs(host, runtime)
    head = ("JOB", "STATE", "SINCE", "THREADS", "MEM_MB", "GPU", "OWNER", "NAME", "PROGRESS")
    print_table(head, job_rows(jobs, find_progress(host, jobs)))


def _logs(host: "Host", runtime: "Runtime", args: argparse.Namespace, report: "Reporter") -> None:
    from biom3d.remote.verbs import find_job, list_jobs, print_log

    job = find_job(list_jobs(host, runtime), args.job)

    def say(line: str) -> None:
        print(line, flush=True)

    if not args.step_events:
        print_log(host, job, args.follow, say, runtime)
        return
    from biom3d.remote.watch import print_events

    print_events(host, job, args.follow, say, lambda: bool((found := runtime.find(job.id)) and found.is_running))


def _cancel(host: "Host", runtime: "Runtime", args: argparse.Namespace, report: "Reporter") -> None:
    from biom3d.remote.runtime import person
    from biom3d.remote.verbs import cancel, find_job, list_jobs

    job = find_job(list_jobs(host, runtime), args.job)
    report.info(f"asking '{job.name}' to stop")
    how = cancel(host, job, runtime, person(), args.others)
    report.info(f"'{job.name}' has stopped ({how}); the same command goes on later")


def _gpus(host: "Host", runtime: "Runtime", args: argparse.Namespace, report: "Reporter") -> None:
    from biom3d.remote.verbs import gpu_rows

    rows = gpu_rows(host, runtime)
    if not rows:
        report.info(f"{host.name} has no NVIDIA GPU, or no driver")
    print_table(("GPU", "KIND", "USED BY"), rows)


def _clean(host: "Host", runtime: "Runtime", args: argparse.Namespace, report: "Reporter") -> None:
    from biom3d.remote.progress import size_text
    from biom3d.remote.verbs import clean, plan_cleaning

    plan = plan_cleaning(host, args.older_than, runtime)
    rows = [(folder.id, f"{folder.age_s / 86_400:.0f} days", size_text(folder.size)) for folder in plan.folders]
    print_table(("JOB FOLDER", "UNTOUCHED", "SIZE"), rows)
    stored = f"{len(plan.files)} file(s) of the store that no job uses, {size_text(sum(plan.files.values()))}"
    if plan.ended:
        report.info(f"{len(plan.ended)} job(s) that ended so long ago, and whose results nobody has fetched")
    report.info(f"{len(rows)} job folder(s), and {stored}; {size_text(plan.size)} in all, in '{host.root}'")
    if args.dry_run or not args.yes:
        report.info("nothing was removed; --yes removes it")
        return
    clean(host, plan, runtime)
    is_any = bool(plan.folders or plan.files or plan.ended)
    report.info(f"removed: {size_text(plan.size)}" if is_any else "there was nothing to remove")


def _datasets(host: "Host", args: argparse.Namespace, report: "Reporter") -> None:
    from biom3d.remote.data import dataset_rows

    print_table(("DATASET", "IMAGES", "MASKS", "SIZE"), dataset_rows(host))


def _models(host: "Host", args: argparse.Namespace, report: "Reporter") -> None:
    from biom3d.remote.data import model_rows

    print_table(("MODEL", "FILES", "SIZE"), model_rows(host))


def _send(host: "Host", args: argparse.Namespace, report: "Reporter") -> None:
    from biom3d.remote.data import send_dataset

    place = send_dataset(host, args.dataset, args.images, args.masks, report.info, args.repair)
    report.info(f"'{args.dataset}' is at '{place}' on {host.name}")
    report.info(f"to use it there: location 'server' and images 'data/{args.dataset}/images' in the table of data sets")


def _send_model(host: "Host", args: argparse.Namespace, report: "Reporter") -> None:
    from biom3d.remote.data import send_model

    place = send_model(host, args.model, args.log, report.info, args.repair)
    report.info(f"'{args.model}' is at '{place}' on {host.name}; to use it: location: server")


def _remove(host: "Host", args: argparse.Namespace, report: "Reporter") -> None:
    from biom3d.remote.data import remove_sent
    from biom3d.remote.progress import size_text

    size = size_text(remove_sent(host, args.path))
    report.info(f"'{args.path}' is no longer on {host.name} ({size}; what others use of it stays)")


def _get(host: "Host", args: argparse.Namespace, report: "Reporter") -> None:
    from biom3d.remote.data import get

    report.info(f"arrived whole: '{get(host, args.path, args.dest, report.info)}'")


def _send_image(host: "Host", args: argparse.Namespace, report: "Reporter") -> None:
    from biom3d.remote.image import reference_of, send_image

    if read_profile(args.name).runtime == VENV:
        report.info(f"jobs of '{args.name}' run in a Python environment; no image is needed there")
        return
    reference = reference_of(args.image)
    is_new = send_image(host, reference, report)
    report.info(f"'{reference}' is on {host.name}{'' if is_new else ' already'}")


SUPERVISED: "dict[str, Callable[[Host, Runtime, argparse.Namespace, Reporter], None]]" = {
    "jobs": _jobs,
    "logs": _logs,
    "cancel": _cancel,
    "gpus": _gpus,
    "clean": _clean,
}
HOSTED: "dict[str, Callable[[Host, argparse.Namespace, Reporter], None]]" = {
    "datasets": _datasets,
    "models": _models,
    "send": _send,
    "send-model": _send_model,
    "remove": _remove,
    "get": _get,
    "send-image": _send_image,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `biom3d remote`; exit code as in the step contract."""
    return run_step("remote", build_parser(), execute, argv)


if __name__ == "__main__":
    sys.exit(main())
