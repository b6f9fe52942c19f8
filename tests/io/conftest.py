import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import pytest

from biom3d.io import Header

Make = Callable[..., np.ndarray]


@pytest.fixture
def make() -> Make:
    def make_array(*shape: int, dtype: str = "uint16") -> np.ndarray:
        return (np.random.default_rng(0).random(shape) * 100).astype(dtype)

    return make_array


@pytest.fixture
def header() -> Header:
    return Header((1, 5, 12, 14), np.dtype("uint16"), "ZYX", (0.3, 0.2, 0.1))


@pytest.fixture
def unprivileged() -> Callable[[], AbstractContextManager[None]]:
    """Root may read everything; within this block the test is somebody else."""

    @contextmanager
    def block() -> Iterator[None]:
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield
        finally:
            if root:
                os.seteuid(0)

    return block
