"""DICOM series written by SimpleITK (GDCM), as scanners send them: names and numbers in no order."""

import locale
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK

ANGLE = np.deg2rad(20)
OBLIQUE = (np.cos(ANGLE), -np.sin(ANGLE), 0, np.sin(ANGLE), np.cos(ANGLE), 0, 0, 0, 1.0)
UID = "1.2.826.0.1.3680043.2.1125.7"


def itk_image(
    array: np.ndarray, direction: tuple[float, ...] = OBLIQUE, spacing: tuple[float, ...] = (0.5, 0.7, 2.0)
) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin((5.0, -7.0, 9.0))
    image.SetDirection(direction)
    return image


@contextmanager
def kept_locale() -> Iterator[None]:
    """GDCM sets the locale of the process to "C" and leaves it so."""
    before = locale.setlocale(locale.LC_ALL)
    try:
        yield
    finally:
        locale.setlocale(locale.LC_ALL, before)


@kept_locale()
def write_series(
    folder: Path,
    array: np.ndarray,
    direction: tuple[float, ...] = OBLIQUE,
    uid: str = UID,
    packed: bool = False,
    spacing: tuple[float, ...] = (0.5, 0.7, 2.0),
    **tags: Any,
) -> SimpleITK.Image:
    """Write a slice a file; `tags` are further elements, such as RescaleIntercept. Returns the image."""
    folder.mkdir(parents=True, exist_ok=True)
    image = itk_image(array, direction, spacing)
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetUseCompression(packed)
    depth = len(array)
    for z in range(depth):
        one = image[:, :, z]
        place = image.TransformIndexToPhysicalPoint((0, 0, z))
        values = {
            "0008|0018": f"{uid}.5.{z + 1}",
            "0008|0060": "CT",
            "0010|0010": "Nobody^Anon",
            "0010|0020": "1",
            "0018|0050": f"{spacing[2]}",
            "0020|000d": f"{UID}.9",
            "0020|000e": uid,
            "0020|0052": f"{UID}.8",
            "0020|0013": str(depth - z),
            "0020|0032": "\\".join(f"{value:.6f}" for value in place),
            "0020|0037": "\\".join(f"{direction[k]:.8f}" for k in (0, 3, 6, 1, 4, 7)),
        }
        for tag, value in values.items():
            one.SetMetaData(tag, value)
        path = folder / f"IM{(z * 7) % depth:03d}.dcm"
        writer.SetFileName(str(path))
        writer.Execute(one)
        if tags:
            change(path, lambda head: [setattr(head, tag, value) for tag, value in tags.items()])
    return image


def change(path: Path, edit: Callable[[pydicom.Dataset], object]) -> None:
    """Edit a file in place."""
    head = pydicom.dcmread(path)
    edit(head)
    head.save_as(path)


@kept_locale()
def itk_read(folder: Path) -> SimpleITK.Image:
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def file_at(folder: Path, z: int) -> Path:
    """Return the file of slice z of a series that `write_series` wrote."""
    return next(path for path in folder.iterdir() if pydicom.dcmread(path).SOPInstanceUID.endswith(f".5.{z + 1}"))
