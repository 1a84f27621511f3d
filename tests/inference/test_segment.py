"""The whole way through, with networks whose answer is known: a threshold on the voxel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from inference.anatomy.look import AROUND_ORGANS
from inference.boxes import bounding
from inference.card import Guide, Label, Largest
from inference.cards import smaller_ways, ways_of
from inference.errors import ScanError
from inference.formats.probabilities import Probabilities
from inference.labels import TABLE
from inference.model import Model, Quiet
from inference.options import ABDOMEN, DENSE, WAYS, Way
from inference.record import TWICE, Record
from inference.scan import Scan
from inference.segment import overlay
from inference.segment import segment as segment_into
from tests.inference.anatomy.made import SPACING, trunk
from tests.inference.cards import make_card


def brighter(hu: float, channels: int = 2) -> Callable[[np.ndarray], np.ndarray]:
    """A network whose last channel wins where a voxel is brighter than `hu`."""

    def network(batch: np.ndarray) -> np.ndarray:
        above = (batch[:, 0] * 70 + 80 > hu).astype(np.float32)
        return np.stack([1 - above, *[0 * above] * (channels - 2), above], axis=1)

    return network


def model(
    name: str,
    hu: float,
    values: tuple[int, ...],
    calls: list[int] | None = None,
    window_multiple: tuple[int, int, int] | None = None,
) -> Model:
    inner = brighter(hu, len(values))

    def network(batch: np.ndarray) -> np.ndarray:
        if calls is not None:
            calls.append(1)
        return inner(batch)

    card = make_card((2.0, 2.0, 2.0), name=name, values=values, orientation="LPS", window_multiple=window_multiple)
    return Model.of(card, network)


def segment(scan: Scan, models: Sequence[Model], way: Way, xp: Any) -> tuple[np.ndarray, Record]:
    record = Record()
    return segment_into(scan, models, [way] * len(models), xp, record, Quiet()), record


ORGANS = (0, 1, 2, 3, 4, 5, 6)  # enough for a network that shows where the abdomen is


def organ_scan() -> tuple[Scan, tuple[slice, slice, slice]]:
    """A body of 0 HU in air, with one organ of 100 HU that holds a tumour of 200 HU."""
    voxels = np.full((24, 64, 80), -1000, np.int16)
    voxels[:, 8:56, 8:72] = 0
    where = (slice(8, 16), slice(20, 40), slice(20, 44))
    voxels[where] = 100
    voxels[10:14, 26:34, 28:36] = 200
    return Scan.of(voxels, (2.0, 2.0, 2.0), "LPS"), where


@pytest.mark.parametrize(("plan", "multiple"), [("dense", None), ("abdomen", None), ("abdomen", (4, 8, 8))])
def test_the_tumour_lies_over_the_organ(plan: str, multiple: tuple[int, int, int] | None) -> None:
    scan, where = organ_scan()
    networks = [model("organ", 60, ORGANS, None, multiple), model("tumor", 150, (0, 14), None, multiple)]
    labels, report = segment(scan, networks, WAYS[plan], np)
    expected = np.zeros_like(scan.voxels)
    expected[where] = 6
    expected[10:14, 26:34, 28:36] = 14
    assert np.array_equal(labels, expected)
    assert report.warnings == []
    assert set(report.seconds) == {"prepare", "network", "restore", "check"}


def named(network: Model, names: dict[int, str]) -> Model:
    labels = tuple(replace(label, name=names.get(label.value, label.name)) for label in network.card.labels)
    return replace(network, card=replace(network.card, labels=labels))


@pytest.mark.parametrize("plan", ["dense", "abdomen"])
def test_labels_that_are_not_wanted_are_background_and_tumours_what_is_around_them(plan: str) -> None:
    scan, where = organ_scan()

    def bands(batch: np.ndarray) -> np.ndarray:
        hu = batch[:, 0] * 70 + 80
        no = np.zeros_like(hu)
        return np.stack([30 - 0 * hu, hu - 30, *[no] * 4, 2 * hu - 180], axis=1)

    network = Model.of(make_card((2.0, 2.0, 2.0), values=(0, 6, 2, 3, 4, 5, 14), orientation="LPS"), bands)
    whole = named(network, {6: "liver", 14: "tumor"})
    organ, tumour = np.zeros(scan.grid.shape, bool), scan.voxels == 200
    organ[where] = True
    expected = {None: 6 * organ + 8 * tumour, (6,): 6 * organ, (14,): 14 * tumour, (3,): 0 * organ}
    cyst = named(network, {6: "liver", 14: "cyst"})
    for model, wanted, labels in (
        *((whole, wanted, labels) for wanted, labels in expected.items()),
        (cyst, (6,), 6 * (organ & ~tumour)),
    ):
        record = Record()
        found = segment_into(scan, [model], [WAYS[plan]], np, record, Quiet(), wanted=wanted)
        assert np.array_equal(found, labels)
        assert ("none of the chosen labels was found: the label map is empty" in record.warnings) == (wanted == (3,))
        assert ("liver" in record.doubts) == (wanted is None or 6 in wanted)  # of 8 ml
        assert any(warning.startswith(TWICE) for warning in record.warnings) == ("liver" in record.doubts)


def test_doubts_are_of_an_organ_with_the_tumour_that_was_not_chosen() -> None:
    """A liver of 0.2 l around a tumour of 0.9 is none that is too small."""
    voxels = np.full((40, 64, 80), -1000, np.int16)
    voxels[:, 4:60, 4:76], voxels[8:32, 14:50, 14:60], voxels[9:31, 15:49, 15:59] = 0, 100, 200

    def bands(batch: np.ndarray) -> np.ndarray:
        hu = batch[:, 0] * 70 + 80
        return np.stack([30 - 0 * hu, hu - 30, 2 * hu - 180], axis=1)

    network = Model.of(make_card((3.0, 3.0, 3.0), values=(0, 6, 14), orientation="LPS"), bands)
    network, scan, record = named(network, {6: "liver", 14: "tumor"}), Scan.of(voxels, (3.0, 3.0, 3.0), "LPS"), Record()
    whole = segment_into(scan, [network], [WAYS["dense"]], np, Record(), Quiet())
    liver = segment_into(scan, [network], [WAYS["dense"]], np, record, Quiet(), wanted=(6,))
    ml = {name: round((labels == 6).sum() * 0.027) for name, labels in (("whole", whole), ("liver", liver))}
    assert ml["whole"] < 300 < 1000 < ml["liver"] and "liver" not in record.doubts, (ml, record.doubts)


def test_voxels_that_are_dropped_by_two_rules_are_counted_together() -> None:
    voxels = np.zeros((16, 40, 120), np.int16)
    voxels[4:12, 10:26, 10:26] = 100
    voxels[2, 34, 2] = 100  # smaller than is kept of any piece
    voxels[6:10, 10:14, 90:94] = 100  # far from the organ
    network = model("organ", 60, (0, 1))
    labels = (network.card.labels[0], replace(network.card.labels[1], name="liver", one_piece=True))
    network = replace(network, card=replace(network.card, labels=labels, largest=(Largest((1,), below=100.0),)))
    found, report = segment(Scan.of(voxels, (2.0, 2.0, 2.0), "LPS"), [network], replace(DENSE, one_piece=True), np)
    assert found.sum() == 8 * 16 * 16
    assert report.dropped == {"liver": 1 + 4 * 4 * 4}


def test_one_network_may_hold_organs_and_tumour() -> None:
    scan, _ = organ_scan()
    both = Model.of(make_card((2.0, 2.0, 2.0), values=(*range(14), 14), orientation="LPS"), brighter(150, channels=15))
    labels, _ = segment(scan, [both], ABDOMEN, np)
    assert set(np.unique(labels)) == {0, 14}


def test_the_tumour_network_looks_only_around_the_organs() -> None:
    scan, _ = organ_scan()
    calls: dict[str, list[int]] = {"dense": [], "abdomen": []}
    for plan, counted in calls.items():
        labels, report = segment(
            scan, [model("organ", 60, ORGANS), model("tumor", 150, (0, 14), counted)], WAYS[plan], np
        )
        assert (labels == 14).sum() == 4 * 8 * 8
        windows = report.windows["tumor"]
        assert windows["run"] == len(counted)
        assert windows["run"] + windows["skipped"] == len(calls["dense"])
    assert 0 < len(calls["abdomen"]) < len(calls["dense"])


class Heard(Quiet):
    """A progress that remembers which networks began."""

    def __init__(self) -> None:
        self.begun: list[str] = []

    def network(self, name: str, most: int) -> None:
        self.begun.append(name)


def guided(hu: float, guide_hu: float, calls: list[int] | None = None) -> Model:
    """A network of one label, and a guide at twice its spacing, for which what is brighter than `guide_hu` in the first
    40 mm is an organ."""
    inner, plain = brighter(guide_hu, len(ORGANS)), model("lesion", hu, (0, 1), calls)

    def organs(batch: np.ndarray) -> np.ndarray:
        answer = inner(batch)
        answer[:, -1, 10:] = -1
        return answer

    card = make_card(
        (4.0, 4.0, 4.0), name="guide", patch=(32, 16, 16), values=ORGANS, orientation="LPS", window_multiple=(4, 4, 4)
    )
    return Model.of(replace(plain.card, guide=Guide(card, (6,))), plain.network, guide=Model.of(card, organs))


def lesions_in_organs(*others: tuple[slice, slice, slice]) -> Scan:
    """A long body with an organ near one end, and in it, and where else it is said, a lesion of 200 HU."""
    voxels = np.full((64, 64, 80), -1000, np.int16)
    voxels[:, 8:56, 8:72] = 0
    voxels[8:16, 20:40, 20:44] = 100
    for where in ((slice(10, 14), slice(26, 34), slice(28, 36)), *others):
        voxels[where] = 200
    return Scan.of(voxels, (2.0, 2.0, 2.0), "LPS")


@pytest.mark.parametrize("plan", ["organs", "crop"])
def test_a_guide_shows_where_to_look_and_labels_stay(plan: str) -> None:
    scan = lesions_in_organs()
    calls: list[int] = []
    expected, _ = segment(scan, [guided(150, 60)], WAYS["dense"], np)
    labels, report = segment(scan, [guided(150, 60, calls)], WAYS[plan], np)
    windows = report.windows["lesion"]
    assert np.array_equal(labels, expected) and labels.sum() == 4 * 8 * 8
    assert windows["guide"] == "followed" and 0 < windows["run"] == len(calls) < windows["skipped"]
    assert report.windows["guide"]["run"] > 0 and not report.dropped
    labels, report = segment(scan, [guided(2000, 60)], WAYS[plan], np)
    assert (
        report.windows["lesion"]["guide"] == "nothing near" and report.windows["lesion"]["skipped"] and not labels.any()
    )


def test_where_all_windows_are_near_none_is_run_again() -> None:
    far = np.s_[50:54, 26:34, 28:36]
    whole = guided(150, 60)
    whole = replace(whole, card=replace(whole.card, patch=(64, 64, 80)))
    labels, report = segment(lesions_in_organs(far), [whole], WAYS["organs"], np)
    assert report.windows["lesion"] == {"run": 1, "skipped": 0, "voxels": [64, 64, 80], "guide": "followed"}
    assert labels[far].all()


@pytest.mark.parametrize("plan", ["organs", "crop"])
def test_labels_that_leave_what_a_guide_showed_are_looked_for_everywhere(plan: str, tmp_path: Path) -> None:
    beside, far = np.s_[22:30, 26:34, 28:36], np.s_[50:54, 26:34, 28:36]  # to the end of what is seen, and beyond
    scan = lesions_in_organs(beside, far)
    expected, _ = segment(scan, [guided(150, 60)], WAYS["dense"], np)
    probabilities = Probabilities([guided(150, 60).card], tmp_path)
    record, progress = Record(), Heard()
    labels = segment_into(scan, [guided(150, 60)], [WAYS[plan]], np, record, progress, probabilities)
    assert np.array_equal(labels, expected) and labels[far].all()
    assert progress.begun == ["lesion"] * 2  # a bar that is full does not stand still
    assert record.windows["lesion"]["guide"] == "too small" and record.windows["lesion"]["skipped"] == 0
    probabilities.write(tmp_path / "x.probabilities", scan)
    (file,) = (tmp_path / "x.probabilities").iterdir()
    stored = np.asarray(nib.load(file).dataobj).T
    assert np.array_equal(stored > 0.5, labels > 0)
    probabilities.close()


def test_networks_each_in_their_own_way_share_one_look_of_a_guide() -> None:
    scan = lesions_in_organs(np.s_[22:30, 26:34, 28:36])
    dense, first = guided(150, 60), guided(150, 60)
    looks: list[int] = []
    guide = first.guide
    assert guide

    def look(batch: np.ndarray) -> np.ndarray:
        looks.append(1)
        return guide.network(batch)

    look_at = replace(guide, network=look)
    models = [replace(first, card=replace(first.card, name=name), guide=look_at) for name in "ab"]
    once = Record()
    segment_into(scan, models[:1], [WAYS["crop"]], np, once, Quiet())
    count = len(looks)
    record = Record()
    labels = segment_into(scan, [*models, dense], [WAYS["crop"], WAYS["organs"], DENSE], np, record, Quiet())
    assert 0 < len(looks) == 2 * count
    assert np.array_equal(labels, segment(scan, [dense], DENSE, np)[0])
    assert record.windows["a"] == once.windows["a"] and "guide" in record.windows["b"]
    assert "guide" not in record.windows["lesion"]


@pytest.mark.parametrize("first_hu", [150, 1000])  # it finds a part of the organ; nothing
def test_what_a_network_of_another_plan_found_says_nothing_about_the_abdomen(first_hu: float) -> None:
    scan, where = organ_scan()
    first, organ = model("bone", first_hu, (0, 1)), model("organ", 60, ORGANS)
    alone, expected = segment(scan, [organ], ABDOMEN, np)
    record = Record()
    labels = segment_into(scan, [first, organ], [DENSE, ABDOMEN], np, record, Quiet())
    assert np.array_equal(labels, alone) and (labels[where] == 6).all()
    assert record.windows["organ"] == expected.windows["organ"] and record.warnings == []


@pytest.mark.parametrize("guide_hu", [300, 1000])  # it finds nothing; not even a voxel
def test_where_a_guide_finds_nothing_a_network_looks_everywhere(guide_hu: float) -> None:
    scan = lesions_in_organs()
    expected, _ = segment(scan, [guided(150, 60)], WAYS["dense"], np)
    labels, report = segment(scan, [guided(150, guide_hu)], WAYS["organs"], np)
    assert np.array_equal(labels, expected)
    assert report.windows["lesion"]["guide"] == "found nothing" and report.windows["lesion"]["skipped"] == 0


@pytest.mark.parametrize("before", [0, 20])
@pytest.mark.parametrize("after", [16, 60])
def test_a_scan_may_go_on_beyond_the_organs(before: int, after: int) -> None:
    scan, where = organ_scan()
    around = [scan.voxels[:1].repeat(planes, axis=0) for planes in (before, after)]
    longer = Scan.of(np.concatenate([around[0], scan.voxels, around[1]]), scan.grid.spacing, scan.grid.orientation)
    labels, _ = segment(longer, [model("organ", 60, ORGANS), model("tumor", 150, (0, 14))], ABDOMEN, np)
    expected = np.zeros_like(longer.voxels)
    expected[before + where[0].start : before + where[0].stop, *where[1:]] = 6
    expected[before + 10 : before + 14, 26:34, 28:36] = 14
    assert np.array_equal(labels, expected)


def test_a_tumour_within_the_margin_of_an_organ_is_kept() -> None:
    scan, where = organ_scan()
    gap = int(AROUND_ORGANS / 2) - 1  # voxels of 2 mm
    scan.voxels[where[0].stop : where[0].stop + gap] = 0
    scan.voxels[10:12, 26:30, where[2].stop + gap - 3 : where[2].stop + gap] = 200
    organ = Model.of(model("organ", 60, ORGANS).card, lambda batch: brighter(60, 7)(batch) * (batch * 70 + 80 < 150))
    labels, _ = segment(scan, [organ, model("tumor", 150, (0, 14))], ABDOMEN, np)
    assert (labels[10:12, 26:30, where[2].stop + gap - 3 : where[2].stop + gap] == 14).all()


def test_the_abdomen_plan_labels_nothing_outside_the_body() -> None:
    scan, _ = organ_scan()
    scan.voxels[:, 62:, :] = 100  # a board under the patient that the network takes for the organ
    organ = [model("organ", 60, ORGANS)]
    assert segment(scan, organ, DENSE, np)[0][:, 62:].all()
    labels, _ = segment(scan, organ, ABDOMEN, np)
    assert labels.any() and not labels[:, 62:].any()


def test_without_an_organ_the_tumour_network_is_not_run_and_that_is_said() -> None:
    scan, _ = organ_scan()
    calls: list[int] = []
    labels, report = segment(scan, [model("organ", 2000, ORGANS), model("tumor", 150, (0, 14), calls)], ABDOMEN, np)
    assert not labels.any() and not calls
    assert any("no organ was found" in warning for warning in report.warnings)
    assert any("nothing was found" in warning for warning in report.warnings)
    # The dense plan asks nobody.
    labels, _ = segment(scan, [model("organ", 2000, ORGANS), model("tumor", 150, (0, 14))], DENSE, np)
    assert (labels == 14).any()


@pytest.mark.parametrize("multiple", [None, (4, 8, 8)])
@pytest.mark.parametrize("orientation", ["RAS", "ASL", "PIR", "LAI"])
def test_labels_come_back_on_the_scans_own_axes(orientation: str, multiple: tuple[int, int, int] | None) -> None:
    from inference.scan import reorient

    scan, _ = organ_scan()
    networks = [model("organ", 60, ORGANS, None, multiple), model("tumor", 150, (0, 14), None, multiple)]
    expected, _ = segment(scan, networks, ABDOMEN, np)
    turned = Scan.of(np.ascontiguousarray(reorient(scan.voxels, "LPS", orientation)), scan.grid.spacing, orientation)
    labels, _ = segment(turned, networks, ABDOMEN, np)
    assert np.array_equal(labels, reorient(expected, "LPS", orientation))


@pytest.mark.parametrize("shape", [(1, 30, 40), (3, 3, 3), (60, 5, 200)])
@pytest.mark.parametrize(("plan", "multiple"), [("dense", None), ("abdomen", None), ("abdomen", (4, 8, 8))])
def test_scans_smaller_than_a_window_and_odd_shapes(
    shape: tuple[int, int, int], plan: str, multiple: tuple[int, int, int] | None
) -> None:
    voxels = np.full(shape, 100, np.int16)
    organ = model("organ", 60, ORGANS, None, multiple)
    labels, _ = segment(Scan.of(voxels, (2.0, 2.0, 2.0), "LPS"), [organ], WAYS[plan], np)
    assert labels.shape == shape
    assert (labels == 6).all()


def test_a_smaller_way_takes_smaller_windows() -> None:
    scan, _ = organ_scan()
    labels, windows = [], []
    for way in (ABDOMEN, replace(ABDOMEN, most_voxels=2000)):
        seen: list[int] = []

        def network(batch: np.ndarray, seen: list[int] = seen) -> np.ndarray:
            seen.append(batch.size)
            return brighter(60, 7)(batch)

        organ = Model.of(model("organ", 60, ORGANS, None, (4, 8, 8)).card, network)
        found, report = segment(scan, [organ], way, np)
        labels.append(found)
        windows.append(max(seen))
        assert set(seen) == {np.prod(report.windows["organ"]["voxels"])}
    assert windows[1] <= 2000 < windows[0]
    assert np.array_equal(labels[0], labels[1])


@pytest.mark.parametrize("multiple", [None, (4, 8, 8)])
def test_a_network_may_take_two_channels(multiple: tuple[int, int, int] | None) -> None:
    scan, where = organ_scan()
    other = np.zeros_like(scan.voxels)
    other[where] = 300
    other[:, :, :40] = 0

    def both(batch: np.ndarray) -> np.ndarray:
        assert batch.shape[1] == 2
        above = (np.minimum(batch[:, 0], batch[:, 1]) * 70 + 80 > 60).astype(np.float32)
        return np.stack([1 - above, above], axis=1)

    card = make_card((2.0, 2.0, 2.0), values=(0, 7), orientation="LPS", window_multiple=multiple, inputs=2)
    organ = Model.of(card, both)
    labels, _ = segment(replace(scan, channels=(scan.voxels, other)), [organ], ABDOMEN, np)
    expected = np.zeros_like(scan.voxels)
    expected[where] = 7
    expected[:, :, :40] = 0
    assert np.array_equal(labels, expected)
    with pytest.raises(ScanError, match="the scan has 1 channels, network organ takes CT, CT"):
        segment(scan, [organ], ABDOMEN, np)


def test_which_ways_take_less() -> None:
    smaller = ABDOMEN.smaller()
    assert smaller.most_voxels < ABDOMEN.most_voxels and smaller.smaller() == smaller
    assert DENSE.smaller() == DENSE
    patches, any_window = make_card(), make_card(window_multiple=(4, 8, 8))
    assert smaller_ways([patches], [ABDOMEN]) is None  # its windows are patches, whatever the way
    assert smaller_ways([patches, any_window], [ABDOMEN, ABDOMEN]) == (ABDOMEN, smaller)


def test_networks_are_run_in_the_way_that_they_were_made_for() -> None:
    abdomen, dense = replace(make_card(), way="abdomen"), make_card()
    assert ways_of([abdomen, dense], None, 0.5) == (ABDOMEN, DENSE)
    assert ways_of([dense, abdomen], "abdomen", 0.7) == (replace(ABDOMEN, step=0.7),) * 2


def test_overlay_and_bounds_by_hand() -> None:
    assert overlay(np.array([1, 2, 0, 3]), np.array([0, 14, 14, 0])).tolist() == [1, 14, 14, 3]
    labels = np.zeros((3, 4, 5), np.uint8)
    assert bounding(labels) is None
    labels[1, 2, 3] = labels[2, 2, 1] = 1
    assert bounding(labels) == (slice(1, 3), slice(2, 3), slice(1, 4))


def test_voxels_are_freed_only_if_they_are_needed_once() -> None:
    scan, _ = organ_scan()
    networks = [model("organ", 60, ORGANS), model("tumor", 150, (0, 14))]
    expected, _ = segment(scan, networks, DENSE, np)
    assert scan.channels
    once = replace(scan, once=True)
    labels, _ = segment(once, networks, DENSE, np)
    assert not once.channels and scan.channels
    assert np.array_equal(labels, expected)


def one_that_tells_kidneys_by_their_side(orientation: str | None) -> Model:
    """Knows each organ of the trunk by a brightness of its own, and both kidneys by one."""

    def network(batch: np.ndarray) -> np.ndarray:
        values = np.rint((batch[:, 0] * 70 + 80 - 20) / 10)
        values[(values < 1) | (values > 13)] = 0
        right = np.arange(batch.shape[-1]) < batch.shape[-1] / 2  # in a scan stored as LPS
        kidneys = values == 2
        values[kidneys & ~right] = 13
        return np.stack([values == value for value in range(14)], axis=1).astype(np.float32)

    card = make_card(SPACING, patch=(50, 50, 70), orientation=orientation)
    names = [Label(0, "background"), *(Label(one.value, one.key) for one in TABLE[:13])]
    return Model.of(replace(card, labels=tuple(names)), network)


@pytest.mark.parametrize("orientation", ["LPS", None])
@pytest.mark.parametrize("fix", [False, True])
def test_a_scan_that_is_mirrored_against_its_header_is_segmented_as_it_lies_if_asked_for(
    fix: bool, orientation: str | None
) -> None:
    hu, drawn = (array[:, ::-1, ::-1] for array in trunk())  # stored as LPS
    hu = np.where(drawn > 0, 20 + 10 * np.where(drawn == 13, 2, drawn), hu).astype(np.int16)
    record = Record()
    scan = Scan.of(np.ascontiguousarray(hu[:, :, ::-1]), SPACING, "LPS")
    labels = segment_into(
        scan, [one_that_tells_kidneys_by_their_side(orientation)], [DENSE], np, record, Quiet(), fix_orientation=fix
    )
    fixed = fix and orientation is not None  # a network that takes scans as stored reads no header
    assert record.orientation is not None
    assert (record.orientation["turned"], record.orientation["certain"]) == (["left-right"], True)
    assert record.orientation["fix"] == ("done" if fixed else "refused" if fix else "not asked for")
    assert record.warnings[0].startswith("the scan seems to lie mirrored left to right, against its header: ")
    done = "it was segmented as it seems to lie" if fix else "--fix-orientation segments it as it lies, if"
    assert f"; {done if orientation else 'the networks take it as it is stored'}" in record.warnings[0]
    swapped = np.where(drawn == 2, 13, np.where(drawn == 13, 2, drawn))[:, :, ::-1]
    assert np.array_equal(labels, drawn[:, :, ::-1] if fixed else swapped)
    assert np.array_equal(labels == 1, (drawn == 1)[:, :, ::-1])
    assert record.windows["organ"]["run"] == 1
    assert record.doubts["esophagus"]["doubt"] == "missing"
    assert record.warnings[-1].startswith("organs to look at twice: ")


def test_a_scan_that_cannot_be_fixed_is_said_to_be_segmented_as_its_header_says() -> None:
    """Axes that are exchanged are never fixed."""
    hu, drawn = (array[:, ::-1, ::-1] for array in trunk())
    hu = np.where(drawn > 0, 20 + 10 * np.where(drawn == 13, 2, drawn), hu).astype(np.int16)
    record = Record()
    scan = Scan.of(np.ascontiguousarray(hu.transpose(0, 2, 1)), SPACING, "LPS")
    network = one_that_tells_kidneys_by_their_side("LPS")
    segment_into(scan, [network], [DENSE], np, record, Quiet(), fix_orientation=True)
    assert record.orientation is not None and record.orientation["fix"] == "refused"
    assert "; it was segmented as its header says all the same, since not all signs " in record.warnings[0]


def test_probabilities_of_a_scan_that_was_turned_are_those_of_its_labels(tmp_path: Path) -> None:
    hu, drawn = (array[:, ::-1, ::-1] for array in trunk())
    hu = np.where(drawn > 0, 20 + 10 * np.where(drawn == 13, 2, drawn), hu).astype(np.int16)
    scan = Scan.of(np.ascontiguousarray(hu[:, :, ::-1]), SPACING, "LPS")
    network = one_that_tells_kidneys_by_their_side("LPS")
    kept, record = Probabilities([network.card], tmp_path), Record()
    labels = segment_into(scan, [network], [DENSE], np, record, Quiet(), kept, fix_orientation=True)
    assert record.orientation is not None and record.orientation["fix"] == "done"
    kept.write(tmp_path / "x.probabilities", scan)
    kept.close()
    for key, value in (("right_kidney", 2), ("left_kidney", 13)):
        values = nib.load(tmp_path / "x.probabilities" / f"{key}.nii.gz").get_fdata().transpose(2, 1, 0)
        assert np.array_equal(values > 0.15, labels == value)  # one winner among 14: e / (e + 13)
