import pytest
import torch

from biom3d.training.losses import deep_supervision, dice_cross_entropy
from biom3d.training.schedule import polynomial_decay


def perfect(target, classes=3):
    return torch.nn.functional.one_hot(target, classes).movedim(-1, 1).float() * 40


@pytest.fixture
def target():
    return torch.randint(0, 3, (2, 8, 8, 8), generator=torch.Generator().manual_seed(0))


def test_a_perfect_prediction_has_loss_minus_one(target):
    assert dice_cross_entropy(perfect(target), target).item() == pytest.approx(-1, abs=1e-4)


def test_an_undecided_prediction_has_a_positive_loss(target):
    assert dice_cross_entropy(torch.zeros(2, 3, 8, 8, 8), target).item() > 0.5


def test_a_class_that_is_absent_everywhere_does_no_harm():
    target = torch.zeros(1, 4, 4, 4, dtype=torch.long)
    assert torch.isfinite(dice_cross_entropy(perfect(target), target))


def test_the_finest_head_weighs_most(target):
    good, bad = perfect(target), perfect(target).flip(1)
    assert deep_supervision([good, bad], target) < deep_supervision([bad, good], target)


def test_coarse_heads_are_compared_with_coarse_labels():
    target = torch.zeros(1, 8, 8, 8, dtype=torch.long)
    target[:, :4] = 1
    assert deep_supervision([perfect(target, 2), perfect(target[:, ::2, ::2, ::2], 2)], target) < -0.99


def test_the_learning_rate_falls_from_its_start_towards_zero():
    rates = [polynomial_decay(0.01, epoch, 10) for epoch in range(10)]
    assert rates[0] == 0.01
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] > 0
