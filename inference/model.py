"""One network on one scan: where it has to look, its windows, and its labels on the scan's own grid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Protocol

import cc3d
import numpy as np

from .anatomy.hosts import drop_hostless
from .anatomy.look import AROUND_ORGANS, Look, where
from .anatomy.pieces import drop_far_pieces, keep_largest
from .arrays import Array, Network, copy
from .boxes import Box, Shape, bounding, joined
from .card import Card
from .formats.probabilities import Probabilities
from .grids.decode import Decode, averaged
from .grids.prepare import prepare
from .grids.restore import restore
from .grids.view import View
from .options import GUIDE, Way
from .record import Record
from .scan import Grid, Scan
from .windows.lay import lay
from .windows.patches import Patches

LEAST_ML = 1.0  # of an organ that a guide finds: of less it did not find it
Organs = dict[int, Box]  # value in a guide's label map -> where it is
EDGE = 5.0  # mm: a label that comes so near to the end of what is looked at may go on there


@dataclass(frozen=True, eq=False)
class Model:
    """A network, what it expects, what its logits mean, and those that run before it. Networks with the same guide have
    the same model of it.

    half  the meaning of logits with nnU-Net's rounding, where the network's own labels are wanted: in float32, and with
          its windows. None: they are not, or nothing is rounded
    """

    card: Card
    network: Network
    decode: Decode
    half: Decode | None = None
    earlier: Model | None = None
    guide: Model | None = None

    @classmethod
    def of(
        cls,
        card: Card,
        network: Network,
        earlier: Model | None = None,
        guide: Model | None = None,
        precision: str = "f32",
    ) -> Model:
        """earlier, guide  those of `card.after` and `card.guide`"""
        half = Decode.in_half(card) if precision == "f32" else None
        return cls(card, network, Decode.of(card), half, earlier, guide)

    def try_out(self, xp: Any) -> None:
        """Run the smallest window: what a GPU lacks shows there, not when a network is loaded. Raises EngineError."""
        if self.earlier:
            self.earlier.try_out(xp)  # whose channels are those of the scan
        else:
            window = self.card.window_multiple or self.card.patch
            self.network(xp.zeros((1, len(self.card.channels), *window), xp.float32))


class Progress(Protocol):
    """Hears how far a scan is."""

    def network(self, name: str, most: int) -> None:
        """A network begins, with at most so many windows."""

    def window(self) -> None:
        """A window is done."""


class Quiet:
    """A progress that nobody hears."""

    def network(self, name: str, most: int) -> None:
        pass

    def window(self) -> None:
        pass


def mirrored(network: Network, axes: Sequence[int], xp: Any) -> Network:
    """The mean of a network's answers to a batch mirrored along every combination of `axes` (0 to 2: z, y, x), each
    mirrored back: nnU-Net's test-time augmentation."""
    turns = [turn for n in range(1, len(axes) + 1) for turn in combinations([axis + 2 for axis in axes], n)]

    def run(batch: Array) -> Array:
        total = copy(network(batch))  # since the next answer may overwrite this one
        for turn in turns:
            total += xp.flip(network(xp.ascontiguousarray(xp.flip(batch, turn))), turn)
        total /= len(turns) + 1
        return total

    return run


def segment_with(
    scan: Scan,
    model: Model,
    way: Way,
    found: Box | None,
    xp: Any,
    record: Record,
    progress: Progress,
    probabilities: Probabilities | None = None,
    last: bool = False,
) -> np.ndarray:
    """Labels of one network on the scan's grid.

    found  where its guide or earlier networks have it look, on the scan's grid; None: they say nothing
    last   no other network will see the scan
    """
    card = model.card
    everything = None if way.guided else found  # a guide knows where the labels of the later network are
    before = segment_with(scan, model.earlier, way, everything, xp, record, progress) if model.earlier else None
    with record.stage("prepare"):
        view = View.of(scan, card)
        volume = prepare(scan, view, card, xp, before)
        if last:
            scan.free()
        around = view.box(found, AROUND_ORGANS) if found else None
        look = where(volume, card, view.spacing, way, around, xp)
    dense = Patches(view.shape, card.patch, way.step).most
    progress.network(card.name, dense)
    run = 0

    decode, see = model.decode, averaged(model.network, card)
    if model.half and card.lays_patches(way):
        decode, see = model.half, model.network
    if way.tta:
        see = mirrored(see, card.mirror_axes or (), xp)

    def network(batch: Array) -> Array:
        nonlocal run
        with record.stage("network"):
            logits = see(batch)
        run += 1
        progress.window()
        return logits

    def looked(look: Look) -> tuple[np.ndarray, Shape]:
        """Labels, and the voxels of a window."""
        middle_first, codes = look.middle_first, decode.codes
        layout = lay(view.shape, card, way, look.box, middle_first, codes, decode.has_share, decode.half)
        keep = probabilities.of(card, view.cropped) if probabilities else None
        return restore(layout.parts(volume, network, look.inside, xp), view, card, decode, xp, keep), layout.window

    with record.stage("restore"):
        labels, window = looked(look)
        everywhere = run == dense and not way.boxed
        beyond = way.guided and found and not everywhere and not _well_within(labels, found, scan.grid)
        if beyond:
            progress.network(card.name, dense)
            labels, window = looked(Look())  # everywhere
        record.dropped |= _drop(labels, scan.grid, card, way)
    record.windows[card.name] = {"run": run, "skipped": max(dense - run, 0), "voxels": list(window)}
    if model.guide and way.guided:
        followed = "followed" if everywhere or labels.any() else "nothing near"
        record.windows[card.name]["guide"] = "too small" if beyond else followed if found else "found nothing"
    return labels


def _drop(labels: np.ndarray, grid: Grid, card: Card, way: Way) -> dict[str, int]:
    """Take out of labels what their card and the way do not allow; name of a label -> voxels that it lost."""
    lost = Counter(keep_largest(labels, grid.spacing, card.largest))
    if way.one_piece:
        lost.update(drop_hostless(labels, {label.value: label.hosts for label in card.labels if label.hosts}))
        organs = [label.value for label in card.labels if label.one_piece]
        lost.update(drop_far_pieces(labels, grid.spacing, organs))
    return {card.names[value]: voxels for value, voxels in lost.items()}


def find_organs(scan: Scan, guide: Model, xp: Any, record: Record) -> Organs:
    """Where a guide finds organs on the scan's grid: those of which it finds LEAST_ML."""
    own = Record(seconds=record.seconds)
    labels = segment_with(scan, guide, GUIDE, None, xp, own, Quiet())  # which takes a second
    record.windows |= own.windows
    with record.stage("restore"):
        found = cc3d.statistics(np.ascontiguousarray(labels))
        least = LEAST_ML / scan.grid.voxel_ml
        boxes = zip(found["voxel_counts"], found["bounding_boxes"], strict=True)
        return {value: box for value, (voxels, box) in enumerate(boxes) if voxels >= least}


def box_around(found: Organs, values: Sequence[int]) -> Box | None:
    """The box of several organs; None where one of them was not found."""
    return joined([found[value] for value in values]) if set(values) <= set(found) else None


def _well_within(labels: np.ndarray, found: Box, grid: Grid) -> bool:
    """Whether all labels lie in a box and around it: what goes further may go on where no window was."""
    box, margin = bounding(labels), AROUND_ORGANS - EDGE
    return box is None or all(
        part.start >= within.start - margin / mm and part.stop <= within.stop + margin / mm
        for part, within, mm in zip(box, found, grid.spacing, strict=True)
    )
