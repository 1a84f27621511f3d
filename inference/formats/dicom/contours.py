"""Closed contours around the pixels of a mask."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

# Where a contour crosses the line from a pixel of the mask to the next outside it. A trifle nearer to the mask's: who
# rounds corners to pixels, as rt-utils does, gets the mask's own then, and not one or the other.
LEVEL = 0.51


def contours(mask: np.ndarray) -> Iterator[np.ndarray]:
    """Contours (n, 2) of a mask (y, x), each a closed line of points (row, column) in pixels, the last joined to the
    first. Pixels that touch at a corner only are apart. The mask is all pixels whose middle is inside: a hole is cut
    out along a line to it and back.
    """
    from contourpy import FillType, contour_generator

    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return
    top, left = rows[0], columns[0]
    part = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1].astype(np.float32), 1)
    drawer = contour_generator(z=part, name="serial", fill_type=FillType.OuterOffset)
    for points, offsets in zip(*drawer.filled(LEVEL, 2.0), strict=True):
        points = np.round(points, 2)
        loops = [points[start : end - 1] for start, end in pairwise(offsets)]  # ends meet
        line = _corners(_one_line(loops))
        yield line[:, ::-1] + (top - 1, left - 1)


def _one_line(loops: list[np.ndarray]) -> np.ndarray:
    """An outer contour and those of its holes, (n, 2) each, (x, y), as one line.

    From its leftmost point each hole is joined to the nearest line on the left of its row, of which there is a point
    on the row: all that lies between is in the mask. It is joined a little beyond that point, so that the way there
    passes by the middles of pixels: whether a point on a line is inside is for nobody to say.
    """
    line, *holes = loops
    for hole in sorted(holes, key=lambda one: one[:, 0].min()):
        start = int(hole[:, 0].argmin())
        x, y = hole[start]
        on_row = np.flatnonzero((line[:, 1] == y) & (line[:, 0] < x))
        at = int(on_row[line[on_row, 0].argmax()])
        beyond = line[at] + (line[(at + 1) % len(line)] - line[at]) / 64
        ring = [np.roll(hole, -start, axis=0), hole[start]]
        line = np.vstack([line[: at + 1], beyond, *ring, beyond, line[at + 1 :]])
    return line


def _corners(line: np.ndarray) -> np.ndarray:
    """A closed line without the points in which it goes straight on."""
    before, after = line - np.roll(line, 1, axis=0), np.roll(line, -1, axis=0) - line
    straight = (before[:, 0] * after[:, 1] == before[:, 1] * after[:, 0]) & ((before * after).sum(axis=1) > 0)
    return line[~straight]
