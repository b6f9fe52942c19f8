"""Run a training of either program and print the seconds between its optimiser steps, as JSON on the last line.

    python bench/step_times.py MODULE [options of the training ...]

It knows nothing of the program: torch calls it after every step of any optimiser. The first two steps are left out.
"""

import json
import runpy
import sys
import time

from torch.optim.optimizer import register_optimizer_step_post_hook

WARM_UP = 2


def main() -> None:
    """Run the module to its end, then print."""
    times: list[tuple[float, float]] = []

    def record(*_: object) -> None:
        times.append((time.perf_counter(), time.process_time()))

    register_optimizer_step_post_hook(record)
    module, sys.argv = sys.argv[1], sys.argv[1:]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code:
            raise
    pairs = list(zip(times[WARM_UP - 1 :], times[WARM_UP:], strict=False))
    print("\n" + json.dumps([[b[i] - a[i] for a, b in pairs] for i in (0, 1)]))


if __name__ == "__main__":
    main()
