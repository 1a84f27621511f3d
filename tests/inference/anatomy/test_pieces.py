"""Pieces on volumes whose answer is drawn by hand."""

from __future__ import annotations

import numpy as np
import pytest

from inference.anatomy.pieces import FAR, drop_far_pieces

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
