"""Labels of a plane of the scan, of which only what may be several labels is interpolated, and of 118 channels only
those that may win there.

A cell lies between four samples, its corners, of a plane of the network's grid. Linear interpolation weighs the corners
by the same weights in all channels, so that a mean of channels is nowhere above the largest channel: one that is below
such a mean, the floor, at all four corners wins nowhere between them. Two floors are tried: the mean of the channels
that win at a corner, and the channel that wins in the middle. What they leave is one channel, which is copied, or two
or three, seldom more.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from .decode import Decode
from .resize import Taps

NUMBERS = 1 << 17  # logits of cells that are looked at at a time: memory does not grow with the labels
IN_CACHE = 1 << 15  # values that are interpolated at a time
SIZES = (0, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128, 256)  # voxels with at most so many candidates are interpolated together
ALL_FOUR = 0x01010101  # four bytes that are True, as one number
CLOSE = 1e-6  # of the largest logit: a channel that is no farther below a floor may reach it when sums are rounded


class PlaneRestorer:
    """Restores one plane of the scan at a time; what depends on y and x alone is computed once."""

    def __init__(self, along_y: Taps, along_x: Taps, decode: Decode) -> None:
        self.y, self.x, self.decode = along_y, along_x, decode
        self.spread_y, self.spread_x = (bool((t.upper > t.lower).any()) for t in (along_y, along_x))

    def restore(self, logits: np.ndarray, codes: np.ndarray, lower: int, upper: int, weight: np.float32) -> np.ndarray:
        """Codes (y, x) uint8 between the planes `lower` and `upper` of logits (k, z, y, x), or of features."""
        own = codes[lower]
        mixed = self._mixed(own)
        if weight > 0:
            mixed |= (own != codes[upper]) | self._mixed(codes[upper])
        found = own.take(self.y.lower, axis=0).take(self.x.lower, axis=1)
        cells = np.flatnonzero(mixed)
        at_once = max(NUMBERS // len(logits if self.decode.head is None else self.decode.head), 1)
        for start in range(0, len(cells), at_once):
            part = cells[start : start + at_once]
            corners = self._corners(part, own.shape)
            nodes, corners = _numbered(corners, own.size)
            table = _at(nodes, logits[:, lower])
            if weight > 0:
                table += weight * (_at(nodes, logits[:, upper]) - table)
            self._interpolate(
                found, own, part, Candidates(self.decode.logits(table), corners, self.decode.largest_wins)
            )
        return found

    def _interpolate(self, found: np.ndarray, own: np.ndarray, cells: np.ndarray, among: Candidates) -> None:
        """Write the codes of voxels in these cells (flat indices of `own`), unless they have the one that they need."""
        differs = (among.counts > 1) | (among.channel[among.first] != own.ravel()[cells])
        open_cells = np.zeros(own.shape, bool)
        open_cells.ravel()[cells] = differs | (not self.decode.largest_wins)
        number = np.empty(own.shape, np.int32)
        number.ravel()[cells] = np.arange(len(cells), dtype=np.int32)
        # Cells ascend, so that their voxels lie in a band of rows.
        top, bottom = cells[[0, -1]] // own.shape[1]
        start, stop = np.searchsorted(self.y.lower, [top, bottom + 1])
        band = open_cells.take(self.y.lower[start:stop], axis=0).take(self.x.lower, axis=1)
        y, x = np.divmod(np.flatnonzero(band), band.shape[1])
        y += start
        of = number[self.y.lower[y], self.x.lower[x]]
        counts = among.counts[of]
        most = int(counts.max(initial=0))
        for fewer, size in pairwise(SIZES):
            here = np.flatnonzero((fewer < counts) & (counts <= size))
            step = max(IN_CACHE // size, 1)
            for at in range(0, len(here), step):
                part = here[at : at + step]
                found[y[part], x[part]] = self._codes(y[part], x[part], of[part], min(size, most), among)

    def _codes(self, y: np.ndarray, x: np.ndarray, of: np.ndarray, size: int, among: Candidates) -> np.ndarray:
        """(n,) uint8: codes of voxels in cells of at most `size` candidates."""
        first = among.first[of]
        pairs = first + np.minimum(np.arange(size)[:, None], among.counts[of] - 1)  # the last, again
        weight_y, weight_x = self.y.weight[y], self.x.weight[x]
        weights = [part_y * part_x for part_y in (1 - weight_y, weight_y) for part_x in (1 - weight_x, weight_x)]
        corners = among.values.take(pairs, axis=0)
        corners *= np.stack(weights, axis=1)
        value = corners[..., 0] + corners[..., 1]
        for corner in (2, 3):
            value += corners[..., corner]
        best = self.decode.of_logits(value, np)
        return among.channel[first + best] if self.decode.largest_wins else best

    def _corners(self, cells: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """(4, n): samples (y, x), (y, x + 1), (y + 1, x), (y + 1, x + 1) of cells, all as flat indices."""
        y, x = np.divmod(cells, shape[1])
        y = shape[1] * np.stack([y, np.minimum(y + self.spread_y, shape[0] - 1)])
        x = np.stack([x, np.minimum(x + self.spread_x, shape[1] - 1)])
        return (y[:, None] + x).reshape(4, -1)

    def _mixed(self, codes: np.ndarray) -> np.ndarray:
        """True where a cell's corners (y, x), (y + 1, x), (y, x + 1), (y + 1, x + 1) differ."""
        mixed = np.zeros(codes.shape, bool)
        if self.spread_y:
            mixed[:-1] |= codes[:-1] != codes[1:]
        if self.spread_x:
            mixed[:, :-1] |= codes[:, :-1] != codes[:, 1:]
        if self.spread_y and self.spread_x:
            mixed[:-1, :-1] |= codes[:-1, :-1] != codes[1:, 1:]
        return mixed


class Candidates:
    """The channels of each cell that may win in it: cell c has `counts[c]` of them, from `first[c]` on.

    channel  (n,) uint8, ascending in each cell
    values   (n, 4) float32: their logits at the cell's corners
    """

    def __init__(self, table: np.ndarray, corners: np.ndarray, largest_wins: bool) -> None:
        """Of logits (samples, k) and, for each cell, the rows of its corners (4, cells). All channels if not
        `largest_wins`."""
        cells, k = corners.shape[1], table.shape[1]
        near = CLOSE * np.abs(table).max()
        if largest_wins:
            cell, channel = np.divmod(np.flatnonzero(_above_mean(table, corners, near)), k)
        else:
            cell, channel = np.repeat(np.arange(cells), k), np.tile(np.arange(k), cells)
        values = table.take(corners.T[cell] * k + channel[:, None])
        first, counts = _runs(cell, cells)
        if largest_wins:
            in_middle = values @ np.ones(4, np.float32)
            leaders = np.flatnonzero(in_middle == np.maximum.reduceat(in_middle, first)[cell])
            leader = first.copy()
            leader[cell[leaders]] = leaders
            below = values < values[leader[cell]] - near
            kept = below.view(np.uint32)[:, 0] != ALL_FOUR
            cell, channel, values = cell[kept], channel[kept], values[kept]
            first, counts = _runs(cell, cells)
        self.first, self.counts, self.channel, self.values = first, counts, channel.astype(np.uint8), values


def _above_mean(table: np.ndarray, corners: np.ndarray, near: float) -> np.ndarray:
    """(cells, k): whether a channel reaches, at some corner, the mean of the channels that win at a corner."""
    cells, k = corners.shape[1], table.shape[1]
    above = np.zeros((cells, k), bool)
    winners, flat = table.argmax(axis=1)[corners], table.ravel()
    share = 1 / (winners[:, None] == winners).sum(axis=1, dtype=np.float32)  # channels count once
    share /= share.sum(axis=0)
    step = max(IN_CACHE // k, 1)
    for at in corners:
        floor = (flat[at * k + winners] * share).sum(axis=0) - near
        for start in range(0, cells, step):
            part = slice(start, start + step)
            above[part] |= ~(table[at[part]] < floor[part, None])  # so is what is no number
    return above


def _runs(cell: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """First and number of the entries of each cell."""
    counts = np.bincount(cell, minlength=cells)
    return np.cumsum(counts) - counts, counts


def _numbered(corners: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The samples that are corners, ascending, and which of these each corner is."""
    used = np.zeros(size, bool)
    used[corners] = True
    nodes = np.flatnonzero(used)
    number = np.empty(size, np.int32)
    number[nodes] = np.arange(len(nodes), dtype=np.int32)
    return nodes, number[corners]


def _at(nodes: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """(n, k): of a plane (k, y, x), all channels of a sample beside each other, since they are read together."""
    return np.ascontiguousarray(plane.reshape(len(plane), -1)[:, nodes].T)
