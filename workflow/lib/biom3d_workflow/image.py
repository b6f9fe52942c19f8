"""Which container image runs the steps: the one place that knows; becomes a look-up in containers/images.lock.yaml."""

from dataclasses import dataclass

from biom3d_workflow import VERSION


@dataclass(frozen=True)
class Image:
    """`url` is for `container:`; `digest` for `params:`, because Snakemake does not rerun for another image."""

    url: str
    digest: str


def find_image(name: str) -> Image:
    """Return the image of a row of containers/images.yaml."""
    return Image(f"docker://biom3d/{name}:{VERSION}", f"{name}:{VERSION}")
