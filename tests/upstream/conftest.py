"""The adapter on the path, and tiny data sets: bright balls in noise."""

import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "containers" / "upstream"))

SHAPE = (16, 32, 32)


def ball(shift: int = 0) -> np.ndarray:
    z, y, x = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    return (((z - 8) ** 2 * 4 + (y - 16 - shift) ** 2 + (x - 14 + shift) ** 2) < 100).astype(np.uint8)


def write_set(folder: Path, count: int) -> Path:
    """Write `images/v<k>.tif` with a voxel size and `masks/v<k>.tif` of 0 and 255."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for k in range(count):
        image = (ball(k) * 800.0 + rng.normal(300, 60, SHAPE)).clip(0).astype(np.uint16)
        metadata = {"axes": "ZYX", "spacing": 0.5, "unit": "micron"}
        tifffile.imwrite(folder / "images" / f"v{k}.tif", image, imagej=True, resolution=(4, 4), metadata=metadata)
        tifffile.imwrite(folder / "masks" / f"v{k}.tif", ball(k) * 255)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set of three volumes."""
    return write_set(tmp_path / "data", 3)
