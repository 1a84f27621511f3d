"""Scan -> the volume that a network expects, equal to nnU-Net's DefaultPreprocessor.

Its order is kept: transpose, crop to the non-zero box, clip and z-score, resample. Slices go
through in small chunks, so that the scan stays int16 and only the small result is float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import Array
from ..boxes import Box, whole
from ..card import Card
from ..scan import Scan, reorient
from .resize import apply_matrix, axis_matrix, nearest_index, resampled_shape, separate_axis

CHUNK = 16  # slices resampled at a time: 512 x 512 float32 slices that stay in the cache


@dataclass(frozen=True)
class Trace:
    """What restore must undo.

    stored_shape  (z, y, x) of the scan as its file stores it
    orientation   of the scan as stored
    box           the non-zero part, on the network's axes
    spacing       mm, of the scan on the network's axes
    """

    stored_shape: tuple[int, ...]
    orientation: str
    box: Box
    spacing: tuple[float, float, float]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the box on the network's axes."""
        return tuple(part.stop - part.start for part in self.box)


def to_network_axes(array: np.ndarray, orientation: str, card: Card) -> np.ndarray:
    """A view of `array` (z, y, x as stored in `orientation`) on the axes that the network was trained on."""
    if card.orientation is not None:
        array = reorient(array, orientation, card.orientation)
    return array.transpose(card.axes)


def prepare(scan: Scan, card: Card, xp: Any) -> tuple[Array, Trace]:
    """Crop, clip, normalise and resample a scan for one network.

    Returns the volume (z, y, x) float32 in units of the card's standard deviation, at the card's
    spacing and on its axes, in `xp`, and the trace that `restore` needs.
    """
    voxels = to_network_axes(scan.voxels, scan.grid.orientation, card)
    spacing = _spacing_on_network_axes(scan, card)
    box = nonzero_box(voxels)
    trace = Trace(scan.grid.shape, scan.grid.orientation, box, spacing)
    voxels = voxels[box]
    shape = resampled_shape(voxels.shape, spacing, card.spacing)
    shape = (max(shape[0], 1), max(shape[1], 1), max(shape[2], 1))
    separate = separate_axis(spacing, card.spacing, card.force_separate_z)
    return _resample(voxels, shape, separate, card, xp), trace


def nonzero_box(voxels: np.ndarray) -> Box:
    """The smallest box that holds every voxel other than 0; the whole volume where all are 0.

    nnU-Net fills holes in the mask first, which does not change its box. Planes are peeled from
    the outside, so that a scan without a zero border, the usual one, costs six planes.
    """
    box = [slice(0, n) for n in voxels.shape]
    for axis in range(3):
        low, high = 0, voxels.shape[axis]
        planes = np.moveaxis(voxels[tuple(box)], axis, 0)
        while low < high and not planes[low].any():
            low += 1
        if low == high:
            return whole(voxels.shape)
        while not planes[high - 1].any():
            high -= 1
        box[axis] = slice(low, high)
    return box[0], box[1], box[2]


def _spacing_on_network_axes(scan: Scan, card: Card) -> tuple[float, float, float]:
    # The view's shape says where each axis went: axis i of this array has i + 1 samples.
    marked = to_network_axes(np.empty((1, 2, 3)), scan.grid.orientation, card)
    z, y, x = (scan.grid.spacing[n - 1] for n in marked.shape)
    return z, y, x


def _resample(voxels: np.ndarray, shape: tuple[int, int, int], separate: int | None, card: Card, xp: Any) -> Array:
    """Normalise and resample `voxels` to `shape`; axis `separate` by nearest neighbour, the others by spline."""
    lead = separate or 0  # the axis whose slices are walked
    slices = np.moveaxis(voxels, lead, 0)
    lead_out, rows_out, columns_out = (shape[lead], *(n for axis, n in enumerate(shape) if axis != lead))
    rows = axis_matrix(slices.shape[1], rows_out, card.image_order)
    columns = axis_matrix(slices.shape[2], columns_out, card.image_order)

    # Nearest neighbour reads only the slices that it picks; a spline along the lead axis reads all.
    picked = nearest_index(len(slices), lead_out) if separate is not None else np.arange(len(slices))
    volume = xp.empty((len(picked), rows_out, columns_out), xp.float32)
    low, high = xp.inf, -xp.inf
    for start in range(0, len(picked), CHUNK):
        chunk = _normalised(slices[picked[start : start + CHUNK]], card, xp)
        part = apply_matrix(columns, apply_matrix(rows, chunk, 1, xp), 2, xp)
        if separate is not None:  # skimage.transform.resize clips each call's result to its input's range
            part = xp.clip(part, chunk.min(axis=(1, 2), keepdims=True), chunk.max(axis=(1, 2), keepdims=True))
        else:
            low, high = xp.minimum(low, chunk.min()), xp.maximum(high, chunk.max())
        volume[start : start + CHUNK] = part
    if separate is None:
        along = axis_matrix(len(slices), lead_out, card.image_order)
        flat = volume.reshape(1, len(slices), rows_out * columns_out)
        volume = apply_matrix(along, flat, 1, xp).reshape(lead_out, rows_out, columns_out)
        xp.clip(volume, low, high, out=volume)
    return xp.ascontiguousarray(xp.moveaxis(volume, 0, lead))


def _normalised(slices: np.ndarray, card: Card, xp: Any) -> Array:
    """Clip and z-score, float32 like nnU-Net's CTNormalization."""
    array = xp.asarray(np.ascontiguousarray(slices)).astype(xp.float32)
    xp.clip(array, card.clip[0], card.clip[1], out=array)
    array -= xp.float32(card.mean)
    array /= xp.float32(max(card.std, 1e-8))
    return array
