"""Which files become cases, by the rows 85 to 91 of odd names."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from inference.cases import find_cases
from inference.errors import InputFolderError, NoInputError

OUT = Path("out")


def names(folder: Path, *files: str | bytes) -> tuple[list[str], list[str]]:
    for file in files:
        (Path(os.fsdecode(os.fsencode(folder) + b"/" + os.fsencode(file)))).touch()
    cases, warnings = find_cases(folder, OUT)
    return [case.name for case in cases], warnings


def test_the_channel_suffix_falls_off(tmp_path: Path) -> None:
    assert names(tmp_path, "b_0000.nii.gz", "a_0000.nii") == (["a", "b"], [])
    cases, _ = find_cases(tmp_path, OUT)
    assert [case.labels for case in cases] == [OUT / "a.nii.gz", OUT / "b.nii.gz"]


def test_names_that_a_shell_would_trip_over(tmp_path: Path) -> None:
    odd = ["-rf", "two words", "new\nline", "quo'te\"", "$(date)", "é漢", "a.v1.2", "n" * 243]
    found, warnings = names(tmp_path, *(f"{name}_0000.nii.gz" for name in odd))
    assert sorted(found) == sorted(odd)
    assert warnings == []


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    (found,), _ = names(tmp_path, b"\xff\xfe_0000.nii.gz")
    assert os.fsencode(found) == b"\xff\xfe"


def test_hidden_and_other_files_are_no_cases(tmp_path: Path) -> None:
    found, warnings = names(
        tmp_path, ".hidden_0000.nii.gz", "._x_0000.nii.gz", ".x.12.part", "notes.txt", "x_0000.nii.gz", ".nii.gz"
    )
    assert (found, warnings) == (["x"], [])


def test_other_channels_are_left_out_and_said(tmp_path: Path) -> None:
    found, warnings = names(tmp_path, "x_0000.nii.gz", "x_0001.nii.gz")
    assert found == ["x"]
    assert len(warnings) == 1 and "x_0001.nii.gz" in warnings[0]


def test_a_file_without_the_suffix_is_taken_and_said(tmp_path: Path) -> None:
    found, warnings = names(tmp_path, "scan.NII.GZ")
    assert found == ["scan"]
    assert "no _0000" in warnings[0]


def test_two_files_of_one_name(tmp_path: Path) -> None:
    names(tmp_path, "x_0000.nii", "x_0000.nii.gz", "y_0000.nii")
    cases, _ = find_cases(tmp_path, OUT)
    assert [(case.scan.name, case.twin and case.twin.name) for case in cases] == [
        ("x_0000.nii", None), ("x_0000.nii.gz", "x_0000.nii"), ("y_0000.nii", None)
    ]  # fmt: skip


def test_a_reference_beside_its_scan_does_not_take_its_place(tmp_path: Path) -> None:
    names(tmp_path, "x.nii.gz", "x_0000.nii.gz", "a.nii.gz")
    cases, _ = find_cases(tmp_path, OUT)
    assert [(case.scan.name, case.twin and case.twin.name) for case in cases] == [
        ("a.nii.gz", None), ("x_0000.nii.gz", None), ("x.nii.gz", "x_0000.nii.gz")
    ]  # fmt: skip


def test_one_file_as_input(tmp_path: Path) -> None:
    scan = tmp_path / "x_0000.nii.gz"
    scan.touch()
    cases, _ = find_cases(scan, OUT)
    assert [(case.name, case.scan) for case in cases] == [("x", scan)]


def test_a_folder_of_dicom_files_is_one_case(tmp_path: Path) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    (folder / "1.dcm").touch()
    cases, warnings = find_cases(folder, OUT)
    assert [(case.name, case.scan) for case in cases] == [("series", folder)]
    assert warnings == []


def test_chosen_cases(tmp_path: Path) -> None:
    names(tmp_path, "a_0000.nii.gz", "b_0000.nii.gz", "c_0000.nii.gz")
    cases, _ = find_cases(tmp_path, OUT, ["c", "a"])
    assert [case.name for case in cases] == ["c", "a"]
    with pytest.raises(NoInputError, match="case d is not in"):
        find_cases(tmp_path, OUT, ["d"])


def test_nothing_to_do_and_nowhere_to_look(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="no case"):
        find_cases(tmp_path, OUT)
    with pytest.raises(InputFolderError, match="does not exist"):
        find_cases(tmp_path / "absent", OUT)


def test_broken_links_are_cases_that_will_fail_by_name(tmp_path: Path) -> None:
    (tmp_path / "gone_0000.nii.gz").symlink_to(tmp_path / "nowhere")
    assert names(tmp_path)[0] == ["gone"]


def test_ten_thousand_cases_are_found_in_less_than_two_seconds(tmp_path: Path) -> None:
    for number in range(10_000):
        (tmp_path / f"{number}_0000.nii.gz").touch()
    before = time.process_time()
    cases, _ = find_cases(tmp_path, OUT)
    assert len(cases) == 10_000 and time.process_time() - before < 2  # 8.6 s while it went with the square
