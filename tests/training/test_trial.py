import dataclasses

from biom3d.config import PlanRequest
from biom3d.planning.fingerprint import make_fingerprint
from biom3d.planning.length import Speed
from biom3d.planning.machine import describe_machine
from biom3d.planning.plan import make_plan
from biom3d.training.trial import fold_seconds, try_plan

REQUEST = PlanRequest(num_classes=2, num_epochs=3, num_steps=10, width=4, patch_size=(8, 16, 16), batch_size=2)
PLAN = make_plan("m", make_fingerprint([(2, 16, 24, 24)], [(1.0, 1.0, 1.0)], False), REQUEST, describe_machine())


def test_a_plan_is_tried_without_any_data():
    speed = try_plan(PLAN, threads=1)
    assert 0 < speed.validation_s < 60
    assert 0 < speed.training_s < 60


def test_a_fold_takes_its_epochs_or_its_limit():
    speed = Speed(2.0, 1.0)
    assert fold_seconds(PLAN, speed) == 3 * (10 * 2.0 + PLAN.num_val_steps * 1.0)
    assert fold_seconds(dataclasses.replace(PLAN, max_minutes=0.5), speed) == 30
