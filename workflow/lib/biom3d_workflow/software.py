"""Which versions compute: those installed here, or those of the lock of an image."""

import re
import runpy
from collections.abc import Mapping
from importlib import metadata
from importlib.util import find_spec

from biom3d_workflow.identity import PACKAGES, Software
from biom3d_workflow.image import CHECKOUT, OTHERS, Image

NAMES = sorted({name for names in PACKAGES.values() for name in names})
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


def step_numbers() -> Mapping[str, int]:
    """Return the numbers of the steps, those of this checkout, or of what is installed; see biom3d/steps.py."""
    file = CHECKOUT / "biom3d" / "steps.py"
    if file.is_file():
        return dict(runpy.run_path(str(file))["NUMBERS"])
    try:
        return dict(runpy.run_module("biom3d.steps")["NUMBERS"])
    except ImportError:  # where nothing but Snakemake is installed, to look at the rules
        return {}


def find_software(variant: str, image: Image, in_containers: bool) -> Software:
    """Return what computes in containers of `variant`, or (without containers) in this Python.

    Another engine than ours is known by its image alone. The digest of our own images does not count: it changes
    with every comment in our sources; what of it changes results is its lock and the numbers of the steps.
    """
    if variant in {row for _, row in OTHERS.values()}:
        return Software(content=image.digest)
    if not in_containers:
        return Software(_installed())
    lock = CHECKOUT / "containers" / "locks" / f"{variant}.txt"
    if not lock.is_file():
        return Software(content=image.digest)
    pins = dict(_PIN.findall(lock.read_text(encoding="utf-8")))
    return Software({name: pins[name] for name in NAMES if name in pins})


def _installed() -> dict[str, str]:
    """Return the versions of the packages here; none where the steps run in another Python, which nobody can ask."""
    versions = {}
    for name in NAMES if find_spec("biom3d") else ():
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
