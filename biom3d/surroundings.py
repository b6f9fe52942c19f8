"""What a step runs with and on: versions and processor, found without loading anything heavy. For the record only."""

import os
import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from biom3d import __version__

PACKAGES = ("torch", "numpy", "scipy")  # that decide about numbers
OUR_IMAGE = Path("/opt/biom3d/entrypoint.sh")  # see containers/template.dockerfile


def describe() -> dict[str, object]:
    """Return versions and machine, ready for JSON. Nothing of it says whose machine it is."""
    return {
        "version": __version__,
        "python": platform.python_version(),
        "packages": dict(_versions()),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "in_image": OUR_IMAGE.exists(),
    }


def _versions() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue


def _processor() -> str:
    """Return the name that the kernel gives the processor, or its kind where it gives none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
