"""Resampling as one small matrix per axis, equal to what nnU-Net v2 computes.

Spline interpolation is linear in the voxels and separable, so each axis is a matrix
(n_out, n_in) that can be applied with a matrix product. The reference is
nnunetv2.preprocessing.resampling.default_resampling (2.8.1), which calls
skimage.transform.resize(mode="edge", anti_aliasing=False), which calls
scipy.ndimage.zoom(mode="nearest", grid_mode=True).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..arrays import Array

ANISOTROPY = 3.0  # above this ratio of spacings nnU-Net resamples the coarse axis on its own
SPLINE_PAD = 12  # scipy.ndimage pads by 12 edge samples before the spline filter in mode "nearest"
SPLINE_MIDDLE = {2: 6, 3: 4}  # B-splines of these orders at whole numbers are 1, this and 1, over their sum
NEGLIGIBLE = 1e-8  # of a weight: 0.268^14, so a row of the cubic matrix has about 2 * 14 + 4 weights
BLOCK = 64  # output samples that share one product: the matrix is banded, so most columns are skipped


def resampled_shape(
    shape: Sequence[int], spacing: Sequence[float], new_spacing: Sequence[float]
) -> tuple[int, int, int]:
    """Shape (z, y, x) of a volume of `spacing` (mm) at `new_spacing` (mm); `compute_new_shape` of nnU-Net."""
    z, y, x = (round(s / t * n) for s, t, n in zip(spacing, new_spacing, shape, strict=True))
    return z, y, x


def separate_axis(spacing: Sequence[float], new_spacing: Sequence[float], force: bool | None = None) -> int | None:
    """The axis that nnU-Net resamples on its own, or None; `determine_do_sep_z_and_axis` of nnU-Net.

    `force` is the plans' `force_separate_z`: True and False decide, None asks the spacings (mm).
    """
    if force is False:
        return None
    for candidate in (spacing, new_spacing):
        if force or max(candidate) / min(candidate) > ANISOTROPY:
            coarse = [axis for axis, mm in enumerate(candidate) if max(candidate) / mm == 1]
            return coarse[0] if len(coarse) == 1 else None
    return None


def sample_positions(n_in: int, n_out: int) -> np.ndarray:
    """Where the n_out output samples lie on the input's index axis, float64: pixel centres aligned by area."""
    return n_in / n_out * (np.arange(n_out) + 0.5) - 0.5


def nearest_index(n_in: int, n_out: int, method: str = "spline") -> np.ndarray:
    """Input index of each output sample, order 0: scipy rounds halves up and clamps at the edge.

    method  of the card; "torch" has the same positions, "nearest-exact", but rounds them, and the ratio of sizes, to
            float32 as PyTorch does on a CPU
    """
    positions = sample_positions(n_in, n_out)
    if method == "torch":
        ratio = float(np.float32(n_in) / np.float32(n_out))
        positions = (ratio * (np.arange(n_out) + 0.5) - 0.5).astype(np.float32)
    return np.clip(np.floor(positions + 0.5), 0, n_in - 1).astype(np.intp)


@dataclass(frozen=True)
class Taps:
    """Along one axis, the two samples between which each output voxel lies: lower and upper index, upper's weight.

    `lower` and `upper` are equal, and `weight` 0, along an axis that takes the nearest sample.
    """

    lower: np.ndarray
    upper: np.ndarray
    weight: np.ndarray

    def matrix(self, n_in: int) -> np.ndarray:
        """(n_out, n_in) float32: the weight of every sample."""
        matrix = np.zeros((len(self.lower), n_in), np.float32)
        rows = np.arange(len(matrix))
        matrix[rows, self.lower] = 1 - self.weight
        matrix[rows, self.upper] += self.weight
        return matrix


def taps(n_in: int, n_out: int, order: int, method: str = "spline") -> Taps:
    """The taps of an axis for order 0 (nearest) or 1 (linear, clamped at the edges); `method` as of nearest_index."""
    if order == 0 or n_in == n_out:
        index = nearest_index(n_in, n_out, method)
        return Taps(index, index, np.zeros(n_out, np.float32))
    position = np.clip(sample_positions(n_in, n_out), 0, n_in - 1)
    lower = np.minimum(np.floor(position), max(n_in - 2, 0)).astype(np.intp)
    return Taps(lower, np.minimum(lower + 1, n_in - 1), (position - lower).astype(np.float32))


def within(along: Taps, part: slice) -> tuple[slice, Taps]:
    """The output voxels whose samples both lie in `part`, and their taps counted from its start."""
    there = np.flatnonzero((along.lower >= part.start) & (along.upper < part.stop))
    rows = slice(int(there[0]), int(there[-1]) + 1) if len(there) else slice(0, 0)
    return rows, Taps(along.lower[rows] - part.start, along.upper[rows] - part.start, along.weight[rows])


@lru_cache(maxsize=16)
def axis_matrix(n_in: int, n_out: int, order: int) -> np.ndarray:
    """The matrix (n_out, n_in) float32 that resamples one axis with a spline of `order` 0 to 3.

    Raises ValueError for another order.
    """
    if order in (0, 1):
        return taps(n_in, n_out, order).matrix(n_in)
    if order not in SPLINE_MIDDLE:
        raise ValueError(f"spline order {order} is not one of 0, 1, 2, 3")
    matrix = _spline_weights(n_in, n_out, order) @ _prefilter(n_in, order)
    matrix[np.abs(matrix) < NEGLIGIBLE] = 0
    return matrix.astype(np.float32)


def _spline_weights(n_in: int, n_out: int, order: int) -> np.ndarray:
    """(n_out, n_in + 2 * SPLINE_PAD): the B-spline values by which each output weighs the coefficients."""
    position = sample_positions(n_in, n_out) + SPLINE_PAD
    base = np.floor(position if order == 3 else position + 0.5).astype(np.intp)
    t = position - base
    values: tuple[np.ndarray, ...]
    if order == 3:
        values = ((1 - t) ** 3 / 6, (4 - 6 * t**2 + 3 * t**3) / 6, (1 + 3 * t + 3 * t**2 - 3 * t**3) / 6, t**3 / 6)
    else:
        values = ((0.5 - t) ** 2 / 2, 0.75 - t**2, (0.5 + t) ** 2 / 2)
    weights = np.zeros((n_out, n_in + 2 * SPLINE_PAD))
    for offset, value in enumerate(values, -1):
        weights[np.arange(n_out), base + offset] = value
    return weights


def _prefilter(n_in: int, order: int) -> np.ndarray:
    """(n_in + 2 * SPLINE_PAD, n_in): samples -> B-spline coefficients of the edge-padded, mirrored signal."""
    n = n_in + 2 * SPLINE_PAD
    # The inverse of the tridiagonal [1, m, 1] / (m + 2) in closed form: on the infinite signal coefficient
    # i weighs sample j by g(|i - j|). Mirror ends add one image of each sample beyond either end
    # (an end sample is its own image); farther images weigh less than 0.268^(n - 1), n >= 25.
    middle = SPLINE_MIDDLE[order]
    pole = ((middle**2 - 4) ** 0.5 - middle) / 2
    g = -(middle + 2) * pole / (1 - pole**2) * pole ** np.arange(2 * n)
    i, j = np.arange(n)[:, None], np.arange(n)[None, :]
    response = g[np.abs(i - j)]
    response[:, 1:] += g[i + j[:, 1:]]
    response[:, :-1] += g[2 * (n - 1) - i - j[:, :-1]]
    padded_from = np.clip(np.arange(n) - SPLINE_PAD, 0, n_in - 1)
    prefilter = np.zeros((n, n_in))
    np.add.at(prefilter.T, padded_from, response.T)
    return prefilter


def apply_matrix(matrix: np.ndarray, array: Array, axis: int, xp: Any = np) -> Array:
    """Resample axis 1 or 2 of `array` (z, y, x) float32 by `matrix` (n_out, n_in).

    Works block by block of output samples on the columns that hold weight, which for a cubic
    spline is a band about 32 samples wider than the block's own footprint.
    """
    n_out, n_in = matrix.shape
    if n_out == n_in and np.array_equal(matrix, np.eye(n_in, dtype=matrix.dtype)):
        return array
    shape = list(array.shape)
    shape[axis] = n_out
    result = xp.empty(shape, array.dtype)
    for start in range(0, n_out, BLOCK):
        rows = matrix[start : start + BLOCK]
        used = np.flatnonzero(rows.any(axis=0))
        first, last = int(used[0]), int(used[-1]) + 1
        weights = xp.asarray(rows[:, first:last])
        if axis == 1:
            result[:, start : start + BLOCK] = xp.matmul(weights, array[:, first:last])
        else:
            result[:, :, start : start + BLOCK] = xp.matmul(array[:, :, first:last], weights.T)
    return result
