"""The losses by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest

torch = pytest.importorskip("torch")

from training.labels import IGNORE  # noqa: E402
from training.losses import deep_loss, dice_and_cross_entropy, disagreement  # noqa: E402


def test_it_falls_where_the_answer_is_right_and_ignores_what_is_unknown() -> None:
    label = torch.tensor([[[[0, 1, 2, IGNORE]]]])
    weight = torch.ones(3)
    right = torch.full((1, 3, 1, 1, 4), -9.0)
    for at, channel in enumerate((0, 1, 2, 0)):
        right[0, channel, 0, 0, at] = 9.0
    assert float(dice_and_cross_entropy(right, label, weight)) < 0.01
    wrong_where_unknown = right.clone()
    wrong_where_unknown[..., 3] = torch.tensor([-9.0, 9.0, -9.0])[:, None, None]
    assert dice_and_cross_entropy(wrong_where_unknown, label, weight) == dice_and_cross_entropy(right, label, weight)
    assert float(dice_and_cross_entropy(-right, label, weight)) > 1
    nothing = torch.full_like(label, IGNORE)
    assert float(dice_and_cross_entropy(right, nothing, weight)) == 0


def test_dice_and_cross_entropy_of_two_voxels() -> None:
    """Both classes have probability 1/2 everywhere: log 2, and a Dice of (2 * 1/2 + 1) / (1 + 1 + 1) for class 1."""
    label = torch.tensor([[[[0, 1]]]])
    loss = dice_and_cross_entropy(torch.zeros(1, 2, 1, 1, 2), label, torch.ones(2))
    assert float(loss) == pytest.approx(0.6931 + 1 - 2 / 3, abs=1e-3)


def test_a_class_that_weighs_more_counts_more() -> None:
    label = torch.tensor([[[[0, 1]]]])
    finds_background = torch.tensor([9.0, -9.0]).view(1, 2, 1, 1, 1).expand(1, 2, 1, 1, 2)
    losses = [float(dice_and_cross_entropy(finds_background, label, torch.tensor([1.0, w]))) for w in (0.5, 1, 3)]
    assert all(less < more for less, more in pairwise(losses))


def test_coarse_outputs_are_compared_with_coarse_labels() -> None:
    label = torch.zeros((1, 4, 4, 4), dtype=torch.int64)
    label[:, 2:] = 1
    outputs = [torch.nn.functional.one_hot(label[:, ::n, ::n, ::n], 2).movedim(-1, 1) * 18.0 - 9 for n in (1, 2)]
    assert float(deep_loss(outputs, label, torch.ones(2))) < 0.01
    assert float(deep_loss([outputs[0], -outputs[1]], label, torch.ones(2))) > 1


def test_a_part_is_drawn_to_what_the_whole_says_and_not_the_other_way() -> None:
    torch.manual_seed(0)
    outer, inner = torch.randn((2, 2, 3, 4, 5, 6)).requires_grad_()
    weight = torch.ones((4, 5, 6))
    assert disagreement(outer, outer, weight).item() == 0
    apart = disagreement(inner, outer, weight)
    to_inner, to_outer = torch.autograd.grad(apart, (inner, outer), allow_unused=True)
    assert apart > 0 and to_outer is None
    assert disagreement(inner - to_inner, outer, weight) < apart
    weight[:2] = 0  # what counts nothing draws nothing
    assert not torch.autograd.grad(disagreement(inner, outer, weight), inner)[0][..., :2, :, :].any()
