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
CHUNK = 2**18
TRIES = 4  # of the same files without any progress
ABSOLUTE = "abs"  # in a job's folder: what it sees under absolute names
MOUNTED_FILES = 64  # a folder with more files than this is mounted whole


@dataclass(frozen=True)
class Sending:
    """What goes to the host: batches of files, each one stream, and big files, each in pieces."""

    batches: tuple[tuple[Entry, ...], ...]
    big: tuple[Entry, ...]

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(entry.size for part in (*self.batches, self.big) for entry in part)


def plan_sending(entries: Sequence[Entry], lanes: int = 1) -> Sending:
    """Cut what is to be sent into streams, at least one for each connection if that is worth it."""
    small = sum(entry.size for entry in entries if entry.size < BIG)
    batch_bytes = min(BATCH_BYTES, max(LEAST_BYTES, -(-small // lanes)))
    batches: list[list[Entry]] = []
    room = 0
    for entry in entries:
        if entry.size >= BIG:
            continue
        if not batches or room < entry.size or len(batches[-1]) >= BATCH_FILES:
            batches.append([])
            room = batch_bytes
        batches[-1].append(entry)
        room -= entry.size
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
    parts = PurePosixPath(entry.name).parts
    if ".." in parts or not parts:
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
        links = [(place(entry), entry) for entry in entries]
        self._send_missing(entries, say)
        try:
            self._link(folder, links)
        except HostError:
            # Somebody may have cleaned up the store in between; else it fails once more.
            self._send_missing(entries, say)
            self._link(folder, links)
        return plan_mounts(folder, entries)

    def _send_missing(self, entries: Sequence[Entry], say: Say) -> None:
        """Send what the host lacks, one job at a time; what another one has sent meanwhile is not sent again."""
        before = self._sendings
        missing = self._site.find_missing(entries, self._is_checked)
        if missing:
            with self._sending:
                if self._sendings != before:
                    missing = self._site.find_missing(entries, self._is_checked)
                if missing:
                    self._send(entries, missing, say)
                    self._sendings += 1
                    return
        say(f"{_count(entries)}, all there already")

    def _send(self, entries: Sequence[Entry], missing: Sequence[Entry], say: Say) -> None:
        size = sum(entry.size for entry in missing)
        lanes = Lanes(max(1, min(self._parallel, -(-size // LANE_BYTES))))
        plan = plan_sending(missing, lanes.count)
        there = sum({entry.key: entry.size for entry in entries}.values()) - plan.size
        say(f"{_count(entries)}, {size_text(there)} already there")
        progress = Progress("sending", plan.size, say)
        for entry in plan.big:
            send_big(self._site, entry, lanes, self._throttle, progress)
        lanes.each(plan.batches, lambda batch, lane: self._send_batch(batch, lane, progress))
        progress.finish()

    def _send_batch(self, batch: Sequence[Entry], lane: int, progress: Progress) -> None:
        """Send files until the host has all of them; what arrived before a link broke is not sent again."""
        part, total = progress.part(), sum(entry.size for entry in batch)
        left, failures, error = list(batch), 0, None
        while left:
            before = len(left)
            try:
                if self._stream(left, lane, part) == before:
                    return
            except LinkLost as lost:
                error = lost
            left = self._site.find_missing(left)
            part.set(total - sum(entry.size for entry in left))
            _raise_if_changed(left)
            failures = failures + 1 if len(left) == before else 0
            if failures == TRIES:
                raise error or TransferError(
                    f"{self._site.name}: '{left[0].source}' did not arrive whole; is the disk there sound?"
                )

    def _stream(self, batch: Sequence[Entry], lane: int, part: Part) -> int:
        """Send files in one stream; return how many of them are whole in the store."""
        is_packed = self._site.has_zstd and pays([(entry.source, entry.size) for entry in batch])
        upload = f"up-{uuid.uuid4().hex[:12]}"
        line = commands.receive_files(self._site.root, upload, self._site.hasher, is_packed)
        with self._site.pool.start(line, lane) as command:
            packer = Packer(command, is_packed, self._throttle)
            for entry in batch:
                _pack(packer, entry)
                part.add(entry.size)
                if packer.is_refused:
                    break
            packer.end(tarstream.END)
            return self._read_count(command)

    def _read_count(self, command: Command) -> int:
        command.end_input()
        out = command.read_all()
        code, err = command.finish()
        if code:
            raise self._site.failure(code, err)
        return int(out)

    def _link(self, folder: PurePosixPath, links: Sequence[tuple[str, Entry]]) -> None:
        """Make the job's names for what is in the store, all in one command."""
        base = folder.relative_to(self._site.root)
        pairs = (
            (os.fsencode(str(base / name)), f"{commands.STORE}/{store_name(entry.key)}".encode())
            for name, entry in links
        )
        self._site.ask(commands.link_files(self._site.root), gzip.compress(tarstream.links(pairs), 1))


def _pack(packer: Packer, entry: Entry) -> None:
    """Put a file into the stream, always as many bytes as announced: what is lacking shows in its hash."""
    packer.add(tarstream.file_header(store_name(entry.key).encode(), entry.size, commands.STAMP))
    left = entry.size
    try:
        with open(entry.source, "rb") as file:
            while left and (data := file.read(min(CHUNK, left))):
                packer.add(data)
                left -= len(data)
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
