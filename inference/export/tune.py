"""The fastest windows that keep a network's labels, found on a few scans: `%(prog)s weights/liver SCANS...`

Each window plan and step segments scan after scan, until its labels have a mean Dice below --least with those of all
windows, half a patch apart, in float32. Those that keep the labels are tried once more in int8, if export.quantize
made it and the processor supports it. The fastest that keeps them on every scan is written to the card, and is what a
run uses unless --plan, --step or --precision are given; all windows stay if it is hardly faster.

Where a network's labels lie near organs that the shipped network knows (their names say so, or --near), windows near
these are tried as well; if they win, the shipped network is put into its folder, as NAME/guide.
"""

from __future__ import annotations

from . import needs  # noqa: F401  # isort: skip

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from ..card import Card
from ..card_file import FILE_NAME, GUIDE_FOLDER, newest, read_card
from ..cards import for_abdomens, which_are_ct
from ..engines.choose import PRECISIONS, choose
from ..errors import ScanError, WeightsError
from ..formats.reading import read_scan
from ..machine import computes
from ..options import BODY, CROP, DENSE, ORGANS, Options, Way, given_names, given_path
from ..predictor import Predictor
from ..quantities import dice
from . import guide
from .plain import read_json
from .program import or_exit
from .write import move, replace_card, save_json, workshop

STEPS = (0.5, 0.6, 0.7, 0.8)
LEAST = 0.98
LEAST_GAIN = 0.05  # of the time of all windows: less is within what times differ by, and not worth other labels
SEEN = 500  # voxels that a label must have for its Dice to count


@dataclass(frozen=True)
class Trial:
    """A way in a precision on all scans.

    seconds  of all scans together, reading and writing left out; up to the one where it fell out
    dice     the mean over labels with nnU-Net's own way, of the scan where it is lowest
    """

    way: Way
    precision: str
    seconds: float
    dice: float


def ways(card: Card) -> Iterator[Way]:
    """What is tried: the dense way first. The body is known in CT only."""
    plans = (DENSE, *(BODY,) * card.channels[0].is_ct, *(ORGANS, CROP) * (card.guide is not None))
    for way, step in product(plans, STEPS):
        yield replace(way, step=step)


def tune(folder: Path, scans: Sequence[Path], least: float = LEAST, near: Sequence[str] | None = None) -> list[Trial]:
    """Try all ways, and enter the one to take in the card of a network. Returns the trials, that one first.

    scans  such as the network is for
    near   organs near which all of its labels lie; None: as their names say
    Raises WeightsError, and ScanError where nothing was found on a scan, so that it says nothing.
    """
    folder = folder.absolute()  # "." has no name
    card = read_card(folder)
    if len(card.channels) > 1:
        raise WeightsError(f"{folder} takes {len(card.channels)} channels: networks of one are tuned")
    values = guide.near(card, near)
    with workshop(folder) as made:
        network = _lay_out(card, made)
        if values:
            _add_guide(network, values, asked=near is not None)
        trials, dense = _tried(made, card.name, scans, least)
        chosen = trials[0]
        if chosen.way.guided:
            if chosen.precision == "int8":
                own = network / GUIDE_FOLDER / FILE_NAME
                save_json(read_json(own) | {"precision": "int8"}, own)
            move(network / GUIDE_FOLDER, folder / GUIDE_FOLDER)
        _enter(folder, read_json(network / FILE_NAME), chosen, dense, len(scans))
        if card.guide and not chosen.way.guided:
            shutil.rmtree(folder / GUIDE_FOLDER, ignore_errors=True)
    return trials


def _lay_out(card: Card, made: Path) -> Path:
    """A folder of networks to try ways with: a network and what runs before it, linked, as if nobody had tuned them.
    Returns that of the network."""
    for one in (card, *((card.after.card,) if card.after else ())):
        (made / one.name).mkdir()
        for name in one.files:
            file, to = one.file(name), made / one.name / name
            try:  # engines follow no symbolic link out of the folder of a graph
                os.link(file, to)
            except OSError:
                shutil.copyfile(file, to)
        fields = newest(read_json(one.folder / FILE_NAME)) | {"way": DENSE.name}
        for tuned in ("guide", "precision"):
            fields.pop(tuned, None)
        save_json(fields, made / one.name / FILE_NAME)
    return made / card.name


def _add_guide(network: Path, values: Sequence[int], asked: bool) -> None:
    """Give a network a guide. Raises WeightsError where that was asked for and the shipped network is missing."""
    try:
        fields = guide.put(values, network)
    except WeightsError as error:
        if asked:
            raise
        print(f"windows near organs are not tried: {error}", file=sys.stderr)
    else:
        save_json(read_json(network / FILE_NAME) | {"guide": fields}, network / FILE_NAME)


def _tried(weights: Path, name: str, scans: Sequence[Path], least: float) -> tuple[list[Trial], Trial]:
    """The trials, the one to take first, and that of all windows."""
    card = read_card(weights / name)
    own = Options(weights=weights, networks=(name,), device="cpu")
    choice = choose("cpu", "auto", "auto")
    usual = choice.precision
    has_int8 = "int8" in PRECISIONS[choice.engine, "cpu"] and "int8" in card.forms and computes("int8")
    precisions = (usual, "int8") if has_int8 else (usual,)
    trials = {(way, of): Trial(way, of, 0.0, 1.0) for of in precisions for way in ways(card)}

    def keeps(way: Way) -> bool:
        return trials[way, usual].dice >= least

    for path in scans:
        scan = read_scan((path,), own.accept_intensities, which_are_ct([card]), abdominal=for_abdomens([card]))
        print(f"{path.name}: all windows in float32, to compare with", flush=True)
        expected, _ = Predictor(replace(own, precision="f32")).segment(scan, ways=(DENSE,))
        if not expected.any():
            raise ScanError(f"{path}: nothing was found, so that ways cannot be compared on it")
        for precision in precisions:
            tried = [way for way in ways(card) if keeps(way) and trials[way, precision].dice >= least]
            if precision == usual and DENSE not in tried:
                tried.insert(0, DENSE)  # the others are compared with its time
            predictor = Predictor(replace(own, precision=precision, plan=ORGANS.name if card.guide else None))
            if tried:  # else the first way would pay for what is compiled once
                predictor.segment(scan, ways=(tried[-1],))
            for way in tried:
                start = perf_counter()
                labels, _ = predictor.segment(scan, ways=(way,))
                seconds = perf_counter() - start
                trial, found = trials[way, precision], mean_dice(labels, expected)
                trial = replace(trial, seconds=trial.seconds + seconds, dice=min(trial.dice, found))
                trials[way, precision] = trial
                print(f"{path.name}: {_called(trial)}: {seconds:.1f} s, mean Dice {found:.4f}", flush=True)
    dense = trials[DENSE, usual]
    # An int8 that is not tried on every scan is that of a way which does not keep labels without it.
    good = [trial for trial in trials.values() if keeps(trial.way) and trial.dice >= least] or [dense]
    chosen = worth_taking(good, dense)
    return [chosen, *(trial for trial in trials.values() if trial is not chosen and trial.seconds)], dense


def worth_taking(good: Sequence[Trial], dense: Trial) -> Trial:
    """The fastest of the trials that keep labels; that of all windows if it does not save LEAST_GAIN of their time."""
    fastest = min(good, key=lambda trial: trial.seconds)
    return fastest if fastest.seconds <= (1 - LEAST_GAIN) * dense.seconds else dense


def mean_dice(labels: np.ndarray, expected: np.ndarray) -> float:
    """The mean over the labels that have SEEN voxels in `expected`, or over all if none has."""
    found, sizes = dice(labels, expected), np.bincount(expected.ravel(), minlength=256)
    values = [value for value in found if sizes[value] >= SEEN] or [value for value in found if sizes[value]]
    return float(np.mean([found[value] for value in values]))


def _enter(folder: Path, fields: dict[str, Any], chosen: Trial, dense: Trial, scans: int) -> None:
    """Write the card of a network anew: `fields` as they were tried, and what was found."""
    fields |= {"way": chosen.way.name, "step": chosen.way.step}
    if not chosen.way.guided:
        fields.pop("guide", None)
    if chosen.precision == "int8":
        fields["precision"] = "int8"
    share = round(chosen.seconds / dense.seconds, 3)
    tuned = {"scans": scans, "mean_dice": round(chosen.dice, 4), "share_of_time": share}
    fields["source"] = fields.get("source", {}) | {"tuned": tuned}
    replace_card(fields, folder)


def _called(trial: Trial) -> str:
    return f"--plan {trial.way.name} --step {trial.way.step:g} --precision {trial.precision}"


def run(options: argparse.Namespace) -> None:
    chosen, *rest = tune(options.folder, options.scans, options.least, options.near)
    dense = next(trial for trial in (chosen, *rest) if trial.way == DENSE and trial.precision != "int8")
    faster = dense.seconds / chosen.seconds
    print(f"{options.folder}: {_called(chosen)} from now on, {faster:.1f} times as fast as all windows")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.tune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=given_path, help="an exported network")
    parser.add_argument("scans", type=given_path, nargs="+", metavar="SCAN")
    parser.add_argument("--least", type=float, default=LEAST, help=f"least mean Dice on any scan ({LEAST})")
    parser.add_argument("--near", type=given_names, metavar="ORGAN,...", help="organs near which all labels lie")
    or_exit(run, parser.parse_args())


if __name__ == "__main__":
    main()
