"""JPEG of all kinds in DICOM files, decoded by imagecodecs, which is here for TIFF anyway."""

import functools
from typing import Any

import numpy as np


def is_available(uid: str) -> bool:
    """Tell pydicom that this decoder can be used."""
    return uid in _codecs()


@functools.cache
def _codecs() -> dict[str, Any]:
    """Return transfer syntax -> what decodes it."""
    import imagecodecs
    from pydicom import uid

    return {
        uid.JPEGBaseline8Bit: imagecodecs.jpeg8_decode,
        uid.JPEGExtended12Bit: imagecodecs.jpeg8_decode,
        uid.JPEGLossless: imagecodecs.ljpeg_decode,
        uid.JPEGLosslessSV1: imagecodecs.ljpeg_decode,
        uid.JPEGLSLossless: imagecodecs.jpegls_decode,
        uid.JPEGLSNearLossless: imagecodecs.jpegls_decode,
        uid.JPEG2000Lossless: imagecodecs.jpeg2k_decode,
        uid.JPEG2000: imagecodecs.jpeg2k_decode,
    }


@functools.cache
def add_decoders() -> None:
    """Make pydicom use this module where its other plugins cannot."""
    from pydicom.pixels import get_decoder

    for uid in _codecs():
        get_decoder(uid).add_plugin("biom3d", (__name__, "decode_frame"))


def decode_frame(source: bytes, runner: Any) -> bytes:
    """Return the pixels of one frame, as pydicom wants them of a plugin."""
    pixels = np.asarray(_codecs()[runner.transfer_syntax](source))
    bits = 8 * pixels.dtype.itemsize
    unused = bits - runner.bits_stored
    if runner.pixel_representation and pixels.dtype.kind == "u":  # JPEG knows no sign
        signed = pixels.view(f"i{pixels.dtype.itemsize}")
        pixels = signed << unused >> unused if unused > 0 else signed
    runner.set_option("bits_allocated", bits)
    return pixels.tobytes()
