"""A small checkout of its own, so that a test can change the table, the template or a source."""

import shutil
from pathlib import Path

import pytest

from biom3d.images.table import CHECKOUT, Table, load_table

TEMPLATE_FILES = ("images.yaml", "images.schema.yaml", "template.dockerfile", "install.sh", "entrypoint.sh")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    (root / "containers").mkdir(parents=True)
    for name in (*TEMPLATE_FILES, "images.lock.yaml"):
        shutil.copy(CHECKOUT / "containers" / name, root / "containers" / name)
    for name in ("locks", "upstream"):
        shutil.copytree(CHECKOUT / "containers" / name, root / "containers" / name)
    (root / "workflow").mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "workflow/Snakefile"):
        shutil.copy(CHECKOUT / name, root / name)
    (root / "biom3d" / "remote").mkdir(parents=True)
    (root / "biom3d" / "images").mkdir()
    (root / "biom3d" / "__init__.py").write_text('"""A stand-in."""\n__version__ = "0.1.0"\n')
    return root


@pytest.fixture
def table(checkout: Path) -> Table:
    return load_table(checkout)


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path} lacks {old!r}"
    path.write_text(text.replace(old, new, 1))
