"""Ways of windows tried on scans, and the one that is taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("dynamic_network_architectures")

from inference.cards import read_cards, ways_of
from inference.errors import ScanError
from inference.export.tune import STEPS, Trial, mean_dice, tune, worth_taking
from inference.machine import computes
from inference.options import BODY, DENSE
from inference.predictor import Predictor


def test_mean_dice_by_hand() -> None:
    expected = np.repeat(np.array([0, 1, 2], np.uint8), (1000, 600, 10))
    labels = expected.copy()
    labels[1000:1300] = 0
    assert mean_dice(labels, expected) == pytest.approx(2 * 300 / 900)  # label 2 is too small to count
    assert mean_dice(expected[-10:], expected[-10:]) == 1  # unless there is nothing else


def test_all_windows_stay_unless_a_twentieth_of_the_time_is_saved() -> None:
    dense, slower = Trial(DENSE, "f32", 100.0, 1.0), Trial(BODY, "f32", 120.0, 0.99)
    hardly, faster = Trial(BODY, "f32", 95.5, 0.99), Trial(BODY, "int8", 95.0, 0.99)
    assert worth_taking([dense, slower, hardly], dense) is dense
    assert worth_taking([dense, hardly, faster], dense) is faster
    assert worth_taking([slower], dense) is dense  # though all windows in this precision do not keep labels themselves


def test_the_fastest_way_that_keeps_the_labels_is_what_a_run_takes(organ: Path, scan: Path) -> None:
    chosen, *rest = tune(organ, [scan], least=0.5)
    trials = [chosen, *rest]
    assert {(trial.way.name, trial.way.step) for trial in trials} == {
        (plan, step) for plan in ("dense", "body") for step in STEPS
    }
    dense = next(trial for trial in trials if trial.way == DENSE)
    assert chosen is worth_taking([trial for trial in trials if trial.dice >= 0.5], dense)
    card = json.loads((organ / "card.json").read_text())
    assert (card["way"], card["step"]) == (chosen.way.name, chosen.way.step)
    assert card["source"]["tuned"]["scans"] == 1
    cards = read_cards(organ.parent, None)
    assert ways_of(cards, None, None) == (chosen.way,)
    assert ways_of(cards, "dense", None) == (DENSE,)  # whoever asks for nnU-Net's windows gets its step as well
    assert ways_of(cards, None, 0.9)[0].step == 0.9
    assert Predictor(organ.parent, device="cpu").ways == (chosen.way,)


@pytest.mark.slow
@pytest.mark.skipif(not computes("int8"), reason="this processor has no instructions for int8")
def test_int8_is_tried_with_ways_that_keep_the_labels_and_taken_where_it_is_fastest(organ: Path, scan: Path) -> None:
    pytest.importorskip("nncf")
    from inference.export.quantize import quantize

    usual = Predictor(organ.parent, device="cpu").choice.precision
    quantize(organ, [scan])
    ways = {(plan, step) for plan in ("dense", "body") for step in STEPS}
    trials = tune(organ, [scan], least=0.0)
    for precision in (usual, "int8"):
        assert {(trial.way.name, trial.way.step) for trial in trials if trial.precision == precision} == ways
    dense = next(trial for trial in trials if trial.way == DENSE and trial.precision == usual)
    assert trials[0] is worth_taking(trials, dense)
    assert Predictor(organ.parent, device="cpu").choice.precision == trials[0].precision

    card = json.loads((organ / "card.json").read_text())
    (organ / "card.json").write_text(json.dumps(card | {"precision": "int8"}))
    assert Predictor(organ.parent, device="cpu").choice.precision == "int8"
    chosen, *rest = tune(organ, [scan], least=1.0)  # tuned again, from the precision that every network has
    kept = {trial.way for trial in (chosen, *rest) if trial.precision == usual and trial.dice == 1}
    assert {trial.way for trial in rest if trial.precision == "int8"} <= kept
    assert Predictor(organ.parent, device="cpu").choice.precision == chosen.precision

    (organ / "card.json").write_text(json.dumps(card | {"precision": "int8"}))
    quantize(organ, [scan])  # what was tried is no longer there
    assert Predictor(organ.parent, device="cpu").choice.precision == usual


def test_where_every_other_way_moves_labels_all_windows_stay(organ: Path, scan: Path) -> None:
    chosen, *rest = tune(organ, [scan], least=1.0)
    assert chosen.way == DENSE or chosen.dice == 1
    assert {trial.way.name for trial in rest} == {DENSE.name, BODY.name}


def test_a_scan_on_which_nothing_is_found_says_nothing(organ: Path, save_scan: Callable[..., Path]) -> None:
    hu = np.random.default_rng(0).normal(40, 10, (20, 40, 40))
    scan = save_scan(organ.parent / "x_0000.nii.gz", hu, (3.0, 2.0, 2.0))
    before = (organ / "card.json").read_bytes()
    card = json.loads(before)
    for label in card["labels"]:
        label["value"] = 0
    (organ / "card.json").write_text(json.dumps(card))
    with pytest.raises(ScanError, match="nothing was found"):
        tune(organ, [scan])
