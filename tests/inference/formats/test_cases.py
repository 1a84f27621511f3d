"""Which files become cases, by the rows 85 to 91 of odd names."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from inference.errors import InputFolderError, NoInputError, ScanError
from inference.formats.cases import find_cases
from inference.formats.opening import open_file
from inference.names import DICOM_FORMATS

OUT = Path("out")


def names(folder: Path, *files: str | bytes) -> tuple[list[str], list[str]]:
    for file in files:
        (Path(os.fsdecode(os.fsencode(folder) + b"/" + os.fsencode(file)))).touch()
    found = find_cases(folder, OUT)
    return [case.name for case in found.cases], found.warnings


def test_the_channel_suffix_falls_off(tmp_path: Path) -> None:
    assert names(tmp_path, "b_0000.nii.gz", "a_0000.nii") == (["a", "b"], [])
    cases = find_cases(tmp_path, OUT).cases
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


def test_segmentations_are_no_scans_in_any_format(tmp_path: Path) -> None:
    found, warnings = names(tmp_path, "x_0000.nii.gz", "x.seg.nrrd", *(f"x.{kind}" for kind in DICOM_FORMATS))
    assert (found, warnings) == (["x"], [])


def left_out(folder: Path, outputs: Path = OUT) -> dict[str, bool]:
    """Name of what is left out -> whether it may be a scan."""
    return {one.name: one.is_scan for one in find_cases(folder, outputs).left_out}


def test_other_channels_are_left_out_and_said(tmp_path: Path) -> None:
    found, warnings = names(tmp_path, "x_0000.nii.gz", "x_0001.nii.gz")
    assert found == ["x"]
    assert len(warnings) == 1 and "x_0001.nii.gz" in warnings[0]
    assert left_out(tmp_path) == {"x_0001.nii.gz": True}


@pytest.mark.parametrize(
    ("files", "cases"),
    [
        (["amos_0000", "amos_0004"], ["amos_0000", "amos_0004"]),  # numbers with a gap
        (["amos_0004"], ["amos_0004"]),
        (["amos_0001", "amos_0002"], ["amos_0001", "amos_0002"]),  # no 0000 beside
        ([f"s_{n:04d}" for n in range(6)], [f"s_{n:04d}" for n in range(6)]),  # no CT has six channels
        (["scan_2023", "scan_2024"], ["scan_2023", "scan_2024"]),
        (["amos_0000", "amos_0007", "b_0000"], ["amos_0000", "amos_0007", "b"]),
        (["amos_0000", "amos_0007", "amos"], ["amos", "amos_0000", "amos_0007"]),
        (["F_0000_0000", "F_0001_0000"], ["F_0000", "F_0001"]),
        (["x_12345", "x_١٢٣٤", "x0001"], ["x0001", "x_12345", "x_١٢٣٤"]),
        (["_0000"], ["_0000"]),
    ],
)
def test_data_sets_that_number_their_scans_lose_none(tmp_path: Path, files: list[str], cases: list[str]) -> None:
    assert names(tmp_path, *(f"{file}.nii.gz" for file in files))[0] == cases
    assert left_out(tmp_path) == {}


def test_numbered_scans_with_references_beside_them(tmp_path: Path) -> None:
    stems = [f"F_{number:04d}" for number in range(3)]
    found, warnings = names(tmp_path, *(f"{one}{end}.nii.gz" for one in stems for end in ("", "_0000")))
    assert found == stems
    assert left_out(tmp_path) == {f"{one}.nii.gz": False for one in stems}
    assert len(warnings) == 1


def test_a_file_that_is_given_alone_is_a_case_whatever_its_number(tmp_path: Path) -> None:
    names(tmp_path, "amos_0000.nii.gz", "amos_0001.nii.gz")
    assert [case.name for case in find_cases(tmp_path / "amos_0001.nii.gz", OUT).cases] == ["amos_0001"]


def test_a_file_that_is_given_alone_is_called_as_in_its_folder(tmp_path: Path) -> None:
    first, second = (tmp_path / f"amos_{number}.nii.gz" for number in ("0000", "0004"))
    for beside, called in ((first, "amos"), (second, "amos_0000")):
        beside.touch()
        assert [case.name for case in find_cases(first, OUT).cases] == [called] == names(tmp_path)[0][:1]
    assert find_cases(first, OUT).warnings == find_cases(tmp_path, OUT, ["amos_0000"]).warnings
    assert find_cases(first, OUT).warnings[0].startswith("amos_0000.nii.gz is a numbered scan, not a channel: ")


def test_what_may_be_a_scan_is_named_and_the_rest_is_not(tmp_path: Path) -> None:
    scans = ["pair.hdr", "a.nii.bz2", "a.mgz", "a.nii.zst", "a.zip", "lonely.img"]
    plain = ["notes.txt", "t.csv", "x.json", "README", "Thumbs.db", ".DS_Store", "pair.img", "x.nii.gz.before"]
    names(tmp_path, "x_0000.nii.gz", *scans, *plain)
    (tmp_path / "README").write_text("Scans of 2024: größer als zuvor\n")
    (tmp_path / "noending").write_bytes(b"\x1f\x8b\x08\0rest")
    (tmp_path / "x_0000.nii.gz.1").write_bytes(b"\x1f\x8b\x08\0rest")
    for file in ("study/p1/series/1.dcm", "texts/README", "X_0000.nii.gz/x.txt", "closed/.hidden/x.nii.gz"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    os.mkfifo(tmp_path / "fifo")
    expected = [*scans, "noending", "x_0000.nii.gz.1", "X_0000.nii.gz"]
    assert left_out(tmp_path) == dict.fromkeys(expected, True)
    said = "\n".join(find_cases(tmp_path, OUT).warnings)
    assert all(name in said for name in expected)
    assert find_cases(tmp_path, OUT, ["x"]).left_out == []  # asked for by name: nothing is missing


def test_an_archive_without_dicom_that_can_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 and no more")
    why = "no DICOM can be read inside (damaged, encrypted, or other files)"
    (case,) = find_cases(tmp_path / "a.zip", OUT).cases
    assert case.refused == f"a.zip is a ZIP: {why}"
    assert f"a.zip is left out: {why}" in names(tmp_path, "x_0000.nii.gz")[1]


def test_many_of_a_kind_are_one_line(tmp_path: Path) -> None:
    _, warnings = names(tmp_path, "x_0000.nii.gz", *(f"{number:03d}.mgz" for number in range(200)))
    assert len(warnings) == 1 and "and 195 more" in warnings[0]
    assert len(left_out(tmp_path)) == 200


def test_a_link_to_a_folder_is_named_only_where_it_shows_what_is_not_named_already(tmp_path: Path) -> None:
    inputs = tmp_path / "in"
    for folder in (inputs / "sub", inputs / ".hidden", tmp_path / "elsewhere"):
        folder.mkdir(parents=True)
        (folder / "y.nii.gz").touch()
    (inputs / "x_0000.nii.gz").touch()
    for name, target in (("a", "sub"), ("b", "."), ("c", ".hidden"), ("d", "../elsewhere")):
        (inputs / name).symlink_to(target)
    assert left_out(inputs) == dict.fromkeys(("sub", "c", "d"), True)


def test_the_voxels_of_a_header_are_not_left_out_but_those_of_none_are(tmp_path: Path) -> None:
    (tmp_path / "x_0000.mhd").write_text("NDims = 3\nElementDataFile = voxels.raw\n")
    (tmp_path / "y_0000.nhdr").write_text("NRRD0004\nencoding: gzip\ndata file: y.raw.gz\n")
    for name in ("voxels.raw", "y.raw.gz", "z.raw"):
        (tmp_path / name).write_bytes(bytes(100))
    found = find_cases(tmp_path, OUT)
    assert [case.name for case in found.cases] == ["x", "y"]
    assert [one.name for one in found.left_out] == ["z.raw"]


def test_outputs_among_the_inputs_are_no_scans(tmp_path: Path) -> None:
    names(tmp_path, "x_0000.nii.gz")
    out = tmp_path / "out"
    out.mkdir()
    (out / "x.nii.gz").touch()
    assert left_out(tmp_path, out) == {}
    assert left_out(tmp_path, tmp_path / "out2") == {"out": True}
    record = {"case": "x", "status": "done", "program": "0.1.0", "output_sha256": hashlib.sha256(b"").hexdigest()}
    for folder in (out, tmp_path):
        (folder / "x.json").write_text(json.dumps(record))
        (folder / "x.nii.gz").touch()
    assert left_out(tmp_path, tmp_path / "out2") == {}
    (out / "x.nii.gz").write_bytes(b"other labels")
    assert left_out(tmp_path, tmp_path / "out2") == {"out": True}


def test_files_without_the_suffix_are_taken_and_said_if_others_have_it(tmp_path: Path) -> None:
    assert names(tmp_path, "scan.NII.GZ", "ct.nii") == (["ct", "scan"], [])
    found, warnings = names(tmp_path, "x_0000.nii.gz")
    assert found == ["ct", "scan", "x"]
    assert warnings == ["ct.nii and scan.NII.GZ have no _0000 in the name: taken as CTs all the same"]
    assert find_cases(tmp_path / "ct.nii", OUT).warnings == []


def test_two_files_of_one_name(tmp_path: Path) -> None:
    names(tmp_path, "x_0000.nii", "x_0000.nii.gz", "y_0000.nii")
    cases = find_cases(tmp_path, OUT).cases
    assert [case.scan.name for case in cases] == ["x_0000.nii", "x_0000.nii.gz", "y_0000.nii"]
    assert [case.refused for case in cases] == [
        None, "x_0000.nii.gz is left out: x_0000.nii has the same case name", None
    ]  # fmt: skip


PET_CT = ("CT", "PET")


def channels_in(inputs: Path, *names: str) -> list[tuple[str, list[str], str | None]]:
    found = find_cases(inputs, OUT, names, channels=PET_CT).cases
    return [(case.name, [file.name for file in case.files], case.refused) for case in found]


def test_a_case_of_several_channels_is_a_file_for_each(tmp_path: Path) -> None:
    names(tmp_path, "a_0000.nii.gz", "a_0001.mha", "b_0000.nii.gz", "c_0000.nii", "c_0000.nii.gz", "c_0001.nii",
          "a_0002.nii.gz", "a.nii.gz", "d.nii.gz")  # fmt: skip
    whole = ("a", ["a_0000.nii.gz", "a_0001.mha"], None)
    assert channels_in(tmp_path) == [
        whole,
        ("b", ["b_0000.nii.gz"], "channel 0001 (PET) of b is missing"),
        ("c", ["c_0000.nii", "c_0000.nii.gz", "c_0001.nii"], "c_0000.nii and c_0000.nii.gz are the same channel"),
    ]
    found = find_cases(tmp_path, OUT, channels=PET_CT)
    assert {one.name: one.is_scan for one in found.left_out} == {
        "a.nii.gz": False, "a_0002.nii.gz": True, "d.nii.gz": True
    }  # fmt: skip
    assert any("X_0000 to X_0001 of each case" in warning for warning in found.warnings)
    assert channels_in(tmp_path, "a") == [whole]
    for file in whole[1]:  # each stands for its case
        assert channels_in(tmp_path / file) == [whole]
    with pytest.raises(NoInputError, match="holds no case"):
        channels_in(tmp_path / "d.nii.gz")


def test_dicom_is_known_by_its_content_with_and_without_a_preamble(tmp_path: Path) -> None:
    names(tmp_path, "a_0000.nii.gz", "a_0001.nii.gz")
    for head in (bytes(128) + b"DICM", b"\x08\0\x05\0CS\x0a\0ISO_IR 100"):
        (tmp_path / "IM0001").write_bytes(head)
        found = find_cases(tmp_path, OUT, channels=PET_CT)
        assert [one.reason for one in found.left_out] == ["a DICOM series has one channel, the networks take 2"]


def test_cases_of_several_channels_whose_names_are_nearly_one(tmp_path: Path) -> None:
    bases = ["a", "a.nii", "a_0000"]
    names(tmp_path, *(f"{base}_{channel:04d}.nii.gz" for base in bases for channel in (0, 1)))
    assert [(name, files[0]) for name, files, _ in channels_in(tmp_path)] == [
        (base, f"{base}_0000.nii.gz") for base in bases
    ]


def test_outputs_in_the_place_of_inputs_are_recognised(tmp_path: Path) -> None:
    (tmp_path / "x.nii.gz").touch()
    record = {"case": "x", "status": "done", "program": "0.1.0", "output_sha256": hashlib.sha256(b"").hexdigest()}
    (tmp_path / "x.json").write_text(json.dumps(record))
    with pytest.raises(NoInputError, match="; x.nii.gz is a label map that this program wrote: are the two folders"):
        find_cases(tmp_path, OUT)
    names(tmp_path, "y_0000.nii.gz")  # with a case nothing needs to be said
    assert find_cases(tmp_path, OUT).warnings == []


def test_a_reference_beside_its_scan_does_not_take_its_place(tmp_path: Path) -> None:
    names(tmp_path, "x.nii.gz", "x_0000.nii.gz", "a.nii.gz")
    cases = find_cases(tmp_path, OUT).cases
    assert [case.scan.name for case in cases] == ["a.nii.gz", "x_0000.nii.gz"]
    assert not any(case.refused for case in cases)
    assert left_out(tmp_path) == {"x.nii.gz": False}


def test_one_file_as_input(tmp_path: Path) -> None:
    scan = tmp_path / "x_0000.nii.gz"
    scan.touch()
    cases = find_cases(scan, OUT).cases
    assert [(case.name, case.scan) for case in cases] == [("x", scan)]


def test_a_folder_of_dicom_files_is_one_case(tmp_path: Path) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    (folder / "1.dcm").touch()
    found = find_cases(folder, OUT)
    assert [(case.name, case.scan) for case in found.cases] == [("series", folder)]
    assert found.warnings == []


@pytest.mark.parametrize("spelling", [".", "..", "../series", "./", "/proc/self/cwd/../series"])
def test_a_series_is_named_after_its_folder_however_that_is_spelled(
    spelling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "series" / "below").mkdir(parents=True)
    (tmp_path / "series" / "IM0001").write_bytes(bytes(128) + b"DICM")
    monkeypatch.chdir(tmp_path / "series" / ("below" if spelling == ".." else ""))
    (case,) = find_cases(Path(spelling), OUT).cases
    assert (case.name, case.labels) == ("series", OUT / "series.nii.gz")
    assert case.scan.name and case.scan.samefile(tmp_path / "series")


def test_a_series_beside_other_scans_is_a_case_as_well(tmp_path: Path) -> None:
    found, warnings = names(tmp_path, "1.dcm", "2.DCM", "x_0000.nii.gz")
    assert sorted(found) == sorted(["x", tmp_path.name]) and left_out(tmp_path) == {}
    assert len(warnings) == 1 and "holds a DICOM series and other scans" in warnings[0]


def test_no_case_has_a_hidden_name(tmp_path: Path) -> None:
    (tmp_path / ".series").mkdir()
    (tmp_path / ".series" / "1.dcm").touch()
    assert [case.name for case in find_cases(tmp_path / ".series", OUT).cases] == ["series"]
    for file, name in ((".x_0000.nii.gz", "x"), ("._0000.nii.gz", "_0000")):
        (tmp_path / file).touch()
        assert [case.name for case in find_cases(tmp_path / file, OUT).cases] == [name]


def test_chosen_cases(tmp_path: Path) -> None:
    names(tmp_path, "a_0000.nii.gz", "b_0000.nii.gz", "c_0000.nii.gz")
    cases = find_cases(tmp_path, OUT, ["c", "a"]).cases
    assert [case.name for case in cases] == ["c", "a"]
    with pytest.raises(NoInputError, match="case d is not in"):
        find_cases(tmp_path, OUT, ["d"])


def test_nothing_to_do_and_nowhere_to_look(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="no case"):
        find_cases(tmp_path, OUT)
    (tmp_path / "x.mgz").touch()
    with pytest.raises(NoInputError, match="x.mgz is left out"):
        find_cases(tmp_path, OUT)
    with pytest.raises(InputFolderError, match="does not exist"):
        find_cases(tmp_path / "absent", OUT)
    with pytest.raises(InputFolderError, match="File name too long"):
        find_cases(tmp_path / ("n" * 300), OUT)


def test_broken_links_are_cases_that_will_fail_by_name(tmp_path: Path) -> None:
    (tmp_path / "gone_0000.nii.gz").symlink_to(tmp_path / "nowhere")
    assert names(tmp_path)[0] == ["gone"]


def test_ten_thousand_cases_are_found_in_less_than_two_seconds(tmp_path: Path) -> None:
    for number in range(10_000):
        (tmp_path / f"{number}_0000.nii.gz").touch()
    before = time.process_time()
    found = find_cases(tmp_path, OUT)
    assert len(found.cases) == 10_000 and time.process_time() - before < 2  # 8.6 s while it went with the square


def test_scans_in_a_folder_that_may_be_listed_but_not_entered_are_cases_that_will_fail_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for name in ("a_0000.nii.gz", "b.nii.gz", "noending"):
        (tmp_path / "in" / name).touch()
    monkeypatch.chdir(tmp_path)  # another user may not enter the folders above
    tmp_path.chmod(0o755)
    (tmp_path / "in").chmod(0o444)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(12345)  # to root nothing is closed
        found = find_cases(Path("in"), OUT)
        with pytest.raises(ScanError, match="cannot be read: Permission denied"), open_file(found.cases[0].scan):
            pass
    finally:
        os.seteuid(user)
        (tmp_path / "in").chmod(0o755)
    assert [case.name for case in found.cases] == ["a", "b"]
    assert [one.name for one in found.left_out] == ["noending", "sub"]


def test_a_folder_of_pictures_holds_no_case_and_is_told_what_would(tmp_path: Path) -> None:
    (tmp_path / "001.PNG").write_bytes(b"\x89PNG\r\n")
    (tmp_path / "readme.txt").write_text("slices")
    with pytest.raises(NoInputError, match=r"001.PNG is a picture, .*: export the scan as DICOM or NIfTI$"):
        find_cases(tmp_path, tmp_path / "out")
