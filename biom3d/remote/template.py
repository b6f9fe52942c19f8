"""A remote command as data: a constant script of POSIX sh, and the kinds of its arguments, which come as $1, $2, ...

No text of a user ever becomes part of a script, so a server can compare scripts with a table and check arguments by
their kind: `biom3d-gate` does (server/gate.py, where each kind and each way of standard input is explained).
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import PurePosixPath

from biom3d.errors import HostError

# Arguments of our own making; the others are paths and names, see gate.py.
WORDS = {
    "number": re.compile("[0-9]{1,15}"),
    "key": re.compile("[0-9a-f]{64}"),
    # Streams of files and big files never share a folder: a link in a stream must not catch the other's writing.
    "small": re.compile("up-[0-9a-f]{12}"),
    "big": re.compile("big-[0-9a-f]{64}-[0-9a-f]{12}"),
    "temporary": re.compile("tmp-[0-9a-f]{12}"),
    "hasher": re.compile("openssl dgst -sha256 -r|sha256sum -b"),
    "device": re.compile("[0-9]{1,3}"),
    "job-id": re.compile("[0-9a-f]{1,24}"),
    "client": re.compile("[0-9a-f]{16}"),
    "tool": re.compile("[a-z0-9]{1,20}"),
    "mark": re.compile(r"biom3d\.job=\{[ -~]*\}"),
    "variable": re.compile("[A-Z][A-Z0-9_]*=[ -~]*"),
    "attempt": re.compile("[!-~ ]{0,200}"),
    "packing": re.compile("plain|gzip|zstd"),
    "then": re.compile("stay|go"),
    "kind": re.compile(r"images|masks|\."),
}
# Messages in English, so that we can read them; folders that not every sshd has in its PATH.
START = "LC_ALL=C PATH=$PATH:/usr/local/bin:/usr/bin:/bin; export LC_ALL PATH; umask 022; "
PATHS = frozenset(
    {"workdir", "whole", "root", "job", "work", "injob", "data", "tree", "name", "socket", "leases", "environment"}
)
STDIN = frozenset({"", "ignored", "bytes", "names", "keys", "links", "names+links", "links+bytes"})


@dataclass(frozen=True)
class Template:
    """A command; the last of `kinds` may end in `*`: any number of them. `stdin` says what it reads there."""

    name: str
    script: str
    kinds: tuple[str, ...] = ()
    stdin: str = ""

    def __post_init__(self) -> None:
        assert all(kind.rstrip("*") in (WORDS.keys() | PATHS) for kind in self.kinds), self
        assert self.stdin in STDIN, self

    def line(self, *arguments: str | int | PurePosixPath) -> str:
        """Return the line that runs it with these arguments, each one word whatever is in it."""
        words = [str(int(word)) if isinstance(word, bool) else str(word) for word in arguments]
        for kind, word in zip(self._kinds_of(len(words)), words, strict=True):
            if "\0" in word:
                raise HostError(f"a name with a zero byte cannot be used: {word!r}")
            assert kind not in WORDS or WORDS[kind].fullmatch(word), (self.name, kind, word)
        return shlex.join(["sh", "-c", self.script, self.name, *words])

    def _kinds_of(self, count: int) -> list[str]:
        fixed = [kind for kind in self.kinds if not kind.endswith("*")]
        more = [kind.rstrip("*") for kind in self.kinds if kind.endswith("*")]
        return fixed + more * (count - len(fixed))


def made(name: str, script: str, *kinds: str, stdin: str = "") -> Template:
    """Return a template whose script begins as all do."""
    return Template(name, START + script.strip(), kinds, stdin)
