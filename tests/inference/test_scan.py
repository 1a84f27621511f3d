"""Orientations: by hand on one voxel, and there and back."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from inference.scan import reorient

ALL = ["".join(letters) for axes in permutations(["LR", "AP", "SI"]) for letters in product(*axes)]


def test_a_flip_of_x_by_hand() -> None:
    array = np.arange(6).reshape(1, 2, 3)
    assert reorient(array, "LPS", "RPS").tolist() == [[[2, 1, 0], [5, 4, 3]]]


def test_sagittal_slices_become_axial() -> None:
    array = np.zeros((2, 3, 4))  # stored x runs to P, y to S, z to L
    array[1, 2, 3] = 1  # most left, most superior, most posterior
    turned = reorient(array, "PSL", "LPS")
    assert turned.shape == (3, 4, 2)
    assert turned[2, 3, 1] == 1


@pytest.mark.parametrize("source", ALL)
def test_there_and_back(source: str) -> None:
    array = np.arange(24).reshape(2, 3, 4)
    turned = reorient(array, source, "LPS")
    assert np.array_equal(reorient(turned, "LPS", source), array)
    assert turned.base is not None  # a view


@pytest.mark.parametrize("wrong", ["LPL", "LP", "XYZ", "lps", "LRS"])
def test_letters_that_are_no_orientation_are_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        reorient(np.zeros((1, 1, 1)), wrong, "LPS")
