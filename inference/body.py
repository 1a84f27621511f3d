"""Where the patient is: no window is spent on the air around, and no label stands outside the body."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from inference.arrays import Array, to_host
from inference.windows import Box

CELL = 5.0  # mm: the side of the cells in the plane that decide; a board up to twice as thick is no body
LEAST = 0.01  # of the volume's cells; less is no body


def body_mask(volume: Array, above: float, spacing: tuple[float, float, float], xp: Any) -> np.ndarray:
    """True in the body, what it encloses in each plane: bool (z, y, x) in host memory, exact to a cell.

    The body is what hangs together with the thickest part of `volume` (z, y, x; spacing in mm) brighter than
    `above`, a value between lung and fat, once thin boards are taken off. All True where that fills less than LEAST.
    """
    _, rows, columns = (max(1, round(CELL / mm)) for mm in spacing)
    bright = _cells(volume, above, rows, columns, xp)
    thick = _eroded(bright)
    core = thick
    while 0 < int((deeper := _eroded(core)).sum()) < int(core.sum()):
        core = deeper
    body = _grown(core, thick)
    if int(body.sum()) < LEAST * prod(body.shape):
        return np.ones(volume.shape, bool)
    body = dilated(body, (1, 2))  # what `thick` lost
    border = xp.ones(body.shape, bool)
    border[:, 1:-1, 1:-1] = False
    inside = to_host(~_grown(border & ~body, ~body, (1, 2)))
    return inside.repeat(rows, axis=1).repeat(columns, axis=2)[:, : volume.shape[1], : volume.shape[2]]


def body_box(mask: np.ndarray) -> Box:
    """The box of a body mask in the plane; z is kept whole, as windows there are chosen by what they show."""
    rows, columns = np.flatnonzero(mask.any(axis=(0, 2))), np.flatnonzero(mask.any(axis=(0, 1)))
    return (
        slice(0, mask.shape[0]),
        slice(int(rows[0]), int(rows[-1]) + 1),
        slice(int(columns[0]), int(columns[-1]) + 1),
    )


def _cells(volume: Array, above: float, rows: int, columns: int, xp: Any) -> Array:
    """True where most of a cell's voxels are brighter than `above`; cells that stick out repeat the edge."""
    z, y, x = volume.shape
    bright = xp.pad(volume > above, ((0, 0), (0, -y % rows), (0, -x % columns)), mode="edge")
    return bright.reshape(z, bright.shape[1] // rows, rows, -1, columns).mean(axis=(2, 4), dtype=xp.float32) > 0.5


def dilated(mask: Array, axes: tuple[int, ...]) -> Array:
    """`mask` and its neighbours along `axes`."""
    out = mask.copy()
    for axis in axes:
        low: list[slice] = [slice(None)] * 3
        high: list[slice] = [slice(None)] * 3
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        out[tuple(low)] |= mask[tuple(high)]
        out[tuple(high)] |= mask[tuple(low)]
    return out


def _eroded(mask: Array) -> Array:
    """`mask` without the cells that have a neighbour in their plane outside it; the field of view's edge is none."""
    return ~dilated(~mask, (1, 2))


def _grown(seed: Array, within: Array, axes: tuple[int, ...] = (0, 1, 2)) -> Array:
    """What hangs together with `seed` in `within`, along `axes`."""
    found = seed & within
    while True:
        larger = found
        for _ in range(8):  # counting costs as much as a step
            larger = dilated(larger, axes) & within
        if int(larger.sum()) == int(found.sum()):
            return found
        found = larger
