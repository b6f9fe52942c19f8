import dataclasses

import pytest

from biom3d.config import PlanRequest
from biom3d.planning.fingerprint import make_fingerprint
from biom3d.planning.length import Speed, epochs_in_time, fit_length, is_open, length_at, restored, shortened
from biom3d.planning.machine import Machine
from biom3d.planning.plan import make_plan
from biom3d.training.checkpoint import plan_facts


def plan(**wishes):
    facts = make_fingerprint([(1, 32, 64, 64)] * 4, [(1.0, 1.0, 1.0)] * 4, is_2d=False)
    return make_plan("m", facts, PlanRequest(**wishes), Machine("cpu", 4.0, False))


def test_as_many_epochs_are_trained_as_fit():
    fitted = fit_length(plan(max_minutes=10, num_epochs=100, num_steps=20), Speed(1.0, 0.5))
    assert (fitted.num_epochs, fitted.num_steps, fitted.num_val_steps) == (27, 20, 4)  # 600 s / 22 s
    assert "27 of 100 epochs" in fitted.why["num_epochs"]


def test_a_limit_that_is_not_reached_changes_no_length():
    fitted = fit_length(plan(max_minutes=1000, num_epochs=5, num_steps=20), Speed(1.0, 0.5))
    assert (fitted.num_epochs, fitted.num_steps) == (5, 20)


def test_where_few_epochs_fit_each_has_fewer_batches():
    speed = Speed(1.0, 0.5)
    fitted = fit_length(plan(max_minutes=5, num_epochs=100, num_steps=250), speed)
    took = fitted.num_epochs * speed.epoch_s(fitted.num_steps, fitted.num_val_steps)
    assert fitted.num_epochs in (9, 10)
    assert 270 < took <= 300


def test_few_slow_batches_use_the_time_too():
    fitted = fit_length(plan(max_minutes=3, num_epochs=10, num_steps=20), Speed(9.7, 3.0))
    assert (fitted.num_epochs, fitted.num_steps) == (8, 2)  # 8 x 22.4 s


def test_the_shortest_limit_leaves_one_batch():
    fitted = fit_length(plan(max_minutes=0.001), Speed(100.0, 100.0))
    assert (fitted.num_epochs, fitted.num_steps, fitted.num_val_steps) == (1, 1, 1)


def test_a_short_training_gets_the_optimiser_of_short_ones():
    long = plan(max_minutes=10)
    fitted = fit_length(long, Speed(1.0, 0.5))
    assert (long.optimizer, fitted.optimizer, fitted.learning_rate) == ("sgd", "adamw", 0.003)
    assert "few" in fitted.why["optimizer"]


@pytest.mark.parametrize("wish", [{"optimizer": "sgd"}, {"learning_rate": 0.02}])
def test_what_was_asked_for_stays(wish):
    fitted = fit_length(plan(max_minutes=10, **wish), Speed(1.0, 0.5))
    assert {name: getattr(fitted, name) for name in wish} == wish


def test_an_edited_optimiser_stays():
    edited = dataclasses.replace(plan(max_minutes=10), learning_rate=0.05)
    assert fit_length(edited, Speed(1.0, 0.5)).learning_rate == 0.05


def test_a_fitted_plan_is_not_fitted_again():
    wanted = plan(max_minutes=10)
    assert is_open(wanted)
    assert not is_open(fit_length(wanted, Speed(1.0, 0.5)))
    assert not is_open(plan())


def test_a_saved_plan_restores_the_length_for_the_plan_it_came_from_only():
    wanted = plan(max_minutes=10)
    fitted = shortened(fit_length(wanted, Speed(1.0, 0.5)), 3, 7)
    saved = plan_facts(fitted)
    assert plan_facts(restored(wanted, saved)) == saved
    assert restored(dataclasses.replace(wanted, width=8), saved) is None
    assert restored(wanted, {}) is None


def test_a_machine_that_became_slow_gets_fewer_epochs():
    fitted = fit_length(plan(max_minutes=10, num_epochs=100, num_steps=20), Speed(1.0, 0.5))
    assert epochs_in_time(fitted, 5, 110, 22) == 27
    assert epochs_in_time(fitted, 5, 110, 24) == 27  # within the tolerance
    assert epochs_in_time(fitted, 1, 28, 28) == 27  # of the first epochs
    assert epochs_in_time(fitted, 1, 60, 60) == 10
    assert epochs_in_time(fitted, 5, 200, 44) == 14
    assert epochs_in_time(fitted, 5, 700, 140) == 5


@pytest.mark.parametrize("slower", [1.0, 1.2, 1.5, 3.0])
def test_a_training_ends_within_a_tenth_of_its_limit(slower):
    """A machine that is slower than measured, evenly, from the first epoch on."""
    now = fit_length(plan(max_minutes=10, num_epochs=1000, num_steps=20), Speed(1.0, 0.5))
    epoch_s, done = 22 * slower, 0
    while done < now.num_epochs:
        done += 1
        now = shortened(now, done, epochs_in_time(now, done, done * epoch_s, epoch_s))
    assert 0.9 * 600 <= done * epoch_s <= 1.1 * 600


def test_epochs_before_it_was_shortened_keep_the_rate_they_had():
    short = shortened(shortened(dataclasses.replace(plan(), num_epochs=27), 5, 14), 8, 10)
    assert [length_at(short, epoch) for epoch in (0, 4, 5, 7, 8, 9)] == [27, 27, 14, 14, 10, 10]
