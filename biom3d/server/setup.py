"""Sets a server up, from on it or from afar: folders, environment, checks, and the card. Twice is once."""

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from biom3d.errors import HostError
from biom3d.server.card import Card, check_card
from biom3d.server.environment import FOLDER, Source, make_environment, plan_environment
from biom3d.server.judge import FAIL, Finding, judge
from biom3d.server.survey import GATE_FILE, SERVER_FILE, Ask, Facts, ask_facts

LOOPBACK = re.compile(r"localhost(\..*)?|127\..*|::1|")


@dataclass(frozen=True)
class Wish:
    """What the administrator asks for; what is None or empty comes from the server itself."""

    workdir: PurePosixPath
    name: str = ""
    address: str = ""
    port: int | None = None  # as users reach it
    inner_port: int | None = None  # where sshd listens; differs behind a router
    jump: str = ""
    has_environment: bool = False
    source: Source = field(default_factory=Source)
    build: str | None = None


@dataclass(frozen=True)
class Done:
    """An answer of a shell here."""

    code: int
    out: bytes
    err: bytes


def ask_here(line: str, stdin: bytes) -> Done:
    """Run a line of POSIX shell on this machine."""
    done = subprocess.run(["sh", "-c", line], input=stdin, capture_output=True)
    return Done(done.returncode, done.stdout, done.stderr)


def set_up(ask: Ask, wish: Wish, say: Callable[[str], None], show: Callable[[Finding], None]) -> Card:
    """Set the server up and return its card; every check is shown as it is made.

    Raises:
        HostError: something is missing without which no job can run.
        ConfigError: what was asked for does not fit the server.
    """
    facts = ask_facts(ask, wish.workdir, wish.inner_port)
    findings = judge(facts)
    for finding in findings:
        show(finding)
    failed = [finding.what for finding in findings if finding.state == FAIL]
    if failed:
        raise HostError(f"the server cannot be used yet ({', '.join(failed)}); the lines above say how to mend it")
    environment = f"{facts.workdir}/{FOLDER}" if wish.has_environment else facts.environment
    if wish.has_environment:
        say(f"{environment}: {make_environment(ask, facts, plan_environment(facts, wish.source, wish.build), say)}")
    if not environment and (not facts.engine or facts.engine_error):
        raise HostError("neither a container engine nor an environment is there, so no job can run; add --env")
    card = make_card(facts, wish, environment)
    ask_well(ask, remember(facts, bool(environment)))
    return card


def make_card(facts: Facts, wish: Wish, environment: str) -> Card:
    """Return the card of a server; ConfigError if something on it cannot be right."""
    address = wish.address or facts.hostname
    if not wish.address and LOOPBACK.fullmatch(address):
        raise HostError(f"the server's name is '{address}', by which nobody else can reach it; give --address")
    has_engine = bool(facts.engine) and not facts.engine_error
    card = Card(
        name=wish.name or re.sub(r"[^A-Za-z0-9_.-]", "-", facts.hostname.split(".")[0]),
        address=address,
        user=facts.user,
        workdir=facts.workdir,
        host_keys=facts.host_keys,
        port=wish.port or facts.port,
        jump=wish.jump,
        engine=facts.engine if has_engine else "",
        engine_socket=facts.engine_socket if has_engine and facts.engine == "podman" else "",
        images=facts.images if has_engine else (),
        environment=environment,
        gpus=facts.gpus,
    )
    return check_card(card, "card")


def remember(facts: Facts, has_environment: bool) -> str:
    """Return the line that notes in the home folder what `server authorize` needs; what is there stays as it is."""
    lines = ["umask 077", 'home=$(getent passwd "$(id -u)" 2>/dev/null | cut -d: -f6)', 'cd -- "${home:-$HOME}"']
    for name, content in (
        (SERVER_FILE, {"workdir": facts.workdir}),
        (GATE_FILE, gate_settings(facts, has_environment)),
    ):
        lines.append(f"[ -e {name} ] || printf %s {shlex.quote(json.dumps(content, indent=1))} > {name}")
    return " && ".join(f"{{ {line}; }}" for line in lines)


def gate_settings(facts: Facts, has_environment: bool) -> dict[str, object]:
    """Return what people with keys from `server authorize` may use: containers of our images, else the environment."""
    has_engine = bool(facts.engine_socket and facts.image_ids and not facts.engine_error)
    what: dict[str, object] = {"engine_socket": facts.engine_socket, "images": list(facts.image_ids)}
    return {**(what if has_engine else {"venv": has_environment}), "gpus": bool(facts.gpus)}


def ask_well(ask: Ask, line: str) -> None:
    """Run a line that has to succeed."""
    done = ask(line, b"")
    if done.code:
        raise HostError(f"a command failed on the server: {' '.join(done.err.decode(errors='replace').split())[:300]}")
