"""Logits at the network's spacing -> labels on the scan's own grid, without k classes at full resolution.

Where all corners of a cell have the same code (decode.py), so has every point in it. Only cells with
mixed corners are interpolated, a few per cent of them; the rest is copied. The result equals dense
interpolation followed by decoding, nnU-Net's convert_predicted_logits_to_segmentation_with_correct_shape.
This holds for linear interpolation; splines of a higher order, which few plans have, are interpolated densely.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..arrays import Array, copy, to_host
from ..boxes import Box, Shape, shape_of, shifted, whole
from ..card import Card
from ..windows.layout import Part, Slab
from .decode import Codes, Decode
from .probabilities import Keep, PlaneInterpolator, in_bytes, looked
from .resize import ANISOTROPY, Taps, apply_matrix, axis_matrix, nearest_index, separate_axis, taps, within
from .sparse import PlaneRestorer
from .view import View

PLANES = 16  # planes that are restored at a time by splines of an order above 1


def restore(
    parts: Iterable[Part], view: View, card: Card, decode: Decode, xp: Any, keep: Keep | None = None
) -> np.ndarray:
    """Labels (z, y, x) uint8 on the grid and in the axis order of the scan's file.

    keep   is given their probabilities, part by part; beyond what it is given they are 0
    parts  of what the network saw: a box, and its logits (k, z, y, x) in slabs that ascend in z. What lies between two
           voxels of a part is restored; beyond all parts is background
    """
    labels = np.zeros(view.stored.shape, np.uint8)
    cropped = view.cropped(labels)
    resize = card.resample.logits
    separate = _coarse_axis(view, card)
    sizes = tuple(zip(view.shape, shape_of(view.crop), strict=True))
    orders = [resize.order_z if axis == separate else resize.order for axis in range(3)]
    if max(orders) > 1:
        if (logits := _gathered(parts, view.shape, keep is not None and not decode.has_share, xp)) is not None:
            _restore_densely(logits, cropped, separate, orders, resize.method, decode, xp, keep)
        return labels
    axes = [taps(*size, order, resize.method) for size, order in zip(sizes, orders, strict=True)]
    for box, slabs in parts:
        rows, inner = zip(*(within(along, part) for along, part in zip(axes, box, strict=True)), strict=True)
        _restore(slabs, cropped[rows], inner, box, decode, xp, keep and _within(keep, rows))
    return labels


def _coarse_axis(view: View, card: Card) -> int | None:
    """The axis that takes the nearest sample.

    nnU-Net v2 asks the network's spacing first. Version 1 asks the scan's first, and takes the network's coarse axis
    for the axis with the same number of the scan: a slip if the plan exchanges axes, but its labels are so.
    """
    own, force = view.own_spacing, card.resample.logits.force_separate_z
    if card.resample.version == 2:
        return separate_axis(card.spacing_for(own), own, force)
    axis = separate_axis(own, card.spacing_for(own), force)
    return axis if axis is None or max(own) / min(own) > ANISOTROPY else card.axes.index(axis)


def _within(keep: Keep, part: Sequence[slice]) -> Keep:
    """Takes what lies in a box of a part of the cropped scan."""
    z, y, x = (along.start for along in part)
    return lambda box, probabilities: keep(shifted(box, (z, y, x)), probabilities)


def _restore(
    slabs: Iterable[Slab],
    target: np.ndarray,
    axes: Sequence[Taps],
    box: Box,
    decode: Decode,
    xp: Any,
    keep: Keep | None,
) -> None:
    """Write the labels of a part into `target` (z, y, x); its taps, and what `keep` takes, are counted from its own
    corner, and `box` is of the volume."""
    along_z, along_y, along_x = axes
    _, *sizes = shape_of(box)
    plane = (
        PlaneRestorer(along_y, along_x, decode) if xp is np
        else _WholePlaneRestorer(along_y.matrix(sizes[0]), along_x.matrix(sizes[1]), decode.of_interpolated, xp)
    )  # fmt: skip
    interpolator = None
    if keep and target.size:
        rows, columns = (along.matrix(n) for along, n in zip(axes[1:], shape_of(box)[1:], strict=True))
        interpolator = PlaneInterpolator(rows, columns, decode, xp)
    done = 0

    def between(logits: Array, codes: Array, first: int) -> None:
        """Restore what lies between planes of these logits, the first of which is plane `first` of the part."""
        nonlocal done
        while done < len(along_z.upper) and along_z.upper[done] < first + logits.shape[1]:
            lower, upper = along_z.lower[done] - first, along_z.upper[done] - first
            found = plane.restore(logits, codes, lower, upper, along_z.weight[done])
            target[done] = decode.values[to_host(found)]
            if keep and interpolator:
                probabilities = interpolator.between(logits[:, lower], logits[:, upper], along_z.weight[done])
                keep((slice(done, done + 1), *whole(target.shape)[1:]), probabilities[:, None])
            done += 1

    held: tuple[Array, Array] | None = None  # the last plane of the slab before: rows between two slabs need it
    for start, logits in slabs:
        codes = decode.codes(logits, xp)
        if held is not None:  # these two planes alone: a slab may be all that a window has
            planes, of_planes = held
            planes = xp.concatenate([planes, logits[:, :1]], axis=1)
            between(planes, xp.concatenate([of_planes, codes[:1]]), start - 1)
        between(logits, codes, start)
        held = copy(logits[:, -1:]), copy(codes[-1:])


def _gathered(parts: Iterable[Part], shape: Shape, share: bool, xp: Any) -> Array:
    """The logits (k, z, y, x) of all parts of a volume, 0 elsewhere; None where there is no part.

    share  a last channel is 1 where the network looked
    """
    gathered: Array = None
    for box, slabs in parts:
        for start, logits in slabs:
            if gathered is None:
                gathered = xp.zeros((len(logits) + share, *shape), xp.float32)
            planes = slice(box[0].start + start, box[0].start + start + logits.shape[1])
            gathered[(slice(len(logits)), planes, *box[1:])] = logits
            if share:
                gathered[(-1, planes, *box[1:])] = looked(logits)
    return gathered


def _restore_densely(
    logits: Array,
    target: np.ndarray,
    separate: int | None,
    orders: Sequence[int],
    method: str,
    decode: Decode,
    xp: Any,
    keep: Keep | None,
) -> None:
    """Write the labels of logits (k, z, y, x) into `target` (z, y, x) by splines of any order.

    Where there is a `keep` the last channel is their share.

    A spline of an order above 1 may leave the range between its neighbours, so that every voxel is interpolated, and
    each depends on logits far away: they are held for the whole volume, and this takes several times as long.
    """
    lead = separate or 0
    rest = [axis for axis in range(3) if axis != lead]
    slices, out = xp.moveaxis(logits, lead + 1, 1), np.moveaxis(target, lead, 0)
    nearest = separate is not None and orders[lead] == 0
    along = axis_matrix(slices.shape[1], len(out), orders[lead])
    if nearest:
        along = np.eye(slices.shape[1], dtype=np.float32)[nearest_index(slices.shape[1], len(out), method)]
    rows, columns = (axis_matrix(logits.shape[axis + 1], target.shape[axis], orders[axis]) for axis in rest)
    box = list(whole(target.shape))
    ranges = [(channel.min(), channel.max()) for channel in slices]
    for start in range(0, len(out), PLANES):
        weights = along[start : start + PLANES]
        used = np.flatnonzero(weights.any(axis=0))
        near = slice(int(used[0]), int(used[-1]) + 1)
        block = xp.empty((len(slices), len(weights), *out.shape[1:]), xp.float32)
        for number, channel in enumerate(slices):
            given = xp.ascontiguousarray(channel[near])
            part = apply_matrix(columns, apply_matrix(rows, given, 1, xp), 2, xp)
            if separate is not None:  # as in prepare: each call of nnU-Net's is clipped
                low, high = (of(given, axis=(1, 2), keepdims=True) for of in (xp.min, xp.max))
                part = xp.clip(part, low, high)
            part = apply_matrix(weights[:, near], part.reshape(1, len(given), -1), 1, xp).reshape(block.shape[1:])
            block[number] = part if separate is not None else xp.clip(part, *ranges[number])
        codes = decode.of_interpolated(block if keep is None or decode.has_share else block[:-1], xp)
        out[start : start + PLANES] = decode.values[to_host(codes)]
        if keep is None:
            continue
        for at in range(len(weights)):
            box[lead] = slice(start + at, start + at + 1)
            keep((box[0], box[1], box[2]), np.expand_dims(to_host(in_bytes(block[:, at], decode, xp)), lead + 1))


class _WholePlaneRestorer:
    """Restores one plane of the scan at a time, every voxel of it: on a GPU two products of matrices take less time
    than it takes to find the cells that need them.

    rows, columns  (n_out, n_in) of the axes y and x
    """

    def __init__(self, rows: np.ndarray, columns: np.ndarray, codes: Codes, xp: Any) -> None:
        self.xp, self.codes = xp, codes
        self.rows, self.columns = xp.asarray(rows), xp.asarray(columns).T

    def restore(self, logits: Array, codes: Array, lower: int, upper: int, weight: np.float32) -> Array:
        """As of PlaneRestorer."""
        plane = logits[:, lower]
        if weight > 0:
            plane = plane + float(weight) * (logits[:, upper] - plane)
        return self.codes(self.xp.matmul(self.xp.matmul(self.rows, plane), self.columns), self.xp)
