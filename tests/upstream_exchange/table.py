"""Write the table of options in docs/compat.md: `python tests/upstream_exchange/table.py`; `--check` only compares."""

import importlib
import json
import sys
from pathlib import Path

from biom3d.compat.options import FOREIGN

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "compat.md"
BEGIN, END = "<!-- options: made by tests/upstream_exchange/table.py -->", "<!-- end of options -->"


def main() -> int:
    """Write the document, or say whether it is up to date."""
    old = DOCUMENT.read_text(encoding="utf-8")
    new = old[: old.index(BEGIN)] + table() + old[old.index(END) + len(END) :]
    if "--check" in sys.argv:
        return int(old != new)
    DOCUMENT.write_text(new, encoding="utf-8")
    return 0


def table() -> str:
    """Return the table of Biom3d's options, command by command."""
    options = json.loads((ROOT / "tests" / "compat" / "biom3d_options.json").read_text())
    lines = [BEGIN, "| command | option of Biom3d 0.1.2 | here |", "|---|---|---|"]
    for step, found in options.items():
        for option in found:
            flags = ", ".join(f"`{flag}`" for flag in option["flags"])
            lines.append(f"| {step} | {flags} | {status(step, option['flags'])} |")
    return "\n".join([*lines, END])


def status(step: str, flags: list[str]) -> str:
    """Return whether an option works here, or what is said instead."""
    source = "preprocess" if step == "preprocess_train" else step
    foreign = {flag: option for option in FOREIGN.get(source, ()) for flag in option.flags}
    if flags[0] in foreign:
        option = foreign[flags[0]]
        return f"{'no' if option.refused else 'taken, without effect'}: {option.answer}"
    parser = importlib.import_module(f"biom3d.{step}").build_parser()
    known = {flag: action for action in parser._actions for flag in action.option_strings}
    return "works" if set(flags) <= set(known) else "MISSING"


if __name__ == "__main__":
    raise SystemExit(main())
