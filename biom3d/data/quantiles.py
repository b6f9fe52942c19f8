"""Exact percentiles of numbers that come in parts, and that need not fit the memory together."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

DIGIT = 16  # bits that are told apart in one walk through the numbers

Parts = Callable[[], Iterable[np.ndarray]]


def percentiles(parts: Parts, count: int, wanted: Sequence[float]) -> np.ndarray:
    """Return what `np.percentile` does, float64; `parts()` yields all `count` numbers, of one type, each time anew."""
    places = (count - 1) * np.asarray(wanted, np.float64) / 100
    below = np.floor(places).astype(np.int64)
    above = np.minimum(below + 1, count - 1)
    found = order_statistics(parts, sorted({*below.tolist(), *above.tolist()}))
    low, high = (np.array([found[int(rank)] for rank in ranks], np.float64) for ranks in (below, above))
    share = places - below
    # from the nearer end, as NumPy does
    return np.where(share < 0.5, low + (high - low) * share, high - (high - low) * (1 - share))


def order_statistics(parts: Parts, ranks: Iterable[int]) -> dict[int, float]:
    """Return rank -> the number that stands there when all are sorted; two bytes a walk through the numbers."""
    open_ranks = {0: [(rank, rank) for rank in ranks]}  # what is known of the number -> (rank, rank among its like)
    dtype: np.dtype | None = None
    shift: int | None = None
    while shift != 0:
        tables: dict[int, np.ndarray] = {}
        for part in parts():
            dtype = part.dtype
            now = dtype.itemsize * 8 - DIGIT if shift is None else shift - DIGIT
            keys = _sortable(part.ravel())
            for known in open_ranks:
                mine = keys if shift is None else keys[(keys >> keys.dtype.type(shift)) == known]
                digits = (mine >> mine.dtype.type(max(now, 0))).astype(np.uint16)
                table = tables.setdefault(known, np.zeros(1 << DIGIT, np.int64))
                table += np.bincount(digits, minlength=1 << DIGIT)
        assert dtype is not None
        shift = max(0, dtype.itemsize * 8 - DIGIT if shift is None else shift - DIGIT)
        following: dict[int, list[tuple[int, int]]] = {}
        for known, mine_ranks in open_ranks.items():
            sums = np.cumsum(tables[known])
            for rank, among in mine_ranks:
                digit = int(np.searchsorted(sums, among, "right"))
                key = (known << DIGIT) + digit
                following.setdefault(key, []).append((rank, among - int(sums[digit] - tables[known][digit])))
        open_ranks = following
    assert dtype is not None
    return {rank: _number(key, dtype) for key, mine_ranks in open_ranks.items() for rank, _ in mine_ranks}


def _sortable(numbers: np.ndarray) -> np.ndarray:
    """Return whole numbers without sign that have the order of `numbers`."""
    width = numbers.dtype.itemsize * 8
    kind = np.dtype(f"u{numbers.dtype.itemsize}").type
    keys = np.ascontiguousarray(numbers).view(kind)
    top = kind(1 << (width - 1))
    if numbers.dtype.kind == "u":
        return keys
    if numbers.dtype.kind == "i":
        return keys ^ top
    return np.where(keys & top, ~keys, keys | top)


def _number(key: int, dtype: np.dtype) -> float:
    """Return the number of which `_sortable` made `key`."""
    width = dtype.itemsize * 8
    top = 1 << (width - 1)
    if dtype.kind == "i":
        key ^= top
    elif dtype.kind == "f":
        key = key ^ top if key & top else ~key & ((1 << width) - 1)
    return float(np.array(key, f"u{dtype.itemsize}").view(dtype))
