"""A picture of a scan and its labels: three planes through the organs, with outlines, fill and a scale in mm.

Radiological view: the patient's right is at the left of an axial and a coronal plane, the front at the left of a
sagittal one.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..grids.resize import axis_matrix, nearest_index
from ..labels import RGB
from .letters import drawn
from .lying import Lying, richest

SIDE = 420  # pixels of the longest side of the patient
SMALL_SIDE = 96  # of a thumbnail, about 10 kB
GAP = 6  # pixels between two planes
FILL = 0.35  # of a label's colour
GREYS = 16  # steps of grey in a small picture: a third of the bytes
SCALES = (100, 50, 20, 10, 5)  # mm; the longest that takes at most a third of a plane
WHITE = 235
SIDES = (("R", "L"), ("R", "L"), ("A", "P"))  # of the planes, at the left and at the right


def picture(lying: Lying, colours: Mapping[int, RGB], window: tuple[float, float]) -> np.ndarray:
    """Axial, coronal and sagittal plane side by side, (rows, columns, 3) uint8.

    colours  value of a label -> its colour
    window   HU that are black and white
    """
    mm = _extent(lying) / SIDE
    planes = [_coloured(hu, labels, colours, window) for hu, labels in _planes(lying, mm)]
    for plane, sides in zip(planes, SIDES, strict=True):
        _annotate(plane, sides, mm)
    return _beside(planes)


def small_picture(lying: Lying, colours: Mapping[int, RGB], window: tuple[float, float]) -> np.ndarray:
    """The same as a thumbnail, without a scale."""
    planes = _planes(lying, _extent(lying) / SMALL_SIDE)
    return _beside([_coloured(hu, labels, colours, window, GREYS) for hu, labels in planes])


def _extent(lying: Lying) -> float:
    """mm of the longest side."""
    return max(count * mm for count, mm in zip(lying.labels.shape, lying.spacing, strict=True))


def _planes(lying: Lying, mm: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """HU float32 and labels of the three planes, with pixels of so many mm."""
    cuts = []
    for axis, index in enumerate(richest(lying.labels)):
        down, across = (other for other in range(3) if other != axis)
        counts = [lying.labels.shape[other] for other in (down, across)]
        sizes = [max(round(lying.labels.shape[other] * lying.spacing[other] / mm), 1) for other in (down, across)]
        rows, columns = (axis_matrix(n, size, 1) for n, size in zip(counts, sizes, strict=True))
        nearest = np.ix_(*(nearest_index(n, size) for n, size in zip(counts, sizes, strict=True)))
        hu, labels = (np.moveaxis(one, axis, 0)[index] for one in (lying.hu, lying.labels))  # take would copy it all
        cuts.append((rows @ hu.astype(np.float32) @ columns.T, labels[nearest]))
    return cuts


def _coloured(
    hu: np.ndarray, labels: np.ndarray, colours: Mapping[int, RGB], window: tuple[float, float], greys: int = 256
) -> np.ndarray:
    """Grey, with labels filled and outlined inside their edge, (rows, columns, 3) uint8."""
    low, high = window
    grey = np.clip((hu - low) / max(high - low, 1e-6), 0, 1)
    grey = 255 * np.floor(grey * (greys - 1) + 0.5) / (greys - 1)
    share = np.where(_edges(labels), 1.0, FILL)[..., None] * (labels > 0)[..., None]
    table = np.zeros((256, 3), np.float32)
    for value, colour in colours.items():
        table[value] = colour
    return np.rint(grey[..., None] * (1 - share) + table[labels] * share).astype(np.uint8)


def _edges(labels: np.ndarray) -> np.ndarray:
    """Where a pixel beside has another label."""
    padded = np.pad(labels, 1, mode="edge")
    beside = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return np.logical_or.reduce([one != labels for one in beside])


def _annotate(plane: np.ndarray, sides: tuple[str, str], mm: float) -> None:
    """Write the sides of the patient at the edges, and a bar of a round length with its mm."""
    rows, columns = plane.shape[:2]
    for text, column in zip(sides, (3, columns - 9), strict=True):
        _put(plane, drawn(text), rows // 2, column)
    length = next((one for one in SCALES if one / mm <= columns / 3), SCALES[-1])
    bar = np.ones((2, round(length / mm)), bool)
    bar = np.pad(bar, ((4, 0), (0, 0)))
    bar[:, [0, -1]] = True
    _put(plane, bar, rows - 10, 4)
    _put(plane, drawn(f"{length} mm"), rows - 20, 4)


def _put(plane: np.ndarray, mask: np.ndarray, row: int, column: int) -> None:
    """White on a black shadow, as far as it lies in the plane."""
    for offset, value in ((1, 0), (0, WHITE)):
        part = plane[max(row, 0) + offset :, max(column, 0) + offset :][: mask.shape[0], : mask.shape[1]]
        part[mask[: part.shape[0], : part.shape[1]]] = value


def _beside(planes: list[np.ndarray]) -> np.ndarray:
    height = max(plane.shape[0] for plane in planes)
    whole = np.zeros((height, sum(plane.shape[1] + GAP for plane in planes) - GAP, 3), np.uint8)
    column = 0
    for plane in planes:
        top = (height - plane.shape[0]) // 2
        whole[top : top + plane.shape[0], column : column + plane.shape[1]] = plane
        column += plane.shape[1] + GAP
    return whole
