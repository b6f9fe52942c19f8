"""What we know of a host after the first look, and the few questions that all transfers ask."""

import gzip
import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from biom3d.errors import HostError, TransferError
from biom3d.remote import commands
from biom3d.remote.channel import Pool
from biom3d.remote.host import Entry, Finished

NEEDED = ("tar", "gzip", "find", "xargs", "awk", "flock")
KEY = re.compile(r"[0-9a-f]{64}")
HASH_LINE = re.compile(rb"\\?([0-9a-f]{64}) \*(.*)")
FULL = ("No space left", "Disk quota exceeded", "Wrote only")  # the last one is tar's
PACKED_FROM = 16_000  # bytes of a question; below, packing takes longer than what it saves
FEW = 500  # files of a store that is listed instead of asked
MAX_SHOWN = 300  # characters of a host's own words


@dataclass(frozen=True)
class Site:
    """A host that has been looked at: our folder and account there, what it can do."""

    name: str
    pool: Pool
    root: PurePosixPath
    uid: int
    gid: int
    hasher: commands.Hasher
    has_zstd: bool
    holds_many: threading.Event = field(default_factory=threading.Event)  # its store does, as far as we know

    def ask(self, line: str, stdin: bytes = b"") -> Finished:
        """Run one of our commands that may be run twice; TransferError or HostError if it fails."""
        done = self.pool.execute(line, stdin, repeat=True)
        if done.code:
            raise self.failure(done.code, done.err)
        return done

    def failure(self, code: int, err: bytes) -> HostError | TransferError:
        """Return what the words of a failed command mean."""
        text = shown(err)
        if "quota" in text.lower():
            return TransferError(
                f"{self.name}: your quota there is used up ({text}); 'biom3d remote clean' shows what could go, and"
                " whoever runs the server can raise it"
            )
        if any(words in text for words in FULL):
            return TransferError(
                f"{self.name}: the disk there is full ({self.root}); free some space ('biom3d remote clean' shows what"
                " could go) and run the same command again"
            )
        if "Permission denied" in text:
            return HostError(f"{self.name}: no permission there ({text}); check owner and rights of {self.root}")
        return HostError(f"{self.name}: a command failed there with exit code {code}: {text or 'no message'}")

    def find_missing(self, entries: Sequence[Entry], is_checked: bool = False) -> list[Entry]:
        """Return the entries whose content is not in the store; what was changed there counts as missing.

        `is_checked`: read all of it again; else size and time of change must be right.
        """
        if not entries:
            return []
        names = {store_name(entry.key): entry for entry in entries}
        there = set()
        for line in self._list_there(names):
            size, mtime, name = line.split(" ", 2)
            if name in names and int(size) == names[name].size and mtime.partition(".")[0] == str(commands.STAMP):
                there.add(name)
        if is_checked and there:
            there = self._check(sorted(there))
        return [entry for name, entry in names.items() if name not in there]

    def _list_there(self, names: Iterable[str]) -> list[str]:
        """Return size, time of change and name of those that are in the store, perhaps with others."""
        question, is_packed = packed(zero_ended(names))
        if is_packed and not self.holds_many.is_set():  # to list what a new store has is quicker than to ask for much
            lines = _lines(gzip.decompress(self.ask(commands.list_store(self.root, FEW)).out))
            if len(lines) < FEW:
                return lines
            self.holds_many.set()
        out = self.ask(commands.find_present(self.root, is_packed), question).out
        return _lines(gzip.decompress(out) if is_packed else out)

    def _check(self, names: Sequence[str]) -> set[str]:
        folder = self.root / commands.STORE
        done = self.pool.execute(commands.hash_files(folder, self.hasher), zero_ended(names), repeat=True)
        return {name for name, key in read_hashes(done.out).items() if name.endswith(key)}


def look(pool: Pool, workdir: str, name: str) -> Site:
    """Look at a host for the first time; our folders are made there."""
    done = pool.execute(commands.probe(workdir), repeat=True)
    before, mark, answer = done.out.partition(f"{commands.MARK}\n".encode())
    lines = answer.decode(errors="surrogateescape").splitlines()
    if any(words in shown(done.err) for words in FULL):
        raise HostError(
            f"{name}: no space for the folder '{workdir}' there ({shown(done.err)}): its disk is full, or has no free"
            " inodes, or your quota is used up ('df -h' and 'df -i' tell which); free some space"
        )
    if done.code or not mark or len(lines) < 3:
        raise HostError(
            f"{name}: cannot make the folder '{workdir}' there ({shown(done.err) or shown(done.out) or 'no answer'});"
            " check workdir, and that the account's login shell is a usual one (sh, bash, dash, zsh, fish; not tcsh)"
            " and its ~/.bashrc starts no other"
        )
    if before:
        raise HostError(
            f"{name}: the account's login scripts print {shown(before)!r} also for commands, which would end up in"
            " files; let them print only for terminals: put [ -t 1 ] before it in ~/.bashrc there"
        )
    tools = set(lines[3:])
    lacking = [tool for tool in NEEDED if tool not in tools]
    if lacking or not tools & {"openssl", "sha256sum"}:
        raise HostError(
            f"{name}: the commands {', '.join(lacking) or 'openssl or sha256sum'} are missing; install them there"
        )
    hasher: commands.Hasher = "openssl" if "openssl" in tools else "sha256sum"
    return Site(name, pool, PurePosixPath(lines[0]), int(lines[1]), int(lines[2]), hasher, "zstd" in tools)


def store_name(key: str) -> str:
    """Return where the store keeps a content."""
    if not KEY.fullmatch(key):
        raise HostError(f"'{key}' is no SHA-256; identify the inputs with the host that they go to")
    return f"{key[:2]}/{key}"


def read_hashes(out: bytes) -> dict[str, str]:
    """Read what `hash_files` prints: name -> SHA-256."""
    found = (HASH_LINE.fullmatch(line) for line in out.split(b"\n"))
    return {line[2].decode("utf-8", "surrogateescape"): line[1].decode() for line in found if line}


def zero_ended(names: Iterable[str]) -> bytes:
    """Return names as the bytes they have on the host, each ended by a zero byte."""
    return b"".join(name.encode("utf-8", "surrogateescape") + b"\0" for name in names)


def packed(names: bytes) -> tuple[bytes, bool]:
    """Return a list of names, packed by gzip if it is long, and whether it is."""
    return (gzip.compress(names, 1), True) if len(names) > PACKED_FROM else (names, False)


def _lines(out: bytes) -> list[str]:
    return out.decode(errors="replace").splitlines()


def shown(text: bytes) -> str:
    """Return a host's words fit for a message."""
    return " ".join(text.decode(errors="replace").split())[:MAX_SHOWN]
