"""The options of Biom3d 0.1.2 as facts.

`python tests/upstream_exchange/options.py PYTHON > tests/compat/biom3d_options.json`, where PYTHON
is that of an environment with biom3d 0.1.2. Only the flags and whether they take a value are kept.
"""

import json
import re
import subprocess
import sys

COMMANDS = ("preprocess", "train", "preprocess_train", "pred", "eval")


def real_options(python: str) -> dict[str, list[dict[str, object]]]:
    """Return command -> its options, from the `--help` of the real program."""
    found = {}
    for command in COMMANDS:
        # -I: the package of that environment, not the one in the current folder
        done = subprocess.run(
            [python, "-I", "-m", f"biom3d.{command}", "--help"], capture_output=True, text=True, check=True
        )
        found[command] = options_of(done.stdout)
    return found


def options_of(text: str) -> list[dict[str, object]]:
    """Return the options that a help text of argparse lists, but for --help."""
    options = []
    for line in text.partition("options:")[2].splitlines():
        flags = re.findall(r"(?<![\w-])(--?[a-z][a-z_0-9]*)", line) if re.match(r"  -", line) else []
        left = re.split(r"\s{2,}", line.strip())[0]
        flags = [flag for flag in flags if flag in left]
        if flags and "--help" not in flags:
            options.append({"flags": flags, "takes_value": bool(re.search(r"[a-z] [A-Z\[]", left))})
    return options


if __name__ == "__main__":
    print(json.dumps(real_options(sys.argv[1]), indent=1))
