"""The fastest way of windows that leaves a network its labels, found on a few scans: `%(prog)s weights/liver SCANS...`

Every way segments every scan beside nnU-Net's own, all windows half a patch apart in float32; in int8 as well, where
export.quantize made it and the processor has instructions for it, if the way keeps labels without it. Of those whose
labels keep a mean Dice of --least on each scan, the fastest is written on the card, and is what a run takes unless
--plan, --step or --precision say otherwise. How far labels move depends on the network: one that is sure of itself
hardly notices.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from time import perf_counter

import numpy as np

from ..card import FILE_NAME, Card, newest, read_card
from ..cards import for_abdomens, which_are_ct
from ..engines.choose import PRECISIONS, choose
from ..errors import ScanError, WeightsError
from ..formats.reading import read_scan
from ..machine import computes
from ..options import BODY, DENSE, Options, Way
from ..predictor import Predictor
from ..quantities import dice
from .checkpoint import read_json
from .convert import or_exit
from .write import move, save_json, workshop

STEPS = (0.5, 0.6, 0.7, 0.8)
LEAST = 0.98
SEEN = 500  # voxels that a label must have for its Dice to count


@dataclass(frozen=True)
class Trial:
    """A way in a precision on all scans.

    seconds  of all scans together, reading and writing left out
    dice     the mean over labels with nnU-Net's own way, of the scan where it is lowest
    """

    way: Way
    precision: str
    seconds: float
    dice: float


def ways(card: Card) -> Iterator[Way]:
    """What is tried: the dense way first. The body is known in CT only."""
    plans = (DENSE, BODY) if card.channels[0].is_ct else (DENSE,)
    for way, step in product(plans, STEPS):
        yield replace(way, step=step)


def tune(folder: Path, scans: Sequence[Path], least: float = LEAST) -> list[Trial]:
    """Try all ways, and enter the one to take in the card of a network. Returns the trials, that one first.

    scans  such as the network is for
    Raises WeightsError, and ScanError where nothing was found on a scan, so that it says nothing.
    """
    card = read_card(folder)
    own = Options(weights=folder.parent, networks=(folder.name,), device="cpu")
    if len(card.channels) > 1:
        raise WeightsError(f"{folder} takes {len(card.channels)} channels: networks of one are tuned")
    choice = choose("cpu", "auto", "auto")
    usual = choice.precision  # whatever the card was tuned to before
    has_int8 = "int8" in PRECISIONS[choice.engine, "cpu"] and "int8" in card.forms and computes("int8")
    precisions = (usual, "int8") if has_int8 else (usual,)
    trials = {(way, of): Trial(way, of, 0.0, 1.0) for of in precisions for way in ways(card)}

    def keeps(way: Way) -> bool:
        return trials[way, usual].dice >= least

    for path in scans:
        scan = read_scan((path,), own.accept_intensities, which_are_ct([card]), abdominal=for_abdomens([card]))
        print(f"{path.name}: all windows in float32, to compare with", flush=True)
        expected, _ = Predictor(replace(own, precision="f32")).segment(scan, way=DENSE)
        if not expected.any():
            raise ScanError(f"{path}: nothing was found, so that ways cannot be compared on it")
        for precision in precisions:
            tried = [way for way in ways(card) if precision == usual or keeps(way)]
            predictor = Predictor(replace(own, precision=precision))
            if tried:  # else the first way would pay for what is compiled once
                predictor.segment(scan, way=tried[-1])
            for way in tried:
                start = perf_counter()
                labels, _ = predictor.segment(scan, way=way)
                seconds = perf_counter() - start
                trial, found = trials[way, precision], mean_dice(labels, expected)
                trial = replace(trial, seconds=trial.seconds + seconds, dice=min(trial.dice, found))
                trials[way, precision] = trial
                print(f"{path.name}: {_called(trial)}: {seconds:.1f} s, mean Dice {found:.4f}", flush=True)
    dense = trials[DENSE, usual]
    # An int8 that is not tried on every scan is that of a way which does not keep labels without it.
    good = [trial for trial in trials.values() if keeps(trial.way) and trial.dice >= least] or [dense]
    chosen = min(good, key=lambda trial: trial.seconds)
    _enter(folder, chosen, dense, len(scans))
    return [chosen, *(trial for trial in trials.values() if trial is not chosen and trial.seconds)]


def mean_dice(labels: np.ndarray, expected: np.ndarray) -> float:
    """The mean over the labels that have SEEN voxels in `expected`, or over all if none has."""
    found, sizes = dice(labels, expected), np.bincount(expected.ravel(), minlength=256)
    values = [value for value in found if sizes[value] >= SEEN] or [value for value in found if sizes[value]]
    return float(np.mean([found[value] for value in values]))


def _enter(folder: Path, chosen: Trial, dense: Trial, scans: int) -> None:
    fields = newest(read_json(folder / FILE_NAME))
    fields |= {"way": chosen.way.name, "step": chosen.way.step}
    fields.pop("precision", None)
    if chosen.precision == "int8":
        fields["precision"] = "int8"
    share = round(chosen.seconds / dense.seconds, 3)
    tuned = {"scans": scans, "mean_dice": round(chosen.dice, 4), "share_of_time": share}
    fields["source"] = fields.get("source", {}) | {"tuned": tuned}
    with workshop(folder) as made:
        save_json(fields, made / FILE_NAME)
        move(made, folder)


def _called(trial: Trial) -> str:
    return f"--plan {trial.way.name} --step {trial.way.step:g} --precision {trial.precision}"


def run(options: argparse.Namespace) -> None:
    chosen, *rest = tune(options.folder, options.scans, options.least)
    dense = next(trial for trial in (chosen, *rest) if trial.way == DENSE and trial.precision != "int8")
    faster = dense.seconds / chosen.seconds
    print(f"{options.folder}: {_called(chosen)} from now on, {faster:.1f} times as fast as all windows")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.tune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="an exported network")
    parser.add_argument("scans", type=Path, nargs="+", metavar="SCAN")
    parser.add_argument("--least", type=float, default=LEAST, help=f"mean Dice to keep ({LEAST})")
    or_exit(run, parser.parse_args())


if __name__ == "__main__":
    main()
