"""The Python API: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from inference.arrays import array_library, free_blocks
from inference.card import WEIGHTS, read_cards
from inference.engines import Choice, choose, load
from inference.machine import usable_cpus
from inference.scan import Scan
from inference.segment import PLANS, Model, Report, segment


class Predictor:
    """Networks loaded once, for any number of scans.

        predictor = Predictor()
        labels = predictor(hu, spacing=(2.5, 0.78, 0.78))   # (z, y, x) in, (z, y, x) uint8 out

    weights    folder with one folder a network, as training.export writes them
    networks   names in rising priority; default: organ and tumor, those of them that are there, else all
    device     "cpu", "cuda" or "auto"; engine, precision: see docs/usage.md
    plan       "abdomen" (the default) or "dense", which is nnU-Net's
    step       distance of the windows as a share of the patch, above 0 and at most 1
    threads    processors to use; default: all that the process may

    Raises WeightsError and DeviceError.
    """

    def __init__(
        self,
        weights: str | Path = WEIGHTS,
        *,
        networks: Sequence[str] | None = None,
        device: str = "auto",
        engine: str = "auto",
        precision: str = "auto",
        plan: str = "abdomen",
        step: float = 0.5,
        threads: int | None = None,
    ) -> None:
        if plan not in PLANS:
            raise ValueError(f"plan {plan!r} is not one of {', '.join(PLANS)}")
        if not 0 < step <= 1:
            raise ValueError(f"step {step} is not above 0 and at most 1")
        self.plan, self.step = plan, step
        self.threads = threads or usable_cpus()
        self.cards = read_cards(Path(weights), networks)
        self.choice: Choice = choose(device, engine, precision, self.cards)
        self._xp = array_library(self.choice.device)
        self._models = [Model(card, load(self.choice, card, self.threads)) for card in self.cards]

    @property
    def labels(self) -> dict[int, str]:
        """Value in the label map -> name, background left out."""
        return {label.value: label.name for card in self.cards for label in card.labels[1:]}

    def __call__(self, voxels: np.ndarray, spacing: Sequence[float], orientation: str = "LPS") -> np.ndarray:
        """Labels (z, y, x) uint8 of a CT (z, y, x) in HU; spacing (z, y, x) in mm, orientation as in Scan.

        Raises ValueError where voxels are not 3-D or spacing not three numbers above 0.
        """
        if voxels.ndim != 3 or len(spacing) != 3 or not min(spacing) > 0:
            raise ValueError(f"a 3-D array and three spacings above 0 are needed, not {voxels.shape} and {spacing}")
        z, y, x = (float(mm) for mm in spacing)
        return self.segment(Scan(voxels, (z, y, x), orientation))[0]

    def segment(
        self,
        scan: Scan,
        on_windows: Callable[[str, int], Callable[[], None]] = lambda name, most: lambda: None,
        frugal: bool = False,
    ) -> tuple[np.ndarray, Report]:
        """Labels as in `__call__` and the report of the run; `on_windows` and `frugal` as in inference.segment.

        Raises MemoryError where memory, the machine's or the GPU's, is too small.
        """
        try:
            return segment(
                scan, self._models, self._xp, plan=self.plan, step=self.step, frugal=frugal, on_windows=on_windows
            )
        except MemoryError:
            free_blocks(self._xp)
            raise
