"""Which `python` the steps of a local run find."""

import os
import sys
from collections.abc import MutableMapping
from importlib.util import find_spec
from pathlib import Path


def prefer_this_python(environ: MutableMapping[str, str] = os.environ) -> None:
    """Put this Python first on PATH if it has biom3d, so that `.venv/bin/snakemake` works without activation."""
    folder = str(Path(sys.executable).parent)
    path = environ.get("PATH", "")
    if find_spec("biom3d") and path.split(os.pathsep)[0] != folder:
        environ["PATH"] = os.pathsep.join(filter(None, [folder, path]))
