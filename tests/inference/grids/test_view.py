"""A scan as a network sees it: turned, cropped, and boxes there, against the same done by painting."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from inference.boxes import Box, bounding
from inference.grids.view import View, nonzero_box
from inference.scan import Scan, reorient
from tests.inference.cards import make_card
from tests.inference.test_scan import ALL

SHAPE = (9, 14, 11)


def scan_in(orientation: str, rng: np.random.Generator) -> Scan:
    """With a border of zeros on some sides."""
    voxels = rng.integers(1, 100, SHAPE).astype(np.int16)
    for axis in range(3):
        low, high = rng.integers(0, 3, 2)
        planes = np.moveaxis(voxels, axis, 0)
        planes[:low] = 0
        planes[SHAPE[axis] - high :] = 0
    z, y, x = (float(mm) for mm in rng.uniform(0.7, 5, 3))
    return Scan.of(voxels, (z, y, x), orientation)


def painted(view: View, stored: Box, margin: float) -> Box:
    """The box by marking its voxels on the stored grid and looking where they are."""
    marked = np.zeros(SHAPE, bool)
    marked[stored] = True
    there = bounding(view.cropped(marked))
    assert there is not None
    box = []
    for part, crop, n, mm in zip(there, view.crop, view.shape, view.spacing, strict=True):
        ratio = n / (crop.stop - crop.start)
        low, high = part.start * ratio - margin / mm, part.stop * ratio + margin / mm
        box.append(slice(max(int(np.floor(low)), 0), min(int(np.ceil(high)), n)))
    return box[0], box[1], box[2]


@pytest.mark.parametrize("orientation", ALL)
def test_boxes_and_arrays_are_turned_as_by_painting(orientation: str) -> None:
    rng = np.random.default_rng(ALL.index(orientation))
    for first, second, third in permutations(range(3)):
        axes = (first, second, third)
        scan = scan_in(orientation, rng)
        view = View.of(scan, make_card((2.0, 1.5, 1.1), orientation="LPS", axes=axes))
        expected = reorient(scan.voxels, orientation, "LPS").transpose(axes)
        assert np.array_equal(view.cropped(scan.voxels), expected[view.crop])
        assert view.own_spacing == pytest.approx([scan.grid.spacing[axis] for axis in view.axes])
        box = []
        for part in bounding(scan.voxels) or ():
            low, high = sorted(rng.integers(part.start, part.stop, 2))
            box.append(slice(int(low), int(high) + 1))
        stored = box[0], box[1], box[2]
        for margin in (0.0, 3.3):
            assert view.box(stored, margin) == painted(view, stored, margin)


def test_what_a_view_gives_is_the_scans_own_memory() -> None:
    scan = scan_in("RAS", np.random.default_rng(0))
    assert np.shares_memory(View.of(scan, make_card(orientation="LPS")).cropped(scan.voxels), scan.voxels)


def test_without_an_orientation_a_scan_is_seen_as_stored() -> None:
    scan = scan_in("SAR", np.random.default_rng(0))
    view = View.of(scan, make_card(orientation=None))
    assert (view.axes, view.flips) == ((0, 1, 2), (False, False, False))


def test_the_nonzero_box_by_hand() -> None:
    voxels = np.zeros((5, 6, 7))
    voxels[1, 2, 3] = voxels[3, 4, 3] = -1
    other = np.zeros((5, 6, 7))
    other[4, 2, 5] = 1
    assert nonzero_box([voxels]) == (slice(1, 4), slice(2, 5), slice(3, 4))
    assert nonzero_box([voxels, other]) == (slice(1, 5), slice(2, 5), slice(3, 6))
    assert nonzero_box([voxels, 0 * other]) == nonzero_box([voxels])
    assert nonzero_box([np.zeros((2, 3, 4))]) == (slice(0, 2), slice(0, 3), slice(0, 4))
