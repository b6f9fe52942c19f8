"""The table of images for the documentation, from table and lock."""

import re
from pathlib import Path

from biom3d.errors import ConfigError
from biom3d.files import write_text
from biom3d.images.lock import Lock
from biom3d.images.table import Table

PAGE = "docs/images.md"
START, END = "<!-- table of `biom3d images table`: do not edit -->", "<!-- end of the table -->"


def table_text(table: Table, lock: Lock) -> str:
    """Return the rows of the table as Markdown."""
    lines = [
        "| variant | for | size | torch | CUDA | oldest driver | Python | digest of its dependencies |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in table.images.items():
        known = lock.images.get(name)
        cells = [f"`{name}`", row.summary]
        if row.reference:
            cells += ["", "", "", "", "", f"`{row.reference}`" + (f" `{row.digest[:19]}`" if row.digest else "")]
        else:
            size = f"{known.size_mb / 1000:.2f} GB" if known else "not built yet"
            cells += [size, row.torch, row.cuda or "none", row.driver or "none"]
            cells += [known.python if known else table.base_of(name).python, f"`{known.digest[:19]}`" if known else ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write_page(table: Table, lock: Lock) -> Path:
    """Put the table into its page, atomically; the rest of the page is as it was."""
    path = table.root / PAGE
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if START not in text or END not in text:
        raise ConfigError(f"'{path}' lacks the lines '{START}' and '{END}' between which the table goes")
    block = f"{START}\n{table_text(table, lock)}\n{END}"
    write_text(path, re.sub(re.escape(START) + ".*" + re.escape(END), lambda _: block, text, flags=re.DOTALL))
    return path
