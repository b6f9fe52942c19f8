"""DICOM series (a folder of slices, or a file of many): slices ordered by place, values rescaled, geometry kept."""

import logging
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from biom3d.errors import ConfigError, DataError
from biom3d.io.attached import LPS, affine_from
from biom3d.io.choice import Pick
from biom3d.io.dicom_files import SEGMENTATIONS, files_of, is_volume_file, kind_of
from biom3d.io.units import spacing_in_um
from biom3d.io.volume import Header, LazyVolume, Remark, Spacing

_TAGS = [  # all that is asked of a header; the rest may be large, and names patients
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesDescription", "SeriesNumber", "Modality"),
    *("InstanceNumber", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "PixelRepresentation", "RescaleSlope", "RescaleIntercept"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "SegmentSequence", "SegmentationType"),
]
_INTEGERS = ("u1", "i1", "u2", "i2", "u4", "i4")
_SHOWN = 6  # series in a message
_SAME_PLACE = 1e-3  # of a step; slices nearer than that are at one place
_UNEVEN = 0.1  # of a step; positions are often rounded to a tenth of a millimetre
_WHOLE = 0.2  # how far a gap may be from a whole number of steps where slices are missing in it
_PARALLEL = 1e-3  # how far numbers of directions may be apart
_TILTED = 0.999  # cosine between the way through the slices and their normal: 2.5 degrees
_MOST = 1100  # as for other compressed formats
_WAY_OUT = "or export the series as NIfTI (dcm2niix)"


@dataclass(frozen=True)
class Slice:
    """One plane: a frame of a file, with its place (x, y, z) in mm where the file says it."""

    file: Path
    frame: int
    head: Any
    groups: tuple[Any, ...] = ()  # what is said of this frame, then what is said of all frames of the file

    def find(self, group: str, name: str) -> Any:
        """Return a value that the frame, its file's frames, or the file itself has; None where none has."""
        for owner in self.groups:
            inner = owner.get(group)
            if inner and inner[0].get(name) is not None:
                return inner[0].get(name)
        return self.head.get(name)

    @cached_property
    def place(self) -> np.ndarray | None:
        """Where the centre of the first pixel lies."""
        return _vector(self.find("PlanePositionSequence", "ImagePositionPatient"), 3)

    @cached_property
    def directions(self) -> np.ndarray | None:
        """Two unit vectors: along a row (x), and along a column (y)."""
        both = _vector(self.find("PlaneOrientationSequence", "ImageOrientationPatient"), 6)
        return None if both is None else both.reshape(2, 3)

    @cached_property
    def pixel_mm(self) -> np.ndarray | None:
        """The size of a pixel: y, x."""
        size = _vector(self.find("PixelMeasuresSequence", "PixelSpacing"), 2)
        return None if size is None or (size <= 0).any() else size

    @property
    def thickness_mm(self) -> float | None:
        """The distance to the next slice, as the header has it, else the thickness."""
        for name in ("SpacingBetweenSlices", "SliceThickness"):
            value = self.find("PixelMeasuresSequence", name)
            if value is not None and float(value) > 0:
                return float(value)
        return None

    @cached_property
    def scaling(self) -> tuple[float, float]:
        """Slope and intercept of the values."""
        slope = self.find("PixelValueTransformationSequence", "RescaleSlope")
        intercept = self.find("PixelValueTransformationSequence", "RescaleIntercept")
        return (1.0 if slope is None else float(slope)), (0.0 if intercept is None else float(intercept))


@dataclass(frozen=True)
class Grid:
    """Slices in order, and where they lie: columns of `directions` are x, y, z with their lengths, all in mm."""

    slices: tuple[Slice, ...]
    spacing_um: Spacing | None = None
    directions: np.ndarray | None = None
    remarks: tuple[Remark, ...] = ()

    @property
    def extra(self) -> dict[str, Any]:
        """The affine for `Header.extra`, where it is known."""
        place = self.slices[0].place
        if self.directions is None or place is None:
            return {}
        return {"affine": affine_from(self.directions, place.tolist(), LPS)}


def open_volume(path: Path, pick: Pick) -> LazyVolume:
    """Open the series in a folder, or the one that a file is a part of; DICOM-SEG too, whose labels are its segments.

    `pick.key` is the UID of a series, its description or its number.
    """
    heads = read_heads(path)
    name, members = _choose_series(path, heads, pick)
    if is_segmentation(members[0][1]):
        from biom3d.io.dicom_seg import open_segmentation

        return open_segmentation(members, pick.like)
    grid = sort_slices([one for file, head in members for one in slices_of(file, head)])
    shape, dtype = _check_alike(grid.slices), _type_of(grid.slices)
    _check_size(grid.slices)
    is_flat = len(grid.slices) == 1 and grid.slices[0].place is None
    header = Header(
        (1, len(grid.slices), *shape),
        dtype,
        "YX" if is_flat else "ZYX",
        grid.spacing_um,
        unit="mm",
        extra=grid.extra,
        array=name,
        remarks=grid.remarks,
    )

    def read(z0: int, z1: int) -> np.ndarray:
        return np.stack([_values(one, shape, dtype) for one in grid.slices[z0:z1]])[np.newaxis]

    return LazyVolume(header, read)


def series_of(path: Path, key: str | None = None) -> list[Any]:
    """Return the files of an image's series without pixels, in the order of its planes."""
    _, members = _choose_series(path, read_heads(path), Pick("image", key))
    grid = sort_slices([one for file, head in members for one in slices_of(file, head)])
    files = dict.fromkeys(one.file for one in grid.slices)
    return [pydicom().dcmread(file, stop_before_pixels=True) for file in files]


def write_volume(path: Path, array: np.ndarray, header: Header) -> None:
    """Refuse: DICOM of ours is DICOM-SEG, which needs the series of the image."""
    raise DataError(
        "DICOM is not written here; name a file that ends in .nii.gz, or write DICOM-SEG by `biom3d export labels "
        "--formats dicom-seg`"
    )


def pydicom() -> Any:
    """Return the library, with a decoder for all kinds of JPEG; DataError where it is not there."""
    try:
        import pydicom
    except ImportError as error:
        raise ConfigError("DICOM needs pydicom; install it: pip install 'biom3d-workflow[dicom]'") from error
    from biom3d.io.dicom_codecs import add_decoders

    add_decoders()
    # It warns of every odd value of every file; what matters of them is told here, in one line.
    logging.getLogger("pydicom").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pydicom")
    return pydicom


def read_heads(path: Path) -> list[tuple[Path, Any]]:
    """Return (file, header without pixels) of the images of a folder, or of all that belong to the series of a file."""
    heads = [] if path.is_dir() else [(path, _read_head(path))]
    if heads and is_volume_file(path):
        return heads
    folder = path if path.is_dir() else path.parent
    known = dict(heads)
    files = [file for file in files_of(folder) if not (heads and is_volume_file(file))]
    found = [(file, known.get(file) or _read_head(file)) for file in files]
    _check_no_slice_is_lost(folder, found)
    wanted = heads[0][1].get("SeriesInstanceUID") if heads else None
    images = [one for one in found if one[1].get("Rows") and (not heads or one[1].get("SeriesInstanceUID") == wanted)]
    if not images:
        raise DataError("holds no DICOM image")
    return images


def _check_no_slice_is_lost(folder: Path, found: list[tuple[Path, Any]]) -> None:
    """Raise a `DataError` for what was a slice before it was damaged; what never was one says what it is."""
    for file, head in found:
        if not head.get("Rows") and not _is_no_image(head.get("SOPClassUID")):
            raise DataError(f"'{file}': damaged or cut off: its header has no size; copy it again from its source")
    files = {file for file, _ in found}
    lost = [file for file in folder.glob("*.[dD][cC][mM]") if file not in files and kind_of(file) is None]
    if lost:
        raise DataError(f"'{lost[0]}': is no DICOM file, though it is named so; copy it again, or take it away")


def _is_no_image(kind: Any) -> bool:
    """Tell kinds (SOP classes) that hold no image: reports, plans, and those of makers, which the standard lacks."""
    from pydicom.uid import UID

    if not isinstance(kind, str) or not UID(kind).is_valid:
        return False
    is_of_the_standard = kind.startswith("1.2.840.10008.")
    return not is_of_the_standard or (UID(kind).type == "SOP Class" and "Image Storage" not in UID(kind).name)


def is_segmentation(head: Any) -> bool:
    """Tell DICOM-SEG."""
    return head.get("SOPClassUID") in SEGMENTATIONS


def sort_slices(slices: Sequence[Slice]) -> Grid:
    """Order slices along their normal, and say where they lie; without places by their numbers.

    Raises:
        DataError: slices of other directions, or several at one place.
    """
    first = slices[0]
    rows = np.array([one.directions for one in slices if one.directions is not None])
    if len(rows) < len(slices) or any(one.place is None for one in slices):
        return _unplaced(slices)
    if np.abs(rows - rows[0]).max() > _PARALLEL:
        raise DataError(f"its slices point different ways, such as those of a scout view; keep one stack, {_WAY_OUT}")
    normal = np.cross(*rows[0])
    ordered = sorted(slices, key=lambda one: float(one.place @ normal))
    if len(ordered) == 1:
        return _placed(ordered, normal * first.thickness_mm if first.thickness_mm else None, normal, ())
    distances = np.diff([float(one.place @ normal) for one in ordered])
    same = int((distances < max(float(np.median(distances)) * _SAME_PLACE, 1e-6)).sum())
    if same:
        raise DataError(
            f"{len(ordered)} slices, {same} of them at the place of another: several time points, echoes or copies; "
            f"keep one of each place, {_WAY_OUT}"
        )
    places = np.array([one.place for one in ordered])
    way = (places[-1] - places[0]) / (len(ordered) - 1)
    gaps = _missing(distances)
    if gaps.any():  # the mean would make all voxels too thick
        way = way / (way @ normal) * float(np.mean(distances[~gaps]))
    remarks = _gap_remarks(distances, gaps, places @ normal)
    return _placed(ordered, way, normal, remarks)


def _placed(ordered: Sequence[Slice], way: np.ndarray | None, normal: np.ndarray, remarks: tuple[Remark, ...]) -> Grid:
    size, rows = ordered[0].pixel_mm, ordered[0].directions
    if size is None or way is None or rows is None:
        text = "does not say its voxel size in all directions; give it by --spacing Z Y X in µm"
        return Grid(tuple(ordered), remarks=(*remarks, Remark("warning", text)))
    directions = np.stack([rows[0] * size[1], rows[1] * size[0], way], axis=1)
    cosine = float(way @ normal / np.linalg.norm(way))
    if cosine < _TILTED:
        angle = np.degrees(np.arccos(cosine))
        text = f"its slices are shifted sideways (tilted gantry, {angle:.3g} degrees): voxels are no boxes"
        remarks = (*remarks, Remark("warning", text))
    spacing = spacing_in_um(float(np.linalg.norm(way)), size[0], size[1], "mm")
    return Grid(tuple(ordered), spacing, directions, remarks)


def _unplaced(slices: Sequence[Slice]) -> Grid:
    ordered = sorted(slices, key=lambda one: (int(one.head.get("InstanceNumber") or 0), one.frame))
    size = slices[0].pixel_mm
    if len(slices) == 1:
        spacing = spacing_in_um(1.0, size[0], size[1], "mm") if size is not None else None
        return Grid(tuple(ordered), spacing)
    text = "does not say where its slices lie: their numbers give the order, and the voxel size is not known"
    return Grid(tuple(ordered), remarks=(Remark("warning", text),))


def _missing(distances: np.ndarray) -> np.ndarray:
    """Return which distances are gaps where slices are missing: whole multiples of the others."""
    ratios = distances / distances.min()
    is_whole = np.abs(ratios - np.round(ratios)).max() < _WHOLE
    return (ratios > 1.5) & is_whole


def _gap_remarks(distances: np.ndarray, gaps: np.ndarray, along: np.ndarray) -> tuple[Remark, ...]:
    """Say where slices are missing, or lie unevenly; `along` is where they lie on their normal."""
    if gaps.any():
        step = float(np.mean(distances[~gaps]))
        missing = int(np.round(distances[gaps] / step).sum()) - int(gaps.sum())
        first = int(gaps.argmax())
        where = f"between slices {first} and {first + 1}, at {along[first]:.6g} and {along[first + 1]:.6g} mm"
        text = f"{missing} slices seem to be missing, the first {where}; the others lie {step:.4g} mm apart"
        return (Remark("warning", f"{text}: is the copy whole?"),)
    if np.ptp(distances) > 2 * _UNEVEN * np.median(distances):
        text = f"its slices lie unevenly, {distances.min():.4g} to {distances.max():.4g} mm apart; the mean is used"
        return (Remark("warning", text),)
    return ()


def _choose_series(path: Path, heads: list[tuple[Path, Any]], pick: Pick) -> tuple[str, list[tuple[Path, Any]]]:
    """Return the series that is meant: the one named, else the only one of the role."""
    groups: dict[str, list[tuple[Path, Any]]] = {}
    for file, head in heads:
        groups.setdefault(str(head.get("SeriesInstanceUID", "")), []).append((file, head))
    if pick.key is not None:
        named = [uid for uid, group in groups.items() if pick.key in _names_of(uid, group[0][1])]
        if len(named) == 1:
            return named[0], groups[named[0]]
        problem = "no series" if not named else f"{len(named)} series"
        raise DataError(f"{problem} '{pick.key}' in it; it holds {_list(groups)}")
    fitting = {uid: group for uid, group in groups.items() if is_segmentation(group[0][1]) == (pick.role == "mask")}
    groups = fitting or groups
    if len(groups) > 1:
        option = "img_key" if pick.role == "image" else "msk_key"
        raise DataError(
            f"holds {len(groups)} series and does not say which one is the {pick.role}: {_list(groups)}; name one of "
            f"them after the folder and a colon (FOLDER:SERIES, its UID or its description), or for all by --{option} "
            f"(in the table: column {pick.role}_key)"
        )
    return next(iter(groups.items()))


def _names_of(uid: str, head: Any) -> set[str]:
    said = (head.get("SeriesDescription"), head.get("SeriesNumber"))
    return {uid, *(str(word).strip() for word in said if word not in (None, ""))}


def _list(groups: dict[str, list[tuple[Path, Any]]]) -> str:
    texts = [
        f"'{uid}' ({head.get('Modality') or 'image'} {_quoted(head.get('SeriesDescription'))}{len(group)} files)"
        for uid, group in groups.items()
        for head in (group[0][1],)
    ]
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more


def _quoted(text: Any) -> str:
    return f"'{text}', " if text else ""


def _read_head(path: Path) -> Any:
    library = pydicom()
    if kind_of(path) is None:
        raise DataError("is not a DICOM file")
    return library.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)


def slices_of(file: Path, head: Any) -> list[Slice]:
    """Return the frames of a file with what is said of each."""
    frames = int(head.get("NumberOfFrames") or 1)
    per_frame = head.get("PerFrameFunctionalGroupsSequence") or []
    shared = head.get("SharedFunctionalGroupsSequence") or []
    if per_frame and len(per_frame) != frames:
        raise DataError(f"the file is damaged: {frames} frames, but {len(per_frame)} are described")
    own: list[tuple[Any, ...]] = [(one,) for one in per_frame] or [()] * frames
    return [Slice(file, place, head, (*own[place], *shared[:1])) for place in range(frames)]


def _check_alike(slices: Sequence[Slice]) -> tuple[int, int]:
    """Return the size (y, x) of all slices, which hold one grey value a pixel."""
    sizes = Counter((int(one.head.Rows), int(one.head.Columns)) for one in slices)
    if len(sizes) > 1:
        found = " and ".join(f"{count} of {x} x {y}" for (y, x), count in sizes.items())
        raise DataError(f"its slices have several sizes: {found} pixels; keep one stack, {_WAY_OUT}")
    if any(int(one.head.get("SamplesPerPixel") or 1) != 1 for one in slices):
        raise DataError("holds colour pictures; wanted one grey value a pixel")
    ((y, x),) = sizes
    if not y or not x:
        raise DataError(f"holds no voxels: its slices are of {x} x {y} pixels")
    return y, x


def _type_of(slices: Sequence[Slice]) -> np.dtype:
    """Return the type of the rescaled values: integers where slope and intercept are whole, else float32."""
    lows, highs = [], []
    for one in slices:
        slope, intercept = one.scaling
        stored, used = int(one.head.get("BitsAllocated") or 0), int(one.head.get("BitsStored") or 0)
        if stored not in (1, 8, 16, 32) or not 0 < used <= stored:
            return np.dtype(np.float32)
        if not (slope.is_integer() and intercept.is_integer()):
            return np.dtype(np.float32)
        is_plain = (slope, intercept) == (1, 0)
        bits = stored if is_plain else used
        ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if one.head.get("PixelRepresentation") else (0, 2**bits - 1)
        values = [end * slope + intercept for end in ends]
        lows.append(min(values))
        highs.append(max(values))
    for dtype in map(np.dtype, _INTEGERS):
        if np.iinfo(dtype).min <= min(lows) and max(highs) <= np.iinfo(dtype).max:
            return dtype
    return np.dtype(np.float32)


def _check_size(slices: Sequence[Slice]) -> None:
    """Refuse what cannot be: a file far smaller than its header says, before anybody asks for the room."""
    for file, count in Counter(one.file for one in slices).items():
        head = next(one.head for one in slices if one.file == file)
        wanted = count * int(head.Rows) * int(head.Columns) * int(head.get("BitsAllocated") or 8) // 8
        there = file.stat().st_size
        syntax = head.file_meta.TransferSyntaxUID
        if wanted > there * (_MOST if syntax.is_compressed or syntax.is_deflated else 1):
            raise DataError(f"'{file}': damaged or cut off: {wanted} bytes of pixels wanted, the file has {there}")


def _values(one: Slice, shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """Return the plane as values of the modality, such as HU."""
    stored = read_frame(one)
    if stored.shape != shape:
        raise DataError(f"'{one.file}': a slice of {stored.shape} pixels (y, x), its header says {shape}")
    slope, intercept = one.scaling
    if (slope, intercept) == (1, 0):
        return stored.astype(dtype)
    if dtype.kind == "f":
        return (stored * np.float64(slope) + intercept).astype(dtype)
    values = stored.astype(np.int64) * int(slope) + int(intercept)
    ends = np.iinfo(dtype)
    if values.min() < ends.min or values.max() > ends.max:
        raise DataError(f"'{one.file}': has values of more bits than its header says (BitsStored)")
    return values.astype(dtype)


def read_frame(one: Slice) -> np.ndarray:
    """Return the pixels (y, x) of a slice as they are stored."""
    frames = int(one.head.get("NumberOfFrames") or 1)
    try:
        library = pydicom()
        # deflated files are no pixels that lie at a place
        is_deflated = one.head.file_meta.TransferSyntaxUID.is_deflated
        source = library.dcmread(one.file) if is_deflated else one.file
        pixels = library.pixels.pixel_array(source, index=one.frame if frames > 1 else None, raw=True)
    except (DataError, ConfigError, MemoryError):
        raise
    except Exception as error:  # whatever pydicom finds; the file of the slice is named, not its folder
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"'{one.file}': its pixels cannot be read ({lines[0][:200]}); copy it again from its source"
        ) from error
    return np.asarray(pixels)


def _vector(value: Any, count: int) -> np.ndarray | None:
    """Return numbers as an array; None unless there are `count` of them, all finite."""
    if value is None or value == "":
        return None
    numbers = np.atleast_1d(np.asarray(value, float))
    return numbers if numbers.shape == (count,) and np.isfinite(numbers).all() else None
