"""One scan through the networks: prepare, plan, run, restore, overlay."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from .anatomy.look import AROUND_ORGANS, where
from .anatomy.pieces import drop_far_pieces
from .arrays import Array, Network
from .boxes import Box, bounding
from .card import Card
from .grids.prepare import prepare
from .grids.restore import restore
from .grids.view import View
from .options import Way
from .scan import Scan
from .windows.lay import lay
from .windows.layout import Progress
from .windows.patches import Patches


@dataclass(frozen=True)
class Model:
    """A network and what it expects."""

    card: Card
    network: Network


@dataclass
class Report:
    """What happened on the way to the labels.

    seconds   by stage: prepare, network, restore (blending included)
    windows   by network: windows run, windows of the dense plan that were not, and voxels (z, y, x) of one
    dropped   by label: voxels that lay far from the rest of their organ and were taken out
    warnings  one sentence each
    """

    seconds: dict[str, float] = field(default_factory=dict)
    windows: dict[str, dict[str, Any]] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    _inner: float = 0.0  # s of stages that ended inside the one that runs

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of a block to `seconds[name]`, but for that of stages inside it."""
        start, outer, self._inner = perf_counter(), self._inner, 0.0
        try:
            yield
        finally:
            spent = perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + spent - self._inner
            self._inner = outer + spent


def segment(
    scan: Scan,
    models: Sequence[Model],
    way: Way,
    xp: Any,
    on_windows: Callable[[str, int], Callable[[], None]] = lambda name, most: lambda: None,
) -> tuple[np.ndarray, Report]:
    """Labels of a scan, (z, y, x) uint8 on its own grid, and the report.

    models      in rising priority: a later network's label wins where it is not 0
    on_windows  called with a network's name and the most windows it may run; what it returns is
                called after each window
    """
    report = Report()
    labels: np.ndarray | None = None
    for model in models:
        found = None
        if way.follow and labels is not None:
            found = bounding(labels)
            if found is None:
                # Outside the abdomen a tumour network has nothing to find and would only raise false alarms.
                report.windows[model.card.name] = {"run": 0, "skipped": 0}
                report.warnings.append(f"no organ was found, so the network {model.card.name} was not run")
                continue
        above = one(scan, model, way, found, xp, report, on_windows)
        labels = above if labels is None else overlay(labels, above)
    if labels is None:
        raise ValueError("no network was given")
    if not labels.any():
        report.warnings.append("nothing was found: the label map is empty")
    return labels, report


def overlay(below: np.ndarray, above: np.ndarray) -> np.ndarray:
    """`above` where it is not 0, else `below` (paper, section 2.3: the tumour has priority)."""
    return np.where(above > 0, above, below)


def one(
    scan: Scan,
    model: Model,
    way: Way,
    found: Box | None,
    xp: Any,
    report: Report,
    on_windows: Callable[[str, int], Callable[[], None]],
) -> np.ndarray:
    """Labels of one network on the scan's grid; `found` by earlier networks: where it has to look."""
    card = model.card
    with report.stage("prepare"):
        view = View.of(scan, card)
        volume = prepare(scan, view, card, xp)
        around = view.box(found, AROUND_ORGANS) if found else None
        look = where(volume, card, way, around, xp)
    layout = lay(view.shape, card, way, look.box, look.middle_first)
    dense = Patches(view.shape, card.patch, way.step).most
    progress = Progress(step=on_windows(card.name, dense))

    def network(batch: Array) -> Array:
        with report.stage("network"):
            return model.network(batch)

    with report.stage("restore"):
        labels = restore(layout.parts(volume, network, look.inside, progress, xp), view, card, xp)
        if way.one_piece:
            names = {label.value: label.name for label in card.labels if label.one_piece}
            lost = drop_far_pieces(labels, scan.grid.spacing, names)
            report.dropped |= {names[value]: voxels for value, voxels in lost.items()}
    skipped = max(dense - progress.windows, 0)
    report.windows[card.name] = {"run": progress.windows, "skipped": skipped, "voxels": list(layout.window)}
    return labels
