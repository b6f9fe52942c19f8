"""`python copy_lines.py LOG`: what a step says -> its log, and with its name before each line -> the screen.

In place of `tee` where several steps print to one terminal: `[train nuclei 0] epoch 3/100`. It imports little, so that
it costs no time. It ends when the step does, and not before: signals are for the step.
"""

import os
import signal
import sys

LOGS = "logs/steps/"


def name_of(log: str) -> str:
    """Return what people call a step: `logs/steps/train/nuclei/fold_0.log` is `train nuclei 0`."""
    parts = log.partition(LOGS)[2].removesuffix(".log").split("/")
    return " ".join(part.removeprefix("fold_") if parts[0] == "train" else part for part in parts if part != "all")


def copy_lines(log: str, screen: int) -> None:
    """Copy standard input until it ends, to a log and to a file descriptor; that nobody reads that one is no matter."""
    label = f"[{name_of(log)}] ".encode("utf-8", "surrogateescape")
    is_watched = True
    with open(log, "wb", buffering=0) as file:
        for line in sys.stdin.buffer:
            file.write(line)
            try:
                if is_watched:
                    _write(screen, label + line if line.strip() else line)
            except OSError:
                is_watched = False


def _write(target: int, text: bytes) -> None:
    while text:
        text = text[os.write(target, text) :]


if __name__ == "__main__":
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(sign, signal.SIG_IGN)
    copy_lines(sys.argv[1], screen=1)
