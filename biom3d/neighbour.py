"""Biom3d of PyPI in the same Python: package and command have the names of ours, so one overwrites the other."""

from importlib import metadata

THEIRS = "biom3d"  # ours is the distribution biom3d-workflow


def find_other() -> str | None:
    """Return the version of the other program, or None."""
    try:
        return metadata.version(THEIRS)
    except metadata.PackageNotFoundError:
        return None


def warning(version: str) -> str:
    """Say what that means, and the way out."""
    return (
        f"Biom3d {version} is installed in this Python too, and its package has the same name: files of one may be "
        f"those of the other. Run `pip uninstall {THEIRS}`, then install ours again (in the checkout: `rm "
        ".venv/.installed; make setup`); to have both, give each an environment of its own"
    )
