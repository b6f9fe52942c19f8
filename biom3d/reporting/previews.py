"""Small pictures for the page: made once, when a picture is drawn, and read from there."""

import io
from pathlib import Path

FOLDER = "previews"  # beside the pictures
LONGER_SIDE = 1000  # pixels: the text of a picture can still be read
QUALITY, EFFORT = 75, 2  # of WebP; a picture of 1600 pixels takes 0.06 s and 45 kB


def write_preview(picture: Path) -> None:
    """Write the small picture of a picture where `read_preview` looks for it."""
    from biom3d.files import atomic_path

    with atomic_path(_place(picture)) as temporary:
        temporary.write_bytes(make_preview(picture))


def read_preview(picture: Path) -> bytes:
    """Return the small picture, as WebP; made now where none was written with the picture."""
    try:
        return _place(picture).read_bytes()
    except OSError:
        return make_preview(picture)


def make_preview(picture: Path) -> bytes:
    """Return a picture of at most so many pixels, as WebP. Raises OSError where the file is no picture."""
    from PIL import Image

    with Image.open(picture) as full:
        small = full.convert("RGB")
    small.thumbnail((LONGER_SIDE, LONGER_SIDE), reducing_gap=2.0)
    out = io.BytesIO()
    small.save(out, "WEBP", quality=QUALITY, method=EFFORT)
    return out.getvalue()


def size_of(preview: bytes) -> tuple[int, int]:
    """Return width and height of a small picture in pixels."""
    from PIL import Image

    with Image.open(io.BytesIO(preview)) as image:
        return image.size


def _place(picture: Path) -> Path:
    return picture.parent / FOLDER / f"{picture.stem}.webp"
