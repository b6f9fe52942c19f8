"""Volumes that Biom3d 0.1.2 has preprocessed, as our training wants them."""

from pathlib import Path

import numpy as np

from biom3d.data.normalise import TINY
from biom3d.data.patches import Case, sample_foreground
from biom3d.errors import DataError

TIFF = (".tif", ".tiff")


def load_biom3d_case(images: Path, masks: Path, filename: str, num_classes: int, seed: int) -> Case:
    """Read one case by its file name in `folds.csv`: arrays (c, z, y, x), TIFF or .npy.

    TIFF is compressed, so the case is in memory. The foreground voxels are drawn from the mask: those of Biom3d are
    pickles, which could run code. DataError names the case and what is wrong.
    """
    try:
        image, mask = (_read_array(folder / filename) for folder in (images, masks))
        labels = _labels(mask, num_classes)
        if image.ndim != 4 or labels.shape != image.shape[1:]:
            raise ValueError(f"image {image.shape} and mask {mask.shape} do not fit; wanted (c, z, y, x) of one size")
    except Exception as error:  # a damaged file finds every exception there is in NumPy and tifffile
        raise DataError(
            f"'{filename}', preprocessed by Biom3d, cannot be read in '{images}' and '{masks}': {error}; check that "
            "the paths in its configuration hold from this folder, or preprocess again"
        ) from error
    voxels = sample_foreground(labels, num_classes, np.random.default_rng(seed))
    return Case(filename.rpartition(".")[0], _each_channel_scaled(image), labels, voxels)


def _read_array(path: Path) -> np.ndarray:
    if path.suffix.lower() in TIFF:
        import tifffile

        return np.asarray(tifffile.imread(path))
    if path.suffix.lower() == ".npy":
        return np.asarray(np.load(path, allow_pickle=False))
    raise ValueError("only .tif and .npy are known")


def _labels(mask: np.ndarray, num_classes: int) -> np.ndarray:
    """Return labels (z, y, x) of a mask (1, z, y, x) or one channel a class, with or without the background."""
    channels = mask.shape[0]
    if channels == 1:
        labels = mask[0]
    elif channels == num_classes + 1:
        labels = mask.argmax(0)
    elif channels == num_classes:
        labels = np.where(mask.any(0), mask.argmax(0) + 1, 0)
    else:
        raise ValueError(f"mask with {channels} channels for {num_classes} class(es)")
    whole = labels.astype(np.int32)  # resampled masks are stored as float64
    if not np.array_equal(whole, labels):
        raise ValueError("mask with values that are not whole numbers")
    return whole


def _each_channel_scaled(image: np.ndarray) -> np.ndarray:
    """Return float32; of several channels, which Biom3d scales together, each has mean 0 and deviation 1 as ours."""
    image = np.asarray(image, np.float32)
    if image.shape[0] == 1:
        return image
    mean = image.mean((1, 2, 3), dtype=np.float64, keepdims=True)
    std = image.std((1, 2, 3), dtype=np.float64, keepdims=True)
    return ((image - mean) / np.maximum(std, TINY)).astype(np.float32)
