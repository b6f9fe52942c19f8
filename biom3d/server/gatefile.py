"""Makes the file `biom3d-gate` that an administrator installs: gate.py with the table of commands in it."""

import pprint
from collections.abc import Iterable
from pathlib import Path

from biom3d.remote.template import WORDS, Template

SOURCE = Path(__file__).with_name("gate.py")
BEGIN = "# --- filled in when the gate is installed"
END = 'if __name__ == "__main__":'


def render_gate(templates: Iterable[Template], version: str, python: str = "/usr/bin/python3") -> str:
    """Return the whole file; `python` runs it there and may be 3.9 or later."""
    head, _, rest = SOURCE.read_text(encoding="utf-8").partition(BEGIN)
    comment, _, _ = rest.partition("\n")
    _, _, body = head.partition("\n")
    words = pprint.pformat({kind: pattern.pattern for kind, pattern in WORDS.items()}, width=120)
    entries = "".join(map(_entry, templates))
    return (
        f"#!{python} -IS\n{body}{BEGIN}{comment}\nVERSION = {version!r}\nWORDS = {words}\n"
        f"TABLE = {{\n{entries}}}\n\n{END}\n    sys.exit(main())\n"
    )


def _entry(template: Template) -> str:
    """Return a script of the table, line by line, so that it can be read."""
    lines = "\n".join(f"    {line!r}" for line in template.script.splitlines(keepends=True))
    return f"{lines}: (\n        {template.name!r},\n        {template.kinds!r},\n        {template.stdin!r},\n    ),\n"
