"""Pieces on volumes whose answer is drawn by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from inference.anatomy.pieces import FAR, drop_far_pieces, keep_largest
from inference.card import Largest

LIVER, KIDNEY, SPLEEN, LESION = 1, 2, 3, 14


def volume() -> np.ndarray:
    """A liver of 40 x 40 x 40 mm at the top; below it a bladder, at its side a lobe that is cut off, and lesions."""
    labels = np.zeros((140, 60, 60), np.uint8)
    labels[90:130, 5:45, 5:45] = LIVER
    labels[5:15, 20:30, 20:30] = LIVER  # 75 mm below
    labels[95:100, 5:45, 48:52] = LIVER  # 3 mm beside
    labels[20:24, 52:56, 52:56] = LIVER  # the least that is always seen, 4 mm wide
    labels[5:8, 5:8, 5:8] = labels[110:113, 20:23, 20:23] = LESION
    return labels


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_what_lies_far_from_its_organ_goes_and_nothing_else(scale: int) -> None:
    labels = volume().repeat(scale, 0).repeat(scale, 1).repeat(scale, 2)
    expected = labels.copy()
    expected[: 30 * scale][expected[: 30 * scale] == LIVER] = 0
    lost = drop_far_pieces(labels, (1.0 / scale,) * 3, [LIVER])
    assert lost == {LIVER: (1000 + 64) * scale**3}
    assert np.array_equal(labels, expected)


def test_the_organ_is_where_the_others_are_even_if_something_larger_lies_elsewhere() -> None:
    labels = np.zeros((150, 60, 60), np.uint8)
    labels[100:130, 5:35, 5:35] = LIVER
    labels[100:120, 36:56, 36:56] = SPLEEN
    labels[100:120, 40:55, 10:30] = KIDNEY
    expected = labels.copy()
    labels[0:10, 10:46, 10:46] = SPLEEN  # a thigh, larger than the spleen
    labels[22:30, 10:20, 10:20] = LIVER  # beside it
    assert drop_far_pieces(labels, (1.0, 1.0, 1.0), [LIVER, SPLEEN, KIDNEY]) == {LIVER: 800, SPLEEN: 12960}
    assert np.array_equal(labels, expected)


def test_a_crumb_among_other_organs_is_not_the_organ() -> None:
    labels = np.zeros((150, 60, 60), np.uint8)
    labels[100:130, 5:55, 5:55] = LIVER
    labels[10:30, 5:35, 5:35] = SPLEEN
    labels[100:120, 56:60, 5:35] = SPLEEN  # a seventh of the spleen
    assert drop_far_pieces(labels, (1.0, 1.0, 1.0), [LIVER, SPLEEN]) == {SPLEEN: 2400}


def test_distance_is_in_mm() -> None:
    labels = volume()
    assert drop_far_pieces(labels, (FAR / 90, 1.0, 1.0), [LIVER]) == {}  # all slices are now nearer
    assert np.array_equal(labels, volume())


def test_labels_that_may_be_in_many_pieces_stay() -> None:
    labels = volume()
    assert drop_far_pieces(labels, (1.0, 1.0, 1.0), []) == {}
    assert np.array_equal(labels, volume())
    empty = np.zeros((9, 9, 9), np.uint8)
    assert drop_far_pieces(empty, (1.0, 1.0, 1.0), [LIVER]) == {}


def kept_by_hand(labels: np.ndarray, spacing: tuple[float, ...], rules: list[Largest]) -> np.ndarray:
    """What nnU-Net v1 keeps, object by object."""
    labels = labels.copy()
    for rule in rules:
        objects, count = ndimage.label(np.isin(labels, rule.values))
        sizes = [int((objects == one).sum()) for one in range(1, count + 1)]
        for one, size in enumerate(sizes, 1):
            if size != max(sizes) and (rule.below is None or size * np.prod(spacing) < rule.below):
                labels[objects == one] = 0
    return labels


@pytest.mark.parametrize(
    "rules",
    [
        [Largest((1,))],
        [Largest((1, 2)), Largest((2,)), Largest((1,), 30.0)],
        [Largest((1, 2, 3), 100.0), Largest((9,))],
    ],
)
def test_the_largest_piece_alone_stays_of_labels_by_themselves_or_together(rules: list[Largest]) -> None:
    spacing = (3.0, 0.7, 1.1)
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(20, 40, 40)), 1.2)
    labels = np.digitize(noise / noise.std(), [0.3, 0.9, 1.5]).astype(np.uint8)
    labels[0, :2, :2], labels[-1, -1, -2:] = 1, 1
    expected, before = kept_by_hand(labels, spacing, rules), np.bincount(labels.ravel())
    lost = keep_largest(labels, spacing, rules)
    assert np.array_equal(labels, expected)
    after = np.bincount(labels.ravel(), minlength=len(before))
    assert lost == {value: n for value, n in enumerate(before - after) if n > 0} != {}


def test_of_two_largest_pieces_both_stay() -> None:
    labels = np.zeros((4, 9, 9), np.uint8)
    labels[0, 0, :3] = labels[3, 8, :3] = 1
    labels[2, 4, 4] = labels[1, 1, 3] = 1  # alone, and beside an edge of the first
    assert keep_largest(labels, (1, 1, 1), [Largest((1,))]) == {1: 2}
    assert np.argwhere(labels).tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2], [3, 8, 0], [3, 8, 1], [3, 8, 2]]
