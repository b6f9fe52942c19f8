"""Which `python` the steps of a local run find."""

import os
import sys
from collections.abc import MutableMapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

# In the words of biom3d.neighbour, which cannot be asked: what is found as biom3d may be the other program.
OTHER = (
    "Biom3d {} is installed in the Python of Snakemake, and its package has the name of ours, biom3d: steps would be "
    "its own, or a mixture. Run `pip uninstall biom3d`, then in the checkout `rm .venv/.installed; make setup`; "
    "engine upstream-0.1.2 runs Biom3d in an image"
)


def find_obstacle() -> str | None:
    """Say so where Biom3d of PyPI is installed beside us (our distribution is biom3d-workflow)."""
    try:
        return OTHER.format(metadata.version("biom3d"))
    except metadata.PackageNotFoundError:
        return None


def prefer_this_python(environ: MutableMapping[str, str] = os.environ) -> None:
    """Put this Python first on PATH if it has biom3d, so that `.venv/bin/snakemake` works without activation."""
    folder = str(Path(sys.executable).parent)
    path = environ.get("PATH", "")
    if find_spec("biom3d") and path.split(os.pathsep)[0] != folder:
        environ["PATH"] = os.pathsep.join(filter(None, [folder, path]))
