"""Labels of a plane of the scan, of which only what may be several labels is interpolated, and of 118 channels only
those that may win there.

A cell lies between four samples, its corners, of a plane of the network's grid. Linear interpolation weighs the corners
by the same weights in all channels, so that a mean of channels is nowhere above the largest channel: one that is below
such a mean, the floor, at all four corners wins nowhere between them. Two floors are tried: the mean of the channels
that win at a corner, and the channel that wins in the middle. What they leave is one channel, which is copied, or two
or three, seldom more. Where most cells have another winner at each corner, as in noise, this costs more than it saves,
and all channels are interpolated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .decode import Decode
from .resize import Taps

NUMBERS = 1 << 17  # logits of cells that are looked at at a time: memory does not grow with the labels
IN_CACHE = 1 << 15  # values that are interpolated at a time
SIZES = (0, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128, 256)  # voxels with at most so many candidates are interpolated together
ALL_FOUR = 0x01010101  # four bytes that are True, as one number
# Of the largest logit: a channel that is no farther below a floor may reach it when sums are rounded, or float16 is.
CLOSE, CLOSE_IN_HALF = 1e-6, 2.0**-10
MANY = 2.5  # winners at the corners of a cell, as a mean over cells, above which all channels are interpolated


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
            table = self.decode.logits(table)
            close = CLOSE_IN_HALF if self.decode.half else CLOSE
            among = Candidates.of(table, corners, close) if self.decode.largest_wins else None
            if among:
                self._interpolate(found, own, part, among)
            else:
                self._interpolate_all(found, part, own.shape, table, corners)
        return found

    def _interpolate(self, found: np.ndarray, own: np.ndarray, cells: np.ndarray, among: Candidates) -> None:
        """Write the codes of voxels in these cells (flat indices of `own`), unless they have the one that they need."""
        differs = (among.counts > 1) | (among.channel[among.first] != own.ravel()[cells])
        y, x, of = self._voxels(cells, differs, own.shape)
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
        corners = among.values.take(pairs, axis=0)
        corners *= np.stack(list(self._weights(y, x)), axis=1)
        value = corners[..., 0] + corners[..., 1]
        for corner in (2, 3):
            value += corners[..., corner]
        return among.channel[first + self.decode.of_logits(value, np)]

    def _interpolate_all(
        self, found: np.ndarray, cells: np.ndarray, shape: tuple[int, ...], table: np.ndarray, corners: np.ndarray
    ) -> None:
        """Write the codes of all voxels in these cells, by every channel of logits (samples, k); `corners` (4, cells)
        are rows of these."""
        y, x, of = self._voxels(cells, np.ones(len(cells), bool), shape)
        step = max(IN_CACHE // table.shape[1], 1)
        for start in range(0, len(y), step):
            part = slice(start, start + step)
            value: np.ndarray | float = 0.0
            for corner, weight in zip(corners, self._weights(y[part], x[part]), strict=True):
                value = value + table[corner[of[part]]] * weight[:, None]
            found[y[part], x[part]] = self.decode.of_logits(np.asarray(value).T, np)

    def _voxels(
        self, cells: np.ndarray, wanted: np.ndarray, shape: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """y and x of the voxels that lie in the cells that are `wanted`, and which of the cells each lies in.

        cells  flat indices of a plane of this shape, ascending
        """
        number = np.full(shape, -1, np.int32)
        number.ravel()[cells] = np.where(wanted, np.arange(len(cells), dtype=np.int32), -1)
        # Cells ascend, so that their voxels lie in a band of rows.
        top, bottom = cells[[0, -1]] // shape[1]
        start, stop = np.searchsorted(self.y.lower, [top, bottom + 1])
        band = number.take(self.y.lower[start:stop], axis=0).take(self.x.lower, axis=1)
        at = np.flatnonzero(band >= 0)
        of = band.ravel()[at]
        y, x = np.divmod(at, band.shape[1])
        y += start
        return y, x, of

    def _weights(self, y: np.ndarray, x: np.ndarray) -> Iterator[np.ndarray]:
        """Those of the corners, in the order of `_corners`, for voxels."""
        weight_y, weight_x = self.y.weight[y], self.x.weight[x]
        for part_y in (1 - weight_y, weight_y):
            for part_x in (1 - weight_x, weight_x):
                yield part_y * part_x

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


@dataclass(frozen=True, eq=False)
class Candidates:
    """The channels of each cell that may win in it: cell c has `counts[c]` of them, from `first[c]` on.

    channel  (n,) uint8, ascending in each cell
    values   (n, 4) float32: their logits at the cell's corners
    """

    first: np.ndarray
    counts: np.ndarray
    channel: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, table: np.ndarray, corners: np.ndarray, close: float = CLOSE) -> Candidates | None:
        """Of logits (samples, k) and, for each cell, the rows of its corners (4, cells). None where it does not pay to
        look for them, or cannot be said: sums of what is infinite, no number or next to 0 may be rounded by anything.

        close  share of the largest logit by which sums may be wrong
        """
        cells, k = corners.shape[1], table.shape[1]
        near = close * np.abs(table).max()
        winners = table.argmax(axis=1)[corners]
        share = 1 / (winners[:, None] == winners).sum(axis=1, dtype=np.float32)  # channels count once
        if not np.finfo(np.float32).tiny < near < np.inf or share.sum() > MANY * cells:
            return None
        share /= share.sum(axis=0)
        cell, channel = np.divmod(np.flatnonzero(_above_mean(table, corners, winners, share, near)), k)
        values = table.take(corners.T[cell] * k + channel[:, None])
        first, _ = _runs(cell, cells)
        in_middle = values @ np.ones(4, np.float32)
        leaders = np.flatnonzero(in_middle == np.maximum.reduceat(in_middle, first)[cell])
        leader = first.copy()
        leader[cell[leaders]] = leaders
        below = values < values[leader[cell]] - near
        kept = below.view(np.uint32)[:, 0] != ALL_FOUR
        return cls(*_runs(cell[kept], cells), channel[kept].astype(np.uint8), values[kept])


def _above_mean(
    table: np.ndarray, corners: np.ndarray, winners: np.ndarray, share: np.ndarray, near: float
) -> np.ndarray:
    """(cells, k): whether a channel reaches, at some corner, the mean of the channels that win at a corner.

    winners, share  (4, cells): of each corner, and its weight in the mean
    """
    cells, k = corners.shape[1], table.shape[1]
    above = np.zeros((cells, k), bool)
    flat = table.ravel()
    step = max(IN_CACHE // k, 1)
    for at in corners:
        floor = (flat[at * k + winners] * share).sum(axis=0) - near
        for start in range(0, cells, step):
            part = slice(start, start + step)
            above[part] |= table[at[part]] >= floor[part, None]
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
