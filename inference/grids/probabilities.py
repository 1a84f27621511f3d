"""Logits -> probabilities of labels on the scan's own grid, as nnU-Net has them: resampled first, then softmax, or
sigmoid for regions.

Every voxel is interpolated, a plane at a time. Where the network did not look there are no logits but zeros, of which
softmax would make something of every label. So each sample has a share, 1 where the network looked: values are divided
by what is interpolated of it, which changes no label, and where that is nothing no label has a probability.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays import Array, as_type, copy, to_host
from ..boxes import Box
from .decode import Decode
from .resize import apply_matrix

# Takes a box of the cropped scan, and probabilities (k, z, y, x) uint8, 255 for 1, of the labels but the background.
Keep = Callable[[Box, np.ndarray], None]
LEAST = 1e-3  # of a share that something can be divided by
NUMBERS = 1 << 20  # that are interpolated at a time: 4 MB


def looked(logits: Array) -> Array:
    """The share (...) of logits (k, ...): 1 where the network looked, since no logits of its own are all 0."""
    return (logits != 0).any(axis=0)


def in_bytes(values: Array, decode: Decode, xp: Any) -> Array:
    """Probabilities (k, ...) uint8, 255 for 1, of the labels that `decode` names in `foreground`.

    values  interpolated logits, the share after them; of features the last one is the share
    """
    share = values[-1]
    known = share > LEAST
    values = values / xp.where(known, share, 1)
    probabilities = decode.probabilities(values if decode.has_share else values[:-1], xp)[decode.foreground]
    probabilities *= 255 * known
    probabilities += 0.5
    return as_type(probabilities, xp.uint8)


class PlaneInterpolator:
    """Interpolates one plane of the scan at a time.

    rows, columns  (n_out, n_in) of the axes y and x
    """

    def __init__(self, rows: np.ndarray, columns: np.ndarray, decode: Decode, xp: Any) -> None:
        self.rows, self.columns, self.decode, self.xp = rows, columns, decode, xp
        self.at_once = max(NUMBERS // max(len(decode.foreground) * len(columns), 1), 1)  # rows

    def between(self, lower: Array, upper: Array, weight: np.float32) -> np.ndarray:
        """Probabilities (k, y, x) uint8 between two planes (k, y, x) of logits, of which `upper` has a weight."""
        xp = self.xp
        values = self._with_share(lower)
        if weight > 0:
            values += float(weight) * (self._with_share(upper) - values)
        parts = []
        for start in range(0, len(self.rows), self.at_once):
            part = apply_matrix(self.rows[start : start + self.at_once], values, 1, xp)
            parts.append(in_bytes(apply_matrix(self.columns, part, 2, xp), self.decode, xp))
        return to_host(xp.concatenate(parts, axis=1))

    def _with_share(self, logits: Array) -> Array:
        if self.decode.has_share:
            return copy(logits)
        return self.xp.concatenate([logits, as_type(looked(logits)[None], self.xp.float32)])
