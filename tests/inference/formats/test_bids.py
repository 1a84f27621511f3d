"""Names of BIDS, and the files that make OUTPUTS a dataset of derivatives."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.errors import OutputError
from inference.formats.bids import describe
from inference.formats.cases import find_cases
from inference.names import bids_case, labels_file

NAMES = {1: "liver", 14: "tumor", 20: "Some\tthing"}


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("sub-01", "sub-01"),
        ("sub-01_ct", "sub-01"),
        ("sub-01_ses-pre_acq-venous_rec-B30f_run-2_ct", "sub-01_ses-pre_acq-venous_rec-B30f_run-2"),
        ("sub-01_desc-preproc_T2w", "sub-01_desc-preproc"),
        ("HCC_006", "sub-HCC006"),
        ("patient 1", "sub-patient1"),
        ("5_abdomen-venous", "sub-5abdomenvenous"),
        ("sub-01_ses-a b", "sub-sub01sesab"),  # is of BIDS in part, so not at all
        ("sub-", "sub-sub"),
        ("Müller\n", "sub-Mller"),
        ("患者", None),
    ],
)
def test_what_a_case_is_called(case: str, expected: str | None) -> None:
    assert bids_case(case) == expected


@given(st.text())
def test_every_name_is_one_of_bids_and_stays_as_it_is(case: str) -> None:
    named = bids_case(case)
    if named is None:
        assert not re.search("[0-9A-Za-z]", case)
    else:
        assert re.fullmatch(r"sub-[0-9A-Za-z+]+(_[a-z]+-[0-9A-Za-z+]+)*", named)
        assert bids_case(named) == named


@pytest.mark.parametrize(
    ("case", "kind", "expected"),
    [
        ("sub-1", "nii.gz", "sub-1/anat/sub-1_dseg.nii.gz"),
        ("sub-1_ses-2_run-3", "seg.dcm", "sub-1/ses-2/anat/sub-1_ses-2_run-3_dseg.seg.dcm"),
        ("sub-1_acq-2_ses-3", "nii.gz", "sub-1/anat/sub-1_acq-2_ses-3_dseg.nii.gz"),
    ],
)
def test_where_its_label_map_lies(case: str, kind: str, expected: str) -> None:
    assert labels_file(Path("out"), case, kind, "bids") == Path("out", expected)


def test_cases_that_would_be_called_alike_or_not_at_all_are_refused(tmp_path: Path) -> None:
    for name in ("a b", "a-b", "患者", "sub-1_ct", "sub-1_pet"):
        (tmp_path / f"{name}_0000.nii.gz").touch()
    found = find_cases(tmp_path, tmp_path / "out", layout="bids")
    assert [(case.name, case.refused) for case in found.cases] == [
        ("sub-ab", None),
        ("sub-ab", "a-b_0000.nii.gz is left out: a b_0000.nii.gz has the same case name, sub-ab"),
        ("sub-1", None),
        ("sub-1", "sub-1_pet_0000.nii.gz is left out: sub-1_ct_0000.nii.gz has the same case name, sub-1"),
        ("患者", "患者_0000.nii.gz has no letter or digit in its name that BIDS allows: rename it"),
    ]
    chosen = find_cases(tmp_path, tmp_path, ["a b", "sub-1"], layout="bids")  # called as its file, or as here
    assert [case.name for case in chosen.cases] == ["sub-ab", "sub-ab", "sub-1", "sub-1"]


def test_what_holds_for_the_whole_dataset(tmp_path: Path) -> None:
    describe(tmp_path, NAMES)
    first = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert first["dseg.tsv"].splitlines() == [
        "index\tname\tcolor",
        "1\tliver\t#c8553d",
        "14\ttumor\t#ff00c8",
        "20\tSome thing\t#40ff5f",
    ]
    described = json.loads(first["dataset_description.json"])
    assert described["DatasetType"] == "derivative" and described["GeneratedBy"][0]["Name"] == "Viscera"
    older = described | {"GeneratedBy": [{"Name": "Viscera", "Version": "0.1.0"}]}
    (tmp_path / "dataset_description.json").write_text(json.dumps(older))
    describe(tmp_path, NAMES)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == first


def test_what_somebody_has_added_stays(tmp_path: Path) -> None:
    describe(tmp_path, NAMES)
    description, ignored, table = (tmp_path / name for name in ("dataset_description.json", ".bidsignore", "dseg.tsv"))
    document = json.loads(description.read_text())
    document |= {"Name": "Müllers Studie", "Authors": ["Müller, A."]}
    document["GeneratedBy"] += [{"Name": "Slicer"}]
    description.write_text(json.dumps(document))
    ignored.write_text("notes/\n*.mha\n")
    table.write_text(table.read_text().replace("#c8553d", "#000000"))
    (tmp_path / "dseg.json").write_text('{"Manual": true}')
    describe(tmp_path, NAMES)
    assert json.loads(description.read_text()) == document
    written = ignored.stat().st_ino
    describe(tmp_path, NAMES)
    assert ignored.stat().st_ino == written  # nothing to write
    lines = ignored.read_text().splitlines()
    assert lines[:2] == ["notes/", "*.mha"] and lines.count("*.mha") == 1 and "index.html" in lines
    assert "liver\t#000000" in table.read_text()
    assert json.loads((tmp_path / "dseg.json").read_text()) == {"Manual": True}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("dataset_description.json", '{"Name": "x", "BIDSVersion": "1.8.0"}'),
        ("dataset_description.json", '{"GeneratedBy": [{"Name": "fMRIPrep"}]}'),
        ("dataset_description.json", "["),
        ("dataset_description.json", '{"GeneratedBy": [{"Name": "Viscera"}, 1]}'),
        ("dseg.tsv", "index\tname\n1\tGM\n"),
        (".bidsignore", "extra"),
    ],
)
def test_another_dataset_is_left_alone(tmp_path: Path, file: str, content: str) -> None:
    (tmp_path / file).write_text(content)
    ours = "exists already and was not written by this program"
    why = ours if file == "dataset_description.json" else "belongs to another BIDS dataset"
    with pytest.raises(OutputError, match=f"{file} {why}: choose another OUTPUTS"):
        describe(tmp_path, NAMES)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(file, content)]


def test_a_description_that_cannot_be_read_is_named_with_the_cause(tmp_path: Path) -> None:
    (tmp_path / "dataset_description.json").mkdir()
    with pytest.raises(OutputError, match=r"dataset_description\.json is a folder, not a file: choose another OUTPUTS"):
        describe(tmp_path, NAMES)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    """A FIFO would be waited for."""
    describe(tmp_path, NAMES)
    (tmp_path / "dseg.tsv").unlink()
    os.mkfifo(tmp_path / "dseg.tsv")
    with pytest.raises(OutputError, match=r"dseg\.tsv is a FIFO, not a file"):
        describe(tmp_path, NAMES)


def test_one_dataset_has_one_table_of_labels(tmp_path: Path) -> None:
    describe(tmp_path, NAMES)
    with pytest.raises(OutputError, match=r"dseg\.tsv lists other labels than this run writes"):
        describe(tmp_path, {1: "spleen"})
