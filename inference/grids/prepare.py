"""Scan -> the volume that a network expects, equal to nnU-Net's DefaultPreprocessor, or to version 1's.

Its order is kept: transpose, crop to the non-zero box, normalise, resample; version 1 resamples first. Slices go
through in small chunks, so that the scan stays int16 and only the small result is float32. Where the scan's own mean
or range is asked for, chunks go through once before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import sqrt
from typing import Any

import cc3d
import numpy as np

from ..arrays import Array, as_type, to_host
from ..boxes import Shape
from ..card import Card, Channel, Resize
from ..errors import ScanError
from ..scan import Scan
from .earlier import one_hot, resampled
from .resize import apply_matrix, axis_matrix, nearest_index, separate_axis
from .view import View

LEAST = 1e-8  # of what is divided by
RGB = 255.0
CHUNK = 16  # slices resampled at a time: 512 x 512 float32 slices that stay in the cache


def prepare(scan: Scan, view: View, card: Card, xp: Any, before: np.ndarray | None = None) -> Array:
    """Crop, clip, normalise and resample a scan for one network.

    before  labels (z, y, x) of the scan's grid by the earlier stage of a cascade, whose channels come last

    Returns the volume (c, z, y, x) float32 in units of the network, as the view says, in `xp`.
    Raises ScanError if the scan has more or fewer channels than the network takes, or no values of its kind.
    """
    if len(scan.channels) != len(card.channels):
        wanted = ", ".join(channel.name for channel in card.channels)
        raise ScanError(f"the scan has {len(scan.channels)} channels, network {card.name} takes {wanted}")
    resize = card.resample.image
    separate = separate_axis(view.own_spacing, card.spacing_for(view.own_spacing), resize.force_separate_z)
    cropped = [view.cropped(voxels) for voxels in scan.channels]
    version_1 = card.resample.version == 1  # which resamples first, and stretches the whole map over what is not 0
    labels = None if before is None else view.turned(before) if version_1 else view.cropped(before)
    inside = None
    if (labels is not None and not version_1) or any(channel.masked for channel in card.channels):
        inside = filled(cropped)
        if labels is not None and not version_1:  # what has a label is not empty to nnU-Net
            inside |= labels > 0
    volumes = []
    for voxels, channel in zip(cropped, card.channels, strict=True):
        if version_1:
            volume = _resample(voxels, None, view.shape, separate, resize, Channel(channel.name, "none"), xp)
            seen = None
            if inside is not None and channel.masked:
                linear = Resize(order=1, force_separate_z=resize.force_separate_z)
                seen = resampled(inside.astype(np.int16), view, linear) > 0
            _normalise(volume, fitted(channel, to_host(volume), seen), xp)
            if seen is not None:
                volume *= xp.asarray(seen)
            volumes.append(volume)
            continue
        mask = inside if channel.masked else None
        volumes.append(_resample(voxels, mask, view.shape, separate, resize, fitted(channel, voxels, mask), xp))
    volume = volumes[0][None] if len(volumes) == 1 else xp.stack(volumes)
    if card.after and labels is not None:
        volume = xp.concatenate([volume, one_hot(labels, None if version_1 else inside, view, card.after, xp)])
    return volume


def filled(channels: Sequence[np.ndarray]) -> np.ndarray:
    """True where a channel (z, y, x) is not 0, and in what that encloses: nnU-Net's create_nonzero_mask."""
    empty = np.ones(channels[0].shape, bool)
    for voxels in channels:
        empty &= voxels == 0
    pieces, count = cc3d.connected_components(empty, connectivity=6, return_N=True)
    outside = np.zeros(count + 1, bool)
    for axis in range(3):
        for end in (0, -1):
            outside[np.take(pieces, end, axis)] = True
    outside[0] = False  # what is not empty
    return ~outside[pieces]


def fitted(channel: Channel, voxels: np.ndarray, mask: np.ndarray | None) -> Channel:
    """The channel with the mean and deviation, or the minimum and range, of these voxels (z, y, x) where it asks for
    them, as nnU-Net's normalisation has them.

    mask  of the voxels that count; None: all
    Raises ScanError where they cannot be what the network expects.
    """

    def parts() -> Iterator[np.ndarray]:
        for start in range(0, len(voxels), CHUNK):
            part = voxels[start : start + CHUNK]
            yield (part if mask is None else part[mask[start : start + CHUNK]]).astype(np.float64)

    if channel.normalise == "zscore":
        if (count := voxels.size if mask is None else int(mask.sum())) == 0:
            return channel
        mean = sum(float(part.sum()) for part in parts()) / count
        deviation = sqrt(sum(float(np.square(part - mean).sum()) for part in parts()) / count)
        return replace(channel, mean=mean, std=max(deviation, LEAST))
    if channel.normalise in ("rescale01", "rgb01"):
        low, high = float(voxels.min()), float(voxels.max())
        if channel.normalise == "rescale01":
            return replace(channel, mean=low, std=max(high - low, LEAST))
        if low < 0 or high > RGB:
            raise ScanError(
                f"channel {channel.name} has values from {low:g} to {high:g}: its network takes 0 to {RGB:g}"
            )
        return replace(channel, std=RGB)
    return channel


def _resample(
    voxels: np.ndarray,
    mask: np.ndarray | None,
    shape: Shape,
    separate: int | None,
    resize: Resize,
    channel: Channel,
    xp: Any,
) -> Array:
    """Normalise and resample `voxels` to `shape`; axis `separate`, if there is one, on its own."""
    lead = separate or 0  # the axis whose slices are walked
    slices = np.moveaxis(voxels, lead, 0)
    inside = None if mask is None else np.moveaxis(mask, lead, 0)
    lead_out, rows_out, columns_out = (shape[lead], *(n for axis, n in enumerate(shape) if axis != lead))
    rows = axis_matrix(slices.shape[1], rows_out, resize.order)
    columns = axis_matrix(slices.shape[2], columns_out, resize.order)

    # Nearest neighbour reads only the slices that it picks; a spline along the lead axis reads all.
    nearest = separate is not None and resize.order_z == 0
    picked = nearest_index(len(slices), lead_out, resize.method) if nearest else np.arange(len(slices))
    volume = xp.empty((len(picked), rows_out, columns_out), xp.float32)
    ranges = []
    for start in range(0, len(picked), CHUNK):
        chosen = picked[start : start + CHUNK]
        chunk = as_type(xp.asarray(np.ascontiguousarray(slices[chosen])), xp.float32)
        _normalise(chunk, channel, xp)
        if inside is not None:
            chunk *= xp.asarray(inside[chosen])
        part = apply_matrix(columns, apply_matrix(rows, chunk, 1, xp), 2, xp)
        if separate is not None:  # skimage.transform.resize clips each call's result to its input's range
            part = xp.clip(part, xp.min(chunk, axis=(1, 2), keepdims=True), xp.max(chunk, axis=(1, 2), keepdims=True))
        else:
            ranges.append((chunk.min(), chunk.max()))
        volume[start : start + CHUNK] = part
    if not nearest:
        along = axis_matrix(len(slices), lead_out, resize.order if separate is None else resize.order_z)
        flat = volume.reshape(1, len(slices), rows_out * columns_out)
        volume = apply_matrix(along, flat, 1, xp).reshape(lead_out, rows_out, columns_out)
    if separate is None:
        low, high = zip(*ranges, strict=True)
        xp.clip(volume, min(low), max(high), out=volume)
    return xp.ascontiguousarray(xp.moveaxis(volume, 0, lead))


def _normalise(array: Array, channel: Channel, xp: Any) -> None:
    """Clip, subtract and divide in place, in float32, like nnU-Net's normalisation."""
    xp.clip(array, channel.clip[0], channel.clip[1], out=array)
    array -= channel.mean
    array /= max(channel.std, LEAST)
