"""Which organs a network's labels lie near, and the network that finds these first."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inference.card import Channel, Label
from inference.card_file import read_card
from inference.cards import digests, on_their_ways, read_cards, smaller_ways, ways_of
from inference.errors import WeightsError
from inference.export import guide
from inference.export import tune as tuning
from inference.export.guide import SPACING, near
from inference.export.tune import Trial, tune
from inference.formats.reading import read_scan
from inference.options import CROP, DENSE, GUIDE, ORGANS
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
    mr = replace(make_card(), channels=(Channel("MR", "zscore"),))
    assert near(replace(mr, labels=(Label(1, "liver"),))) is None
    with pytest.raises(WeightsError, match="takes no CT, in which alone the guide knows organs"):
        near(mr, ["liver"])


def take(monkeypatch: pytest.MonkeyPatch, trial: Trial) -> None:
    """Have a trial win, whatever the clock says."""
    monkeypatch.setattr(tuning, "_tried", lambda *_: ([trial], Trial(DENSE, "f32", 2.0, 1.0)))


def test_a_guide_lies_in_the_network_s_folder_as_long_as_it_is_used(
    organ: Path, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(monkeypatch, Trial(ORGANS, "f32", 1.0, 1.0))
    monkeypatch.chdir(organ)
    tune(Path("."), [scan], near=["liver"])
    (card,) = read_cards(organ.parent, None)  # the guide is not run for its own labels
    assert card.guide and card.guide.values == (1,) and card.guide.card.spacing == (SPACING,) * 3
    assert ways_of([card], None, None) == (ORGANS,)
    assert [way for _, way in on_their_ways([card], [ORGANS])] == [GUIDE, ORGANS]
    assert [one.name for one, _ in on_their_ways([card], [DENSE])] == ["organ"]
    assert set(digests([card])) == {"organ", "organ/guide"}
    shipped = read_cards(ROOT / "weights", None)[0]
    assert card.guide.card.files == shipped.files and card.guide.card.spacing != shipped.spacing
    pack(organ.parent, tmp_path / "one.zip")
    predictor = Predictor(tmp_path / "one.zip", device="cpu", precision="f32", threads=1)
    assert predictor.ways == (ORGANS,)
    labels, record = predictor.segment(read_scan((scan,), False, (True,)))
    dense, _ = predictor.segment(read_scan((scan,), False, (True,)), ways=[DENSE])
    assert record.windows["organ"]["guide"] == "found nothing" and np.array_equal(labels, dense)
    with pytest.raises(WeightsError, match="organ is a network itself: give the folder that it is in"):
        read_cards(organ, None)  # not the guide, which lies there

    renamed = organ.rename(organ.with_name("mine"))
    assert read_cards(organ.parent, None)[0].guide and not (organ.parent / "organ").exists()
    renamed.rename(organ)
    take(monkeypatch, Trial(replace(DENSE, step=0.7), "f32", 1.0, 1.0))
    tune(organ, [scan])
    assert sorted(path.name for path in organ.parent.iterdir()) == ["organ"] and not (organ / "guide").exists()
    assert read_card(organ).guide is None


def test_a_guide_is_loaded_only_for_a_plan_that_needs_it(
    organ: Path, scan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(monkeypatch, Trial(CROP, "f32", 1.0, 1.0))
    tune(organ, [scan], near=["liver"])
    held = read_scan((scan,), False, (True,))
    (card,) = read_cards(organ.parent, None)
    assert smaller_ways([card], [CROP]) is None  # wide windows are the guide's alone
    dense = Predictor(organ.parent, device="cpu", plan="dense")
    (organ / "guide" / "weights.bin").unlink()
    dense.segment(held)
    with pytest.raises(ValueError, match="plan organs needs a guide, which a predictor of plan dense has not loaded"):
        dense.segment(held, ways=[ORGANS])
    with pytest.raises(WeightsError, match=r"guide/weights\.bin cannot be read"):
        Predictor(organ.parent, device="cpu")


def test_networks_with_the_same_guide_load_it_once(organ: Path, scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take(monkeypatch, Trial(CROP, "f32", 1.0, 1.0))
    tune(organ, [scan], near=["liver"])
    shutil.copytree(organ, organ.with_name("other"))
    alone = Predictor(organ.parent, device="cpu", precision="f32", networks=("organ",))
    both = Predictor(organ.parent, device="cpu", precision="f32", networks=("organ", "other"))
    assert [one.name for one, _ in on_their_ways(both.cards, both.ways)] == ["organ/guide", "organ", "other"]
    held = read_scan((scan,), False, (True,))
    (labels, _), (again, record) = alone.segment(held), both.segment(held)
    assert np.array_equal(labels, again)
    assert set(record.windows) == {"organ/guide", "organ", "other"}


def test_a_network_that_another_comes_after_may_have_a_guide_of_its_own(
    tiny_weights: Path, organ: Path, scan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(monkeypatch, Trial(ORGANS, "f32", 1.0, 1.0))
    tune(organ, [scan], near=["liver"])
    later = shutil.copytree(tiny_weights / "tumor", organ.with_name("later"))
    card = json.loads((later / "card.json").read_text())
    after = {"network": "organ", "values": [1, 2, 3, 4], "order": 0, "force_separate_z": None}
    (later / "card.json").write_text(json.dumps(card | {"after": after}))
    tune(later, [scan], near=["liver"])
    found = read_card(later)
    assert found.guide and found.after and found.after.card.guide is None
    assert [one.name for one, _ in on_their_ways([found], [ORGANS])] == ["organ", "later/guide", "later"]


def test_what_is_no_guide_stays_where_it_is(organ: Path, scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = organ.with_name("organ.guide") / "card.json"
    shutil.copytree(organ, other.parent)
    take(monkeypatch, Trial(replace(DENSE, step=0.7), "f32", 1.0, 1.0))
    tune(organ, [scan])
    assert other.exists() and [card.name for card in read_cards(organ.parent, ["organ.guide"])] == ["organ.guide"]


def test_without_the_shipped_network_the_other_ways_are_tried(
    organ: Path, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(guide, "SHIPPED", tmp_path / "unified")
    take(monkeypatch, Trial(DENSE, "f32", 1.0, 1.0))
    card = json.loads((organ / "card.json").read_text())
    labels = [label | {"name": "liver"} if label["value"] else label for label in card["labels"]]
    (organ / "card.json").write_text(json.dumps(card | {"labels": labels}))
    tune(organ, [scan])
    assert capsys.readouterr().err.startswith("windows near organs are not tried: no network at ")
    with pytest.raises(WeightsError, match="no network at .*unified"):
        tune(organ, [scan], near=["liver"])


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
        ways_of([read_card(organ)], "organs", None)
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
    shutil.rmtree(organ / "guide")
    with pytest.raises(WeightsError, match="no network at .*organ/guide"):
        read_card(organ)
