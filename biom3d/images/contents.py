"""What files an image holds: path -> SHA-256, read through the engine's export."""

import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, cast

from biom3d.engine import HERE, translated

if TYPE_CHECKING:
    import docker

# The engine makes these for the container that is exported; they are not the image's.
OF_THE_ENGINE = (".dockerenv", "dev", "proc", "sys", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf")


class Pieces(io.RawIOBase):
    """A stream of byte strings as a file that can be read once."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def readable(self) -> bool:
        """It can be read."""
        return True

    def readinto(self, buffer: object) -> int:
        """Fill `buffer` with what comes next; 0 at the end."""
        view = memoryview(cast(bytearray, buffer))
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = piece
        size = min(len(view), len(self._rest))
        view[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def read_contents(client: "docker.DockerClient", reference: str) -> dict[str, str]:
    """Return path -> SHA-256 of every file of an image; a link's value is `-> target`, a folder's `folder`."""
    return {name: value for name, value, _ in _entries(client, reference)}


def read_ages(client: "docker.DockerClient", reference: str) -> Mapping[str, float]:
    """Return path -> time of last change in seconds since 1970."""
    return {name: age for name, _, age in _entries(client, reference)}


def _entries(client: "docker.DockerClient", reference: str) -> Iterator[tuple[str, str, float]]:
    with translated(HERE, f"listing image '{reference}'"):
        container = client.containers.create(reference, ["true"])
        try:
            stream = io.BufferedReader(Pieces(iter(container.export(chunk_size=2**20))), 2**20)
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for member in archive:
                    name = member.name.rstrip("/")
                    if name and not any(name == own or name.startswith(f"{own}/") for own in OF_THE_ENGINE):
                        yield name, _value(archive, member), member.mtime
        finally:
            container.remove(force=True)


def _value(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return f"-> {member.linkname}"
    if not member.isfile():
        return "folder"
    file = archive.extractfile(member)
    assert file is not None
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
