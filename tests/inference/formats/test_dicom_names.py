"""What scans of DICOM are called, that nothing of the patient is in it, and that slices far apart are resampled only if
that is asked for."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.datadict import DicomDictionary, keyword_for_tag

from inference.errors import NoInputError, ScanError
from inference.formats.cases import find_cases
from inference.formats.reading import peek, read_scan, write_empty
from inference.formats.written import Description
from tests.conftest import command
from tests.inference.dicom import series, slice_bytes
from tests.inference.formats.test_dicom_folders import HU, LATER, at, body, uid, write

PERSON: dict[str, Any] = {"PatientName": "Doe^Jane", "PatientID": "P4711", "AccessionNumber": "A99"}


def names(folder: Path, **options: Any) -> list[str]:
    return [case.name for case in find_cases(folder, folder.parent / "out", **options).cases]


@pytest.mark.parametrize(
    ("description", "name"),
    [
        ("Abdomen  portal-venous 1.0 B30f", "2_abdomen_portal_venous_1.0_b30f"),
        ("Doe Jane Abdomen", "2_abdomen"),
        ("Abdomen DOE_JANE A99 P4711", "2_abdomen"),
        ("JaneDoe liver", "2_liver"),
        ("20240131 12345678 liver", "2_liver"),
        ("../../etc/passwd", "2_etc_passwd"),
        ("Lebervenös", "2_lebervenos"),
        ("", "2"),
        ("x" * 80, "2_" + "x" * 58),
    ],
)
def test_series_are_called_by_number_and_description_without_the_patient(
    description: str, name: str, tmp_path: Path
) -> None:
    tags = PERSON | {"SeriesDescription": description.encode("latin-1")}
    (tmp_path / "in").mkdir()
    write(folder="a", **(uid(2) | tags))(tmp_path / "in")
    write(hu=LATER, folder="b", **(uid(3) | PERSON | {"SeriesNumber": None}))(tmp_path / "in")
    assert names(tmp_path / "in") == [name, "series"]


def test_a_series_that_a_link_shows_as_well_is_one_case_and_nothing_is_left_out(tmp_path: Path) -> None:
    write(folder="m", **uid(2))(tmp_path)
    for link in ("a", "z"):
        (tmp_path / link).symlink_to("m")
    found = find_cases(tmp_path, tmp_path.parent / "out")
    assert (len(found.cases), found.left_out, found.warnings) == (1, [], [])
    volume = found.cases[0].volume
    assert volume and volume.folder == tmp_path / "m" and volume.series == uid(2)["SeriesInstanceUID"]


def test_a_tag_may_name_scans(tmp_path: Path) -> None:
    write(folder="a", **(uid(2) | PERSON))(tmp_path)
    write(hu=LATER, folder="b", **(uid(3) | PERSON | {"AccessionNumber": "Ä/1".encode("latin-1")}))(tmp_path)
    assert names(tmp_path, name_by="AccessionNumber") == ["A99", "A_1"]
    assert names(tmp_path, name_by="0008,0050") == ["A99", "A_1"]
    assert names(tmp_path, name_by="SeriesInstanceUID") == ["1.2.3.2", "1.2.3.3"]
    assert len(set(names(tmp_path, name_by="PatientID"))) == 2  # one patient: told apart
    assert names(tmp_path, name_by="StudyID") == ["2", "3"]  # absent
    with pytest.raises(NoInputError, match="--name-by Nonsense is not a DICOM tag"):
        names(tmp_path, name_by="Nonsense")


def test_a_number_that_makes_another_series_name_is_told_apart(tmp_path: Path) -> None:
    first, two = tmp_path / "in", uid(3) | {"SeriesDescription": "abd"}
    first.mkdir()
    for number, folder in ((1, "a"), (2, "b")):  # two volumes of 3_abd
        write(hu=HU + number, folder=folder, AcquisitionNumber=number, **two)(first)
    write(hu=LATER, folder="c", **(uid(4) | {"SeriesNumber": 3, "SeriesDescription": "abd 1"}))(first)
    found = sorted(names(first), key=len)
    assert found[:2] == ["3_abd_1", "3_abd_2"] and re.fullmatch("3_abd_1_[0-9a-f]{8}", found[2])


def test_what_the_other_tags_say_appears_nowhere(tmp_path: Path, tiny_weights: Path) -> None:
    """A canary in every tag that may hold text, private ones too."""
    hu = body(12).repeat(6, axis=1).repeat(6, axis=2)
    inputs = tmp_path / "in"
    for number, folder in ((2, "a"), (3, "b")):
        write(hu=hu, folder=folder, PixelSpacing="1\\1", **uid(number))(inputs)
    (inputs / "mr").mkdir()
    (inputs / "mr" / "1").write_bytes(slice_bytes(HU[0], Modality="MR", **uid(4)))
    for file in inputs.rglob("*"):
        if file.is_file():
            spoil(file)
    broken = sorted((inputs / "b").iterdir())[3]
    broken.write_bytes(broken.read_bytes()[:-50])
    asked = command(inputs, tmp_path / "out", "--weights", tiny_weights, "--json")
    flags = ["--device", "cpu", "--engine", "onnxruntime"]
    done = subprocess.run([*asked, tmp_path / "r.json", *flags], capture_output=True, text=True, check=False)
    assert done.returncode == 8, done.stderr
    assert [one["status"] for one in json.loads((tmp_path / "r.json").read_text())] == ["done", "failed"]
    files = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    for text in (done.stdout, done.stderr, *map(str, files), (tmp_path / "r.json").read_text()):
        assert "canary" not in text.lower()
    for file in files:
        content = file.read_bytes() if file.suffix != ".gz" else nib.load(file).header.binaryblock
        assert b"canary" not in content.lower()


def spoil(file: Path) -> None:
    dataset = dcmread(file)
    kinds = {"LO", "SH", "PN", "LT", "ST", "UT", "UC", "AE"}
    for number, (kind, count, *_) in DicomDictionary.items():
        known = number >> 16 in (0x0008, 0x0010, 0x0018, 0x0020, 0x0032, 0x0040) and count == "1"
        if kind in kinds and known and keyword_for_tag(number) != "SpecificCharacterSet":
            dataset.add_new(number, kind, "Canary")
    block = dataset.private_block(0x0011, "Canary", create=True)
    block.add_new(0x01, "LO", "Canary")
    item = Dataset()
    item.PatientName = "Canary"
    block.add_new(0x02, "SQ", [item])
    dataset.save_as(file)


def test_one_file_of_a_series_is_no_scan(tmp_path: Path) -> None:
    series(tmp_path / "s", HU, at)
    with pytest.raises(NoInputError, match="fewer than 8 slices: no volume; a series of several files is given by its"):
        find_cases(tmp_path / "s" / "004.dcm", tmp_path / "out")


def test_slices_unevenly_apart_are_resampled_if_that_is_asked_for(tmp_path: Path) -> None:
    """HU that rise along z evenly are the same on any grid."""
    places = np.array([0, 3, 6, 9, 12, 15, 18, 24, 27, 30.0, 31.5, 33])
    hu = np.where(body(12) > 0, (10 * places[:, None, None]), -1000).astype(np.int16)
    folder = tmp_path / "s"
    series(folder, hu, lambda z: at(float(places[z])))
    with pytest.raises(ScanError, match="6 mm between 006.dcm and 007.dcm .*--uneven resample"):
        read_scan(folder)
    scan = read_scan(folder, resample=True)
    assert scan.grid.shape == (12, 12, 14) and scan.resampled
    assert np.allclose(scan.grid.affine[:3, 2:], [[0, 20], [0, 30], [3, 0]])
    assert np.array_equal(scan.voxels[:, 6, 7], np.arange(12) * 30)
    said = "(0020,0032): resampled to 12 planes, which lie evenly"
    assert [warning for warning in scan.warnings if warning.endswith(said)]
    assert np.allclose(scan.origin.places, places / 3)
    assert np.array_equal(peek(folder, resample=True).grid.affine, scan.grid.affine)
    write_empty(folder, [tmp_path / "e.nii.gz"], Description({}), resample=True)
    assert nib.load(tmp_path / "e.nii.gz").shape == (14, 12, 12)
    even = tmp_path / "even"
    series(even, HU)
    assert np.array_equal(read_scan(even, resample=True).voxels, HU) and not read_scan(even, resample=True).resampled
