"""Run a command of Biom3d 0.1.2 with another seed: `python seeded.py SEED THREADS biom3d.train ...`.

It always seeds with 12345 and has no option for it; three runs would be one. THREADS 0 means all.
"""

import random
import runpy
import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

ITS_SEED = 12345


def main() -> None:
    """Seed, then run the module as `python -m` would."""
    import numpy as np
    import torch

    seed, threads, module = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    if threads:
        torch.set_num_threads(threads)
    random.seed(seed)
    sys.argv = sys.argv[3:]
    numpy_seed, torch_seed = shifted(np.random.seed, seed), shifted(torch.manual_seed, seed)
    with patch.object(np.random, "seed", numpy_seed), patch.object(torch, "manual_seed", torch_seed):
        runpy.run_module(module, run_name="__main__", alter_sys=True)


def shifted(function: Callable[..., Any], seed: int) -> Callable[..., Any]:
    """Return the seeding function with Biom3d's own seed, and only that, raised by `seed`."""

    def seed_with(value: Any = None) -> Any:
        return function(ITS_SEED + seed if isinstance(value, int) and value == ITS_SEED else value)

    return seed_with


if __name__ == "__main__":
    main()
