"""The Python API: arrays in, arrays out."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import array_library, free_blocks
from .budget import Budget
from .card import Card
from .cards import for_abdomens, labels_of, networks_of, on_their_ways, smaller_ways, which_are_ct, with_earlier
from .engines.choose import Choice, choose, load
from .errors import CaseError, DeviceError, EngineError, MemoryBudgetError, ScanWarning, WeightsError, one_line
from .formats.probabilities import Probabilities
from .given import checked_scan, scan_of
from .grids.view import too_thin
from .machine import held_memory, one_thread, ran_out, usable_cpus
from .model import Model, Progress, Quiet
from .names import PROBABILITIES
from .options import GUIDE, WEIGHTS, Options, Way
from .pack import unpacked
from .record import Record
from .scan import Scan
from .segment import segment

# Python shows a warning of the same words once; every scan's count. Filters that a program sets come before this one.
warnings.simplefilter("always", ScanWarning, append=True)


class Predictor:
    """Networks loaded once, for any number of scans.

        predictor = Predictor(device="cpu")                       # or Predictor(Options(...)), Predictor("weights")
        labels = predictor(hu, spacing=(2.5, 0.78, 0.78), orientation="LPS")     # (z, y, x) in, (z, y, x) uint8 out

    options  of which any may also be given by name

    `ct` says for each input channel whether its voxels are HU; those of other channels are taken as they are.
    `spent` says that an engine has failed on a GPU, or this program: CUDA may give its error to whatever this process
    asks of it from now on.
    `budget` says how much memory its process may hold, and what scans take of it.
    `abdominal` says whether a network was made for CT of abdomens; others take single planes, and crops of any size.

    Threads may share one: a scan waits until the one before is done. A pickle holds the options, and the networks
    are loaded anew where it is read; WeightsError is raised there where they are others.

    Raises WeightsError, DeviceError, and ValueError where an option is of another kind.
    """

    def __init__(self, options: Options | str | Path | None = None, **named: Any) -> None:
        if isinstance(options, str | Path):
            options = Options(weights=Path(options))
        self.options = replace(options or Options(), **named)
        self.threads = self.options.threads or usable_cpus()
        unpacking = ExitStack()
        weakref.finalize(self, unpacking.close)
        self.cards, self.ways = networks_of(self.options, unpacking.enter_context(unpacked(self.options.weights)))
        self.ct = which_are_ct(self.cards)
        self.abdominal = for_abdomens(self.cards)
        self._lost = threading.Event()  # the GPU, to this process: one with other labels has to know it too
        self._load()
        if self.options.max_memory and self.choice.device != "cpu":
            raise DeviceError(
                "a limit on memory is held on the CPU only (--device cpu): how much CUDA takes, of the host's memory "
                "and of the card's, is not known before it has taken it"
            )
        self.budget = Budget(self.cards, self.options, self.choice, held_memory())
        self._turn = threading.Lock()  # a network's answer may live in memory that its next call overwrites

    def _load(self) -> None:
        """Choose, and load the networks. A GPU that "auto" took and that does not run them is done without: its driver
        may be older than the engine's CUDA, or the GPU itself, and others may hold its memory."""
        asked = self.options.engine, self.options.precision
        networks = [card for card, _ in on_their_ways(self.cards, self.ways)]
        self.choice: Choice = choose(self.options.device, *asked, networks)
        try:
            self._load_as_chosen()
        except (DeviceError, EngineError, MemoryError) as error:
            if self.choice.device == "cpu" or self.options.device != "auto":
                raise
            try:
                without = choose("cpu", *asked, networks)
            except DeviceError:
                raise error from None
            self.choice = replace(without, why=(f"device cpu: the GPU cannot be used: {error}", *without.why))
            self._load_as_chosen()

    def _load_as_chosen(self) -> None:
        self._guides: dict[str, Model] = {}  # by the digest of the card: several networks may have the same
        self._models = [self._loaded(card, way) for card, way in zip(self.cards, self.ways, strict=True)]
        self._xp = array_library(self.choice.device, self.choice.engine)
        if self.choice.device != "cpu":
            self._models[0].try_out(self._xp)

    def _loaded(self, card: Card, way: Way) -> Model:
        earlier = self._loaded(card.after.card, way) if card.after else None
        guide = self._guide(card.guide.card) if card.guide and way.guided else None
        network = load(self.choice, card, self.threads)
        return Model.of(card, network, earlier, guide, self.choice.precision)

    def _guide(self, card: Card) -> Model:
        if card.digest not in self._guides:
            self._guides[card.digest] = self._loaded(card, GUIDE)
        return self._guides[card.digest]

    def __reduce__(self) -> tuple[Any, ...]:
        named = {name: getattr(self.options, name) for name in self.options.to_json()}
        if named["weights"] == WEIGHTS:
            del named["weights"]  # the program may lie elsewhere where the pickle is read
        return _load_again, (type(self), named, _anywhere(self.cards))

    @property
    def spent(self) -> bool:
        return self._lost.is_set()

    @property
    def labels(self) -> dict[int, str]:
        """Value in the label map -> name, background left out: of the labels that are wanted."""
        return labels_of(self.cards, self.options.labels)

    def with_labels(self, labels: tuple[str, ...] | None) -> Predictor:
        """A predictor of the same networks, which are not loaded again, for other labels.

        Raises WeightsError where no network has one of the labels, and ValueError where a network has none of them.
        """
        options = replace(self.options, labels=labels)
        wanted = labels_of(self.cards, options.labels)
        if useless := [card.name for card in self.cards if wanted.keys().isdisjoint(card.names)]:
            raise ValueError(f"network {useless[0]} has none of the labels {', '.join(wanted.values())}")
        other = object.__new__(type(self))
        # The unpacked networks of a file are there as long as the predictor that unpacked them.
        other.__dict__ |= {"_first": self} | self.__dict__ | {"options": options}
        return other

    @property
    def smaller_ways(self) -> tuple[Way, ...] | None:
        """Ways that take less memory than the predictor's own; None if there are none for its networks."""
        return smaller_ways(self.cards, self.ways)

    def __call__(
        self, voxels: Any, spacing: Any = None, orientation: str | None = None, *, affine: Any = None
    ) -> np.ndarray:
        """Labels (z, y, x) uint8 of a CT in HU, or of what the networks take.

        voxels       (z, y, x): an array of real numbers, or what NumPy makes one of; never written to. (c, z, y, x)
                     where the networks take several channels
        spacing      (z, y, x) mm: three numbers
        orientation  three letters for the axes x, y, z: the side of the patient towards which the index grows. What
                     DICOM stores is "LPS"; arrays out of nibabel, which are (x, y, z), are often "RAS"
        affine       instead of these two: (4, 4) from voxel index (x, y, z) to mm, RAS, as nibabel has it

        What is odd is a ScanWarning each. Raises ScanError, which is a ValueError, where this is no CT in HU, or none
        of an abdomen where networks are for these, and ValueError where an argument is of another kind.
        """
        labels, record = self.segment(scan_of(voxels, spacing, orientation, affine, len(self.ct)))
        for text in record.warnings:
            warnings.warn(text, ScanWarning, stacklevel=2)
        return labels

    def segment(
        self,
        scan: Scan,
        progress: Progress | None = None,
        ways: Sequence[Way] | None = None,
        probabilities: Probabilities | None = None,
    ) -> tuple[np.ndarray, Record]:
        """Labels, and a record of what happened on the way.

        ways           how windows are laid, one for each network; default: the predictor's own. A guided one needs a
                       predictor of such a plan
        probabilities  gets those of the labels

        A scan that no reader has checked is checked as by `__call__`, with the same errors, and the record has what is
        odd about it. Raises MemoryBudgetError where the limit on memory is too low, and MemoryError where memory, the
        machine's or the GPU's, runs out all the same.
        """
        record = Record()
        if not isinstance(scan, Scan):
            raise ValueError(f"expected a Scan, not a {type(scan).__name__}")
        for way, own in zip(ways or (), self.ways, strict=ways is not None):
            if way.guided and not own.guided:
                raise ValueError(f"plan {way.name} needs a guide, which a predictor of plan {own.name} has not loaded")
        if not scan.checked:
            scan = checked_scan(scan, self.options.accept_intensities, self.ct, self.abdominal)
            record.warnings += scan.warnings
        record.warnings += too_thin(scan.grid, self.cards)
        try:
            folders = [PROBABILITIES] * (probabilities is not None)
            ways = ways or self.budget.fitting(scan, self.ways, record, folders)
        except MemoryBudgetError as error:
            raise MemoryBudgetError(f"the scan {error}") from error
        with self._turn, one_thread:
            try:
                progress = progress or Quiet()
                labels = segment(
                    scan,
                    self._models,
                    ways,
                    self._xp,
                    record,
                    progress,
                    probabilities,
                    self.options.fix_orientation,
                    self.labels,
                )
            except Exception as error:
                if not ran_out(error):
                    # That a network gave no numbers is an EngineError too, but one without a cause.
                    failed = not isinstance(error, CaseError) or (isinstance(error, EngineError) and error.__cause__)
                    if failed and self.choice.device != "cpu":
                        self._lost.set()
                    raise
                free_blocks(self._xp)
                raise MemoryError(one_line(error)) from error  # PyTorch's is none
        record.status = "done"
        return labels, record


def _load_again(kind: type[Predictor], named: dict[str, Any], cards: list[Card]) -> Predictor:
    """A predictor out of its pickle. Raises WeightsError where its networks are not those that it had."""
    predictor = kind(**named)
    if _anywhere(predictor.cards) != cards:
        raise WeightsError(f"the networks in {predictor.options.weights} are not those that the pickled predictor had")
    return predictor


def _anywhere(cards: Sequence[Card]) -> list[Card]:
    """Cards, which hold the digests of their networks' files, without the place where these lie."""
    return [replace(card, folder=Path(), after=None, guide=None) for card in with_earlier(cards)]
