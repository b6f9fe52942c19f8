"""Results and models in forms that others read: OME-TIFF, OME-Zarr, one zip for a model.

The command is in `__main__.py` and loaded when it is called, so that prediction can import `package` alone.
"""

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run `biom3d export`; return the exit code of the step contract."""
    from biom3d.export.__main__ import main as run

    return run(argv)
