"""Contours of masks, filled again by programs that go about it in different ways."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from hypothesis.extra.numpy import arrays
from matplotlib.path import Path as Line
from PIL import Image, ImageDraw
from skimage.draw import polygon2mask

from inference.formats.dicom.contours import contours

pytest.importorskip("contourpy")


def by_skimage(line: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return polygon2mask(shape, line)


def by_matplotlib(line: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return Line(line).contains_points(np.argwhere(np.ones(shape))).reshape(shape)


def by_rounding(line: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """As rt-utils does by OpenCV: corners are rounded to pixels, and all pixels that the line meets are filled."""
    image = Image.new("1", shape[::-1])
    ImageDraw.Draw(image).polygon([(int(x), int(y)) for y, x in np.rint(line)], fill=1, outline=1)
    return np.asarray(image)


FILLED = (by_skimage, by_matplotlib)


def filled(mask: np.ndarray, fill: Callable[[np.ndarray, tuple[int, int]], np.ndarray]) -> np.ndarray:
    """By exclusive or, as readers have it: contours of one mask never lie inside each other."""
    found = np.zeros(mask.shape, bool)
    for line in contours(mask):
        part = fill(line, (mask.shape[0], mask.shape[1]))
        assert not (found & part).any()
        found ^= part
    return found


@given(arrays(bool, some.tuples(some.integers(1, 9), some.integers(1, 9))))
def test_any_mask_comes_back(mask: np.ndarray) -> None:
    for fill in FILLED:
        assert np.array_equal(filled(mask, fill), mask)


def rings(turns: int = 0) -> np.ndarray:
    """Holes beside and below each other, one with an island that has a hole itself, one that opens at a corner."""
    mask = np.ones((24, 30), bool)
    mask[2:12, 3:14] = False
    mask[4:10, 5:12] = True
    mask[6:8, 7:9] = False
    mask[2:5, 18:21] = mask[8:9, 18:27] = mask[15:20, 4:5] = mask[15:20, 9:11] = mask[12, 20] = mask[13, 21] = False
    mask[20:22, 24:] = False
    return np.rot90(mask, turns)


@pytest.mark.parametrize("turns", range(4))
def test_holes_and_islands_in_holes(turns: int) -> None:
    mask = rings(turns)
    lines = list(contours(mask))
    assert len(lines) == 2  # the island is one of its own
    for fill in (*FILLED, by_rounding):
        assert np.array_equal(filled(mask, fill), mask)


def test_a_disc_has_the_area_of_its_pixels_and_few_points() -> None:
    y, x = np.ogrid[:200, :200]
    mask = (y - 90) ** 2 + (x - 100) ** 2 < 80**2
    (line,) = contours(mask)
    after = np.roll(line, -1, axis=0)
    area = abs(float((line[:, 0] * after[:, 1] - line[:, 1] * after[:, 0]).sum())) / 2
    assert area == pytest.approx(mask.sum(), rel=0.005)
    assert np.array_equal(by_rounding(line, (200, 200)), mask)
    (square,) = contours(np.ones((50, 60), bool))
    assert len(square) == 8  # corners are cut: no point stands where a line goes straight on
    assert not list(contours(np.zeros((5, 5), bool)))
