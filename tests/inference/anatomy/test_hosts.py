"""Tumours that grow in no organ are given to what is around them; others stay."""

from __future__ import annotations

import numpy as np
import pytest

from inference.anatomy.hosts import drop_hostless

LIVER, SPLEEN, STOMACH, TUMOUR = 1, 3, 11, 14
HOSTS = {TUMOUR: (LIVER, SPLEEN)}


def scene() -> np.ndarray:
    labels = np.zeros((20, 40, 60), np.uint8)
    labels[2:18, 4:36, 4:26] = LIVER
    labels[2:18, 4:36, 36:56] = STOMACH
    return labels


@pytest.mark.parametrize(
    ("box", "becomes"),
    [
        ((slice(6, 10), slice(10, 16), slice(10, 16)), TUMOUR),  # in the liver
        ((slice(6, 10), slice(10, 16), slice(24, 29)), TUMOUR),  # grown out of it
        ((slice(6, 10), slice(10, 16), slice(42, 48)), STOMACH),  # in the stomach
        ((slice(6, 10), slice(10, 16), slice(29, 33)), 0),  # between them
        ((slice(0, 1), slice(0, 1), slice(59, 60)), 0),  # at a corner of the volume
    ],
)
def test_a_piece_stays_where_it_touches_a_host(box: tuple[slice, ...], becomes: int) -> None:
    labels = scene()
    labels[box] = TUMOUR
    size = int((labels == TUMOUR).sum())
    lost = drop_hostless(labels, HOSTS)
    assert (labels[box] == becomes).all()
    assert lost == ({} if becomes == TUMOUR else {TUMOUR: size})


def test_each_piece_is_judged_by_itself_and_nothing_else_changes() -> None:
    labels = scene()
    wanted = labels.copy()
    labels[6:10, 10:16, 10:16] = wanted[6:10, 10:16, 10:16] = TUMOUR
    labels[6:10, 10:16, 42:48] = TUMOUR
    labels[12:14, 30:33, 50:53] = TUMOUR
    assert drop_hostless(labels, HOSTS) == {TUMOUR: 4 * 6 * 6 + 2 * 3 * 3}
    assert np.array_equal(labels, wanted)
    assert drop_hostless(labels, {}) == {} and drop_hostless(wanted, {TUMOUR: (SPLEEN,)}) != {}


def test_a_large_tumour_that_leaves_little_of_its_host_stays() -> None:
    """One of its six faces, a ninth of its surface, is on the liver."""
    labels = np.zeros((24, 60, 60), np.uint8)
    labels[4:20, 10:50, 10:50] = TUMOUR
    labels[4:20, 10:50, 50:54] = LIVER
    assert drop_hostless(labels, HOSTS) == {}


def test_a_volume_that_is_all_tumour_stays() -> None:
    labels = np.full((4, 5, 6), TUMOUR, np.uint8)
    assert drop_hostless(labels, HOSTS) == {} and (labels == TUMOUR).all()
