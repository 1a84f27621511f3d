"""Logits at the network's spacing -> labels on the scan's own grid, without k classes at full resolution.

Linear interpolation has weights that are not negative, so where all corners of a cell have the
same winner, so has every point in it. Only cells with mixed corners are interpolated, a few
per cent of them; the rest is copied. The result equals dense interpolation followed by argmax,
nnU-Net's convert_predicted_logits_to_segmentation_with_correct_shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import Array, to_host
from ..boxes import shape_of
from ..card import Card
from ..windows.layout import Part, Slab
from .resize import linear_taps, nearest_index, separate_axis
from .view import View


@dataclass(frozen=True)
class Taps:
    """Along one axis, the two samples between which each output voxel lies: lower and upper index, upper's weight.

    `lower` and `upper` are equal, and `weight` 0, along an axis that takes the nearest sample.
    """

    lower: np.ndarray
    upper: np.ndarray
    weight: np.ndarray


def taps(n_in: int, n_out: int, order: int) -> Taps:
    """The taps of an axis for order 0 (nearest) or 1 (linear)."""
    if order == 0 or n_in == n_out:
        index = nearest_index(n_in, n_out)
        return Taps(index, index, np.zeros(n_out, np.float32))
    lower, weight = linear_taps(n_in, n_out)
    return Taps(lower, np.minimum(lower + 1, n_in - 1), weight)


def within(along: Taps, part: slice) -> tuple[slice, Taps]:
    """The output voxels whose samples both lie in `part`, and their taps counted from its start."""
    there = np.flatnonzero((along.lower >= part.start) & (along.upper < part.stop))
    rows = slice(int(there[0]), int(there[-1]) + 1) if len(there) else slice(0, 0)
    return rows, Taps(along.lower[rows] - part.start, along.upper[rows] - part.start, along.weight[rows])


def restore(parts: Iterable[Part], view: View, card: Card, xp: Any) -> np.ndarray:
    """Labels (z, y, x) uint8 on the grid and in the axis order of the scan's file.

    parts  of what the network saw: a box, and its logits (k, z, y, x) in slabs that ascend in z. What lies between two
           voxels of a part is restored; beyond all parts is background
    """
    labels = np.zeros(view.stored.shape, np.uint8)
    cropped = view.cropped(labels)
    separate = separate_axis(card.spacing, view.own_spacing, card.force_separate_z)
    axes = [
        taps(n_in, n_out, 0 if axis == separate else card.logit_order)
        for axis, (n_in, n_out) in enumerate(zip(view.shape, shape_of(view.crop), strict=True))
    ]
    values = np.array([label.value for label in card.labels], np.uint8)
    for box, slabs in parts:
        rows, inner = zip(*(within(along, part) for along, part in zip(axes, box, strict=True)), strict=True)
        _restore(slabs, cropped[rows], inner, values, xp)
    return labels


def _restore(slabs: Iterable[Slab], target: np.ndarray, axes: Sequence[Taps], values: np.ndarray, xp: Any) -> None:
    """Write the labels of a part into `target` (z, y, x); its taps are counted from its own corner."""
    along_z, along_y, along_x = axes
    plane = _PlaneRestorer(along_y, along_x, xp)
    done = 0
    held: Array | None = None  # the last plane of the slab before: rows between two slabs need it
    for start, logits in slabs:
        first = start
        if held is not None:
            logits, first = xp.concatenate([held, logits], axis=1), start - 1
        winners = winning_channel(logits, xp)
        last = first + logits.shape[1] - 1
        while done < len(along_z.upper) and along_z.upper[done] <= last:
            lower, upper = along_z.lower[done] - first, along_z.upper[done] - first
            channels = plane.restore(logits, winners, lower, upper, along_z.weight[done])
            target[done] = values[to_host(channels)]
            done += 1
        held = logits[:, -1:].copy()


def winning_channel(logits: Array, xp: Any) -> Array:
    """The index of the largest of the k channels, the first of equals: uint8, shape (z, y, x).

    Same as argmax(axis=0), which NumPy does several times slower along a strided axis.
    """
    best = logits[0].copy()
    winner = xp.zeros(best.shape, xp.uint8)
    for channel in range(1, len(logits)):
        winner[logits[channel] > best] = channel
        xp.maximum(best, logits[channel], out=best)
    return winner


class _PlaneRestorer:
    """Restores one plane of the scan at a time; what depends on y and x alone is computed once."""

    def __init__(self, along_y: Taps, along_x: Taps, xp: Any) -> None:
        self.xp = xp
        self.y, self.x = (
            Taps(xp.asarray(t.lower), xp.asarray(t.upper), xp.asarray(t.weight)) for t in (along_y, along_x)
        )
        self.spread_y, self.spread_x = (bool((t.upper > t.lower).any()) for t in (along_y, along_x))

    def restore(self, logits: Array, winners: Array, lower: int, upper: int, weight: np.float32) -> Array:
        """Winning channel (y, x) uint8 between the planes `lower` and `upper` of logits (k, z, y, x)."""
        xp = self.xp
        own = winners[lower]
        mixed = self._mixed(own)
        if weight > 0:
            mixed |= (own != winners[upper]) | self._mixed(winners[upper])
        channels = own[self.y.lower][:, self.x.lower]
        at_y, at_x = xp.nonzero(mixed[self.y.lower][:, self.x.lower])
        if len(at_y) == 0:
            return channels

        # Interpolate along z at the corners of mixed cells only, into a table that fits the cache.
        corners = mixed.copy()
        corners[1:] |= mixed[:-1]
        corners[:, 1:] |= corners[:, :-1].copy()
        nodes = xp.flatnonzero(corners)
        row_of_node = xp.empty(corners.size, xp.int32)
        row_of_node[nodes] = xp.arange(len(nodes), dtype=xp.int32)
        row_of_node = row_of_node.reshape(corners.shape)
        table = logits[:, lower].reshape(len(logits), -1)[:, nodes]
        if weight > 0:
            table += weight * (logits[:, upper].reshape(len(logits), -1)[:, nodes] - table)

        weight_y, weight_x = self.y.weight[at_y], self.x.weight[at_x]
        value = 0
        for rows, part_y in ((self.y.lower, 1 - weight_y), (self.y.upper, weight_y)):
            for columns, part_x in ((self.x.lower, 1 - weight_x), (self.x.upper, weight_x)):
                value = value + table[:, row_of_node[rows[at_y], columns[at_x]]] * (part_y * part_x)
        channels[at_y, at_x] = winning_channel(value, xp)
        return channels

    def _mixed(self, winners: Array) -> Array:
        """True where a cell's corners (y, x), (y + 1, x), (y, x + 1), (y + 1, x + 1) differ."""
        mixed = self.xp.zeros(winners.shape, bool)
        if self.spread_y:
            mixed[:-1] |= winners[:-1] != winners[1:]
        if self.spread_x:
            mixed[:, :-1] |= winners[:, :-1] != winners[:, 1:]
        if self.spread_y and self.spread_x:
            mixed[:-1, :-1] |= winners[:-1, :-1] != winners[1:, 1:]
        return mixed
