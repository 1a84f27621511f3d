"""One case from files to files, as Python calls it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from inference import Predictor, segment_file


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
    record = segment_file(predictor, tmp_path / "none_0000.nii.gz", out)
    assert record.status == "failed" and record.error and "none_0000.nii.gz" in record.error


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
