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

from ..arrays import Array, Network, as_type, copy, round_to_half
from ..card import Card
from ..windows.blend import Half, last_layer

Codes = Callable[[Array, Any], Array]  # logits (k, ...), array library -> (...) uint8
Shares = Callable[[Array, Any], Array]  # logits (k, ...), array library -> probabilities (k, ...) float32
VOXELS = 1 << 13  # whose logits are held at a time: 118 of each are 4 MB
TILE = (4, 8)  # planes and rows of a tile of features, which is one voxel wide: so NumPy reads them in order
CLOSE = 1e-5  # of the largest logit: what sums of features are rounded by, several times over
VOXELS_CUDA = 1 << 18  # by a GPU, where each call costs more than its work: 124 MB


@dataclass(frozen=True, eq=False)
class Decode:
    """What logits mean, or features where the card has a head.

    codes          of what is held: of logits, or of features by way of the head
    of_logits      codes of logits that were interpolated
    largest_wins   whether the code is the channel with the largest logit
    half           how windows are added up in float16, to which interpolated logits are rounded too; None: they are not
    head           the last layer, as of `read_head`, where features are held
    values         that each code has in a label map (uint8)
    probabilities  of logits, one for each label of the card
    foreground     which of these are not the background
    """

    codes: Codes
    of_logits: Codes
    largest_wins: bool
    half: Half | None
    head: np.ndarray | None
    values: np.ndarray
    probabilities: Shares
    foreground: np.ndarray

    @classmethod
    def of(cls, card: Card) -> Decode:
        """Raises WeightsError where the head's file is damaged."""
        return cls._of(card, read_head(card), None)

    @classmethod
    def in_half(cls, card: Card) -> Decode | None:
        """Of logits in float16, in which nnU-Net 2 blends and resamples them, so that near ties fall as they do there.

        None where that is not done. Raises WeightsError where the head's file is damaged.
        """
        return cls._of(card, None, Half(read_head(card), card.folds)) if card.in_half else None

    @classmethod
    def _of(cls, card: Card, head: np.ndarray | None, half: Half | None) -> Decode:
        values = [label.value for label in card.labels]
        codes, probabilities = CODES[card.decode], PROBABILITIES[card.decode]
        if card.resample.version == 1:
            probabilities = unchanged
        of_logits, argmax = codes, card.decode == "argmax"
        # PyTorch's resampling gives float32, and rounding changes the sign of no region.
        if half and argmax and card.resample.logits.method == "spline":
            of_logits = rounded_winning_channel
        if head is not None:
            codes, probabilities = after(head, codes), _all_after(head, probabilities)
        coded = np.array([0, *values] if card.decode == "regions" else values, np.uint8)
        return cls(codes, of_logits, argmax, half, head, coded, probabilities, np.flatnonzero(values))

    @property
    def has_share(self) -> bool:
        """Whether the last channel of what is held is 1 where the network looked, as that of features is."""
        return self.head is not None

    @property
    def of_interpolated(self) -> Codes:
        """Codes of what is held, interpolated."""
        return self.of_logits if self.head is None else self.codes

    def logits(self, held: np.ndarray) -> np.ndarray:
        """(n, k): logits of n voxels, of which (n, ...) is held."""
        return held if self.head is None else held @ self.head.T


def read_head(card: Card) -> np.ndarray | None:
    """The last layer of a network whose graphs end before it, (k, c + 1) float32: weights, and a column of biases.

    Raises WeightsError where its file is missing or damaged.
    """
    if card.head is None:
        return None
    head: np.ndarray = np.load(card.file(card.head), allow_pickle=False)
    return head


def with_logits(network: Network, card: Card, xp: Any) -> Network:
    """The network with what its graph leaves to others, so that it answers with logits of whole windows: its head, or
    the mean of its folds."""
    head = read_head(card)
    if head is None:
        return averaged(network, card)

    layer = last_layer(head, xp)

    def run(batch: Array) -> Array:
        return xp.stack([layer(features) for features in network(batch)])

    return run


def averaged(network: Network, card: Card) -> Network:
    """The network with the mean of its folds as its answer, whichever it has."""
    labels = len(card.labels)

    def run(batch: Array) -> Array:
        answer = network(batch)
        if answer.shape[1] == labels:
            return answer
        return answer.reshape(len(answer), -1, labels, *answer.shape[2:]).sum(1) * (1 / card.folds)

    return network if card.folds == 1 else run


def after(head: np.ndarray, codes: Codes) -> Codes:
    """Codes of features (c + 1, ...), of whose logits no more than those of VOXELS are held.

    head  as of `read_head`
    """

    def of(features: Array, xp: Any) -> Array:
        weights = xp.asarray(head)
        flat = features.reshape(len(features), -1)
        if xp is np and codes is winning_channel and features.ndim == 4:
            found, sure = _winners_of_tiles(head, features)
            rest = np.flatnonzero(~sure)
            for start in range(0, len(rest), VOXELS):
                at = rest[start : start + VOXELS]
                found[at] = codes((flat[:, at].T @ weights.T).T, xp)
            return found.reshape(features.shape[1:])
        found = xp.empty(flat.shape[1], xp.uint8)
        at_once = VOXELS if xp is np else VOXELS_CUDA
        for start in range(0, len(found), at_once):
            part = slice(start, start + at_once)
            found[part] = codes(xp.matmul(flat[:, part].T, weights.T).T, xp)
        return found.reshape(features.shape[1:])

    return of


def _winners_of_tiles(head: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each voxel of features (c + 1, z, y, x), flat: a channel, and whether it is known to be the winning one.

    In a tile, whose features lie between a smallest and a largest value each, the logits lie between bounds. Where one
    channel's lower bound is above the upper bounds of all others, as in nine of ten tiles, no voxel need be looked at.
    """
    shape = features.shape[1:]
    found, sure = np.empty(shape, np.uint8), np.empty(shape, bool)
    for start in range(0, shape[0], TILE[0]):
        planes = slice(start, start + TILE[0])
        low, high = (_over_tiles(extreme, features[:, planes]) for extreme in (np.minimum, np.maximum))
        middle, reach = (low + high) / 2, (high - low) / 2
        winner, alone = np.empty(low.shape[1:], np.uint8), np.empty(low.shape[1:], bool)
        for row in range(len(winner)):
            logits, beyond = middle[:, row].T @ head.T, reach[:, row].T @ np.abs(head).T
            near = CLOSE * (np.abs(logits).max() + beyond.max())
            floor = (logits - beyond).max(axis=1, keepdims=True) - near
            possible = ~(logits + beyond < floor)  # so is what is no number
            winner[row], alone[row] = possible.argmax(axis=1), np.count_nonzero(possible, axis=1) == 1
        rows = np.arange(shape[1]) // TILE[1]
        found[planes], sure[planes] = winner[rows], alone[rows]
    return found.ravel(), sure.ravel()


def _over_tiles(extreme: np.ufunc, features: np.ndarray) -> np.ndarray:
    """(c, rows of tiles, x): the smallest or largest of features (c, z, y, x) of one tile along z."""
    of_rows = extreme.reduce(features, axis=1)
    found = of_rows[:, :: TILE[1]].copy()
    for row in range(1, TILE[1]):
        part = of_rows[:, row :: TILE[1]]
        extreme(found[:, : part.shape[1]], part, out=found[:, : part.shape[1]])
    return found


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


def rounded_winning_channel(logits: Array, xp: Any) -> Array:
    """`winning_channel` of logits that are rounded to float16 first."""
    rounded = copy(logits)
    round_to_half(rounded, xp)
    return winning_channel(rounded, xp)


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
