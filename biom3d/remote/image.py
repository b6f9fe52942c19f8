"""An image of this machine's engine, brought to a host's: packed on the way, without the layers that the host has."""

import zlib
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from biom3d import engine
from biom3d.engine import translated
from biom3d.images.archive import layers_of, stream_image

if TYPE_CHECKING:
    import docker

    from biom3d.events import Reporter
    from biom3d.remote.host import Host


def reference_of(name: str) -> str:
    """Return the image that is meant: a row of this checkout's table (`cpu`), or a reference as it is."""
    from biom3d.images.keys import image_of
    from biom3d.images.table import load_table

    if ":" in name or "/" in name:
        return name
    return image_of(load_table(), name).reference


def send_image(host: "Host", reference: str, report: "Reporter") -> bool:
    """Bring an image to the host's engine; return whether it was not there yet.

    It arrives whole or not at all; cut short, the same command begins anew.

    Raises:
        ContainerError: it is not here, or an engine refuses.
        HostError, LostConnection: the host cannot be reached, or the line broke.
    """
    here, there = engine.connect(), host.engine()
    wanted = engine.need_image(here, reference, "build it first: biom3d images build")
    known = engine.find_image(there, reference, host.name)
    if known is not None and known.id == wanted.id:
        return False
    layers = layers_of(here, reference)
    have = _shared(layers, there, host.name)
    report.info(f"sending '{reference}' to {host.name}: {len(layers) - len(have)} of its {len(layers)} layers")
    total = None if have else wanted.attrs["Size"] // 2**20
    pieces = report.track(stream_image(here, reference, have), f"sending {reference}", total, "MB")
    with translated(host.name, f"loading '{reference}'"):
        there.images.load(_packed(pieces))
    engine.need_image(there, reference, "it was sent, and the engine there has no such name; try again", host.name)
    return True


def _shared(layers: Sequence[str], client: "docker.DockerClient", name: str) -> Sequence[str]:
    """Return the lowest layers that some image there has, too: an engine knows a layer only with all those below it."""
    with translated(name, "listing images"):
        others = [image.attrs["RootFS"].get("Layers") or [] for image in client.images.list()]
    return max((_common_start(layers, other) for other in others), key=len, default=())


def _common_start(one: Sequence[str], other: Sequence[str]) -> Sequence[str]:
    same = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return tuple(layer for layer, _ in same)


def _packed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the archive compressed by gzip, which every engine reads (Docker 20.10 does not read zstd here: tried)."""
    compressor = zlib.compressobj(level=1, wbits=zlib.MAX_WBITS | 16)  # with gzip's header
    for piece in pieces:
        if packed := compressor.compress(piece):
            yield packed
    yield compressor.flush()
