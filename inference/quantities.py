"""What is measured of each label: volume, HU, extent, contact with the edges of the volume; of a tumour also its pieces
and its longest axial diameter. And how far two label maps agree, label by label.

Labels are looked at axial plane by axial plane, as runs: voxels of one label that lie side by side in a row. A run's
length and ends are all that anything but HU needs, and only runs of tumours are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .labels import is_tumor
from .scan import OPPOSITE, Grid

VALUES = 256  # of a label map
HU = np.iinfo(np.int16)  # what lies beyond is taken as its ends
SIDES = {"R": "right edge", "L": "left edge", "A": "front edge", "P": "back edge"}
AXES = ("left-right", "front-back", "head-foot")  # of the patient, in the order of an affine's rows
# Fewer directions would need more hulls: the longest of these widths is at least 0.995 of the diameter.
DIRECTIONS = 16


def dice(one: np.ndarray, other: np.ndarray) -> dict[int, float]:
    """Value -> Dice, of each label that either of two label maps (uint8, of one shape) holds."""
    both = np.bincount(one[one == other].ravel(), minlength=VALUES)
    sizes = np.bincount(one.ravel(), minlength=VALUES) + np.bincount(other.ravel(), minlength=VALUES)
    return {int(value): float(2 * both[value] / sizes[value]) for value in np.flatnonzero(sizes) if value}


def quantities(
    labels: np.ndarray, grid: Grid, names: Mapping[int, str], hounsfield: Mapping[int, np.ndarray]
) -> dict[str, dict[str, Any]]:
    """What a record says of each label that was found: value -> name and numbers, as docs/usage.md explains them.

    labels      (z, y, x) uint8 on the grid
    names       value -> name of the labels to measure
    hounsfield  number of a channel -> its voxels (z, y, x) in HU, finite
    """
    axial = 2 - next(i for i, letter in enumerate(grid.orientation) if letter in "SI")
    rows, columns = (axis for axis in range(3) if axis != axial)
    steps = grid.affine[:3, [2 - axial, 2 - rows, 2 - columns]]  # mm (R, A, S) from a voxel to the next, by axis
    places = [grid.orientation[2 - axis] for axis in (rows, columns)]
    sides = ["first slice", "last slice", *(SIDES[one] for at in places for one in (OPPOSITE[at], at))]
    values = np.array(sorted(names), np.intp)  # of none as well
    planes = np.moveaxis(labels, axial, 0)
    tumors: dict[int, list[np.ndarray]] = {value: [] for value in names if is_tumor(names[value])}
    voxels = np.zeros(VALUES, np.int64)
    edges = np.zeros((len(sides), VALUES), np.int64)
    low, high = np.full((3, VALUES), np.inf), np.full((3, VALUES), -np.inf)
    scales = {channel: _Scale(values) for channel in hounsfield}
    for at, plane in enumerate(planes):
        if not plane.any():
            continue
        plane = np.ascontiguousarray(plane)
        value, row, first, last = _runs(plane)
        length = last - first + 1
        touches = (at == 0, at == len(planes) - 1, row == 0, row == plane.shape[0] - 1)
        for side, touching in zip(edges, touches, strict=False):
            np.add.at(side, value, length * touching)
        for side, touching in zip(edges[4:], (first == 0, last == plane.shape[1] - 1), strict=True):
            np.add.at(side, value, touching.astype(np.int64))
        np.add.at(voxels, value, length)
        for column in (first, last):
            for lowest, highest, step in zip(low, high, steps, strict=True):
                place = step[0] * at + step[1] * row + step[2] * column
                np.minimum.at(lowest, value, place)
                np.maximum.at(highest, value, place)
        for tumor, runs in tumors.items():
            own = value == tumor
            runs.append(np.stack([np.full(own.sum(), at), row[own], first[own], last[own]], axis=1))
        for channel, scale in scales.items():
            scale.add(plane, np.moveaxis(hounsfield[channel], axial, 0)[at])
    extents = high - low + np.abs(steps).sum(axis=1)[:, None]  # low and high are centres of voxels
    found: dict[str, dict[str, Any]] = {}
    for value in values[voxels[values] > 0].tolist():
        ml = float(voxels[value]) * grid.voxel_ml
        entry = found[str(value)] = {
            "name": names[value],
            "voxels": int(voxels[value]),
            "ml": round(ml, 3) or float(f"{ml:.3g}"),
            "hu": {str(channel): scale.of(value) for channel, scale in scales.items()},
            "extent_mm": {axis: round(float(mm), 2) for axis, mm in zip(AXES, extents[:, value], strict=True)},
            "edges": {side: int(n[value]) for side, n in zip(sides, edges, strict=True) if n[value]},
        }
        if value in tumors:
            entry |= _tumor(np.concatenate(tumors[value]), planes.shape[1:], steps, grid.affine[:3, 3])
    return found


class _Scale:
    """The HU of each of some labels, of one channel.

    Mean and standard deviation are of the very values, the median of whole HU.
    """

    def __init__(self, values: np.ndarray) -> None:
        self.place = np.full(VALUES, len(values))  # the last place is for labels that are not asked for
        self.place[values] = np.arange(len(values))
        self.counts = np.zeros((len(values) + 1, HU.max - HU.min + 1), np.int64)  # add.at is quick with it
        self.sums = np.zeros((2, len(values) + 1))  # of HU and of their squares

    def add(self, plane: np.ndarray, voxels: np.ndarray) -> None:
        """Count the labelled voxels of a plane."""
        inside = plane > 0
        place, hu = self.place[plane[inside]], voxels[inside]
        whole = hu if hu.dtype == np.int16 else np.rint(np.clip(hu, HU.min, HU.max))
        np.add.at(self.counts.reshape(-1), place * self.counts.shape[1] + whole.astype(np.int64) - HU.min, 1)
        exact = np.clip(hu, HU.min, HU.max).astype(np.float64)
        for power, sums in enumerate(self.sums, 1):
            sums += np.bincount(place, exact**power, len(sums))

    def of(self, value: int) -> dict[str, float]:
        place = self.place[value]
        before = np.cumsum(self.counts[place])
        n = int(before[-1])
        middle = np.searchsorted(before, [(n - 1) // 2, n // 2], side="right") + HU.min
        mean, square = self.sums[:, place] / n
        deviation = np.sqrt(max(square - mean**2, 0.0))
        return {
            "mean": round(float(mean), 2),
            "median": float(middle.mean()),
            "standard_deviation": round(float(deviation), 2),
        }


def _tumor(runs: np.ndarray, shape: tuple[int, ...], steps: np.ndarray, origin: np.ndarray) -> dict[str, Any]:
    """Pieces and diameter of a tumour; arguments as of `_pieces` and `_diameter`, and the place of the first voxel."""
    pieces = _pieces(runs, shape)
    mm, middle = _diameter(runs, pieces, steps)
    place = [round(float(one), 2) for one in origin + steps @ middle]
    return {
        "pieces": int(pieces.max()) + 1,
        "diameter": {"mm": round(mm, 2), "slice": int(middle[0]), "position_mm": place},
    }


def _runs(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Value, row, first and last column of each run of a plane (rows, columns), in the order of its voxels."""
    begins = np.ones(plane.shape, bool)
    np.not_equal(plane[:, 1:], plane[:, :-1], out=begins[:, 1:])
    starts = np.flatnonzero(begins)
    length = np.diff(starts, append=plane.size)
    value = plane.reshape(-1)[starts]
    labelled = value > 0
    row, first = np.divmod(starts[labelled], plane.shape[1])
    return value[labelled], row, first, first + length[labelled] - 1


def _pieces(runs: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """For each run the number of its piece: voxels that touch, be it at a corner, are of one piece.

    runs   (n, 4) plane, row, first and last column, in rising order
    shape  (rows, columns) of a plane
    """
    plane, row, first, last = runs.T
    width = shape[1] + 2  # a column on each side, and a row before and behind, where nothing is
    line = plane * (shape[0] + 2) + row + 1
    begins, ends = line * width + first + 1, line * width + last + 1
    number = np.arange(len(runs))
    ones, others = [number[:0]], [number[:0]]
    for further in (1, shape[0] + 1, shape[0] + 2, shape[0] + 3):  # lines that touch this one and come after it
        other = (line + further) * width
        start = np.searchsorted(ends, other + first)
        count = np.searchsorted(begins, other + last + 2, side="right") - start
        ones.append(np.repeat(number, count))
        others.append(np.arange(count.sum()) + np.repeat(start - np.cumsum(count) + count, count))
    one, other = np.concatenate(ones), np.concatenate(others)
    piece = number.copy()
    while (apart := piece[one] != piece[other]).any():
        pair = np.sort([piece[one[apart]], piece[other[apart]]], axis=0)
        np.minimum.at(piece, pair[1], pair[0])
        while (further_up := piece[piece]).tobytes() != piece.tobytes():
            piece = further_up
    return np.unique(piece, return_inverse=True)[1].reshape(-1)


def _diameter(runs: np.ndarray, pieces: np.ndarray, steps: np.ndarray) -> tuple[float, np.ndarray]:
    """The longest distance within one plane of one piece, mm, and its middle: plane, row and column.

    It goes from the middle of a voxel's outer edge to that of another's, as in a mesh of marching squares: over a box
    of n voxels it is n voxels long.

    steps  (3, 3) mm (R, A, S) from a voxel to the next, by axis: plane, row, column
    """
    plane, row, first, last = runs[np.lexsort((runs[:, 0], pieces))].T.astype(np.float64)
    group = np.sort(pieces) * (runs[:, 0].max() + 1) + plane.astype(np.int64)
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    points = np.stack([  # (run, point, row and column)
        np.stack([row, first - 0.5], axis=1), np.stack([row, last + 0.5], axis=1),
        np.stack([row - 0.5, first], axis=1), np.stack([row + 0.5, first], axis=1),
        np.stack([row - 0.5, last], axis=1), np.stack([row + 0.5, last], axis=1),
    ], axis=1)  # fmt: skip
    flat = points @ np.linalg.cholesky(steps[:, 1:].T @ steps[:, 1:])  # mm: axes of a plane need not be at right angles
    widths = np.zeros(len(starts))
    for angle in np.arange(DIRECTIONS) * np.pi / DIRECTIONS:
        along = flat @ [np.cos(angle), np.sin(angle)]
        width = np.maximum.reduceat(along.max(axis=1), starts) - np.minimum.reduceat(along.min(axis=1), starts)
        widths = np.maximum(widths, width)
    most = widths / np.cos(np.pi / 2 / DIRECTIONS)
    longest, middle = 0.0, np.zeros(3)
    stops = np.append(starts[1:], len(runs))
    for one in np.argsort(-most, kind="stable"):
        if most[one] <= longest:
            break
        part = slice(starts[one], stops[one])
        hull = _hull(flat[part].reshape(-1, 2))
        corners = flat[part].reshape(-1, 2)[hull]
        apart = np.linalg.norm(corners[:, None] - corners, axis=-1)
        if apart.max() > longest:
            longest = float(apart.max())
            ends = np.array(np.unravel_index(apart.argmax(), apart.shape))
            middle = np.array([plane[starts[one]], *points[part].reshape(-1, 2)[np.array(hull)[ends]].mean(axis=0)])
    return longest, middle


def _hull(points: np.ndarray) -> list[int]:
    """Indices of the corners of the convex hull of points (n, 2): Andrew's monotone chain."""
    order = np.lexsort(points.T).tolist()
    places = points.tolist()

    def half(indices: list[int]) -> list[int]:
        chain: list[int] = []
        for index in indices:
            x, y = places[index]
            while len(chain) > 1:
                (x1, y1), (x2, y2) = places[chain[-2]], places[chain[-1]]
                if (x2 - x1) * (y - y1) < (y2 - y1) * (x - x1):
                    break
                chain.pop()
            chain.append(index)
        return chain

    return [*half(order)[:-1], *half(order[::-1])[:-1]]
