"""Logits -> labels.

`codes` turns logits (k, ...) into small whole numbers (...), uint8. Restoring interpolates a cell of voxels only where
its corners have different codes, which is right for codes of this property:

    where all corners of a cell have one code, so has every point that is interpolated between them linearly.

The last layer of a network weighs the features of each voxel by itself. Blending and resampling are linear too, so that
it may come after them. Where it has more outputs than inputs the exporter leaves it out of the graphs: then all that
is held and resampled are features, with a last channel that is 1 where the network looked, and this layer, the head, is
applied when labels are wanted. Memory does not depend on the number of labels. Where no window was, all is 0 as well,
logits with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import Array, Network, as_type, copy
from ..card import Card

Codes = Callable[[Array, Any], Array]  # logits (k, ...), array library -> (...) uint8
Shares = Callable[[Array, Any], Array]  # logits (k, ...), array library -> probabilities (k, ...) float32
VOXELS = 1 << 13  # whose logits are held at a time: 118 of each are 4 MB
VOXELS_CUDA = 1 << 18  # by a GPU, where each call costs more than its work: 124 MB


@dataclass(frozen=True, eq=False)
class Decode:
    """What logits mean, or features where the card has a head.

    codes          of logits
    values         that each code has in a label map (uint8)
    probabilities  of logits, one for each label of the card
    foreground     which of these are not the background
    has_share      whether the last channel of what it takes is 1 where the network looked, as that of features is
    """

    codes: Codes
    values: np.ndarray
    probabilities: Shares
    foreground: np.ndarray
    has_share: bool

    @classmethod
    def of(cls, card: Card) -> Decode:
        """Raises WeightsError where the head's file is damaged."""
        values = [label.value for label in card.labels]
        codes, probabilities = CODES[card.decode], PROBABILITIES[card.decode]
        if card.resample.version == 1:
            probabilities = unchanged
        head = read_head(card)
        if head is not None:
            codes, probabilities = after(head, codes), _all_after(head, probabilities)
        coded = np.array([0, *values] if card.decode == "regions" else values, np.uint8)
        return cls(codes, coded, probabilities, np.flatnonzero(values), head is not None)


def read_head(card: Card) -> np.ndarray | None:
    """The last layer of a network whose graphs end before it, (k, c + 1) float32: weights, and a column of biases.

    Raises WeightsError where its file is missing or damaged.
    """
    if card.head is None:
        return None
    head: np.ndarray = np.load(card.file(card.head), allow_pickle=False)
    return head


def with_logits(network: Network, card: Card, xp: Any) -> Network:
    """The network with its head, if it has one: logits of whole windows."""
    head = read_head(card)
    if head is None:
        return network
    weights, biases = xp.asarray(head[:, :-1]), xp.asarray(head[:, -1])

    def run(batch: Array) -> Array:
        return xp.moveaxis(xp.tensordot(weights, network(batch), (1, 1)), 0, 1) + biases[:, None, None, None]

    return run


def after(head: np.ndarray, codes: Codes) -> Codes:
    """Codes of features (c + 1, ...), of whose logits no more than those of VOXELS are held.

    head  as of `read_head`
    """

    def of(features: Array, xp: Any) -> Array:
        weights = xp.asarray(head)
        flat = features.reshape(len(features), -1)
        found = xp.empty(flat.shape[1], xp.uint8)
        at_once = VOXELS if xp is np else VOXELS_CUDA
        for start in range(0, len(found), at_once):
            part = slice(start, start + at_once)
            found[part] = codes(xp.matmul(flat[:, part].T, weights.T).T, xp)
        return found.reshape(features.shape[1:])

    return of


def _all_after(head: np.ndarray, probabilities: Shares) -> Shares:
    """Probabilities of features (c + 1, ...). The caller bounds how many: the logits of all of them are held."""

    def of(features: Array, xp: Any) -> Array:
        return probabilities(xp.tensordot(xp.asarray(head), features, (1, 0)), xp)

    return of


def winning_channel(logits: Array, xp: Any) -> Array:
    """The index of the largest of the k channels, the first of equals.

    Same as argmax(axis=0), which NumPy does several times slower where the channels of a voxel are not beside each
    other. It has the property of codes: a mean of logits whose largest is the same one has its largest there.
    """
    if xp is not np or logits.strides[0] == logits.itemsize:
        return as_type(xp.argmax(logits, axis=0), xp.uint8)
    best = copy(logits[0])
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


def softmax(logits: Array, xp: Any) -> Array:
    """Probabilities of k labels of which one holds."""
    shares = logits - xp.max(logits, axis=0)
    xp.exp(shares, out=shares)
    shares /= shares.sum(axis=0)
    return shares


def sigmoid(logits: Array, xp: Any) -> Array:
    """Probabilities of k regions, each by itself."""
    return (xp.tanh(logits / 2) + 1) / 2  # 1 / (1 + exp(-x)) overflows


def unchanged(probabilities: Array, xp: Any) -> Array:
    """Of nnU-Net v1, whose networks end in the softmax."""
    return probabilities


CODES: dict[str, Codes] = {"argmax": winning_channel, "regions": last_region}
PROBABILITIES: dict[str, Shares] = {"argmax": softmax, "regions": sigmoid}
