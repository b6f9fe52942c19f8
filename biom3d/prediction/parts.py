"""Predictions of a part of a folder: images that are bad are left out, and what an earlier run made is taken over."""

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from biom3d.data.predictions import SCORES, read_record
from biom3d.errors import DataError
from biom3d.io import volume_file, volume_name

# Of a disk or share that does not answer: the image may be good, and another time it may be there.
AWAY = frozenset(
    {
        *(errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH),
        *(errno.ENODEV, errno.ENXIO, errno.EREMOTEIO),
    }
)


def is_bad(volume: Path, error: Exception) -> bool:
    """Say whether it is the volume itself that cannot be used: what is in it, or that it is closed to us.

    Else it is gone, the disk does not answer, or memory was short: another time it may well be good.
    """
    if not isinstance(error, DataError) or not os.path.lexists(volume_file(volume)):
        return False
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in AWAY:
            return False
        cause = cause.__cause__ or cause.__context__
    return True


def take_over(earlier: Path, folder: Path, record: dict[str, Any], keys: Mapping[str, str]) -> list[str]:
    """Bring predictions that the same model made of the same images from `earlier` to `folder`; return their names.

    `keys`: name of each image -> what tells that it is unchanged, '' where nobody can say. The record is completed.
    """
    old = read_record(earlier)
    images, told = old.get("images"), old.get("volumes")
    if old.get("identity") != record["identity"] or not isinstance(images, dict) or not isinstance(told, dict):
        return []
    taken = []
    for name, key in keys.items():
        if not key or images.get(name) != key or record["images"].get(name) == key or name not in told:
            continue
        if _bring(earlier, folder, name):
            record["images"][name], record["volumes"][name] = key, told[name]
            taken.append(name)
    return taken


def _bring(earlier: Path, folder: Path, name: str) -> bool:
    """Link or copy the labels of an image, and its scores where there are; False where they are not there."""
    labels = earlier / name
    if not labels.exists():
        return False
    scores = f"{SCORES}/{volume_name(labels)}.ome.zarr"
    for part in (name, *([scores] if (earlier / scores).exists() else [])):
        target = folder / part
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            new = target.with_name(f".tmp-{target.name}")
            _remove(new)
            copy = shutil.copytree if (earlier / part).is_dir() else _link
            copy(earlier / part, new)
            new.replace(target)
    return True


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copy2(source, target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
