"""Labels as DICOM-SEG on the slices of the series that was segmented, for PACS and DICOM viewers."""

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from biom3d import __version__
from biom3d.errors import ConfigError, DataError
from biom3d.files import atomic_path
from biom3d.io import read_header, read_labels
from biom3d.io.choice import split_key
from biom3d.io.dicom import series_of

MAKER = "biom3d-workflow"
_MOST = 254  # segments; single objects are many more, and no viewer lists them


def write_segmentation(
    out: Path, image: Path, labels: Path, label_name: str, names: Mapping[int, str] | None = None
) -> None:
    """Write labels as one DICOM-SEG file, segment N for value N; an earlier one of ours is replaced.

    `names` are those of the classes, by value.

    Raises:
        DataError: the labels are not on the grid of the series, or number more than 254 objects.
        ConfigError: highdicom is not installed.
    """
    header = read_header(image)
    values = read_labels(labels, header).array[0]
    if values.shape != header.shape[1:]:
        raise DataError(
            f"labels '{labels}' have shape {values.shape} (z, y, x), the series '{image}' {header.shape[1:]}; "
            "wanted the same grid"
        )
    highest = int(values.max())
    if highest > _MOST or int(values.min()) < 0:
        raise DataError(f"'{labels}': values to {highest}; DICOM-SEG of ours holds classes 1 to {_MOST}, not objects")
    if out.exists() and not _is_ours(out, label_name):
        raise DataError(f"'{out}' is there and is no earlier export of '{label_name}'; choose another --out_dir")
    try:
        made = _make(series_of(*split_key(image)), values, max(highest, 1), label_name, names or {})
    except (ValueError, AttributeError) as error:  # of highdicom, for a series that lacks what must be said of it
        raise DataError(f"'{image}': no DICOM-SEG can be made of this series: {error}") from error
    with atomic_path(out) as temporary:
        made.save_as(temporary)


def _make(source: list[Any], values: np.ndarray, count: int, label_name: str, names: Mapping[int, str]) -> Any:
    highdicom = _library()
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    def uid_of(what: str) -> str:
        """Return a name that the same labels of the same series get again."""
        digest = hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()
        return str(generate_uid(entropy_srcs=[source[0].SeriesInstanceUID, label_name, digest, what]))

    segments = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=names.get(number, f"class {number}")[:64],  # DICOM holds no more
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=codes.SCT.Tissue,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=highdicom.AlgorithmIdentificationSequence(
                name=MAKER, version=__version__, family=codes.DCM.ArtificialIntelligence
            ),
        )
        for number in range(1, count + 1)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about empty labels, and odd values of the source, which are not ours
        return highdicom.seg.Segmentation(
            source_images=source,
            pixel_array=values.astype(np.uint8),
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=segments,
            series_instance_uid=uid_of("series"),
            series_number=1000,
            sop_instance_uid=uid_of("file"),
            instance_number=1,
            manufacturer=MAKER,
            manufacturer_model_name=MAKER,
            software_versions=__version__,
            device_serial_number="1",
            series_description=label_name,
        )


def _library() -> Any:
    try:
        import highdicom
    except ImportError as error:
        raise ConfigError("DICOM-SEG needs highdicom; install it: pip install 'biom3d-workflow[dicom]'") from error
    return highdicom


def _is_ours(path: Path, label_name: str) -> bool:
    """Say whether a file is an earlier export."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        head = dcmread(path, stop_before_pixels=True, specific_tags=["Manufacturer", "SeriesDescription"])
    except (OSError, InvalidDicomError):
        return False
    return (head.get("Manufacturer"), head.get("SeriesDescription")) == (MAKER, label_name)
