"""Scans in folders of their own (--scans): which they are, and what they are called."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from inference.command.cli import parse
from inference.errors import InputFolderError, NoInputError
from inference.formats.cases import find_cases
from inference.formats.recorded import digest

FILES = (
    "s1/ct.nii.gz",
    "s2/ct.nii.gz",
    "s2/._ct.nii.gz",
    "s2/segmentations/liver.nii.gz",
    "s2/notes.txt",
    ".cache/ct.nii.gz",
    "a/b/x_0000.nii.gz",
    "c.nii/d",  # a folder
    "s2/ct.seg.nrrd",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for file in FILES:
        (tmp_path / "in" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / file).touch()
    return tmp_path / "in"


@pytest.mark.parametrize(
    ("pattern", "cases"),
    [
        ("*/ct.nii.gz", ["s1", "s2"]),
        ("./*/ct.nii.gz", ["s1", "s2"]),
        ("*/*.nii.gz", ["s1_ct", "s2_ct"]),
        ("s?/ct.*", ["s1_ct", "s2_ct"]),
        ("**/ct.nii.gz", ["s1", "s2"]),
        ("a/*/*_0000.nii.gz", ["b_x"]),
        ("a/b/x_0000.nii.gz", ["x"]),
        ("**/*", ["a_b_x", "s1_ct", "s2_ct", "s2_segmentations_liver"]),
    ],
)
def test_scans_are_called_after_what_the_pattern_leaves_open(pattern: str, cases: list[str], folder: Path) -> None:
    found = find_cases(folder, folder.parent / "out", pattern=pattern)
    assert sorted(case.name for case in found.cases) == cases
    assert (found.left_out, found.warnings) == ([], [])


def test_what_lies_in_the_outputs_is_no_scan(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "s2")
    for outputs in (folder / "s2", folder / "link"):
        assert [case.name for case in find_cases(folder, outputs, pattern="s*/ct.nii.gz").cases] == ["s1"]
    assert len(find_cases(folder, folder, pattern="s*/ct.nii.gz").cases) == 2  # beside their folders


@pytest.mark.parametrize("pattern", ["*/ct.nii.gz", "*/*.nii.gz", "**/ct.nii.gz"])
def test_a_broken_link_is_a_case(pattern: str, folder: Path) -> None:
    """It fails by name: a data set whose files have not come yet must not look like a smaller one."""
    (folder / "s3").mkdir()
    (folder / "s3" / "ct.nii.gz").symlink_to("nowhere")
    found = find_cases(folder, folder.parent / "out", pattern=pattern)
    assert folder / "s3" / "ct.nii.gz" in [case.scan for case in found.cases]


def test_a_link_to_a_folder_is_no_folder_of_any_depth(folder: Path) -> None:
    (folder / "s1" / "all").symlink_to(folder)
    assert len(find_cases(folder, folder.parent / "out", pattern="s1/**/ct.nii.gz").cases) == 1
    assert len(find_cases(folder, folder.parent / "out", pattern="s1/*/*/ct.nii.gz").cases) == 2


def test_label_maps_of_this_program_are_no_scans(folder: Path) -> None:
    labels, record = folder / "s1" / "x.nii.gz", {"case": "x", "status": "done", "program": "1"}
    labels.write_bytes(b"labels")
    (folder / "s1" / "x.json").write_text(json.dumps(record | {"outputs": {"nii.gz": digest(labels)}}))
    assert [case.name for case in find_cases(folder, folder, pattern="s1/*").cases] == ["ct"]


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="Windows has no such permissions")
def test_a_folder_that_cannot_be_opened_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)  # the folders above are closed to others
    folder.parent.chmod(0o755)
    (folder / "s1").chmod(0)
    inputs, out, user = Path("in"), Path("out"), os.geteuid()
    try:
        if user == 0:
            os.seteuid(12345)  # to root nothing is closed
        found = find_cases(inputs, out, pattern="*/ct.nii.gz")
        assert [case.name for case in found.cases] == ["s2"]
        assert [(one.name, one.is_scan) for one in found.left_out] == [("s1", True)]
        with pytest.raises(NoInputError, match="s1 is left out: a folder that cannot be opened"):
            find_cases(inputs, out, pattern="*/mr.nii.gz")
        with pytest.raises(InputFolderError, match="s1 cannot be opened"):
            find_cases(inputs / "s1", out, pattern="*.nii.gz")
    finally:
        os.seteuid(user)
        (folder / "s1").chmod(0o755)


def test_two_scans_of_one_name_are_not_mixed_up(folder: Path) -> None:
    for file in ("p_q/ct.nii.gz", "p/q_ct.nii.gz"):
        (folder / file).parent.mkdir()
        (folder / file).touch()
    first, second = find_cases(folder, folder.parent / "out", pattern="p*/*.nii.gz").cases
    assert (first.name, first.refused) == ("p_q_ct", None)
    assert second.refused == "ct.nii.gz is left out: q_ct.nii.gz has the same case name"


def test_what_a_pattern_cannot_find_is_said(folder: Path) -> None:
    out = folder.parent / "out"
    with pytest.raises(NoInputError, match="in holds no scan whose path is like "):
        find_cases(folder, out, pattern="*/mr.nii.gz")
    with pytest.raises(NoInputError, match="ct.nii.gz is a file"):
        find_cases(folder / "s1" / "ct.nii.gz", out, pattern="*")
    with pytest.raises(NoInputError, match="the networks take 2"):
        find_cases(folder, out, channels=("CT", "PET"), pattern="*/ct.nii.gz")
    with pytest.raises(NoInputError, match="such as --scans '\\*/ct.nii.gz'"):
        find_cases(folder, out)


@pytest.mark.parametrize("pattern", ["/tmp/*", "../*/ct.nii.gz", " ", ".", "**.nii.gz"])
def test_what_is_no_pattern_of_a_path_below_is_refused(pattern: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(["in", "out", "--scans", pattern])
    assert stop.value.code == 2 and "argument --scans: " in capsys.readouterr().err
