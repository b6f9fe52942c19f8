"""What lies below a job's outputs on an SSH host: names and sizes at once, hashes when the host has read the files."""

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

from biom3d.errors import HostError, TransferError
from biom3d.remote import commands
from biom3d.remote.site import KEY, Site, read_hashes, zero_ended

LISTED = 200  # outputs per question: their names fit one command line
CHUNK = 2**18


@dataclass(frozen=True)
class Found:
    """A file or folder that lies below an output, on the host. `name` is relative to the job's working folder."""

    name: str
    size: int
    is_folder: bool


def read_listing(out: bytes, outputs: Iterable[str]) -> tuple[Found, ...]:
    """Read what `list_outputs` prints; TransferError for anything that no honest job and host would have there."""
    tops = {str(PurePosixPath(name)) for name in outputs}
    found = []
    for record in filter(None, out.split(b"\0")):
        kind, size, raw = record.split(b" ", 2) if record.count(b" ") >= 2 else (b"?", b"0", record)
        name = raw.decode("utf-8", "surrogateescape").removeprefix("./")
        if not {"", ".", ".."}.isdisjoint(name.split("/")) or not _is_below(name, tops):
            raise TransferError(f"the host names a file outside of the outputs: {name!r}; refused")
        if kind not in (b"f", b"d") or not size.isdigit():
            what = "a symbolic link" if kind == b"l" else "no plain file"
            raise TransferError(f"output {name!r} is {what} on the host; a step must write plain files")
        found.append(Found(name, int(size) if kind == b"f" else 0, kind == b"d"))
    return tuple(sorted(found, key=lambda item: item.name))


def _is_below(name: str, tops: set[str]) -> bool:
    while name and name not in tops:
        name = name.rpartition("/")[0]
    return bool(name)


class Listing:
    """The answer to one question; it begins to be asked when this is made."""

    def __init__(self, site: Site, work: PurePosixPath, names: Sequence[str]) -> None:
        self._site = site
        self._work = work
        self._names = [str(PurePosixPath(name)) for name in names]
        self._records: Future[bytes] = Future()
        self._hashes: Future[dict[str, str]] = Future()
        threading.Thread(target=self._ask, name=f"list {site.name}", daemon=True).start()

    def find(self) -> tuple[Found, ...]:
        """Return what is there, sorted by name.

        Raises:
            TransferError: something that no honest job and host would have there.
        """
        return read_listing(self._records.result(), self._names)

    def read_keys(self, found: Sequence[Found]) -> dict[str, str]:
        """Return name -> SHA-256 of the files; HostError for one that cannot be read."""
        keys = {name.removeprefix("./"): key for name, key in self._hashes.result().items()}
        names = [item.name for item in found if not item.is_folder]
        keys |= self._hash_odd([name for name in names if name not in keys])
        lacking = [name for name in names if name not in keys]
        if lacking:
            raise HostError(f"{self._site.name}: output '{lacking[0]}' cannot be read there; see whose file it is")
        return keys

    def read_key(self, name: str) -> str:
        """Return the SHA-256 of one file."""
        return self.read_keys([Found(name, 0, is_folder=False)])[name]

    def _ask(self) -> None:
        try:
            records = b""
            hashes: dict[str, str] = {}
            for start in range(0, len(self._names), LISTED):
                more, keys = self._site.pool.again(partial(self._ask_part, start, records))
                records += more
                hashes |= keys
            self._tell(records)
            self._hashes.set_result(hashes)
        except BaseException as error:  # whoever waits is told
            for future in (self._records, self._hashes):
                if not future.done():
                    future.set_exception(error)

    def _ask_part(self, start: int, before: bytes) -> tuple[bytes, dict[str, str]]:
        """Return records and hashes of some outputs; with the last of them the records are told at once."""
        out, is_last = bytearray(), start + LISTED >= len(self._names)
        with self._site.pool.start(commands.list_outputs(self._work, self._site.hasher)) as command:
            command.feed(zero_ended(f"./{name}" for name in self._names[start : start + LISTED]))
            while data := command.read(CHUNK):
                seen = max(0, len(out) - 1)
                out += data
                if is_last and not self._records.done() and out.find(b"\0\0", seen) > 0:
                    self._tell(before + _split(out)[0])
            code, err = command.finish()
        if code:
            raise self._site.failure(code, err)
        records, hashes = _split(out)
        return records, read_hashes(hashes)

    def _tell(self, records: bytes) -> None:
        if not self._records.done():
            self._records.set_result(records)

    def _hash_odd(self, names: Sequence[str]) -> dict[str, str]:
        """Return the hashes of files with line breaks or backslashes in their names."""
        if not names:
            return {}
        line = commands.hash_odd_files(self._work, self._site.hasher)
        out = self._site.ask(line, zero_ended(f"./{name}" for name in names)).out
        lines = out.decode(errors="replace").splitlines()
        return {name: text[:64] for name, text in zip(names, lines, strict=False) if KEY.fullmatch(text[:64])}


def _split(out: bytes | bytearray) -> tuple[bytes, bytes]:
    """Return records and hashes."""
    records, _, hashes = bytes(out).partition(b"\0\0")
    return (b"", b"") if out.startswith(b"\0") else (records, hashes)
