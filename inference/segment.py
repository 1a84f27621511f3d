"""One scan through the networks: prepare, plan, run, restore, overlay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Protocol

import numpy as np

from .anatomy.look import AROUND_ORGANS, where
from .anatomy.pieces import drop_far_pieces
from .arrays import Array, Network
from .boxes import Box, bounding
from .card import Card
from .formats.probabilities import Probabilities
from .grids.decode import Decode
from .grids.earlier import one_hot
from .grids.prepare import prepare
from .grids.restore import restore
from .grids.view import View
from .options import Way
from .record import Record
from .scan import Scan
from .windows.lay import lay
from .windows.patches import Patches


@dataclass(frozen=True)
class Model:
    """A network, what it expects, and what its logits mean."""

    card: Card
    network: Network
    decode: Decode
    earlier: Model | None = None

    @classmethod
    def of(cls, card: Card, network: Network, earlier: Model | None = None) -> Model:
        """earlier  that of `card.after`"""
        return cls(card, network, Decode.of(card), earlier)


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


def segment(
    scan: Scan,
    models: Sequence[Model],
    way: Way,
    xp: Any,
    record: Record,
    progress: Progress,
    probabilities: Probabilities | None = None,
) -> np.ndarray:
    """Labels of a scan, (z, y, x) uint8 on its own grid.

    models         in rising priority: a later network's label wins where it is not 0
    record         gets seconds, windows, dropped and warnings
    probabilities  gets those of each network's labels

    The scan's voxels are freed, if it allows that, once the last network has seen them.
    """
    labels: np.ndarray | None = None
    for model in models:
        found = None
        if way.follow and labels is not None:
            found = bounding(labels)
            if found is None:
                # Outside the abdomen a tumour network has nothing to find and would only raise false alarms.
                record.windows[model.card.name] = {"run": 0, "skipped": 0}
                record.warnings.append(f"no organ was found, so the network {model.card.name} was not run")
                continue
        last = model is models[-1]
        above = one(scan, model, way, found, xp, record, progress, probabilities, last)
        labels = above if labels is None else overlay(labels, above)
    if labels is None:
        raise ValueError("no network was given")
    if not labels.any():
        record.warnings.append("nothing was found: the label map is empty")
    return labels


def overlay(below: np.ndarray, above: np.ndarray) -> np.ndarray:
    """`above` where it is not 0, else `below` (paper, section 2.3: the tumour has priority)."""
    return np.where(above > 0, above, below)


def mirrored(network: Network, axes: Sequence[int], xp: Any) -> Network:
    """The mean of a network's answers to a batch mirrored along every combination of `axes` (0 to 2: z, y, x), each
    mirrored back: nnU-Net's test-time augmentation."""
    turns = [turn for n in range(1, len(axes) + 1) for turn in combinations([axis + 2 for axis in axes], n)]

    def run(batch: Array) -> Array:
        total = network(batch).copy()  # since the next answer may overwrite this one
        for turn in turns:
            total += xp.flip(network(xp.ascontiguousarray(xp.flip(batch, turn))), turn)
        total /= len(turns) + 1
        return total

    return run


def one(
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
    """Labels of one network on the scan's grid; `found` by earlier networks: where it has to look. `last`: no other
    will see the scan."""
    card = model.card
    before = one(scan, model.earlier, way, found, xp, record, progress) if model.earlier else None
    with record.stage("prepare"):
        view = View.of(scan, card)
        volume = prepare(scan, view, card, xp)
        if before is not None and card.after:
            volume = xp.concatenate([volume, one_hot(before, view, card.after, xp)])
        if last:
            scan.free()
        around = view.box(found, AROUND_ORGANS) if found else None
        look = where(volume, card, view.spacing, way, around, xp)
    layout = lay(view.shape, card, way, look.box, look.middle_first, model.decode.codes)
    dense = Patches(view.shape, card.patch, way.step).most
    progress.network(card.name, dense)
    run = 0

    see = mirrored(model.network, card.mirror_axes or (), xp) if way.tta else model.network

    def network(batch: Array) -> Array:
        nonlocal run
        with record.stage("network"):
            logits = see(batch)
        run += 1
        progress.window()
        return logits

    with record.stage("restore"):
        keep = probabilities.of(card, view.cropped) if probabilities else None
        labels = restore(layout.parts(volume, network, look.inside, xp), view, card, model.decode, xp, keep)
        if way.one_piece:
            names = {label.value: label.name for label in card.labels if label.one_piece}
            lost = drop_far_pieces(labels, scan.grid.spacing, names)
            record.dropped |= {names[value]: voxels for value, voxels in lost.items()}
    record.windows[card.name] = {"run": run, "skipped": max(dense - run, 0), "voxels": list(layout.window)}
    return labels
