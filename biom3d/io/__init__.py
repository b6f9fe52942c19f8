"""Volume I/O: path -> array (c, z, y, x) + spacing (µm, zyx) + axes, and back, per format.

Seam 2 of the design: nothing else in the package knows a file format.
"""

from biom3d.io.choice import Role
from biom3d.io.formats import (
    SUFFIXES,
    channels_advice,
    is_dicom,
    list_volumes,
    may_hold_labels,
    open_volume,
    passed_over,
    read_header,
    read_labels,
    read_volume,
    require_one_channel,
    result_name,
    volume_file,
    volume_name,
    write_labels,
    write_volume,
)
from biom3d.io.volume import Header, LazyVolume, Remark, Spacing, Volume

__all__ = [
    "SUFFIXES",
    "Header",
    "LazyVolume",
    "Remark",
    "Role",
    "Spacing",
    "Volume",
    "channels_advice",
    "is_dicom",
    "list_volumes",
    "may_hold_labels",
    "open_volume",
    "passed_over",
    "read_header",
    "read_labels",
    "read_volume",
    "require_one_channel",
    "result_name",
    "volume_file",
    "volume_name",
    "write_labels",
    "write_volume",
]
