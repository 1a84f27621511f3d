"""Logits -> labels.

`codes` turns logits (k, ...) into small whole numbers (...), uint8. Restoring interpolates a cell of voxels only where
its corners have different codes, which is right for codes of this property:

    where all corners of a cell have one code, so has every point that is interpolated between them linearly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import Array
from ..card import Card

Codes = Callable[[Array, Any], Array]  # logits (k, ...), array library -> (...) uint8


@dataclass(frozen=True, eq=False)
class Decode:
    """`codes` of logits, and for each code the value that it has in a label map (uint8)."""

    codes: Codes
    values: np.ndarray

    @classmethod
    def of(cls, card: Card) -> Decode:
        values = [label.value for label in card.labels]
        return cls(CODES[card.decode], np.array([0, *values] if card.decode == "regions" else values, np.uint8))


def winning_channel(logits: Array, xp: Any) -> Array:
    """The index of the largest of the k channels, the first of equals.

    Same as argmax(axis=0), which NumPy does several times slower along a strided axis. It has the property of codes: a
    mean of logits whose largest is the same one has its largest there.
    """
    best = logits[0].copy()
    winner = xp.zeros(best.shape, xp.uint8)
    for channel in range(1, len(logits)):
        winner[logits[channel] > best] = channel
        xp.maximum(best, logits[channel], out=best)
    return winner


def last_region(logits: Array, xp: Any) -> Array:
    """1 + the index of the last of the k regions that is on, above 0 as logits go; 0 where none is: nnU-Net's regions.

    It has the property of codes: a region that is on at all corners is on between them, and later ones are off. That
    it is the index and not the value matters: two regions may write one value.
    """
    region = xp.zeros(logits.shape[1:], xp.uint8)
    for channel in range(len(logits)):
        region[logits[channel] > 0] = channel + 1
    return region


CODES: dict[str, Codes] = {"argmax": winning_channel, "regions": last_region}
