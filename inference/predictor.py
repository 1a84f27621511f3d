"""The Python API: arrays in, arrays out."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import array_library, free_blocks
from .card import WEIGHTS, Card, read_cards, way_of
from .engines.choose import DEVICES, ENGINES, PRECISIONS, Choice, choose, load
from .errors import ScanWarning, WeightsError
from .given import checked_scan, scan_of
from .machine import usable_cpus
from .options import DENSE, WAYS, Way
from .scan import Scan
from .segment import Model, Report, segment

# Python shows a warning of the same words once; every scan's count. Filters that a program sets come before this one.
warnings.simplefilter("always", ScanWarning, append=True)


class Predictor:
    """Networks loaded once, for any number of scans.

        predictor = Predictor()
        labels = predictor(hu, spacing=(2.5, 0.78, 0.78))   # (z, y, x) in, (z, y, x) uint8 out

    weights             folder with one folder a network, as the exporter writes them
    networks            names in rising priority; default: organ and tumor, those of them that are there, else all
    device              "cpu", "cuda" or "auto"; engine, precision: see docs/usage.md
    plan                "abdomen" or "dense", which is nnU-Net's; default: what the networks were made for
    step                distance of the windows as a share of the patch, above 0 and at most 1
    threads             processors to use; default: all that the process may
    accept_intensities  voxels that cannot be HU are a warning, not an error

    Threads may share one: a scan waits until the one before is done. A pickle holds the arguments, and the networks
    are loaded anew where it is read; WeightsError is raised there where they are others.

    Raises WeightsError, DeviceError, and ValueError where an argument is of another kind.
    """

    def __init__(
        self,
        weights: str | Path = WEIGHTS,
        *,
        networks: str | Sequence[str] | None = None,
        device: str = "auto",
        engine: str = "auto",
        precision: str = "auto",
        plan: str | None = None,
        step: float = 0.5,
        threads: int | None = None,
        accept_intensities: bool = False,
    ) -> None:
        _one_of("device", device, ("auto", *DEVICES))
        _one_of("engine", engine, ("auto", *ENGINES))
        _one_of("precision", precision, ("auto", *dict.fromkeys(chain(*PRECISIONS.values()))))
        _one_of("plan", plan or DENSE.name, tuple(WAYS))
        _one_of("accept_intensities", accept_intensities, (False, True))
        if not _number(step, Real) or not 0 < step <= 1:
            raise ValueError(f"step {step!r} is not a number above 0 and at most 1")
        if threads is not None and not (_number(threads, Integral) and threads >= 1):
            raise ValueError(f"threads {threads!r} is not a whole number of at least 1")
        if not isinstance(weights, str | os.PathLike) or not os.fspath(weights):
            raise ValueError(f"weights {weights!r} is not the path of a folder")
        names = _names(networks)
        self._arguments: dict[str, Any] = {
            "weights": Path(weights).absolute(),
            "networks": names,
            "device": device,
            "engine": engine,
            "precision": precision,
            "plan": plan,
            "step": float(step),
            "threads": threads,
            "accept_intensities": accept_intensities,
        }
        self.accept_intensities = accept_intensities
        self.threads = int(threads or usable_cpus())
        self.cards = read_cards(self._arguments["weights"], names)
        self.way = way_of(self.cards, plan, float(step))
        self.choice: Choice = choose(device, engine, precision, self.cards)
        self._xp = array_library(self.choice.device)
        self._models = [Model(card, load(self.choice, card, self.threads)) for card in self.cards]
        self._turn = threading.Lock()  # a network's answer may live in memory that its next call overwrites

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = dict(self._arguments)
        if arguments["weights"] == WEIGHTS:
            del arguments["weights"]  # the program may lie elsewhere where the pickle is read
        return _load_again, (type(self), arguments, _anywhere(self.cards))

    @property
    def labels(self) -> dict[int, str]:
        """Value in the label map -> name, background left out."""
        return {label.value: label.name for card in self.cards for label in card.labels[1:]}

    def __call__(self, voxels: Any, spacing: Any, orientation: str = "LPS") -> np.ndarray:
        """Labels (z, y, x) uint8 of a CT in HU.

        voxels       (z, y, x): an array of real numbers, or what NumPy makes one of; never written to
        spacing      (z, y, x) mm: three numbers
        orientation  as in Scan

        What is odd is a ScanWarning each. Raises ScanError, which is a ValueError, where this is no CT in HU or none
        of an abdomen, and ValueError where an argument is of another kind.
        """
        labels, report = self.segment(scan_of(voxels, spacing, orientation))
        for text in report.warnings:
            warnings.warn(text, ScanWarning, stacklevel=2)
        return labels

    def segment(
        self,
        scan: Scan,
        on_windows: Callable[[str, int], Callable[[], None]] = lambda name, most: lambda: None,
        way: Way | None = None,
    ) -> tuple[np.ndarray, Report]:
        """Labels and the report of the run; `on_windows` as in `segment`.

        way  how windows are laid; default: the predictor's own

        A scan that no reader has checked is checked as by `__call__`, with the same errors, and the report has what is
        odd about it. Raises MemoryError where memory, the machine's or the GPU's, is too small.
        """
        odd: tuple[str, ...] = ()
        if not isinstance(scan, Scan):
            raise ValueError(f"expected a Scan, not a {type(scan).__name__}")
        if not scan.checked:
            scan = checked_scan(scan, self.accept_intensities)
            odd = scan.warnings
        with self._turn:
            try:
                labels, report = segment(scan, self._models, way or self.way, self._xp, on_windows)
            except MemoryError:
                free_blocks(self._xp)
                raise
        report.warnings[:0] = odd
        return labels, report


def _load_again(kind: type[Predictor], arguments: dict[str, Any], cards: list[Card]) -> Predictor:
    """A predictor out of its pickle. Raises WeightsError where its networks are not those that it had."""
    predictor = kind(**arguments)
    if _anywhere(predictor.cards) != cards:
        folder = predictor.cards[0].folder.parent
        raise WeightsError(f"the networks in {folder} are not those that the pickled predictor had")
    return predictor


def _anywhere(cards: Sequence[Card]) -> list[Card]:
    """Cards, which hold the digests of their networks' files, without the place where these lie."""
    return [replace(card, folder=Path()) for card in cards]


def _names(networks: Any) -> list[str] | None:
    if networks is None:
        return None
    names = [networks] if isinstance(networks, str) else list(networks) if isinstance(networks, Sequence) else []
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"networks {networks!r} is not a name or a list of names")
    return names


def _one_of(name: str, given: Any, choices: Sequence[Any]) -> None:
    if not isinstance(given, type(choices[0])) or given not in choices:
        raise ValueError(f"{name} {given!r} is not one of {', '.join(map(str, choices))}")


def _number(given: Any, kind: type) -> bool:
    return isinstance(given, kind) and not isinstance(given, bool)
