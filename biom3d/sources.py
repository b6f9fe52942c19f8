"""Where the workflow is: the Snakefile, its profiles and the commented configuration that a project starts from."""

from pathlib import Path

from biom3d.errors import DataError

PACKAGE = Path(__file__).resolve().parent
CHECKOUT = PACKAGE.parent
INSTALLED = PACKAGE / "project"  # in a wheel


def find_sources() -> Path:
    """Return the folder that holds `workflow/`, `profiles/` and `config/`: the checkout, or what a wheel brought.

    Raises:
        DataError: neither is there; some container images hold the steps alone.
    """
    for folder in (CHECKOUT, INSTALLED):
        if (folder / "workflow" / "rules").is_dir():
            return folder
    raise DataError(f"'{PACKAGE}' came without the workflow; install biom3d-workflow from a checkout or a wheel")
