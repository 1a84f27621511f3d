"""Scan -> the volume that a network expects, equal to nnU-Net's DefaultPreprocessor.

Its order is kept: transpose, crop to the non-zero box, clip and z-score, resample. Slices go
through in small chunks, so that the scan stays int16 and only the small result is float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array
from ..boxes import Shape
from ..card import Card
from ..scan import Scan
from .resize import apply_matrix, axis_matrix, nearest_index, separate_axis
from .view import View

CHUNK = 16  # slices resampled at a time: 512 x 512 float32 slices that stay in the cache


def prepare(scan: Scan, view: View, card: Card, xp: Any) -> Array:
    """Crop, clip, normalise and resample a scan for one network.

    Returns the volume (z, y, x) float32 in units of the card's standard deviation, as the view says, in `xp`.
    """
    separate = separate_axis(view.own_spacing, card.spacing, card.force_separate_z)
    return _resample(view.cropped(scan.voxels), view.shape, separate, card, xp)


def _resample(voxels: np.ndarray, shape: Shape, separate: int | None, card: Card, xp: Any) -> Array:
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
