"""Big files to the host, in pieces over several connections; an upload that broke off goes on where it was."""

import hashlib
import threading
import uuid
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from biom3d.errors import TransferError
from biom3d.remote import commands
from biom3d.remote.channel import Command, LinkLost
from biom3d.remote.host import Entry
from biom3d.remote.lanes import Lanes
from biom3d.remote.packing import LEVEL, PAYS, changed, pays, unreadable
from biom3d.remote.progress import Part, Progress, Throttle
from biom3d.remote.site import Site

BIG = 64 * 2**20  # bytes from which on a file goes in pieces
PIECE = 4 * 2**20  # what a broken link costs, per connection
UNDER_WAY = 2  # pieces per connection that are sent and not yet confirmed: the line stays busy
TRIES = 4  # of the same piece, and of a connection without a piece confirmed


@dataclass(frozen=True)
class Piece:
    """A part of a file, read."""

    number: int
    data: bytes
    digest: str


def send_big(site: Site, entry: Entry, lanes: Lanes, throttle: Throttle, progress: Progress) -> None:
    """Send a big file into the store.

    Raises:
        TransferError: it changed meanwhile, or does not arrive.
    """
    upload = f"big-{entry.key}-{uuid.uuid4().hex[:12]}"
    with site.pool.start(commands.begin_pieces(site.root, upload, entry.key, entry.size)) as holder:
        there = _read_begun(site, holder)
        source = _Source(entry, there, progress.part())
        is_packed = site.has_zstd and pays([(entry.source, entry.size)])
        lanes.together(lambda lane, is_over: _Lane(site, upload, lane, source, throttle, is_packed).run(is_over))
        source.raise_if_changed(site, upload)
        site.ask(commands.end_pieces(site.root, upload, entry.key))


def _read_begun(site: Site, holder: Command) -> set[int]:
    """Return the pieces that an earlier upload left."""
    out = b""
    while not out.endswith(b"ready\n"):
        data = holder.read()
        if not data:
            raise site.failure(*holder.finish())
        out += data
    return {int(word) for word in out.split()[:-1]}


class _Source:
    """Reads a file once, from front to back, and gives its pieces away; thread-safe."""

    def __init__(self, entry: Entry, there: set[int], part: Part) -> None:
        self.entry = entry
        self.part = part
        self._there = there
        self._pieces = self._read()
        self._again: deque[Piece] = deque()
        self._lock = threading.Lock()
        self._digest = hashlib.sha256()

    def take(self) -> Piece | None:
        """Return a piece that the host lacks, None when there are no more."""
        with self._lock:
            return self._again.popleft() if self._again else next(self._pieces, None)

    def give_back(self, pieces: "deque[Piece]") -> None:
        """Take back pieces that did not arrive."""
        with self._lock:
            self._again.extend(pieces)
        pieces.clear()

    def raise_if_changed(self, site: Site, upload: str) -> None:
        """Compare what was read with what was announced."""
        if self._digest.hexdigest() != self.entry.key:
            site.ask(commands.drop_upload(site.root, upload))
            raise changed(self.entry)

    def _read(self) -> Iterator[Piece]:
        try:
            with open(self.entry.source, "rb") as file:
                for number in range(-(-self.entry.size // PIECE)):
                    data = file.read(min(PIECE, self.entry.size - number * PIECE))
                    self._digest.update(data)
                    if number in self._there:
                        self.part.add(len(data))
                    else:
                        yield Piece(number, data, hashlib.sha256(data).hexdigest())
        except OSError as error:
            raise unreadable(self.entry, error) from error


class _Lane:
    """One connection that carries pieces."""

    def __init__(
        self, site: Site, upload: str, lane: int, source: _Source, throttle: Throttle, is_packed: bool
    ) -> None:
        self._site = site
        self._line = commands.receive_pieces(site.root, upload, site.hasher)
        self._lane = lane
        self._source = source
        self._throttle = throttle
        self._is_packed = is_packed
        self._sent: deque[Piece] = deque()
        self._answers = b""
        self._failures = 0

    def run(self, is_over: threading.Event) -> None:
        """Send pieces until none is left; after a lost link, on a new one."""
        while True:
            try:
                return self._run(is_over)
            except LinkLost:
                self._source.give_back(self._sent)
                self._failures += 1
                if self._failures == TRIES:
                    raise

    def _run(self, is_over: threading.Event) -> None:
        self._answers = b""
        with self._site.pool.start(self._line, self._lane) as command:
            while not is_over.is_set():
                piece = self._source.take()
                if piece:
                    self._sent.append(piece)
                    self._send(command, piece)
                if len(self._sent) >= UNDER_WAY or (self._sent and not piece):
                    self._confirm(command)
                elif not piece:
                    return

    def _send(self, command: Command, piece: Piece) -> None:
        data, coding = piece.data, "-"
        if self._is_packed:
            import zstandard

            packed = zstandard.ZstdCompressor(level=LEVEL).compress(data)
            if len(data) > PAYS * len(packed):
                data, coding = packed, "z"
        first, blocks = piece.number * PIECE // commands.BLOCK, -(-len(piece.data) // commands.BLOCK)
        head = f"{piece.number} {first} {blocks} {len(data)} {coding} {piece.digest}\n"
        self._throttle.take(len(data))
        if not (command.write(head.encode()) and command.write(data)):
            raise self._site.failure(*command.finish())

    def _confirm(self, command: Command) -> None:
        """Read the answer to the oldest piece under way."""
        while b"\n" not in self._answers:
            data = command.read()
            if not data:
                raise self._site.failure(*command.finish())
            self._answers += data
        answer, _, self._answers = self._answers.partition(b"\n")
        piece = self._sent.popleft()
        if answer == f"{piece.number} ok".encode():
            self._failures = 0
            self._source.part.add(len(piece.data))
            return
        self._failures += 1
        if self._failures == TRIES:
            name = self._source.entry.source
            raise TransferError(f"{self._site.name}: '{name}' did not arrive whole; is the disk there sound?")
        self._source.give_back(deque([piece]))
