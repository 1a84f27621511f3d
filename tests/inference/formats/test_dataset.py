"""Datasets of BIDS as INPUTS: which of their images are cases."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inference.errors import NoInputError
from inference.formats.cases import Found, find_cases
from inference.formats.dataset import dataset_in

SCANS = {
    "sub-01": "sub-01/ct/sub-01_ct.nii.gz",
    "sub-02_ses-post": "sub-02/ses-post/ct/sub-02_ses-post_CT.nii",
    "sub-02_ses-pre_acq-venous_run-2": "sub-02/ses-pre/anat/sub-02_ses-pre_acq-venous_run-2_ct.nii.gz",
    "sub-04": "sub-04/sub-04_ct.nii.gz",
}
OTHERS = (
    "dataset_description.json",
    "sub-01/ct/sub-01_ct.json",
    "sub-01/anat/sub-01_T1w.nii.gz",
    "sub-01/anat/._sub-01_ct.nii.gz",
    "sub-02/ses-pre/ieeg/sub-02_ses-pre_ieeg.edf",
    "sub-03/anat/sub-03_desc-liver_mask.nii.gz",
    "derivatives/tool/sub-01/ct/sub-01_ct.nii.gz",
    "sourcedata/sub-01/ct/sub-01_ct.nii.gz",
)


def make(folder: Path, *files: str) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"\0")
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return make(tmp_path / "dataset", *SCANS.values(), *OTHERS)


def find(folder: Path, layout: str = "bids", channel: str = "CT") -> Found:
    return find_cases(folder, folder / "derivatives/viscera", channels=[channel], layout=layout)


def test_ct_is_found_by_its_suffix_in_whatever_folder(dataset: Path) -> None:
    found = find(dataset)
    assert {case.name: case.scan for case in found.cases} == {name: dataset / file for name, file in SCANS.items()}
    labels = "derivatives/viscera/sub-02/ses-pre/anat/sub-02_ses-pre_acq-venous_run-2_dseg.nii.gz"
    assert found.cases[2].labels == dataset / labels
    assert [(one.name, one.is_scan) for one in found.left_out] == [
        ("sub-01_T1w.nii.gz", False),
        ("sub-03_desc-liver_mask.nii.gz", False),
    ]
    assert found.warnings == [
        "sub-01_T1w.nii.gz and sub-03_desc-liver_mask.nii.gz are left out: no CT by name, which in BIDS ends in _ct"
    ]
    flat = find(dataset, layout="flat")
    assert [case.labels.name for case in flat.cases][::3] == ["sub-01_ct.nii.gz", "sub-04_ct.nii.gz"]
    assert flat.warnings == found.warnings


def test_other_networks_find_the_images_of_their_channel(dataset: Path) -> None:
    assert [case.name for case in find(dataset, channel="T1w").cases] == ["sub-01"]
    with pytest.raises(NoInputError, match=r"and 1 more are left out: no MR by name, which in BIDS ends in _mr$"):
        find(dataset, channel="MR")


def test_two_scans_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    make(tmp_path, "sub-1/anat/sub-1_ct.nii.gz", "sub-1/ct/sub-1_ct.nii.gz")
    first, second = find(tmp_path).cases
    assert (first.scan.parent.name, first.refused) == ("anat", None)
    assert second.refused == "ct/sub-1_ct.nii.gz is left out: anat/sub-1_ct.nii.gz has the same case name, sub-1"


def test_what_may_be_a_scan_all_the_same_is_no_success(dataset: Path) -> None:
    make(dataset, "sub-01/ct/venous.nii.gz", "sub-05/ct/scan.nii.gz", "more/scan.nii.gz", "a_0000.nii.gz")
    found = find(dataset)
    assert [case.name for case in found.cases] == ["sub-a", *SCANS]
    reasons = {one.name: one.reason for one in found.left_out if one.is_scan}
    assert reasons.pop(os.path.join("sub-01", "ct", "venous.nii.gz")).startswith("in a data set of BIDS, but not named")
    assert set(reasons) == {"sub-05", "more"} and all("subfolders are searched only" in why for why in reasons.values())


def test_dicom_is_searched_for_beside_the_images_alone(dataset: Path) -> None:
    series = b"\0" * 128 + b"DICM"
    for folder in ("sourcedata", "sub-01/ct", "derivatives", "other"):
        (dataset / folder / "1").mkdir(parents=True)
        (dataset / folder / "1/x.dcm").write_bytes(series)
    found = find(dataset)
    assert [case.scan.parent for case in found.cases if case.name not in SCANS] == [dataset / "other"]


def test_a_folder_without_images_of_bids_is_searched_as_ever(tmp_path: Path) -> None:
    make(tmp_path, "sub-1/scan.nii.gz", "sub-2/anat/x/y/sub-2_ct.nii.gz", "derivatives/x.nii.gz", "a_0000.nii.gz")
    found = dataset_in(tmp_path, "CT")
    assert not found.scans and not found.left_out and not found.known
    assert {one.name for one in find(tmp_path).left_out} == {"sub-1", "sub-2", "derivatives"}
    assert dataset_in(tmp_path / "absent", "CT") == found


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="Windows has no such permissions")
def test_a_folder_that_cannot_be_opened_is_named(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (dataset / "sub-02/ses-post/ct").chmod(0)
    monkeypatch.chdir(dataset)  # the folders above are closed to others
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(12345)  # to root nothing is closed
        found = find(Path())
    finally:
        if root:
            os.seteuid(0)
        (dataset / "sub-02/ses-post/ct").chmod(0o755)
    (closed,) = (one for one in found.left_out if one.is_scan)
    assert closed.name == os.path.join("sub-02", "ses-post", "ct") and "cannot be opened" in closed.reason
