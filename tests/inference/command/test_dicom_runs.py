"""DICOM through the command, from exports to labels in several formats, by one worker and by two."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread

from tests.conftest import ROOT
from tests.made.ct import SERIES, STUDY, ct_series

pytest.importorskip("highdicom")


def run(inputs: Path, out: Path, weights: Path, *flags: str) -> list[dict[str, Any]]:
    """The records of a run that succeeds."""
    command = [sys.executable, "-m", "inference", inputs, out, "--weights", weights, "--json", out.with_suffix(".json")]
    command += ["--device", "cpu", "--engine", "onnxruntime", "--threads", "2", *flags]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    records: list[dict[str, Any]] = json.loads(out.with_suffix(".json").read_text())
    return records


def export(folder: Path, blob: np.ndarray) -> Path:
    """A study of two series, the second of a tilted gantry, and a localizer."""

    def of(number: int, shift: float = 0.0) -> Any:
        def change(z: int, one: Any) -> None:
            one.SeriesInstanceUID, one.SeriesNumber = f"{SERIES}{number}", number
            one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"{SERIES}{number}.{z + 1}"
            one.SeriesDescription = "localizer" if number == 1 else "abdomen"
            one.ImagePositionPatient[1] += shift * z
            if number == 1:
                one.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

        return change

    ct_series(folder / "A" / "1", blob[:2], change=of(1))
    ct_series(folder / "A" / "2", blob, spacing=(3.0, 2.0, 2.0), change=of(2))
    ct_series(folder / "A" / "3", blob[::-1], spacing=(3.0, 2.0, 2.0), change=of(3, 0.8))
    return folder


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".gz", ".dcm")}


@pytest.mark.slow
def test_a_study_of_two_series_in_a_tree_and_in_an_archive_by_one_worker_and_by_two(
    blob: np.ndarray, tmp_path: Path, tiny_weights: Path
) -> None:
    tree = export(tmp_path / "in", blob)
    records = run(tree, tmp_path / "one", tiny_weights, "--format", "nifti,seg", "--workers", "1")
    assert [record["case"] for record in records] == ["2_abdomen", "3_abdomen"]
    one = outputs(tmp_path / "one")
    assert sorted(one) == [f"{number}_abdomen.{kind}" for number in (2, 3) for kind in ("nii.gz", "seg.dcm")]
    for number, record in zip((2, 3), records, strict=True):
        assert record["series"] == f"{SERIES}{number}"
        labels = np.asarray(nib.load(tmp_path / "one" / f"{number}_abdomen.nii.gz").dataobj)
        assert labels.shape == blob.shape[::-1] and labels.any()
        seg = dcmread(tmp_path / "one" / f"{number}_abdomen.seg.dcm")
        assert seg.StudyInstanceUID == STUDY and seg.pixel_array.sum() == np.count_nonzero(labels)
        slices = {
            image.ReferencedSOPInstanceUID for image in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
        }
        assert slices == {f"{SERIES}{number}.{z + 1}" for z in range(len(blob))}
        assert any("gantry tilt" in warning for warning in record["warnings"]) == (number == 3)
    run(tree, tmp_path / "two", tiny_weights, "--format", "nifti,seg", "--workers", "2", "--max-memory", "8G")
    assert outputs(tmp_path / "two") == one
    archive = Path(shutil.make_archive(str(tmp_path / "export"), "zip", tree))
    run(archive, tmp_path / "zipped", tiny_weights, "--format", "seg,nifti", "--workers", "2")
    assert outputs(tmp_path / "zipped") == one
    kept = run(archive, tmp_path / "zipped", tiny_weights, "--format", "seg,nifti", "--resume")
    assert [record["status"] for record in kept] == ["kept", "kept"]
    kept = run(archive, tmp_path / "zipped", tiny_weights, "--format", "seg,nifti", "--resume", "--hash-names")
    assert [(record["status"], record.get("series")) for record in kept] == [("kept", None)] * 2
