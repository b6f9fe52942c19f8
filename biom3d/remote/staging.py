"""Bringing a job's inputs to an SSH host: by content, into a store, and from there as hard links to the job."""

import gzip
import os
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from biom3d.errors import DataError, HostError, TransferError
from biom3d.remote import commands, tarstream
from biom3d.remote.channel import Command, LinkLost
from biom3d.remote.hashes import hash_file
from biom3d.remote.host import Entry, Mount, Say
from biom3d.remote.lanes import Lanes
from biom3d.remote.packing import Packer, changed, pays, unreadable
from biom3d.remote.pieces import BIG, send_big
from biom3d.remote.progress import Part, Progress, Throttle, size_text
from biom3d.remote.site import Site, store_name

BATCH_BYTES = 64 * 2**20  # of one tar stream: what is verified, and sent again, together
LEAST_BYTES = 16 * 2**20  # of a stream, if there are other connections for the rest
BATCH_FILES = 10_000
LANE_BYTES = 32 * 2**20  # less than this is not worth another connection (335 ms at 30 ms)
STREAMS = 3  # at once on one connection: while the host checks one, others are sent
STREAM_BYTES = 4 * 2**20  # of one of these, at least
HEADED = 16_384  # bytes of a file; below, tar's header of 512 is worth packing
CHUNK = 2**18
TRIES = 4  # of the same files without any progress
ABSOLUTE = "abs"  # in a job's folder: what it sees under absolute names
MOUNTED_FILES = 64  # a folder with more files than this is mounted whole
Pairs = list[tuple[bytes, bytes]]  # hard links: name, target
Links = dict[str, Pairs]  # by the content that they lead to


@dataclass(frozen=True)
class Sending:
    """What goes to the host: batches of files, each one stream, and big files, each in pieces."""

    batches: tuple[tuple[Entry, ...], ...]
    big: tuple[Entry, ...]

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(entry.size for part in (*self.batches, self.big) for entry in part)


def plan_sending(entries: Sequence[Entry], lanes: int = 1, least: int = LEAST_BYTES) -> Sending:
    """Cut what is to be sent into streams of at least `least` bytes, one for each lane if that is worth it."""
    small = sum(entry.size for entry in entries if entry.size < BIG)
    batch_bytes = min(BATCH_BYTES, max(least, -(-small // lanes)))
    rounds = -(-len(entries) // (lanes * BATCH_FILES))  # of all lanes, when it is the number of files that counts
    batch_files = -(-len(entries) // (lanes * rounds)) if rounds > 1 else BATCH_FILES
    batches: list[list[Entry]] = []
    filled = 0
    for entry in entries:
        if entry.size >= BIG:
            continue
        # Cut where it is nearest to the size wanted: a rest of a few files would take a stream of its own.
        is_full = filled + entry.size // 2 > batch_bytes or filled + entry.size > BATCH_BYTES
        if not batches or is_full or len(batches[-1]) >= batch_files:
            batches.append([])
            filled = 0
        batches[-1].append(entry)
        filled += entry.size
    big = tuple(entry for entry in entries if entry.size >= BIG)
    return Sending(tuple(tuple(batch) for batch in batches), big)


def plan_mounts(folder: PurePosixPath, entries: Sequence[Entry]) -> tuple[Mount, ...]:
    """Return read-only mounts for entries with absolute names; a folder with very many of them comes whole."""
    groups: dict[PurePosixPath, list[PurePosixPath]] = {}
    for name in sorted({PurePosixPath(entry.name) for entry in entries if entry.name.startswith("/")}):
        groups.setdefault(name.parent, []).append(name)
    mounts = []
    for parent, names in groups.items():
        for target in names if len(names) <= MOUNTED_FILES else [parent]:
            mounts.append(Mount(folder / ABSOLUTE / target.relative_to("/"), target))
    return tuple(mounts)


def place(entry: Entry) -> str:
    """Return where an entry lies in the job's folder."""
    parts = set(entry.name.split("/"))
    if ".." in parts or parts <= {"", "."}:
        raise DataError(f"input '{entry.name}' leads out of the working folder; name it by its absolute path")
    return f"{ABSOLUTE}{entry.name}" if entry.name.startswith("/") else f"work/{entry.name}"


class Stager:
    """Brings inputs to one host; thread-safe: jobs that need the same files wait for each other."""

    def __init__(self, site: Site, is_checked: bool) -> None:
        self._site = site
        self._is_checked = is_checked
        self._parallel = site.pool.settings.parallel
        limit = site.pool.settings.bandwidth_mb_s
        self._throttle = Throttle(limit * 1e6 if limit else None)
        self._sending = threading.Lock()
        self._sendings = 0  # how often something was sent

    def stage(self, folder: PurePosixPath, entries: Sequence[Entry], say: Say) -> tuple[Mount, ...]:
        """Make the entries readable by the job that works in `folder`.

        Raises:
            TransferError: they did not arrive, or change while they are sent.
        """
        links = self._plan_links(folder, entries)
        linked = self._send_missing(entries, links, say)
        try:
            self._link([pair for key, pairs in links.items() if key not in linked for pair in pairs])
        except HostError:
            # Somebody may have cleaned up the store in between; else it fails once more.
            self._send_missing(entries, {}, say)
            self._link([pair for pairs in links.values() for pair in pairs])
        return plan_mounts(folder, entries)

    def _plan_links(self, folder: PurePosixPath, entries: Sequence[Entry]) -> Links:
        """Return for each content the job's names for it, and where it is in the store; both below our folder."""
        base = str(folder.relative_to(self._site.root))
        links: Links = {}
        for entry in entries:
            target = f"{commands.STORE}/{store_name(entry.key)}".encode()
            links.setdefault(entry.key, []).append((os.fsencode(f"{base}/{place(entry)}"), target))
        return links

    def _send_missing(self, entries: Sequence[Entry], links: Links, say: Say) -> set[str]:
        """Send what the host lacks, one job at a time; what another one has sent meanwhile is not sent again.

        Return the keys of contents whose links were made on the way.
        """
        before = self._sendings
        missing = self._site.find_missing(entries, self._is_checked)
        if missing:
            with self._sending:
                if self._sendings != before:
                    missing = self._site.find_missing(entries, self._is_checked)
                if missing:
                    linked = self._send(entries, missing, links, say)
                    self._sendings += 1
                    return linked
        say(f"{_count(entries)}, all there already")
        return set()

    def _send(self, entries: Sequence[Entry], missing: Sequence[Entry], links: Links, say: Say) -> set[str]:
        lanes, plan = self._plan(missing)
        self._site.pool.open_ahead(lanes.connections)
        there = sum({entry.key: entry.size for entry in entries}.values()) - plan.size
        say(f"{_count(entries)}, {size_text(there)} already there")
        progress = Progress("sending", plan.size, say)
        linked: set[str] = set()
        for entry in plan.big:
            send_big(self._site, entry, lanes, self._throttle, progress)
        lanes.each(plan.batches, lambda batch, lane: linked.update(self._send_batch(batch, links, lane, progress)))
        progress.finish()
        return linked

    def _plan(self, missing: Sequence[Entry]) -> tuple[Lanes, Sending]:
        """Choose connections and streams: few bytes are not worth a second connection, but another channel of it."""
        size = sum(entry.size for entry in missing)
        connections = max(1, min(self._parallel, -(-size // LANE_BYTES)))
        if connections > 1:
            return Lanes(connections), plan_sending(missing, connections)
        streams = max(1, min(STREAMS, size // STREAM_BYTES))
        return Lanes(streams, connections), plan_sending(missing, streams, STREAM_BYTES)

    def _send_batch(self, batch: Sequence[Entry], links: Links, lane: int, progress: Progress) -> set[str]:
        """Send files until the host has all of them; what arrived before a link broke is not sent again.

        Return the keys whose links were made: all, if there was no trouble.
        """
        part, total = progress.part(), sum(entry.size for entry in batch)
        left, failures, error = list(batch), 0, None
        pairs = [pair for entry in batch for pair in links.get(entry.key, ())]
        while left:
            before = len(left)
            try:
                count, is_linked = self._stream(left, pairs, lane, part)
                if count == before:
                    return {entry.key for entry in batch} if is_linked else set()
            except LinkLost as lost:
                error = lost
            pairs = []
            left = self._site.find_missing(left)
            part.set(total - sum(entry.size for entry in left))
            _raise_if_changed(left)
            failures = failures + 1 if len(left) == before else 0
            if failures == TRIES:
                raise error or TransferError(
                    f"{self._site.name}: '{left[0].source}' did not arrive whole; is the disk there sound?"
                )
        return set()

    def _stream(self, batch: Sequence[Entry], pairs: Pairs, lane: int, part: Part) -> tuple[int, bool]:
        """Send files in one stream; return how many of them are whole in the store, and whether they are linked."""
        is_packed = self._site.has_zstd and (
            _has_many_headers(batch) or pays([(entry.source, entry.size) for entry in batch])
        )
        upload = f"up-{uuid.uuid4().hex[:12]}"
        links = _pack_links(pairs)
        line = commands.receive_files(
            self._site.root, upload, self._site.hasher, is_packed, files=len(batch), link_bytes=len(links)
        )
        with self._site.pool.start(line, lane) as command:
            command.write(links)
            packer = Packer(command, is_packed, self._throttle)
            for entry in batch:
                _pack(packer, entry)
                part.add(entry.size)
                if packer.is_refused:
                    break
            packer.end(tarstream.END)
            return self._read_count(command)

    def _read_count(self, command: Command) -> tuple[int, bool]:
        command.end_input()
        out = command.read_all()
        code, err = command.finish()
        if code:
            raise self._site.failure(code, err)
        count, *words = out.split()
        return int(count), words == [b"linked"]

    def _link(self, pairs: Pairs) -> None:
        """Make the job's names for what is in the store, all in one command."""
        if pairs:
            self._site.ask(commands.link_files(self._site.root), _pack_links(pairs))


def _pack_links(pairs: Pairs) -> bytes:
    return gzip.compress(tarstream.links(iter(pairs)), 1) if pairs else b""


def _has_many_headers(batch: Sequence[Entry]) -> bool:
    """Say whether tar's own headers, which pack to nothing, are a good part of the stream."""
    return sum(entry.size for entry in batch) < len(batch) * HEADED


def _pack(packer: Packer, entry: Entry) -> None:
    """Put a file into the stream, always as many bytes as announced: what is lacking shows in its hash."""
    packer.add(tarstream.file_header(store_name(entry.key).encode(), entry.size, commands.STAMP))
    left = entry.size
    try:
        file = os.open(entry.source, os.O_RDONLY)  # a third less time than `open` for thousands of small files
        try:
            while left and (data := os.read(file, min(CHUNK, left))):
                packer.add(data)
                left -= len(data)
        finally:
            os.close(file)
    except OSError as error:
        raise unreadable(entry, error) from error
    while left:
        packer.add(bytes(min(CHUNK, left)))
        left -= min(CHUNK, left)
    packer.add(tarstream.padding(entry.size))


def _raise_if_changed(entries: Sequence[Entry]) -> None:
    """Tell files that are not what they were from files that only did not arrive."""
    for entry in entries:
        if hash_file(entry.source)[1] != entry.key:
            raise changed(entry)


def _count(entries: Sequence[Entry]) -> str:
    total = sum({entry.key: entry.size for entry in entries}.values())
    return f"{len(entries)} file{'' if len(entries) == 1 else 's'}, {size_text(total)}"
