"""Where the patient is: no window is spent on the air around, and no label stands outside the body."""

from __future__ import annotations

from math import prod
from typing import Any

import cc3d
import numpy as np

from ..arrays import Array, as_type, to_host
from ..boxes import Box, bounding

CELL = 5.0  # mm: the side of the cells in the plane that decide; a board up to twice as thick is no body
LEAST = 0.01  # of the volume's cells; less is no body
MARGIN = 10.0  # mm around muscle and organs: windows cut closer move the labels of organs near their edge
APART = 12.0  # mm between the planes in which muscle is looked for: its wall does not end from one to the next


def body_mask(volume: Array, above: float, spacing: tuple[float, float, float], xp: Any) -> np.ndarray:
    """True in the body, what it encloses in each plane: bool (z, y, x) in host memory, exact to a cell.

    The body is what hangs together with the thickest part of `volume` (z, y, x; spacing in mm) brighter than
    `above`, a value between lung and fat, once thin boards are taken off. All True where that fills less than LEAST.
    """
    _, rows, columns = (max(1, round(CELL / mm)) for mm in spacing)
    bright = to_host(_cells(volume, above, rows, columns, xp))
    thick = _eroded(bright)
    core = thick
    while 0 < int((deeper := _eroded(core)).sum()) < int(core.sum()):
        core = deeper
    body = _grown(core, thick)
    if int(body.sum()) < LEAST * prod(body.shape):
        return np.ones(volume.shape, bool)
    body = dilated(body, (1, 2))  # what `thick` lost
    border = np.ones(body.shape, bool)
    border[:, 1:-1, 1:-1] = False
    # Planes are filled one by one: with a blank one between them none hangs together with the next.
    around, planes = np.zeros((2, 2 * len(body), *body.shape[1:]), bool)
    around[::2], planes[::2] = border & ~body, ~body
    inside = ~_grown(around, planes)[::2]
    return inside.repeat(rows, axis=1).repeat(columns, axis=2)[:, : volume.shape[1], : volume.shape[2]]


def body_box(mask: np.ndarray) -> Box:
    """The box of a body mask in the plane; z is kept whole, as windows there are chosen by what they show."""
    box = bounding(mask)
    assert box is not None, "a body mask is never empty"
    return slice(0, mask.shape[0]), box[1], box[2]


def muscle_box(volume: Array, inside: np.ndarray, above: float, spacing: tuple[float, float, float], xp: Any) -> Box:
    """The box in the plane of muscle and organs, which no organ leaves, without the skin and the fat around them.

    They are what in the body mask `inside` is brighter than `above`, a value between fat and muscle, and thicker than
    skin; MARGIN is added. The box of the body where nothing is.
    """
    body = body_box(inside)
    apart, rows, columns = (max(1, round(mm / own)) for mm, own in zip((APART, CELL, CELL), spacing, strict=True))
    planes = (slice(None, None, apart), *body[1:])
    soft = to_host(_cells(volume[planes], above, rows, columns, xp))
    thick = _eroded(soft) & inside[planes][:, ::rows, ::columns]
    if not thick.any():
        return body
    box = [body[0]]
    for whole, part, cell, mm in zip(body[1:], body_box(thick)[1:], (rows, columns), spacing[1:], strict=True):
        around = cell + round(MARGIN / mm)  # erosion took a cell
        low, high = (whole.start + cell * edge for edge in (part.start, part.stop))
        box.append(slice(max(low - around, whole.start), min(high + around, whole.stop)))
    return box[0], box[1], box[2]


def _cells(volume: Array, above: float, rows: int, columns: int, xp: Any) -> Array:
    """True where most of a cell's voxels are brighter than `above`; cells that stick out repeat the edge."""
    _, y, x = volume.shape
    bright = xp.pad(volume > above, ((0, 0), (0, -y % rows), (0, -x % columns)), mode="edge")
    # One view a place in the cell: several times as fast as a sum over short axes.
    places = (bright[:, row::rows, column::columns] for row in range(rows) for column in range(columns))
    return sum(as_type(place, xp.uint16) for place in places) > rows * columns / 2


def dilated(mask: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """`mask` and its neighbours along `axes`."""
    out = mask.copy()
    for axis in axes:
        low: list[slice] = [slice(None)] * 3
        high: list[slice] = [slice(None)] * 3
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        out[tuple(low)] |= mask[tuple(high)]
        out[tuple(high)] |= mask[tuple(low)]
    return out


def _eroded(mask: np.ndarray) -> np.ndarray:
    """`mask` without the cells that have a neighbour in their plane outside it; the field of view's edge is none."""
    return ~dilated(~mask, (1, 2))


def _grown(seed: np.ndarray, within: np.ndarray) -> np.ndarray:
    """What hangs together, face to face, with `seed` in `within`."""
    pieces, count = cc3d.connected_components(within, connectivity=6, return_N=True)
    wanted = np.zeros(count + 1, bool)
    wanted[pieces[seed]] = True
    wanted[0] = False
    return wanted[pieces]
