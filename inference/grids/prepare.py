"""Scan -> the volume that a network expects, equal to nnU-Net's DefaultPreprocessor.

Its order is kept: transpose, crop to the non-zero box, clip and z-score, resample. Slices go
through in small chunks, so that the scan stays int16 and only the small result is float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array
from ..boxes import Shape
from ..card import Card, Channel
from ..errors import ScanError
from ..scan import Scan
from .resize import apply_matrix, axis_matrix, nearest_index, separate_axis
from .view import View

CHUNK = 16  # slices resampled at a time: 512 x 512 float32 slices that stay in the cache


def prepare(scan: Scan, view: View, card: Card, xp: Any) -> Array:
    """Crop, clip, normalise and resample a scan for one network.

    Returns the volume (c, z, y, x) float32 in units of the card's standard deviation, as the view says, in `xp`.
    Raises ScanError if the scan has more or fewer channels than the network takes.
    """
    if len(scan.channels) != len(card.channels):
        wanted = ", ".join(channel.name for channel in card.channels)
        raise ScanError(f"the scan has {len(scan.channels)} channels, network {card.name} takes {wanted}")
    separate = separate_axis(view.own_spacing, card.spacing, card.resample.force_separate_z)
    order = card.resample.image_order
    volumes = [
        _resample(view.cropped(voxels), view.shape, separate, order, channel, xp)
        for voxels, channel in zip(scan.channels, card.channels, strict=True)
    ]
    return volumes[0][None] if len(volumes) == 1 else xp.stack(volumes)


def _resample(voxels: np.ndarray, shape: Shape, separate: int | None, order: int, channel: Channel, xp: Any) -> Array:
    """Normalise and resample `voxels` to `shape`; axis `separate` by nearest neighbour, the others by spline."""
    lead = separate or 0  # the axis whose slices are walked
    slices = np.moveaxis(voxels, lead, 0)
    lead_out, rows_out, columns_out = (shape[lead], *(n for axis, n in enumerate(shape) if axis != lead))
    rows = axis_matrix(slices.shape[1], rows_out, order)
    columns = axis_matrix(slices.shape[2], columns_out, order)

    # Nearest neighbour reads only the slices that it picks; a spline along the lead axis reads all.
    picked = nearest_index(len(slices), lead_out) if separate is not None else np.arange(len(slices))
    volume = xp.empty((len(picked), rows_out, columns_out), xp.float32)
    low, high = xp.inf, -xp.inf
    for start in range(0, len(picked), CHUNK):
        chunk = _normalised(slices[picked[start : start + CHUNK]], channel, xp)
        part = apply_matrix(columns, apply_matrix(rows, chunk, 1, xp), 2, xp)
        if separate is not None:  # skimage.transform.resize clips each call's result to its input's range
            part = xp.clip(part, chunk.min(axis=(1, 2), keepdims=True), chunk.max(axis=(1, 2), keepdims=True))
        else:
            low, high = xp.minimum(low, chunk.min()), xp.maximum(high, chunk.max())
        volume[start : start + CHUNK] = part
    if separate is None:
        along = axis_matrix(len(slices), lead_out, order)
        flat = volume.reshape(1, len(slices), rows_out * columns_out)
        volume = apply_matrix(along, flat, 1, xp).reshape(lead_out, rows_out, columns_out)
        xp.clip(volume, low, high, out=volume)
    return xp.ascontiguousarray(xp.moveaxis(volume, 0, lead))


def _normalised(slices: np.ndarray, channel: Channel, xp: Any) -> Array:
    """Clip and z-score, float32 like nnU-Net's CTNormalization."""
    array = xp.asarray(np.ascontiguousarray(slices)).astype(xp.float32)
    xp.clip(array, channel.clip[0], channel.clip[1], out=array)
    array -= xp.float32(channel.mean)
    array /= xp.float32(max(channel.std, 1e-8))
    return array
