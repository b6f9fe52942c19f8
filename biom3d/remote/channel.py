"""Commands on a host over as few SSH connections as will do: opened when needed, made again when lost."""

import errno
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

from biom3d.errors import HostError, LostConnection
from biom3d.remote.auth import Wallet
from biom3d.remote.host import Finished
from biom3d.remote.hostkeys import Person
from biom3d.remote.link import Link, connect
from biom3d.remote.ssh_config import SSHSettings, plan_route
from biom3d.remote.ssh_errors import CUT_IN_LOGIN

if TYPE_CHECKING:
    import paramiko

PACKET = 32_704  # bytes of one SSH message: OpenSSH takes 32,768, and paramiko keeps 64 for itself
MAX_LINKS = 8  # connections to one host, each with up to 8 commands
TRIES = 5  # of the same call, each on a new connection
PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)  # between attempts to connect again; the last one repeats
FIRST_TRIES = 3  # a server that is asked by many turns some away at first (MaxStartups)
FULL_WAIT_S = 0.02  # between looks for a free channel, when all are taken

T = TypeVar("T")


class LinkLost(LostConnection):
    """The connection was lost under a command; whether it has run is not known."""


class Pool:
    """The connections to one host; thread-safe."""

    def __init__(self, settings: SSHSettings, person: Person | None) -> None:
        self.settings = settings
        self.route = plan_route(settings)
        self._person = person
        self._wallet = Wallet(self.route, person)
        self._slots = [_Slot() for _ in range(MAX_LINKS)]
        self._asking = threading.Lock()  # one question at a time, and its answer serves all connections
        self._is_known = False  # whether keys and passwords have been right before
        self._is_closed = False
        self.when_full: Callable[[], None] = lambda: None  # gives back channels that are kept without a need

    def start(self, line: str, lane: int = 0, once: bool = False) -> "Command":
        """Start a command, on connection number `lane` if that one has room.

        `once`: it must not run twice, so the line is proved to be alive first, which takes a round trip.
        """
        self._raise_if_closed()
        return self.again(lambda: self._start(line, lane, once))

    def execute(self, line: str, stdin: bytes = b"", timeout_s: float | None = None, repeat: bool = False) -> Finished:
        """Run a command to its end; `repeat` says that it may be run again when the connection was lost."""

        def work() -> Finished:
            with self.start(line, once=not repeat) as command:
                return command.complete(stdin, timeout_s)

        return self.again(work) if repeat else work()

    def again(self, work: Callable[[], T]) -> T:
        """Do `work`, and once more after each lost connection, up to a limit."""
        for _ in range(TRIES - 1):
            with suppress(LinkLost):
                return work()
        return work()

    def open_ahead(self, count: int) -> None:
        """Begin to make the first `count` connections, for commands that are about to come; errors are theirs."""

        def work(slot: _Slot) -> None:
            with suppress(HostError):
                link = self._link(slot)
                if self._is_closed:
                    link.close()

        for slot in self._slots[:count]:
            if slot.link is None and not slot.lock.locked():
                threading.Thread(target=work, args=(slot,), name="open ahead", daemon=True).start()

    def close(self) -> None:
        """Close all connections."""
        self._is_closed = True
        for slot in self._slots:
            link = slot.link
            if link:
                link.close()

    def _start(self, line: str, lane: int, once: bool) -> "Command":
        link, channel = self._open(lane, once)
        try:
            with broken_pipes():
                request_exec(channel, line.encode("utf-8", "surrogateescape"))
        except OSError as error:
            raise lost(link) from error
        return Command(link, channel)

    def _open(self, lane: int, once: bool) -> "tuple[Link, paramiko.Channel]":
        """Return a new channel: on its own connection, else on the first with room, else on a new one."""
        import paramiko

        order = [self._slots[lane], *(slot for slot in self._slots if slot is not self._slots[lane])]
        while True:
            self._raise_if_closed()
            for slot in order:
                link = self._link(slot)
                try:
                    channel = link.open_session(is_asked=once)
                except (paramiko.SSHException, OSError, EOFError) as error:
                    link.close()
                    raise lost(link) from error
                if channel is not None:
                    return link, channel
            self.when_full()
            time.sleep(FULL_WAIT_S)  # paramiko tells nobody that a channel was closed

    def _link(self, slot: "_Slot") -> Link:
        with slot.lock:
            if slot.link is None or not slot.link.is_alive():
                slot.link = self._connect(is_again=slot.link is not None)
            return slot.link

    def _connect(self, is_again: bool) -> Link:
        """Connect; a host that was there before gets more time to come back."""
        start, attempt = time.monotonic(), 0
        while True:
            try:
                with nullcontext() if self._is_known else self._asking:
                    link = connect(self.route, self._wallet, self._person, self.settings)
                self._is_known = True
                return link
            except HostError as error:
                pause = PAUSES_S[min(attempt, len(PAUSES_S) - 1)]
                attempt += 1
                is_over = time.monotonic() - start + pause > self.settings.reconnect_s
                # Without a cause from below it is a refusal, and that does not go away.
                if error.__cause__ is None or not (is_again or _may_pass(error, attempt)):
                    raise
                if is_over:
                    raise LostConnection(str(error)) from error
                self._raise_if_closed()
                time.sleep(pause)

    def _raise_if_closed(self) -> None:
        if self._is_closed:
            raise HostError(f"{self.settings.host}: its connection was closed")


class _Slot:
    """A place for a connection."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.link: Link | None = None


class Command:
    """A command that runs on the host: bytes in, bytes out. One thread writes, one reads."""

    def __init__(self, link: Link, channel: "paramiko.Channel") -> None:
        self._link = link
        self.channel = channel
        self._err = bytearray()
        self._reader = threading.Thread(target=self._drain, daemon=True)  # or a full window of it stops all
        self._reader.start()

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError), broken_pipes():
            self.channel.close()

    def write(self, data: bytes | bytearray | memoryview) -> bool:
        """Send bytes to its standard input; False if it takes no more: it has ended, and `finish` says why."""
        view = memoryview(data)
        try:
            with broken_pipes():
                for start in range(0, len(view), PACKET):
                    self.channel.sendall(bytes(view[start : start + PACKET]))
                    self._link.heard = time.monotonic()
        except OSError as error:
            self._raise_if_lost(error)
            return False
        return True

    def end_input(self) -> None:
        """Say that nothing more comes on its standard input."""
        with suppress(OSError), broken_pipes():
            self.channel.shutdown_write()

    def feed(self, stdin: bytes) -> None:
        """Give it all its input, meanwhile its output can be read."""

        def feed() -> None:
            with suppress(HostError):  # whoever reads notices as well
                self.write(stdin)
            self.end_input()

        if len(stdin) <= PACKET:
            feed()
        else:
            threading.Thread(target=feed, daemon=True).start()

    def read(self, limit: int = 2**18) -> bytes:
        """Return the next bytes of its output, none at the end; LinkLost if the connection ended instead."""
        try:
            with broken_pipes():
                data = bytes(self.channel.recv(limit))
        except BrokenPipeError as error:
            self._link.close()
            raise lost(self._link) from error
        self._link.heard = time.monotonic()
        if not data and self.channel.recv_exit_status() < 0:
            self._raise_if_lost(None)
        return data

    def read_all(self) -> bytes:
        """Return the rest of its output."""
        parts = []
        while data := self.read():
            parts.append(data)
        return b"".join(parts)

    def finish(self) -> tuple[int, bytes]:
        """Wait for its end; return exit code and what it wrote to its standard error."""
        code = int(self.channel.recv_exit_status())
        if code < 0:
            self._raise_if_lost(None)
        self._reader.join()
        return code, bytes(self._err)

    def complete(self, stdin: bytes = b"", timeout_s: float | None = None) -> Finished:
        """Give it all its input, and return all that it says; HostError if that takes longer than allowed."""
        is_late = threading.Event()

        def give_up() -> None:
            is_late.set()
            self.channel.close()

        timer = threading.Timer(timeout_s, give_up) if timeout_s is not None else None
        try:
            if timer:
                timer.daemon = True
                timer.start()
            self.feed(stdin)
            out = self.read_all()
            code, err = self.finish()
        except (HostError, OSError):
            if not is_late.is_set():
                raise
        finally:
            if timer:
                timer.cancel()
        if is_late.is_set():
            raise HostError(f"{self._link.station.name}: a command did not end within {timeout_s:g} s and was given up")
        return Finished(code, out, err)

    def _drain(self) -> None:
        with suppress(OSError), broken_pipes():
            while data := self.channel.recv_stderr(2**16):
                self._err += data[: max(0, 2**16 - len(self._err))]

    def _raise_if_lost(self, error: BaseException | None) -> None:
        # A lost connection closes its channels a moment before it says so.
        self._link.transport.join(0.5)
        if not self._link.is_alive():
            raise lost(self._link) from error


def request_exec(channel: "paramiko.Channel", line: bytes) -> None:
    """Start a command without waiting for the server's consent: one round trip less than `exec_command`.

    A server that refuses closes the channel, which shows as an end without an exit code.
    """
    from paramiko.common import cMSG_CHANNEL_REQUEST
    from paramiko.message import Message

    message = Message()
    message.add_byte(cMSG_CHANNEL_REQUEST)
    message.add_int(channel.remote_chanid)
    message.add_string("exec")
    message.add_boolean(False)
    message.add_string(line)
    cast(Any, channel.transport)._send_user_message(message)  # the public method always waits


@contextmanager
def broken_pipes() -> Iterator[None]:
    """Turn what paramiko raises on a channel whose connection breaks into BrokenPipeError."""
    import paramiko

    try:
        yield
    except (EOFError, paramiko.SSHException) as error:
        raise BrokenPipeError(errno.EPIPE, str(error) or "the connection was lost") from error


def lost(link: Link) -> LinkLost:
    """Return the error of a connection that ended under a command."""
    return LinkLost(f"{link.station.name}: the connection was lost; the same command goes on where it stopped")


def _may_pass(error: HostError, attempt: int) -> bool:
    """Say whether a first attempt that failed is worth another one."""
    cause: Any = error.__cause__
    words = ("banner", *CUT_IN_LOGIN)
    is_cut = isinstance(cause, EOFError | ConnectionResetError) or any(word in str(cause) for word in words)
    return is_cut and attempt < FIRST_TRIES
