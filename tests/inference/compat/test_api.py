"""The Python function in place of TotalSegmentator's."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nibabel as nib
import numpy as np
import pytest

from inference.cards import read_cards
from inference.compat import api, totalsegmentator
from inference.compat.structures import class_map, theirs, wanted
from inference.errors import EngineError, NoInputError, OutputError, ScanError, ScanWarning, WeightsError
from inference.formats.reading import read_scan
from inference.labels import ORGANS
from inference.options import Options
from inference.predictor import Predictor
from tests.inference.dicom import series
from tests.made.networks import STRUCTURES, rename

VALUES = {"liver": 5, "kidney_right": 2, "lung_upper_lobe_left": 10, "aorta": 52}  # map_to_binary.py of 2.18.0


@pytest.fixture
def scan(tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path]) -> Path:
    return save_scan(tmp_path / "ct.nii.gz", blob, (3.0, 2.0, 2.5), "RAS")


def quietly(*arguments: Any, **named: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScanWarning)
        return totalsegmentator(*arguments, **named)


def read(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def test_the_class_map_is_theirs() -> None:
    values = class_map()
    assert sorted(values.values()) == list(range(1, 118))
    assert {name: values[name] for name in VALUES} == VALUES
    assert values["inferior_vena_cava"] == 63 and values["rib_left_1"] == 92 and values["costal_cartilages"] == 117
    assert {theirs(one.key) for one in ORGANS} <= set(values)
    assert theirs("tumor") is None and theirs("prostate gland") is None


def test_a_mask_per_structure(scan: Path, named_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    image = quietly(scan, out, weights=named_weights, threads=1)
    assert {path.name for path in out.iterdir()} == {f"{name}.nii.gz" for name in VALUES}
    given = nib.load(scan)
    predictor = Predictor(weights=named_weights, networks=["organ"], threads=1)
    labels = predictor(given.get_fdata(dtype="float32").T, affine=given.affine).T
    assert {value: (labels == value).any() for value in STRUCTURES} == dict.fromkeys(STRUCTURES, True)
    for value, name in STRUCTURES.items():
        mask = nib.load(out / f"{theirs(name)}.nii.gz")
        assert mask.get_data_dtype() == np.uint8 and mask.shape == given.shape
        np.testing.assert_array_equal(mask.affine, given.affine)
        np.testing.assert_array_equal(np.asarray(mask.dataobj), labels == value)
        for code in ("sform_code", "qform_code", "xyzt_units"):
            assert mask.header[code] == given.header[code]
    assert isinstance(image, nib.Nifti1Image)
    np.testing.assert_array_equal(np.asarray(image.dataobj) == 52, labels == 4)


@pytest.mark.parametrize(("asked", "written"), [("m.nii.gz", "m.nii.gz"), ("m.nii", "m.nii"), ("m", "m.nii")])
def test_one_label_map_with_its_names(
    asked: str, written: str, scan: Path, named_weights: Path, tmp_path: Path
) -> None:
    image = quietly(scan, tmp_path / "out" / asked, True, weights=named_weights, threads=1)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [written]
    saved = nib.load(tmp_path / "out" / written)
    assert saved.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(saved.affine, nib.load(scan).affine)
    np.testing.assert_array_equal(read(tmp_path / "out" / written), np.asarray(image.dataobj))
    assert set(np.unique(np.asarray(saved.dataobj))) == {0, *VALUES.values()}
    content = saved.header.extensions[0].get_content()
    table = ElementTree.fromstring(content if isinstance(content, str) else content.rstrip(b"\0"))
    assert table.tag == "CaretExtension"
    rows = table.findall("VolumeInformation/LabelTable/Label")
    assert {row.text: int(row.attrib["Key"]) for row in rows} == VALUES


def test_an_image_in_memory_and_statistics(scan: Path, named_weights: Path, tmp_path: Path) -> None:
    given = nib.load(scan)
    result = quietly(given, statistics=True, statistics_exclude_masks_at_border=False, weights=named_weights, threads=1)
    assert isinstance(result, tuple)
    image, numbers = result
    assert list(numbers) == sorted(VALUES, key=lambda name: VALUES[name])
    mask = np.asarray(image.dataobj) == VALUES["liver"]
    assert numbers["liver"]["volume"] == pytest.approx(mask.sum() * 3.0 * 2.0 * 2.5)
    assert numbers["liver"]["intensity"] == pytest.approx(given.get_fdata()[mask].mean(), abs=1e-4)
    for ml, target in ((False, tmp_path / "a" / "statistics.json"), (True, tmp_path / "statistics.json")):
        quietly(scan, tmp_path / "a", ml, statistics=True, skip_saving=True, weights=named_weights, threads=1)
        assert list(json.loads(target.read_text())) == list(numbers)
        assert ml or [path.name for path in target.parent.iterdir()] == ["statistics.json"]
    quietly(scan, statistics=tmp_path / "b" / "s.json", weights=named_weights, threads=1)
    assert (tmp_path / "b" / "s.json").is_file()


def test_a_subset_needs_only_the_networks_that_know_it(named_weights: Path, scan: Path, tmp_path: Path) -> None:
    more = shutil.copytree(named_weights, tmp_path / "more")
    rename(more / "tumor", {14: "brain"})
    cards = read_cards(more, None)
    assert wanted(cards, None).networks == ("organ", "tumor")  # in the order of the parts: 2 before 90
    assert wanted(cards, ["brain"]).networks == ("tumor",)
    assert wanted(cards, ["aorta", "kidney_right"]).names == {2: "kidney_right", 52: "aorta"}
    image = quietly(scan, tmp_path / "out", roi_subset=["aorta"], weights=more, threads=1)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["aorta.nii.gz"]
    assert set(np.unique(np.asarray(image.dataobj))) == {0, 52}


def test_what_is_left_out_or_changes_nothing_is_said(named_weights: Path, scan: Path, tmp_path: Path) -> None:
    more = shutil.copytree(named_weights, tmp_path / "more")
    rename(more / "organ", {3: "cyst"})
    with pytest.warns(ScanWarning) as said:
        totalsegmentator(scan, None, fast=True, higher_order_resampling_LEGACY=True, weights=more, threads=1)
    texts = [str(one.message) for one in said]
    assert any(text.startswith("fast and higher_order_resampling_LEGACY: no difference here, the ") for text in texts)
    assert "cyst: left out, since TotalSegmentator has no such structure" in texts
    few = "only 3 of TotalSegmentator's 117 structures: the networks know no others"
    assert few in texts
    assert not any("statistics" in text for text in texts)
    with pytest.warns(ScanWarning) as said:
        totalsegmentator(scan, None, roi_subset=["liver"], fast=True, output_type=["nifti"], weights=more, threads=1)
    assert few not in [str(one.message) for one in said]
    with pytest.warns(ScanWarning, match="^0 in the statistics, since they come within 3 voxels .*: .*liver"):
        _, numbers = totalsegmentator(scan, None, statistics=True, weights=more, threads=1)
    assert numbers["liver"]["volume"] == 0


def test_what_is_not_offered_is_refused_by_name(named_weights: Path, scan: Path) -> None:
    for name, value in (
        ("preview", True), ("task", "body"), ("output_type", "dicom_seg"), ("output_type", ["nifti", "dicom_seg"]),
        ("report", "r.json"), ("device", "mps"), ("stats_aggregation", "mode"), ("model_size", "small"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=name):
            quietly(scan, weights=named_weights, **{name: value})
    with pytest.raises(TypeError, match="has no argument colour"):
        totalsegmentator(scan, weights=named_weights, colour="red")
    with pytest.raises(ValueError, match=r"do not know brain, nose\. They know kidney_right, liver, "):
        totalsegmentator(scan, weights=named_weights, roi_subset=["nose", "liver", "brain"])
    with pytest.raises(ValueError, match="names no structure"):
        totalsegmentator(scan, weights=named_weights, roi_subset=[])
    with pytest.raises(ValueError, match="list of strings"):
        totalsegmentator(scan, weights=named_weights, roi_subset="liver")


def test_networks_that_do_not_fit(named_weights: Path, tiny_weights: Path, scan: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no(ne)? of these networks"):
        totalsegmentator(scan, weights=tiny_weights)
    more = shutil.copytree(named_weights, tmp_path / "more")
    card = json.loads((more / "tumor" / "card.json").read_text())
    card["labels"][1] |= {"value": 4, "name": "brain"}
    (more / "tumor" / "card.json").write_text(json.dumps(card))
    with pytest.raises(
        WeightsError, match="value 4 is aorta in network organ and brain in tumor: choose with --networks"
    ):
        totalsegmentator(scan, weights=more)


def test_nothing_is_left_of_a_failure(named_weights: Path, scan: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(scan.read_bytes()[:2000])
    with pytest.raises(ScanError, match=r"^broken\.nii\.gz is cut off"):
        quietly(broken, tmp_path / "out", weights=named_weights, threads=1)
    assert not (tmp_path / "out").exists()
    (tmp_path / "out" / "lung_upper_lobe_left.nii.gz").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"lung_upper_lobe_left\.nii\.gz cannot be written"):
        quietly(scan, tmp_path / "out", weights=named_weights, threads=1)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["lung_upper_lobe_left.nii.gz"]
    with pytest.raises(ValueError, match=r"neither .nii nor .nii.gz"):
        quietly(scan, tmp_path / "m.mha", True, weights=named_weights)
    before = scan.read_bytes()
    with pytest.raises(OutputError, match="is the scan itself"):
        quietly(scan, scan, True, weights=named_weights, threads=1)
    assert scan.read_bytes() == before
    for output in (scan, scan / "below"):  # before the networks run
        with pytest.raises(OutputError, match=f"{scan.name} is a file, and a folder is needed there"):
            quietly(broken, output, weights=named_weights, threads=1)
    if os.path.isdir("/proc/self"):  # where root may not write either
        with pytest.raises(OutputError, match=r"^/proc/self may not be written to"):
            quietly(broken, "/proc/self/out", weights=named_weights, threads=1)


def test_a_series_of_dicom(blob: np.ndarray, named_weights: Path, tmp_path: Path) -> None:
    series(tmp_path / "ct", blob)
    image = quietly(tmp_path / "ct", tmp_path / "out", weights=named_weights, threads=1)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"{name}.nii.gz" for name in VALUES}
    np.testing.assert_allclose(
        nib.load(tmp_path / "out" / "aorta.nii.gz").affine, read_scan(tmp_path / "ct").grid.affine
    )
    assert image.shape == blob.shape[::-1]
    (tmp_path / "export" / "study").mkdir(parents=True)
    shutil.copytree(tmp_path / "ct", tmp_path / "export" / "study" / "series")
    zipped = shutil.make_archive(str(tmp_path / "export"), "zip", tmp_path / "export")
    for given in (tmp_path / "export", zipped):  # as the command takes them
        again, numbers = quietly(given, statistics=True, weights=named_weights, threads=1)
        np.testing.assert_array_equal(np.asarray(again.dataobj), np.asarray(image.dataobj))
        assert set(numbers) == set(VALUES)
    quietly(tmp_path / "ct", tmp_path / "ct" / "all.nii.gz", True, weights=named_weights, threads=1)
    quietly(tmp_path / "ct", tmp_path / "ct" / "all.nii.gz", True, weights=named_weights, threads=1)
    series(tmp_path / "export" / "study" / "other", blob, lambda z: {"SeriesInstanceUID": "1.2.3"})
    with pytest.raises(ScanError, match="export holds 2 scans: give one of them"):
        quietly(tmp_path / "export", weights=named_weights, threads=1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoInputError, match="empty holds no case"):
        quietly(tmp_path / "empty", weights=named_weights, threads=1)


def test_networks_are_loaded_once_whatever_is_asked_of_them(named_weights: Path, scan: Path) -> None:
    api._loaded.cache_clear()
    for subset in (["liver"], ["aorta"], None, ["liver"]):
        image = quietly(scan, roi_subset=subset, weights=named_weights, threads=1)
        assert set(np.unique(np.asarray(image.dataobj))) == {0, *(VALUES[name] for name in subset or VALUES)}
    assert api._loaded.cache_info().misses == 1


def test_networks_that_may_have_lost_their_gpu_are_loaded_again(
    named_weights: Path, scan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise EngineError("engine torch failed: CUDA error: an illegal memory access") from RuntimeError("CUDA error")

    options = Options(named_weights, ("organ",), threads=1)
    broken = api._loaded(options)
    broken.choice = replace(broken.choice, device="cuda")  # no more than the name of a GPU is needed
    with monkeypatch.context() as patched:
        patched.setattr("inference.predictor.segment", fail)
        with pytest.raises(ScanError, match="CUDA error"):
            quietly(scan, weights=named_weights, threads=1)
    assert quietly(scan, weights=named_weights, threads=1)
    assert api._loaded(options) is not broken and api._loaded(options).choice.device == "cpu"
