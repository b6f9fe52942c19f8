"""Volume I/O: path -> array (c, z, y, x) + spacing (µm, zyx) + axes, and back, per format.

Seam 2 of the design: nothing else in the package knows a file format.
"""

from biom3d.io.formats import (
    SUFFIXES,
    list_volumes,
    open_volume,
    read_header,
    read_labels,
    read_volume,
    require_one_channel,
    volume_name,
    write_labels,
    write_volume,
)
from biom3d.io.volume import Header, LazyVolume, Spacing, Volume

__all__ = [
    "SUFFIXES",
    "Header",
    "LazyVolume",
    "Spacing",
    "Volume",
    "list_volumes",
    "open_volume",
    "read_header",
    "read_labels",
    "read_volume",
    "require_one_channel",
    "volume_name",
    "write_labels",
    "write_volume",
]
