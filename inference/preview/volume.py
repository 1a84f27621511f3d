"""A scan and its labels, small enough for a page: two NIfTI files in a script that a browser may load from a disk.

A browser reads no other file beside a page on a disk. Values are bytes, in steps that no eye tells apart.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from math import inf, prod

import nibabel as nib
import numpy as np

from ..boxes import bounding
from ..labels import Structure
from ..scan import Grid

MOST_VOXELS = 4_000_000  # about 2 MB of text
LOWEST, STEP = -1024.0, 8.0  # HU of a stored 0, and from a value to the next: noise is more
CALL = "viscera"  # the page's function that takes the volume


def script(
    voxels: np.ndarray,
    labels: np.ndarray,
    grid: Grid,
    structures: Sequence[Structure],
    window: tuple[float, float],
    is_ct: bool,
) -> bytes:
    """A call with the volume: `window` (low, high), `block` (x, y, z voxels that became one), `labels` (value, name,
    colour, place) and both files in base64.

    voxels, labels  (z, y, x) on the grid, HU if it is CT
    structures      labels that are in it
    window          that the viewer begins with
    """
    steps = thinning(grid)
    small = averaged(voxels, steps)
    low, step = (LOWEST, STEP) if is_ct else (float(small.min()), max(float(np.ptp(small)), 1e-6) / 255)
    stored = np.clip(np.rint((small - low) / step), 0, 255).astype(np.uint8)
    affine = grid.affine @ _placed(steps[::-1])
    centres = tuple(slice(step // 2, shape * step, step) for shape, step in zip(small.shape, steps, strict=True))
    small_map = labels[centres]
    document = {
        "window": window,
        "block": steps[::-1],
        "labels": [[one.value, one.title, one.colour, _place(small_map, affine, one.value)] for one in structures],
        "scan": _nifti(stored, affine, step, low),
        "map": _nifti(small_map, affine, 1.0, 0.0),
    }
    return f"{CALL}({json.dumps(document)})\n".encode()


def thinning(grid: Grid) -> list[int]:
    """How many voxels along each axis (z, y, x) become one, so that few are left and these are near to cubes."""
    steps = [1, 1, 1]
    while prod(count // step for count, step in zip(grid.shape, steps, strict=True)) > MOST_VOXELS:
        axes = zip(grid.shape, steps, grid.spacing, strict=True)
        sizes = [step * mm if step < count else inf for count, step, mm in axes]
        steps = [step + (size < 1.01 * min(sizes)) for step, size in zip(steps, sizes, strict=True)]  # equal ones alike
    return steps


def averaged(voxels: np.ndarray, steps: Sequence[int]) -> np.ndarray:
    """The means (z, y, x) float32 of blocks of so many voxels along each axis; what is left over at the ends goes."""
    depth, rows, columns = (count // step for count, step in zip(voxels.shape, steps, strict=True))
    small = np.empty((depth, rows, columns), np.float32)
    for at, plane in enumerate(small):
        slab = voxels[at * steps[0] : (at + 1) * steps[0], : rows * steps[1], : columns * steps[2]]
        mean = slab.mean(axis=0, dtype=np.float32)
        plane[:] = mean.reshape(rows, steps[1], columns, steps[2]).mean(axis=(1, 3))
    return small


def _placed(steps: Sequence[int]) -> np.ndarray:
    """From the index of a block (x, y, z) to that of its centre among the voxels."""
    matrix = np.diag([*map(float, steps), 1.0])
    matrix[:3, 3] = [(step - 1) / 2 for step in steps]
    return matrix


def _place(labels: np.ndarray, affine: np.ndarray, value: int) -> list[float] | None:
    """Where a label is: the voxel nearest to its middle, mm (R, A, S); None for one too small to be left."""
    own = labels == value
    if (box := bounding(own)) is None:
        return None
    own = own[box]
    squares = []
    for axis in range(3):
        counts = own.sum(axis=tuple(other for other in range(3) if other != axis))
        places = np.arange(len(counts))
        squares.append(np.square(places - (places * counts).sum() / counts.sum()))
    distances = squares[0][:, None, None] + squares[1][:, None] + squares[2]
    distances[~own] = np.inf
    at = np.unravel_index(distances.argmin(), own.shape)
    z, y, x = (along.start + int(place) for along, place in zip(box, at, strict=True))
    return [round(float(mm), 1) for mm in (affine @ (x, y, z, 1))[:3]]


def _nifti(stored: np.ndarray, affine: np.ndarray, slope: float, inter: float) -> str:
    image = nib.Nifti1Image(stored.transpose(2, 1, 0), affine)
    image.header.set_slope_inter(slope, inter)
    image.header.set_xyzt_units("mm")
    return base64.b64encode(gzip.compress(image.to_bytes(), 6, mtime=0)).decode()
