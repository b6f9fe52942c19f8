"""Which files and folders are DICOM, told by their first bytes; names and suffixes of DICOM files mean nothing."""

from pathlib import Path

# Kinds of objects (SOP classes) that hold a whole volume, or labels, in one file.
SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_VOLUMES = (
    *SEGMENTATIONS,
    *(f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("2.1", "2.2", "4.1", "4.3", "4.4", "128.1", "130", "3.1", "20")),
    *(f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("13.1.1", "13.1.2", "13.1.3", "77.1.5.4", "7.1", "7.2", "7.3")),
)
_DIRECTORY = "1.2.840.10008.1.3.10"  # a table of contents, DICOMDIR
_PREAMBLE = 128  # bytes before the sign
_START = 1024  # bytes in which the kind is told


def kind_of(path: Path) -> str | None:
    """Return the kind (SOP class) of a DICOM file, "" where it does not say; None for what is no DICOM image file."""
    try:
        with open(path, "rb") as file:
            start = file.read(_START)
    except OSError:
        return None
    if start[_PREAMBLE : _PREAMBLE + 4] != b"DICM":
        return None
    # (0002,0002) in explicit little endian, as all of this group: tag, "UI", length, text padded by a zero.
    place = start.find(b"\x02\x00\x02\x00UI")
    length = int.from_bytes(start[place + 6 : place + 8], "little")
    kind = start[place + 8 : place + 8 + length].rstrip(b"\0 ").decode("ascii", "replace") if place >= 0 else ""
    return None if kind == _DIRECTORY else kind


def is_volume_file(path: Path) -> bool:
    """Tell a DICOM file that is a volume by itself from one slice of a series."""
    return kind_of(path) in _VOLUMES


def files_of(folder: Path) -> list[Path]:
    """Return the DICOM files that lie in a folder, sorted."""
    return [path for path in sorted(folder.iterdir()) if _may_be(path) and kind_of(path) is not None]


def is_series(folder: Path) -> bool:
    """Tell whether a folder is one volume: DICOM files lie in it, and the first of them is a slice, or there is one."""
    try:
        candidates = [path for path in sorted(folder.iterdir()) if _may_be(path)]
    except OSError:
        return False
    found = (path for path in candidates if kind_of(path) is not None)
    first = next(found, None)
    if first is None:
        return False
    return not is_volume_file(first) or next(found, None) is None


def _may_be(path: Path) -> bool:
    return not path.name.startswith(".") and path.is_file()
