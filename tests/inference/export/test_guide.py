"""Which organs a network's labels lie near, and the network that finds these first."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inference.card import Label, read_card
from inference.cards import digests, on_their_ways, read_cards, way_of
from inference.errors import WeightsError
from inference.export import tune as tuning
from inference.export.guide import SPACING, near
from inference.export.tune import Trial, tune
from inference.formats.reading import read_scan
from inference.options import DENSE, GUIDE, ORGANS
from inference.pack import pack
from inference.predictor import Predictor
from tests.conftest import ROOT
from tests.inference.cards import make_card


@pytest.mark.parametrize(
    ("names", "values"),
    [
        (["liver"], (1,)),
        (["Right Kidney", "kidney_left"], (2, 13)),
        (["kidney", "kidney tumor", "kidney-cyst"], (2, 13)),
        (["pancreas", "PDAC lesion"], (4,)),
        (["adrenal glands"], (7, 8)),
        (["liver", "portal vein"], None),
        (["lesion"], None),
    ],
)
def test_names_say_which_organs_labels_lie_near(names: list[str], values: tuple[int, ...] | None) -> None:
    labels = (Label(0, "background"), *(Label(value, name) for value, name in enumerate(names, 1)))
    assert near(replace(make_card(), labels=labels)) == values


def test_organs_that_are_named_count_alone() -> None:
    assert near(make_card(), ["pancreas", "duodenum"]) == (4, 12)
    with pytest.raises(WeightsError, match="'brain' is not an organ that the guide knows: liver, right_kidney"):
        near(make_card(), ["brain"])


@pytest.fixture
def organ(tiny_weights: Path, tmp_path: Path) -> Path:
    """A copy of a network that may be changed."""
    return shutil.copytree(tiny_weights / "organ", tmp_path / "weights" / "organ")


@pytest.fixture
def scan(blob: np.ndarray, save_scan: Callable[..., Path], tmp_path: Path) -> Path:
    return save_scan(tmp_path / "x_0000.nii.gz", blob, (3.0, 2.0, 2.0))


def take(monkeypatch: pytest.MonkeyPatch, trial: Trial) -> None:
    """Have a trial win, whatever the clock says."""
    monkeypatch.setattr(tuning, "_tried", lambda *_: ([trial], Trial(DENSE, "f32", 2.0, 1.0)))


def test_a_guide_lies_beside_the_network_as_long_as_it_is_used(
    organ: Path, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(monkeypatch, Trial(ORGANS, "f32", 1.0, 1.0))
    tune(organ, [scan], near=["liver"])
    (card,) = read_cards(organ.parent, None)  # the guide is not run for its own labels
    assert card.guide and card.guide.values == (1,) and card.guide.card.spacing == (SPACING,) * 3
    assert way_of([card], None, None) == ORGANS and [way for _, way in on_their_ways([card], ORGANS)] == [GUIDE, ORGANS]
    assert [one.name for one, _ in on_their_ways([card], DENSE)] == ["organ"]
    assert set(digests([card])) == {"organ", "organ.guide"}
    shipped = read_cards(ROOT / "weights", None)[0]
    assert card.guide.card.files == shipped.files and card.guide.card.spacing != shipped.spacing
    pack(organ.parent, tmp_path / "one.zip")
    predictor = Predictor(tmp_path / "one.zip", device="cpu", precision="f32", threads=1)
    assert predictor.way == ORGANS
    labels, record = predictor.segment(read_scan((scan,), False, (True,)))
    dense, _ = predictor.segment(read_scan((scan,), False, (True,)), way=DENSE)
    assert record.windows["organ"]["guide"] == "found nothing" and np.array_equal(labels, dense)

    take(monkeypatch, Trial(replace(DENSE, step=0.7), "f32", 1.0, 1.0))
    tune(organ, [scan])
    assert sorted(path.name for path in organ.parent.iterdir()) == ["organ"]
    assert read_card(organ).guide is None


def test_int8_counts_for_the_guide_as_well(organ: Path, scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take(monkeypatch, Trial(ORGANS, "int8", 1.0, 1.0))
    tune(organ, [scan], near=["liver"])
    card = read_card(organ)
    assert card.guide and card.guide.card.precision == card.precision == "int8"


@pytest.mark.slow
def test_windows_near_organs_are_tried_where_it_is_known_which(organ: Path, scan: Path) -> None:
    tried = {trial.way.name for trial in tune(organ, [scan], near=["liver"])}
    assert tried == {"dense", "body", "organs", "crop"}


def test_what_a_guide_cannot_be_is_refused(organ: Path, scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match="plan organs needs a network that shows where to look, and network organ"):
        way_of([read_card(organ)], "organs", None)
    take(monkeypatch, Trial(ORGANS, "f32", 1.0, 1.0))
    tune(organ, [scan], near=["liver"])
    card = json.loads((organ / "card.json").read_text())
    for wrong, why in (
        ({"guide": {"values": [99]}}, r"guide has the values \[99\]"),
        ({"guide": {"values": []}}, "guide has the values"),
        ({"channels": [{"name": "MR", "normalise": "zscore"}]}, "sees something else"),
    ):
        (organ / "card.json").write_text(json.dumps(card | wrong))
        with pytest.raises(WeightsError, match=why):
            read_card(organ)
    (organ / "card.json").write_text(json.dumps(card))
    shutil.rmtree(organ.with_name("organ.guide"))
    with pytest.raises(WeightsError, match="no network at .*organ.guide"):
        read_card(organ)
