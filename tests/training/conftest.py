from pathlib import Path

import numpy as np
import pytest

from biom3d.config import Plan, PlanRequest, save_plan
from biom3d.data.folds import assign_folds, write_folds
from biom3d.data.patches import sample_foreground
from biom3d.planning.fingerprint import make_fingerprint
from biom3d.planning.machine import Machine
from biom3d.planning.plan import make_plan

REQUEST = PlanRequest(folds=2, num_epochs=3, num_steps=3, patch_size=(8, 16, 16), width=4)


def make_data(folder: Path, count: int = 4) -> Path:
    """Write `count` preprocessed volumes of bright boxes, as preprocess would."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks", "foreground"):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        mask = np.zeros((12, 20, 20), np.uint8)
        mask[3:9, 4 + i : 14, 5:15] = 1
        image = (rng.normal(size=(1, *mask.shape)) + 3 * mask).astype(np.float32)
        np.save(folder / "images" / f"v{i}.npy", image)
        np.save(folder / "masks" / f"v{i}.npy", mask[None])
        voxels = sample_foreground(mask, 1, rng)
        np.savez(folder / "foreground" / f"v{i}.npz", **{str(c): v for c, v in voxels.items()})
    write_folds(folder / "folds.csv", assign_folds([f"v{i}.npy" for i in range(count)], 2, 0))
    return folder


def make_plan_file(path: Path, request: PlanRequest = REQUEST) -> Plan:
    facts = make_fingerprint([(1, 12, 20, 20)] * 4, [(2.0, 1.0, 1.0)] * 4, is_2d=False)
    plan = make_plan("boxes", facts, request, Machine("cpu", 1.0, False))
    save_plan(plan, path)
    return plan


@pytest.fixture
def data(tmp_path) -> Path:
    return make_data(tmp_path / "data")


@pytest.fixture
def plan_file(tmp_path) -> Path:
    make_plan_file(tmp_path / "plan.yaml")
    return tmp_path / "plan.yaml"
