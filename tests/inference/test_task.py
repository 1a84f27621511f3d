"""One case from files to files, as Python calls it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from inference import Predictor, peek, read_scan, segment_file
from inference.errors import ScanError
from inference.formats.cases import find_cases
from inference.formats.sources import case_digest
from tests.inference.dicom import enhanced_bytes
from tests.made.ct import SERIES, ct_series


def test_a_file_is_segmented_and_the_record_says_how_it_went(
    tmp_path: Path, tiny_weights: Path, blob: np.ndarray, save_scan: Callable[..., Path]
) -> None:
    save_scan(tmp_path / "x_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    predictor = Predictor(tiny_weights, device="cpu", threads=1)
    out = tmp_path / "made" / "here"
    record = segment_file(predictor, str(tmp_path / "x_0000.nii.gz"), str(out))
    assert (record.status, record.error) == ("done", None)
    assert [path.name for path in out.iterdir()] == ["x.nii.gz"]
    assert nib.load(out / "x.nii.gz").shape == nib.load(tmp_path / "x_0000.nii.gz").shape

    (tmp_path / "x_0007.nii.gz").touch()  # then numbers are those of scans, as for the command
    assert segment_file(predictor, tmp_path / "x_0000.nii.gz", out).status == "done"
    assert (out / "x_0000.nii.gz").is_file()
    (tmp_path / "x_0007.nii.gz").unlink()

    (tmp_path / "file").touch()
    record = segment_file(predictor, tmp_path / "x_0000.nii.gz", tmp_path / "file")
    assert record.status == "failed" and record.error and "x.nii.gz cannot be written" in record.error
    for name, why in (("none_0000.nii.gz", "none_0000.nii.gz cannot be read"), ("no\0name", "embedded null byte")):
        record = segment_file(predictor, tmp_path / name, out)
        assert record.status == "failed" and record.error and why in record.error


def test_what_is_no_path_is_refused(tmp_path: Path, tiny_weights: Path) -> None:
    predictor = Predictor(tiny_weights, device="cpu", threads=1)
    for wrong in (nib.Nifti1Image(np.zeros((3, 3, 3)), np.eye(4)), np.zeros((3, 3, 3)), None, [], [None]):
        with pytest.raises(ValueError, match="^expected the path of a scan"):
            segment_file(predictor, wrong, tmp_path)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="^expected the path of a scan"):
            read_scan(wrong)  # type: ignore[arg-type]


def test_formats_are_named_as_those_of_the_command(
    tmp_path: Path, tiny_weights: Path, blob: np.ndarray, save_scan: Callable[..., Path]
) -> None:
    scan, out = save_scan(tmp_path / "x_0000.nii.gz", blob, (3.0, 2.0, 2.0)), tmp_path / "out"
    predictor = Predictor(tiny_weights, device="cpu", threads=1)
    assert segment_file(predictor, scan, out, ["nifti", "mha"]).outputs.keys() == {"nii.gz", "mha"}
    assert segment_file(predictor, scan, out, "nii.gz").outputs.keys() == {"nii.gz"}
    for wrong in ("foo", ["nii.gz", "foo"], [], ["sr"]):
        with pytest.raises(ValueError, match="is not one of nifti|no format is named|name seg as well"):
            segment_file(predictor, scan, out, wrong)


def test_a_zip_is_taken_as_the_command_takes_it(tmp_path: Path, tiny_weights: Path, blob: np.ndarray) -> None:
    ct_series(tmp_path / "e" / "s", blob, spacing=(3.0, 2.0, 2.0))
    archive = Path(shutil.make_archive(str(tmp_path / "x"), "zip", tmp_path / "e"))
    assert np.array_equal(read_scan(archive).voxels, blob) and peek(archive).grid.shape == blob.shape
    out, predictor = tmp_path / "out", Predictor(tiny_weights, device="cpu", threads=1)
    record = segment_file(predictor, archive, out, ["nifti", "seg.nrrd"])
    assert (record.status, record.error) == ("done", None)
    assert {path.name for path in out.iterdir()} == {"x.nii.gz", "x.seg.nrrd"}
    (case,) = find_cases(archive, out).cases
    assert record.input_sha256 == case_digest(case.sources)

    def second(z: int, one: Any) -> None:
        one.SeriesInstanceUID, one.SeriesNumber = f"{SERIES}9", 9

    ct_series(tmp_path / "e" / "t", blob, change=second)
    archive = Path(shutil.make_archive(str(tmp_path / "two"), "zip", tmp_path / "e"))
    sentence = "two.zip holds 2 volumes, where one is wanted: 3, 9"
    with pytest.raises(ScanError, match=f"^{sentence}$"):
        read_scan(archive)
    assert segment_file(predictor, archive, out).error == sentence


def test_so_is_a_file_of_several_frames(tmp_path: Path) -> None:
    hu = np.random.default_rng(0).integers(-900, 200, (9, 12, 16)).astype(np.int16)
    (tmp_path / "e.dcm").write_bytes(enhanced_bytes(hu))
    assert np.array_equal(read_scan(tmp_path / "e.dcm", abdominal=False).voxels, hu)


def test_a_zip_or_a_slice_that_is_no_volume_is_refused(tmp_path: Path, blob: np.ndarray) -> None:
    first = ct_series(tmp_path / "s", blob)[0]
    sentence = r"^001.dcm holds no volume \(series 3: fewer than 8 slices: no volume\); a series of several files"
    with pytest.raises(ScanError, match=sentence):
        read_scan(first)
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "x.txt").write_text("no scan")
    archive = Path(shutil.make_archive(str(tmp_path / "x"), "zip", tmp_path / "t"))
    with pytest.raises(ScanError, match=r"^x.zip is a ZIP: no DICOM can be read inside"):
        peek(archive)
