"""Images as one compressed file, for hosts without a registry; layers that the receiver has may be left out.

Docker reads a layer out of an archive only when it lacks it, so the archive needs to hold only the others
(tried with Docker 20.10).
"""

import io
import json
import tarfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from biom3d.engine import HERE, need_image, translated
from biom3d.errors import ContainerError, DataError
from biom3d.events import Reporter
from biom3d.files import atomic_path, output_error
from biom3d.images.contents import Pieces

if TYPE_CHECKING:
    import docker

CHUNK = 2**20
REMEDY = "run: biom3d images build, or load a file of it"
LEVEL = 3  # 1.4 GB -> 0.4 GB at about 300 MB/s; level 9 gains 5 % and takes five times as long


def layers_of(client: "docker.DockerClient", reference: str) -> tuple[str, ...]:
    """Return the SHA-256 of each layer of an image, lowest first."""
    return tuple(need_image(client, reference, REMEDY).attrs["RootFS"]["Layers"])


def stream_image(client: "docker.DockerClient", reference: str, have: Collection[str] = ()) -> Iterator[bytes]:
    """Yield an image as a tar archive that `docker load` takes, without the layers whose SHA-256 is in `have`."""
    image = need_image(client, reference, REMEDY)
    with translated(HERE, f"saving '{reference}'"):
        left_out = _members_of_layers(image, have) if have else frozenset()
        pieces = image.save(chunk_size=CHUNK, named=reference)
        yield from _without(pieces, left_out) if left_out else pieces


def _members_of_layers(image: "docker.models.images.Image", have: Collection[str]) -> frozenset[str]:
    """Return which members of the image's archive are layers in `have`: a first reading, since the list comes last."""
    layers: Sequence[str] = image.attrs["RootFS"]["Layers"]
    if not set(layers) & set(have):
        return frozenset()
    with _open(image.save(chunk_size=CHUNK)) as archive:
        for member in archive:
            if member.name == "manifest.json":
                file = archive.extractfile(member)
                assert file is not None
                names = json.load(file)[0]["Layers"]
                return frozenset(name for name, layer in zip(names, layers, strict=True) if layer in have)
    raise ContainerError("the engine's archive has no manifest.json; is this Docker or Podman?")


def _without(pieces: Iterator[bytes], left_out: Collection[str]) -> Iterator[bytes]:
    with _open(pieces) as archive:
        for member in archive:
            if member.name in left_out:
                continue
            yield member.tobuf(tarfile.PAX_FORMAT)
            if member.isfile():
                file = archive.extractfile(member)
                assert file is not None
                while chunk := file.read(CHUNK):
                    yield chunk
                yield b"\0" * (-member.size % tarfile.BLOCKSIZE)
    yield b"\0" * tarfile.RECORDSIZE


def _open(pieces: Iterator[bytes]) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BufferedReader(Pieces(iter(pieces)), CHUNK), mode="r|")


def save_image(
    client: "docker.DockerClient", reference: str, path: Path, have: Collection[str], report: Reporter
) -> int:
    """Write an image as a zstd-compressed archive, atomically; returns its bytes. See `stream_image` for `have`.

    Raises:
        ContainerError: the image is not there.
        OutputError: the disk is full; what was under `path` is untouched.
    """
    import zstandard

    total = need_image(client, reference, REMEDY).attrs["Size"] // CHUNK
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        compressor = zstandard.ZstdCompressor(level=LEVEL, threads=-1)
        with compressor.stream_writer(file, closefd=False) as writer:
            pieces = stream_image(client, reference, have)
            for piece in report.track(pieces, f"saving {reference}", None if have else total, "MB"):
                writer.write(piece)
    return path.stat().st_size


def load_image(client: "docker.DockerClient", path: Path, report: Reporter) -> list[str]:
    """Load an archive of `save_image` and return the names of its images.

    Raises:
        DataError: the file is no such archive, or is cut short.
        ContainerError: the engine lacks a layer that was left out, or its disk is full.
    """
    try:
        with open(path, "rb") as file:
            pieces = _decompressed(file, path)
            with translated(HERE, f"loading '{path}'"):
                track = report.track(pieces, f"loading {path.name}", unit="MB")
                images = client.images.load(track)
    except OSError as error:
        raise output_error(path, error) from error
    except ContainerError as error:
        if "layer.tar" in str(error) or "no such file" in str(error):
            raise ContainerError(
                f"'{path}' leaves out layers that this machine does not have; save it there without --have and "
                "--without, or load the image first whose layers were left out"
            ) from error
        raise
    names = [tag for image in images for tag in image.tags]
    if not names:
        raise DataError(f"'{path}' holds no image with a name; was it written by 'biom3d images save'?")
    return names


def _decompressed(file: BinaryIO, path: Path) -> Iterator[bytes]:
    import zstandard

    size = 0
    try:
        with zstandard.ZstdDecompressor().stream_reader(file) as reader:
            while chunk := reader.read(CHUNK):
                size += len(chunk)
                yield chunk
    except zstandard.ZstdError as error:
        raise DataError(f"'{path}' is no archive of 'biom3d images save', or is damaged: {error}") from error
    if not size:
        raise DataError(f"'{path}' is empty or cut short; copy it again")
