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


def test_what_is_not_annotated_changes_no_loss(target):
    scores = torch.randn(2, 3, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    hidden = target.clone()
    hidden[:, 4:] = -1
    expected = dice_cross_entropy(scores[:, :, :4], target[:, :4])
    assert dice_cross_entropy(scores, hidden, partial=True).item() == pytest.approx(expected.item(), abs=1e-5)
    heads = [scores, torch.nn.functional.avg_pool3d(scores, 2)]
    changed = [heads[0].clone(), heads[1].clone()]
    changed[0][:, :, 4:], changed[1][:, :, 2:] = 9, -9
    assert deep_supervision(heads, hidden, partial=True) == deep_supervision(changed, hidden, partial=True)


def test_a_patch_without_annotation_teaches_nothing():
    scores = torch.randn(1, 3, 4, 4, 4, requires_grad=True)
    dice_cross_entropy(scores, torch.full((1, 4, 4, 4), -1), partial=True).backward()
    assert not scores.grad.any()


def test_where_all_is_annotated_the_loss_is_the_usual_one(target):
    scores = torch.randn(2, 3, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    usual = deep_supervision([scores], target)
    assert deep_supervision([scores], target, partial=True).item() == pytest.approx(usual.item(), abs=1e-5)
