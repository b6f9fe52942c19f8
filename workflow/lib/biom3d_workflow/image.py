"""Which software runs the steps, and in which container image: the one place that knows."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biom3d_workflow import VERSION

CHECKOUT = Path(__file__).resolve().parents[3]  # also through the link in the folder of a project


@dataclass(frozen=True)
class Image:
    """`url` is for `container:`; `digest` for `params:`, because Snakemake does not rerun for another image."""

    url: str
    digest: str


@dataclass(frozen=True)
class Learner:
    """What preprocesses, trains, predicts and evaluates: `python -m <module>.<step>` in `image`."""

    module: str
    image: Image

    @property
    def is_ours(self) -> bool:
        """Whether it is the engine of this repository, with options that others lack."""
        return self.module == "biom3d"


# Engines that exist only in an image of their own: module, row of containers/images.yaml.
OTHERS = {"upstream-0.1.2": ("biom3d_upstream", "upstream-0.1.2")}


def find_learner(engine: str, image: str) -> Learner:
    """Return what learns and predicts; `image` is the variant for our own engine."""
    module, variant = OTHERS.get(engine, ("biom3d", image))
    return Learner(module, find_image(variant))


def needs_containers(engine: str) -> bool:
    """Say whether the engine is only in an image, not in this Python."""
    return engine in OTHERS


def find_image(variant: str) -> Image:
    """Return the image of a row of containers/images.yaml; its digest changes when its content does.

    Without the package or the table (linting, a workflow without its checkout) the version stands for the content.

    Raises:
        ValueError: no such row, or it cannot be used yet; the message says what to do.
    """
    keys = _import("biom3d.images.keys")
    if keys is None or not (CHECKOUT / "containers" / "images.yaml").is_file():
        return Image(f"docker://biom3d-workflow/{variant}:{VERSION}", f"{variant}:{VERSION}")
    errors = importlib.import_module("biom3d.errors")
    try:
        image = keys.lookup(variant, CHECKOUT)
    except errors.InputError as error:
        raise ValueError(str(error)) from None
    return Image(f"docker://{image.reference}", image.digest)


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
