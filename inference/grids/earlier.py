"""The label map of an earlier network as input of a later one: nnU-Net's cascade."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..arrays import Array
from ..card import Earlier, Resize
from .resize import Taps, sample_positions, separate_axis, taps
from .view import View


def one_hot(labels: np.ndarray, inside: np.ndarray | None, view: View, earlier: Earlier, xp: Any) -> Array:
    """Channels (c, z, y, x) float32 of what the view shows, 1 where labels (z, y, x) have a value.

    inside  bool, where the scan is not empty: the rest is one more label to nnU-Net, -1; None: there is no such label
    """
    # As in nnU-Net, whose labels may have other values in a label map of ours, or be in none: above 255.
    codes = np.zeros(max(255, *earlier.values) + 1, np.int16)
    ranks = _ranked(earlier)
    codes[ranks] = np.arange(1, len(ranks) + 1)
    coded = codes[labels]
    if inside is not None:
        coded[~inside] = -1
    found = resampled(coded, view, earlier)
    channels = xp.empty((len(earlier.values), *view.shape), xp.float32)
    for value, channel in zip(earlier.values, channels, strict=True):
        channel[...] = xp.asarray(found == codes[value])
    return channels


def _ranked(earlier: Earlier) -> list[int]:
    """The values of all labels in the order of nnU-Net's own, of which the smallest wins where equals meet."""
    values = list(earlier.values)
    others = {label.value for label in earlier.card.labels} - {0, *values}  # inputs of no channel, but neighbours
    return sorted({*values, *others}) if others else values


def resampled(labels: np.ndarray, view: View, how: Earlier | Resize) -> np.ndarray:
    """Labels (z, y, x) int16 of the view's crop, or of more of the scan, at the network's spacing.

    how  of which order, method and rule for a coarse axis count

    The label of a voxel is the one with the largest sum of linear weights among its eight neighbours; of equals the
    nearest neighbour's, and where that is none of them the smallest: batchgenerators' resize_segmentation. Which sums
    are equal is decided by how SciPy rounds, so that weights are float64, made and multiplied as there. With "torch"
    it is the smallest of equals, and sums are equal that float16 does not tell apart: nnU-Net's resample_torch_simple.
    """
    separate = separate_axis(view.own_spacing, view.spacing, how.force_separate_z)
    sizes = list(zip(labels.shape, view.shape, strict=True))
    orders = [0 if axis == separate else how.order for axis in range(3)]
    axes = [taps(*n, order, how.method) for n, order in zip(sizes, orders, strict=True)]
    nearest = [np.asarray(taps(*n, 0).lower > along.lower) for n, along in zip(sizes, axes, strict=True)]
    if how.method == "torch":
        nearest = []
    else:
        axes = [replace(along, weight=_weight(*n, along)) for n, along in zip(sizes, axes, strict=True)]
    found = np.empty(view.shape, np.int16)
    for z in range(len(found)):
        found[z] = _plane(labels, z, axes, nearest)
    return found


def _plane(labels: np.ndarray, z: int, axes: list[Taps], nearest: list[np.ndarray]) -> np.ndarray:
    """One plane of `resampled`; `nearest` is empty where float16 decides."""
    along_z, along_y, along_x = axes
    planes = [labels[along_z.lower[z]], labels[along_z.upper[z]]]
    corners = [
        plane[rows][:, columns]
        for plane in planes
        for rows in (along_y.lower, along_y.upper)
        for columns in (along_x.lower, along_x.upper)
    ]
    found = corners[0]
    mixed = np.zeros(found.shape, bool)
    for other in corners[1:]:
        mixed |= other != found
    y, x = np.nonzero(mixed)
    around = np.stack([corner[y, x] for corner in corners])
    weights = np.stack([
        part_z * part_y * part_x
        for part_z in _parts(along_z.weight[z : z + 1])
        for part_y in _parts(along_y.weight[y])
        for part_x in _parts(along_x.weight[x])
    ])  # fmt: skip
    scores = np.stack([(weights * (around == one)).sum(axis=0) for one in around])
    if not nearest:
        scores = (1000 * scores).astype(np.float16)  # the factor is nnU-Net's
    best = scores == scores.max(axis=0)
    chosen = np.where(best, around, np.iinfo(np.int16).max).min(axis=0)
    if nearest:
        near = nearest[0][z] * 4 + nearest[1][y] * 2 + nearest[2][x]  # the corner's place in `corners`
        every = np.arange(len(y))
        chosen = np.where(best[near, every], around[near, every], chosen)
    found[y, x] = chosen
    return found


def _weight(n_in: int, n_out: int, along: Taps) -> np.ndarray:
    """The taps' weight in float64."""
    position = np.clip(sample_positions(n_in, n_out), 0, n_in - 1)
    return np.where(along.upper > along.lower, position - along.lower, 0)


def _parts(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The shares of the lower and of the upper neighbour, the second of which is the rest to SciPy."""
    lower = 1 - weight.astype(np.float64)
    return lower, 1 - lower
