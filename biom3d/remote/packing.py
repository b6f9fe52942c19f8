"""A stream of bytes to the host: gathered, packed by zstd where that pays, within the limit of bandwidth."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, cast

from biom3d.errors import TransferError
from biom3d.remote.channel import Command
from biom3d.remote.host import Entry
from biom3d.remote.progress import Throttle

GATHERED = 2**18  # bytes before a write: small files go many at a time
SAMPLE = 2**17
SAMPLES = 4
PAYS = 1.3  # bytes before / after; below that, packing costs more than the line saves
LEVEL = 1  # 230 MB/s; level 3 packs 5 % better at 145 MB/s


class Packer:
    """Writes to a command's standard input."""

    def __init__(self, command: Command, is_packed: bool, throttle: Throttle) -> None:
        import zstandard

        self._command = command
        self._throttle = throttle
        self._gathered = bytearray()
        self._packing = zstandard.ZstdCompressor(level=LEVEL).compressobj() if is_packed else None
        self.is_refused = False  # the command takes no more, it has ended

    def add(self, data: bytes) -> None:
        """Add bytes."""
        self._gathered += data
        if len(self._gathered) >= GATHERED:
            self._write()

    def end(self, data: bytes) -> None:
        """Add the last bytes and send all that is left."""
        self._gathered += data
        self._write()
        if self._packing:
            self._send(self._packing.flush())

    def _write(self) -> None:
        data, self._gathered = self._gathered, bytearray()
        self._send(self._packing.compress(data) if self._packing else data)

    def _send(self, data: bytes | bytearray) -> None:
        if data and not self.is_refused:
            self._throttle.take(len(data))
            self.is_refused = not self._command.write(data)


class Stream:
    """Reads a command's output, unpacked if it is packed, never more than is asked for."""

    def __init__(self, command: Command, is_packed: bool, throttle: Throttle) -> None:
        import zstandard

        self._command = command
        self._throttle = throttle
        self._raw = _Raw(self._next)
        # Its reader gives as much as is asked for and no more: a few bytes can unpack to many gigabytes.
        reader = zstandard.ZstdDecompressor().stream_reader
        self._packed = reader(cast(IO[bytes], self._raw)) if is_packed else None

    def read(self, count: int) -> bytes:
        """Return `count` bytes, fewer only at the end."""
        parts = []
        while count and (data := (self._packed or self._raw).read(count)):
            parts.append(data)
            count -= len(data)
        return b"".join(parts)

    def _next(self) -> bytes:
        data = self._command.read()
        self._throttle.take(len(data))
        return data


class _Raw:
    """A file object for zstandard: its `read` may return less than asked for."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._rest = b""

    def read(self, count: int = -1) -> bytes:
        """Return the next bytes, at most `count`."""
        self._rest = self._rest or self._read()
        data, self._rest = self._rest[:count], self._rest[count:]
        return data


def pays(files: Sequence[tuple[Path, int]]) -> bool:
    """Say whether packing pays, from samples out of the middle of the largest files (path, size)."""
    import zstandard

    before = after = 0
    largest = sorted(files, key=lambda file: -file[1])[:SAMPLES]
    for path, size in largest:
        try:
            with open(path, "rb") as file:
                file.seek(max(0, size // 2 - SAMPLE // 2))
                data = file.read(SAMPLE)
        except OSError:
            continue  # whoever sends it says why
        before += len(data)
        after += len(zstandard.ZstdCompressor(level=LEVEL).compress(data))
    return before > PAYS * after > 0


def changed(entry: Entry) -> TransferError:
    """Return the error of a file that is not what it was when the job was planned."""
    return TransferError(
        f"input '{entry.source}' changed while it was sent; wait until whoever writes it has finished, then run the"
        " same command again"
    )


def unreadable(entry: Entry, error: OSError) -> TransferError:
    """Return the error of a file that cannot be read any more."""
    return TransferError(f"input '{entry.source}' cannot be sent: {error.strerror}; is it still there?")
