"""The label map of an earlier network at a later one's spacing, beside nnU-Net's own resampling."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from inference.card import Earlier
from inference.grids.earlier import one_hot, resampled
from inference.grids.view import View
from inference.scan import Scan
from tests.inference.cards import make_card

SPACING = (4.0, 2.0, 1.5)


@pytest.mark.parametrize("seen", [(2.0, 1.0, 1.5), (5.0, 1.3, 2.2), (12.0, 3.0, 2.0)])
@pytest.mark.parametrize("force", [False, None])
@pytest.mark.parametrize(("method", "order"), [("spline", 0), ("spline", 1), ("torch", 1)])
def test_labels_are_resampled_as_by_nnu_net(
    method: str, order: int, force: bool | None, seen: Any, nnunet: None
) -> None:
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
    from nnunetv2.preprocessing.resampling.resample_torch import resample_torch_fornnunet

    labels = np.random.default_rng(0).integers(-1, 4, (7, 12, 15), np.int16)
    scan = Scan.of(np.ones(labels.shape, np.int16), SPACING, "LPS")
    card = make_card(spacing=seen, orientation="LPS", axes=(0, 1, 2))
    view = View.of(scan, card)
    found = resampled(labels, view, Earlier(card, (1, 2, 3), order, force, method))
    how: dict[str, Any] = {"is_seg": True, "force_separate_z": force}
    if method == "torch":
        expected = resample_torch_fornnunet(labels[None].astype(np.float32), view.shape, SPACING, seen, **how)
    else:
        how |= {"order": order, "order_z": 0}
        expected = resample_data_or_seg_to_shape(labels[None].astype(np.float32), view.shape, SPACING, seen, **how)
    differ = (found != np.asarray(expected[0])).mean()
    assert differ < 0.005 if method == "torch" else not differ  # of random labels many sums are equal but for rounding


def test_a_label_that_is_no_input_is_a_neighbour_all_the_same() -> None:
    """As where nnU-Net looks for the values of labels with gaps in a label map that counts them."""
    labels = np.random.default_rng(0).integers(0, 4, (7, 12, 15), np.uint8)
    card = make_card(spacing=(5.0, 1.3, 2.2), orientation="LPS", axes=(0, 1, 2), channels=4)
    scan = Scan.of(np.ones(labels.shape, np.int16), SPACING, "LPS")
    view, inside = View.of(scan, card), np.ones(labels.shape, bool)
    every, second = (one_hot(labels, inside, view, Earlier(card, values, 1, None), np) for values in ((1, 2, 3), (2,)))
    assert np.array_equal(second[0], every[1])


def test_a_label_that_no_region_writes_is_nowhere() -> None:
    labels = np.random.default_rng(0).integers(0, 3, (7, 12, 15), np.uint8)
    card = make_card(spacing=SPACING, orientation="LPS", axes=(0, 1, 2))
    view = View.of(Scan.of(np.ones(labels.shape, np.int16), SPACING, "LPS"), card)
    found = one_hot(labels, np.ones(labels.shape, bool), view, Earlier(card, (1, 2, 300), 1, None), np)
    assert np.array_equal(found, np.stack([labels == 1, labels == 2, np.zeros(labels.shape)]))
