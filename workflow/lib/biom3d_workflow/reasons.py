"""Why a step ended: its log -> one sentence, in the words of the table and of config.yaml."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from biom3d_workflow import schema

CONFIG, TABLE = "config/config.yaml", "config/datasets.tsv"
STEP = r"[a-z0-9_.]+"
ERROR = re.compile(rf"^{STEP}: error: (.*)$")
STOPPED = re.compile(rf"^{STEP}: stopped\b")
STOPPED_BY = re.compile(r"^job: (stopped with .*)$")  # by somebody else than who runs the workflow
# A line of a whole epoch; the lines on the way have batches and no loss.
EPOCH = re.compile(rf"^{STEP}: epoch (\d+)/(\d+) +loss ")
SILENT = "it ended without a word: killed from outside, or no memory was left"
# Options that name a cell of the table.
COLUMNS = {
    "images": ("img_path", "img_dir", "path_in", "dir_in"),
    "masks": ("msk_path", "msk_dir", "path_lab", "dir_lab"),
    "spacing_um": ("spacing",),
}
# What is said otherwise as a whole: pattern and words; @ stands for whose option it is.
SENTENCES = (
    (r"\b(?:pass|give|use|set) --instances\b", "set `instances: true`@"),
    (
        r"\b(?:pass|give|use|set) --num_classes (\d+) --label_values ([\d ]*\d)",
        r"set `num_classes: \1` and `label_values: [\2]`@",
    ),
    (r"\b(?:pass|give|use|set) --ignore_label (-?\d+)", r"set `ignore_label: \1`@"),
    (r"\b(?:pass|give|use|set) --num_classes (\d+)", r"set `num_classes: \1`@"),
    (r"\bgive --spacing Z Y X in µm for all\b", f"fill in column spacing_um of {TABLE} for all"),
    (r"\bgive (?:the true size in the unit of the model by )?--spacing Z Y X", f"fill in column spacing_um of {TABLE}"),
    (r"\bmove it away or choose another --(?:out_dir|run_dir|path_out)\b", "move it away"),
    (r"\bchoose another --(?:out_dir|run_dir|path_out)\b(?:,? or remove it)?", "move it away"),
)


@dataclass(frozen=True)
class End:
    """How a step ended, by its log: with an error, stopped by a signal, or without a word; and what it said.

    `progress`: where a training goes on. In a container a signal also ends what copies the step's last words.
    """

    kind: Literal["error", "stopped", "silent"]
    text: str
    progress: str = ""


def read_end(log: str) -> End:
    """Read the end of a step that made no result from its log."""
    try:
        lines = Path(log).read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
    except OSError as error:
        return End("silent", f"no log ({error.strerror})")
    starts = [number for number, line in enumerate(lines) if ERROR.match(line)]
    stops = [number for number, line in enumerate(lines) if STOPPED.match(line)]
    if stops and stops[-1] > (starts[-1] if starts else -1):
        found = STOPPED_BY.match(lines[stops[-1]])
        return End("stopped", found[1] if found else "", progress(lines))
    if starts:
        return End("error", first_problem(lines[starts[-1] :]))
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    text = f"{SILENT}; last line: {re.sub(f'^{STEP}: ', '', last)}" if last else SILENT
    return End("silent", text, progress(lines))


def progress(lines: Iterable[str]) -> str:
    """Say where a training goes on; empty for other steps, and before the first epoch is whole."""
    epochs = [found for line in lines if (found := EPOCH.match(line))]
    return f"after epoch {epochs[-1][1]} of {epochs[-1][2]}" if epochs else ""


def first_problem(lines: list[str]) -> str:
    """Return the first sentence of an error with what follows on indented lines: a heading is left out."""
    found = ERROR.match(lines[0])
    assert found, "the caller looked for it"
    head, rest = found[1].strip(), []
    for line in lines[1:]:
        if not line.startswith((" ", "\t")):
            break
        rest.append(line.strip())
    if not head.endswith(":") or not rest:
        return head
    more = f" (and {len(rest) - 1} more: see the log)" if len(rest) > 1 else ""
    return rest[0] + more


def in_our_words(text: str, models: Iterable[str] = ()) -> str:
    """Return a message of a step with options of its command line replaced by keys and columns."""
    named = " and ".join(f"'{name}'" for name in models)
    whose = f" of model {named} in {CONFIG}" if named else f" in {CONFIG}"
    for pattern, words in SENTENCES:
        text = re.sub(pattern, words, text)
    for column, options in COLUMNS.items():
        text = re.sub(rf"--(?:{'|'.join(options)})\b(?: Z Y X)?", f"column {column} of {TABLE}", text)
    keys = "|".join(sorted(schema.option_defaults(), key=len, reverse=True))
    text = re.sub(rf"--({keys})\b(?: (\d[\d.]*))?", lambda key: f"`{key[1]}{f': {key[2]}' if key[2] else ''}`@", text)
    return text.replace("`@", f"`{whose}", 1).replace("`@", "`")
