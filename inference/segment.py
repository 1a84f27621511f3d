"""One scan through the networks: prepare, plan, run, restore, overlay."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from time import perf_counter
from typing import Any

import numpy as np

from .anatomy.body import body_mask, muscle_box
from .anatomy.pieces import drop_far_pieces
from .arrays import Array, Network
from .boxes import Box, bounding, shape_of
from .card import Card
from .grids.prepare import prepare
from .grids.restore import restore
from .grids.view import View
from .scan import Scan
from .windows.layout import Progress
from .windows.patches import Patches
from .windows.planes import SHALLOW, Planes, wide_window

PLANS = ("abdomen", "dense")
BODY_HU = -300  # between lung (-900..-500 HU) and fat (-120..-80 HU)
MUSCLE_HU = 0  # between fat and muscle (30..70 HU)
ABOVE_CLIP = 10  # HU: where a card's clip hides one of these, what lies this far above the clip counts
MARGIN = 20.0  # mm around the organs found, within which later networks look: tumours grow out of organs
MOST_VOXELS = 4_000_000  # of a window of a network that takes any: about 1.5 GB with what is computed on the way
FRUGAL = 4  # times fewer voxels than its patch has a window of such a network where memory is short
SEVERAL_ORGANS = 5  # a network that knows this many shows where the abdomen is; one that knows less may see none of it


@dataclass(frozen=True)
class Model:
    """A network and what it expects."""

    card: Card
    network: Network


@dataclass
class Report:
    """What happened on the way to the labels.

    seconds   by stage: prepare, network, restore (blending included)
    windows   by network: windows run, and windows of the dense plan that were not
    dropped   by label: voxels that lay far from the rest of their organ and were taken out
    warnings  one sentence each
    """

    seconds: dict[str, float] = field(default_factory=dict)
    windows: dict[str, dict[str, int]] = field(default_factory=dict)
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
    xp: Any,
    *,
    plan: str = "abdomen",
    step: float = 0.5,
    frugal: bool = False,
    on_windows: Callable[[str, int], Callable[[], None]] = lambda name, most: lambda: None,
) -> tuple[np.ndarray, Report]:
    """Labels of a scan, (z, y, x) uint8 on its own grid, and the report.

    models      in rising priority: a later network's label wins where it is not 0
    plan        "dense": every window, as nnU-Net; "abdomen": windows and labels in the body only, organs in
                one piece, and later networks only within MARGIN of what earlier ones found
    step        of the windows, as a share of the patch; along z wide windows share planes as wide_grid says
    frugal      small windows: slower, other labels near borders, and the least memory
    on_windows  called with a network's name and the most windows it may run; what it returns is
                called after each window
    """
    report = Report()
    labels: np.ndarray | None = None
    for model in models:
        found = None
        if plan == "abdomen" and labels is not None:
            found = bounding(labels)
            if found is None:
                # Outside the abdomen a tumour network has nothing to find and would only raise false alarms.
                report.windows[model.card.name] = {"run": 0, "skipped": 0}
                report.warnings.append(f"no organ was found, so the network {model.card.name} was not run")
                continue
        above = _run(scan, model, xp, plan, step, found, frugal, on_windows, report)
        labels = above if labels is None else overlay(labels, above)
    if labels is None:
        raise ValueError("no network was given")
    if not labels.any():
        report.warnings.append("nothing was found: the label map is empty")
    return labels, report


def overlay(below: np.ndarray, above: np.ndarray) -> np.ndarray:
    """`above` where it is not 0, else `below` (paper, section 2.3: the tumour has priority)."""
    return np.where(above > 0, above, below)


def _run(
    scan: Scan,
    model: Model,
    xp: Any,
    plan: str,
    step: float,
    found: Box | None,
    frugal: bool,
    on_windows: Callable[[str, int], Callable[[], None]],
    report: Report,
) -> np.ndarray:
    """Labels of one network on the scan's grid."""
    card = model.card
    with report.stage("prepare"):
        view = View.of(scan, card)
        volume = prepare(scan, view, card, xp)
        box: Box | None = None
        inside = None
        if plan == "abdomen":
            inside, box = body(volume, card, xp)
            if found is not None:
                box = view.box(found, MARGIN)
    patches = Patches(view.shape, card.patch, step, box, middle_first=plan == "abdomen" and found is None
                      and len(card.labels) > SEVERAL_ORGANS)  # fmt: skip
    layout: Patches | Planes = patches
    if box is not None and card.window_multiple is not None:
        depth, most = card.patch[0], MOST_VOXELS
        if frugal:
            depth, most = min(depth, SHALLOW, shape_of(box)[0]), prod(card.patch) // FRUGAL
        window = wide_window(shape_of(box), card.window_multiple, depth, step, most)
        layout = Planes.over(box, view.shape, window, step)
    progress = Progress(step=on_windows(card.name, patches.most))

    def network(batch: Array) -> Array:
        with report.stage("network"):
            return model.network(batch)

    with report.stage("restore"):
        labels = restore(layout.parts(volume, network, inside, progress, xp), view, card, xp)
        if plan == "abdomen":
            names = {label.value: label.name for label in card.labels if label.one_piece}
            lost = drop_far_pieces(labels, scan.grid.spacing, names)
            report.dropped |= {names[value]: voxels for value, voxels in lost.items()}
    report.windows[card.name] = {"run": progress.windows, "skipped": max(patches.most - progress.windows, 0)}
    return labels


def body(volume: Array, card: Card, xp: Any) -> tuple[np.ndarray, Box]:
    """Where a prepared volume (z, y, x) shows the body, bool on the host, and the box in which organs can be."""
    skin, muscle = ((max(hu, card.clip[0] + ABOVE_CLIP) - card.mean) / card.std for hu in (BODY_HU, MUSCLE_HU))
    inside = body_mask(volume, skin, card.spacing, xp)
    return inside, muscle_box(volume, inside, muscle, card.spacing, xp)
