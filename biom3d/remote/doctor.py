"""Looks at a host the way a job would use it, one check after the other, and says how to mend what is wrong."""

import os
import socket
import statistics
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar, cast

from biom3d.engine import translated
from biom3d.errors import Biom3dError, ConfigError, HostError
from biom3d.remote import questions
from biom3d.remote.auth import find_person
from biom3d.remote.engine import MB, read_facts
from biom3d.remote.gpus import find_devices
from biom3d.remote.host import Host
from biom3d.remote.hostkeys import Person, read_known
from biom3d.remote.profile import LOCAL, Settings, devices, open_host, open_runtime, ssh_class, ssh_settings
from biom3d.remote.progress import rate_text, size_text
from biom3d.remote.runtime import VENV
from biom3d.remote.site import NEEDED, shown
from biom3d.remote.ssh import SSHHost
from biom3d.remote.ssh_config import SSHSettings, Station, plan_route
from biom3d.remote.ssh_errors import explain
from biom3d.remote.venv import Venv, describe_mismatch

OK, WARN, FAIL = "ok", "warn", "FAIL"
CHECK_S = 3.0  # a check that takes longer has failed
ALL_S = 9.0  # all of them, without the time that somebody takes to answer a question
GB = 2**30
LEAST_S = 0.3  # with less time left a check is not begun
LITTLE_GB, TOO_LITTLE_GB = 20, 1
LITTLE_FILES, TOO_FEW_FILES = 100_000, 1_000
SKEW_S = 5.0  # what make-like tools begin to stumble over
PINGS = 5
TOOLS = ("bash", "setsid", "nohup", "timeout", "truncate", "nproc", "stat")  # for jobs without containers
FIRST_BYTES, MORE_BYTES = 2**16, 2**23  # sent to measure the rate; the second only where the first is fast
FAST_S = 0.15

T = TypeVar("T")


@dataclass(frozen=True)
class Finding:
    """What a check found: `state` is OK, WARN or FAIL."""

    state: str
    what: str
    text: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.state:<4} {self.what}: {self.text}" + (f"; fix: {self.fix}" if self.fix else "")


def examine(settings: Settings, folder: Path, person: Person | None = None) -> Iterator[Finding]:
    """Yield what each check finds, as it is found; takes less than 10 s unless somebody is asked for a password."""
    end = time.monotonic() + ALL_S
    if settings.address == LOCAL:
        yield from _examine_inside(open_host(settings, folder), settings, end)
        return
    try:
        ssh = replace(ssh_settings(settings), connect_timeout_s=CHECK_S, reconnect_s=0.0)
        route = plan_route(ssh)
    except ConfigError as error:
        yield failure("settings", error)
        return
    for check in (_check_name, _check_port):
        finding = check(route[0], ssh)
        yield finding
        if finding.state == FAIL:
            return
    host = ssh_class(settings)(ssh, person)
    try:
        person = person or find_person()
        found = _log_in(host, route, person)
        yield from found
        if found[-1].state != FAIL:
            yield from _examine_inside(host, settings, time.monotonic() + ALL_S / 2 if person else end)
    finally:
        with suppress(HostError):  # an engine that does not answer holds the host's lock
            within(LEAST_S, host.close)


def failure(what: str, error: Exception, state: str = FAIL) -> Finding:
    """Return an error of ours as a finding: what stands after its `;` is how to mend it."""
    text, _, fix = str(error).partition("; ")
    return Finding(state, what, text, fix)


def within(seconds: float, work: Callable[[], T]) -> T:
    """Return what `work` returns, or raise what it raises; HostError if that takes too long."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)  # what hangs dies with the program
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise HostError(f"no answer within {seconds:g} s; try again, and ask the administrator if it stays so")
    return results[0]


def _check_name(first: Station, ssh: SSHSettings) -> Finding:
    if first.proxy_command:
        return Finding(OK, "name", f"left to ProxyCommand '{first.proxy_command}'")
    try:
        found = within(CHECK_S, lambda: socket.getaddrinfo(first.host, first.port, type=socket.SOCK_STREAM))
    except OSError as error:
        return failure("name", explain(first, error))
    except HostError as error:
        return failure("name", error)
    return Finding(OK, "name", f"{first.host} is {found[0][4][0]}")


def _check_port(first: Station, ssh: SSHSettings) -> Finding:
    if first.proxy_command:
        return Finding(OK, "port", "left to ProxyCommand")

    def greet() -> bytes:
        with socket.create_connection((first.host, first.port), timeout=CHECK_S) as sock:
            return sock.recv(200)

    where = f"{first.host}:{first.port}"
    try:
        banner = within(CHECK_S, greet)
    except (OSError, HostError) as error:
        return failure("port", explain(first, error) if isinstance(error, OSError) else error)
    if not banner.startswith(b"SSH-"):
        return Finding(
            FAIL, "port", f"what answers at {where} is no SSH server", "check the port: host-port in the profile"
        )
    return Finding(OK, "port", f"{shown(banner)} answers at {where}")


def _log_in(host: SSHHost, route: tuple[Station, ...], person: Person | None) -> list[Finding]:
    """Check host keys and log in at every station; who has to think about a password is not hurried."""
    known = [station.name for station in route if read_known(station.known_hosts, station.key_name)]
    start = time.monotonic()
    try:
        done = host.run(questions.say_mark()) if person else within(2 * CHECK_S, lambda: host.run(questions.say_mark()))
    except Biom3dError as error:
        # Errors about host keys come before those of logging in, and say so in our own words.
        return [failure("host key" if "host key" in str(error) else "login", error)]
    took = time.monotonic() - start
    way = " through " + ", ".join(station.name for station in route[:-1]) if len(route) > 1 else ""
    return [
        Finding(OK, "host key", "as in known_hosts" if len(known) == len(route) else "accepted now"),
        Finding(OK, "login", f"as '{route[-1].user}'{way} in {took:.1f} s"),
        judge_shell(done.out, done.err),
    ]


NO_ANSWER_FIX = "the account's login shell is no usual one, or a script that it reads (~/.bashrc) starts another"


def judge_shell(out: bytes, err: bytes = b"") -> Finding:
    """Return what it means that a command that prints one word printed `out`, and `err` beside it."""
    if out == f"{questions.MARK}\n".encode():
        return Finding(OK, "commands", "run, and nothing else is printed")
    if not out:
        told = f"; it says: {shown(err)}" if err.strip() else ""
        fix = "the administrator has to mend the gate" if b"biom3d-gate" in err else NO_ANSWER_FIX
        return Finding(FAIL, "commands", f"a command prints nothing{told}", fix)
    return Finding(
        FAIL,
        "commands",
        f"the login shell prints {shown(out)!r} where only '{questions.MARK}' was asked for",
        "let login scripts print only for terminals: put [ -t 1 ] before it in ~/.bashrc there",
    )


def _examine_inside(host: Host, settings: Settings, end: float) -> Iterator[Finding]:
    """Yield what is found once commands run there."""
    is_local = settings.address == LOCAL
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("tools", lambda: _check_tools(host, settings.runtime == VENV)),
        ("workdir", lambda: _check_workdir(host)),
        ("disk", lambda: _check_disk(host)),
        ("inodes", lambda: _check_inodes(host)),
        *([] if is_local else [("clock", lambda: _check_clock(host))]),
        *(_environment_checks if settings.runtime == VENV else _container_checks)(host, settings),
        ("gpus", lambda: _check_gpus(host, settings)),
        *([] if is_local else [("line", lambda: _check_line(host))]),
    ]
    failed: set[str] = set()
    for what, check in checks:
        needs = sorted(NEEDS.get(what, set()) & failed)
        left = end - time.monotonic()
        if needs or left < LEAST_S:
            yield Finding(WARN, what, f"not looked at, because of: {', '.join(needs) or 'too little time'}")
            continue
        try:
            finding = within(min(CHECK_S, left), check)
        except Biom3dError as error:
            finding = failure(what, error, WARN if what == "line" else FAIL)
        failed |= {what} if finding.state == FAIL else set()
        yield finding


def _container_checks(host: Host, settings: Settings) -> list[tuple[str, Callable[[], Finding]]]:
    return [("engine", lambda: _check_engine(host)), ("images", lambda: _check_images(host, settings))]


def _environment_checks(host: Host, settings: Settings) -> list[tuple[str, Callable[[], Finding]]]:
    return [
        ("environment", lambda: _check_environment(host, settings)),
        ("logout", lambda: judge_logout(host.run(questions.kills_at_logout()).out)),
    ]


NEEDS = {
    "environment": {"tools", "workdir"},
    "workdir": {"tools"},
    "disk": {"tools", "workdir"},
    "inodes": {"tools", "workdir"},
    "engine": {"tools", "workdir"},
    "images": {"tools", "workdir", "engine"},
}


def _check_tools(host: Host, is_without_containers: bool) -> Finding:
    wanted = (*NEEDED, *(TOOLS if is_without_containers else ()))
    there = set(host.run(questions.list_tools((*wanted, "openssl", "sha256sum", "zstd"))).out.decode().split())
    lacking = [tool for tool in wanted if tool not in there]
    lacking += [] if there & {"openssl", "sha256sum"} else ["openssl"]
    if lacking:
        return Finding(FAIL, "tools", f"missing: {', '.join(lacking)}", f"sudo apt-get install {' '.join(lacking)}")
    if "zstd" not in there:
        return Finding(WARN, "tools", "no zstd, so nothing is compressed on the way", "sudo apt-get install zstd")
    return Finding(OK, "tools", f"{', '.join(sorted(there))}")


def _check_workdir(host: Host) -> Finding:
    path = host.root / "jobs" / f".doctor-{uuid.uuid4().hex[:12]}"
    host.write(path, b"x")
    try:
        is_read = host.read(path) == b"x"
    finally:
        host.remove(path)
    if not is_read:
        raise HostError(f"what was written to '{path.parent}' cannot be read there; look at its disk")
    return Finding(OK, "workdir", f"'{host.root}' can be written")


def _check_disk(host: Host) -> Finding:
    free = host.free_bytes()
    state = FAIL if free < TOO_LITTLE_GB * GB else WARN if free < LITTLE_GB * GB else OK
    fix = "" if state == OK else "free some space ('biom3d remote clean' shows what could go), or another --workdir"
    return Finding(state, "disk", f"{size_text(free)} free in '{host.root}'", fix)


def _check_inodes(host: Host) -> Finding:
    _, _, free, total = map(int, _ask(host, questions.disk(host.root)).split())
    if not total:
        return Finding(OK, "inodes", "as many files as fit")
    state = FAIL if free < TOO_FEW_FILES else WARN if free < LITTLE_FILES else OK
    fix = "" if state == OK else "remove folders of many small files there, or take another --workdir"
    return Finding(state, "inodes", f"room for {free:,} more files", fix)


def _check_clock(host: Host) -> Finding:
    start = time.time()
    there = float(_ask(host, questions.clock()))
    return judge_clock(there - (start + time.time()) / 2)


def judge_clock(skew: float) -> Finding:
    """Return what it means that the host's clock is `skew` seconds ahead of ours."""
    if abs(skew) <= SKEW_S:
        return Finding(OK, "clock", f"differs by {abs(skew):.1f} s")
    direction = "ahead" if skew > 0 else "behind"
    return Finding(
        WARN,
        "clock",
        f"{abs(skew):.0f} s {direction} of this one; jobs do not mind, times in their logs do",
        "sudo timedatectl set-ntp true, there and here",
    )


def _check_engine(host: Host) -> Finding:
    client = host.engine()
    facts = read_facts(client, host.name)
    with translated(host.name, "for its version"):
        version = client.version().get("Version", "of unknown version")
    name = "Podman" if facts.is_podman else "Docker"
    how = ", rootless" if facts.is_rootless else ""
    text = f"{name} {version}{how}; {facts.cores} cores, {size_text(facts.memory_mb * MB)} of memory"
    if not (facts.can_limit_memory and facts.can_limit_cores):
        fix = "let it manage cgroups (for a rootless engine: delegate cpu and memory to the user)"
        return Finding(WARN, "engine", f"{text}; it cannot limit what a job takes", fix)
    return Finding(OK, "engine", text)


def _check_environment(host: Host, settings: Settings) -> Finding:
    """Look at the environment that stands in for images; its Python must run, and our package be the same as here."""
    runtime = cast(Venv, open_runtime(settings, host))
    environment, capacity = runtime.environment(), runtime.capacity()
    problem, _, fix = describe_mismatch(environment).partition("; ")
    if problem:
        return Finding(FAIL, "environment", problem, fix)
    text = f"{environment.software.text}; {capacity.cores} cores, {size_text(capacity.memory_mb * MB)} of memory"
    if not environment.torch:
        fix = f"there: {environment.path}/bin/pip install 'biom3d-workflow[engine]'"
        return Finding(WARN, "environment", f"{text}; no torch, so nothing can be trained or predicted", fix)
    return Finding(OK, "environment", text)


def judge_logout(out: bytes) -> Finding:
    """Return what it means that the host's login manager says this about killing processes when a connection ends."""
    if out.split() != [b"b", b"true"]:
        return Finding(OK, "logout", "jobs go on when the connection ends")
    fix = "the administrator sets KillUserProcesses=no in /etc/systemd/logind.conf, or KillExcludeUsers=YOUR_ACCOUNT"
    return Finding(FAIL, "logout", "the host kills all that runs when a connection ends", fix)


def _check_images(host: Host, settings: Settings) -> Finding:
    """Look for the images of this checkout, and the profile's own; one is enough to run something."""
    wanted = _images_of_checkout() | ({settings.image: settings.image} if settings.image else {})
    if not wanted:
        return Finding(OK, "images", "not looked for: this is no checkout, so nobody says which")
    return judge_images(wanted, [name for name, reference in wanted.items() if _has_image(host, reference)])


def judge_images(wanted: Iterable[str], there: Sequence[str]) -> Finding:
    """Return what it means that of the images `wanted` these are there."""
    lacking = [name for name in wanted if name not in there]
    if there:
        return Finding(OK, "images", ", ".join(there) + (f" (not there: {', '.join(lacking)})" if lacking else ""))
    return Finding(
        FAIL,
        "images",
        f"none of {', '.join(lacking)} as this checkout makes them",
        f"biom3d images build {lacking[0]}, then biom3d remote send-image PROFILE {lacking[0]}",
    )


def _images_of_checkout() -> dict[str, str]:
    """Return variant -> reference of the images that this checkout builds; none where there is no checkout."""
    from biom3d.images.keys import image_of
    from biom3d.images.table import load_table

    wanted = {}
    try:
        table = load_table()
    except ConfigError:
        return {}
    for name, row in table.images.items():
        if not row.reference:
            try:
                wanted[name] = image_of(table, name).reference
            except ConfigError:  # its wheels were never resolved: nobody can have it
                continue
    return wanted


def _has_image(host: Host, reference: str) -> bool:
    import docker.errors

    with translated(host.name, f"to show image '{reference}'"):
        try:
            host.engine().images.get(reference)
        except docker.errors.ImageNotFound:
            return False
    return True


def _check_gpus(host: Host, settings: Settings) -> Finding:
    there, wanted = find_devices(host), devices(settings)
    if not there:
        state = FAIL if wanted else WARN
        return Finding(state, "gpus", "no NVIDIA GPU, or no driver", "gpu: 0 in config.yaml, to compute on the CPU")
    unknown = [device for device in wanted or () if device not in there]
    if unknown:
        fix = "set host-gpus in the profile to some of those, or leave it out for all"
        return Finding(FAIL, "gpus", f"no GPU {', '.join(unknown)} there, only {', '.join(there)}", fix)
    rows = [[part.strip() for part in line.split(",")] for line in _ask(host, questions.show_gpus()).splitlines()]
    return judge_gpus([row for row in rows if len(row) == 4], _drivers_wanted())


def judge_gpus(rows: Sequence[Sequence[str]], wanted: Mapping[str, str]) -> Finding:
    """Return what it means that there are these GPUs (number, name, MB, driver); `wanted`: image -> oldest driver."""
    text = "; ".join(f"{number}: {name}, {memory} MB" for number, name, memory, _ in rows)
    driver = rows[0][3] if rows else ""
    major = driver.partition(".")[0]
    too_new = [name for name, least in wanted.items() if major.isdigit() and int(least) > int(major)]
    if too_new:
        fix = "update the NVIDIA driver there, or take another image: in config.yaml"
        return Finding(WARN, "gpus", f"{text}; driver {driver} is too old for image {', '.join(too_new)}", fix)
    return Finding(OK, "gpus", f"{text}; driver {driver}" if driver else "there")


def _drivers_wanted() -> dict[str, str]:
    from biom3d.images.table import load_table

    try:
        return {name: row.driver for name, row in load_table().images.items() if row.driver.isdigit()}
    except ConfigError:
        return {}


def _check_line(host: Host) -> Finding:
    """Measure the time of a command and the rates; the program stays within CHECK_S also on a slow line."""
    pings = [_timed(lambda: host.run(questions.nothing())) for _ in range(PINGS)]
    round_trip = statistics.median(pings)
    up = _rate(lambda size: host.run(questions.swallow(), stdin=os.urandom(size)), round_trip)
    down = _rate(lambda size: host.run(questions.pour(size)), round_trip)
    text = f"a command takes {round_trip * 1000:.0f} ms; {up} there, {down} back"
    return Finding(OK, "line", text)


def _rate(move: Callable[[int], object], round_trip: float) -> str:
    """Return how fast bytes move, as text."""
    for size in (FIRST_BYTES, MORE_BYTES):
        took = _timed(lambda size=size: move(size))  # type: ignore[misc]
        if took > FAST_S + round_trip:
            break
    return rate_text(size, max(took - round_trip, 1e-3))


def _timed(work: Callable[[], object]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


def _ask(host: Host, line: str) -> str:
    done = host.run(line)
    if done.code:
        raise HostError(f"a command failed there with exit code {done.code}: {shown(done.err)}; ask its administrator")
    return done.out.decode(errors="replace")
