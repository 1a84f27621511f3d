"""Votes by hand."""

from __future__ import annotations

import numpy as np
import pytest

from training.labelling.votes import trust, trusted, vote


def test_a_vote_by_hand() -> None:
    maps = [np.array(one, np.uint8) for one in ([1, 1, 0, 2, 0], [1, 0, 0, 2, 1], [1, 2, 2, 2, 2])]
    voted = vote(maps)
    assert voted.tolist() == [1, 0, 0, 2, 0]
    found = trust(maps, voted)
    assert found[1] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert found[2] == pytest.approx((1 + 1 + 2 / 5) / 3)


def test_what_teachers_doubt_is_ignored_and_what_is_given_stands() -> None:
    maps = [np.array(one, np.uint8) for one in ([1, 1, 0, 2, 0], [1, 0, 0, 2, 1], [1, 2, 2, 2, 2])]
    merged, _, kept = trusted(maps, 0.79, 9)
    assert merged.tolist() == [9, 9, 0, 2, 9]  # label 1 agrees in 0.78, label 2 in 0.8
    assert kept
    assert not trusted(maps, 0.9, 9)[2]
    reference = np.array([0, 2, 0, 0, 0], np.uint8)
    merged, _, _ = trusted(maps, 0.5, 9, reference, frozenset({2}))
    assert merged.tolist() == [1, 2, 0, 9, 0]
