"""What a network says of windows, weighed and added up: of as many planes of a volume as a patch is deep.

In float32, or in float16 as nnU-Net 2 adds it up, so that near ties fall as they do there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from ..arrays import Array, add_in_half, copy, from_half, round_to_half
from ..boxes import Box, Shape
from ..errors import EngineError

BLOCK = 1 << 14  # voxels of a channel that are added up at a time: they stay in the cache
BLOCK_CUDA = 1 << 20  # on a GPU, where each call costs more than its work
BEYOND = "logits are beyond the range of float16, in which nnU-Net adds them up: try --precision bf16, or --plan body"


@dataclass(frozen=True, eq=False)
class Half:
    """How a network's answers become logits in float16.

    head   its last layer, as of grids.decode.read_head, where answers are features; None: they are logits
    folds  networks whose logits an answer has side by side: each is added up by itself, and their mean comes after
    """

    head: np.ndarray | None = None
    folds: int = 1

    def mean(self, logits: Array, xp: Any) -> Array:
        """(k, ...) of logits (folds * k, ...), which are changed: rounded to float16 as often as nnU-Net does."""
        if self.folds == 1:
            return logits
        first, *others = logits.reshape(self.folds, -1, *logits.shape[1:])
        for channel, *theirs in zip(first, *others, strict=True):
            for other in theirs:
                channel += other
                round_to_half(channel, xp)
            channel /= self.folds
            round_to_half(channel, xp)
        return first


def last_layer(head: np.ndarray, xp: Any) -> Callable[[Array], Array]:
    """Features (c, ...) -> logits (k, ...). The head is (k, c + 1), as of grids.decode.read_head."""
    weights, biases = xp.asarray(head[:, :-1].copy()), xp.asarray(head[:, -1:].copy())

    def run(features: Array) -> Array:
        logits = xp.matmul(weights, features.reshape(len(features), -1))
        logits += biases
        return logits.reshape(len(weights), *features.shape[1:])

    return run


class Sums:
    """In float32, as last channel the sum of the weights.

    answer   of the first window, (c, z, y, x): its channels count
    planes   (z, y, x) that are held
    weights  of the voxels of a window
    ones     what is handed on has one more channel, 1 where the network looked
    """

    def __init__(self, answer: Array, planes: Shape, weights: Array, ones: bool, xp: Any) -> None:
        self.weights, self.ones, self.xp = weights, ones, xp
        self.channels = len(answer) + ones
        self.held = xp.zeros((len(answer) + 1, *planes), xp.float32)

    def of_one(self, answer: Array) -> Array:
        """What would be handed on if a window were alone."""
        return self.xp.concatenate([answer, self.xp.ones_like(answer[:1])]) if self.ones else answer

    def add(self, answer: Array, own: Box, rows: slice, columns: slice) -> None:
        """Add up a window's answer (c, z, y, x), which is changed: of it `own`, to rows and columns of all planes."""
        self.xp.multiply(answer, self.weights, out=answer)
        self.held[:-1, :, rows, columns] += answer[(slice(None), *own)]
        self.held[-1, :, rows, columns] += self.weights[own]

    def handed_on(self, planes: slice, inside: Array) -> Array:
        """Logits (k, planes, y, x): divided by their weights, and 0 where there are none or outside a mask."""
        part = self.held[:, planes]
        return part[: self.channels] / self._weights(part[-1], inside)

    def _weights(self, weights: Array, inside: Array) -> Array:
        known = weights > 0
        if inside is not None:
            known &= inside
        return self.xp.where(known, weights, self.xp.inf)

    def advance(self, planes: int) -> None:
        """Drop the first planes and make room for as many at the end."""
        kept = self.held.shape[1] - planes
        for channel in self.held:  # one at a time: a copy is needed on the way
            channel[:kept] = copy(channel[planes:])
        self.held[:, kept:] = 0


class HalfSums(Sums):
    """In float16, rounded with every window."""

    def __init__(self, answer: Array, planes: Shape, weights: Array, half: Half, xp: Any) -> None:
        self.weights, self.half, self.xp = weights, half, xp
        self.layer = None if half.head is None else last_layer(half.head, xp)
        sums = len(answer) if half.head is None else len(half.head)
        self.channels = sums // half.folds
        self.held = xp.zeros((sums + 1, *planes), xp.float16)

    def of_one(self, answer: Array) -> Array:
        logits = self._logits(answer)
        return self.half.mean(copy(logits) if self.half.folds > 1 else logits, self.xp)

    def add(self, answer: Array, own: Box, rows: slice, columns: slice) -> None:
        weights = self.weights[own]
        answer, held = answer[(slice(None), *own)], self.held[:, :, rows, columns]
        at_once = max((BLOCK if self.xp is np else BLOCK_CUDA) // (weights.shape[1] * weights.shape[2]), 1)
        for start in range(0, len(weights), at_once):
            planes = slice(start, start + at_once)
            add_in_half(held[-1, planes], weights[planes], self.xp)
            logits = self._logits(answer[:, planes])
            for channel in range(len(logits)):
                add_in_half(held[channel, planes], logits[channel] * weights[planes], self.xp)

    def _logits(self, answer: Array) -> Array:
        """(folds * k, ...) of an answer (c, ...)."""
        return answer if self.layer is None else self.layer(answer)

    def handed_on(self, planes: slice, inside: Array) -> Array:
        """As of Sums. Raises EngineError where logits are beyond float16."""
        held = self.held[:, planes]
        logits = self.xp.empty((len(held) - 1, *held.shape[1:]), self.xp.float32)
        for plane in range(held.shape[1]):  # one at a time: what is held beside it takes four times as much
            divisor = self._weights(from_half(held[-1, plane], self.xp), None if inside is None else inside[plane])
            for channel, sums in zip(logits[:, plane], held[:, plane], strict=False):
                channel[...] = from_half(sums, self.xp) / divisor
                round_to_half(channel, self.xp)
        mean = self.half.mean(logits, self.xp)
        if not isfinite(float(abs(mean).max())):
            raise EngineError(BEYOND)
        return mean
