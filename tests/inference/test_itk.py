"""Reading NRRD, MetaImage and DICOM through SimpleITK, against the same scans as NIfTI."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference import machine, nifti
from inference.errors import MemoryBudgetError, ScanError
from inference.reading import read_scan

sitk = pytest.importorskip("SimpleITK")

SPACING = (3.0, 4.0, 5.0)  # mm, ITK's order (x, y, z)


@pytest.fixture
def image() -> Any:
    voxels = np.random.default_rng(3).integers(-900, 200, (10, 12, 14)).astype(np.int16)
    made = sitk.GetImageFromArray(voxels)
    made.SetSpacing(SPACING)
    made.SetOrigin((-20.0, 30.0, 7.0))
    made.SetDirection((-1, 0, 0, 0, 1, 0, 0, 0, -1))
    return made


@pytest.mark.parametrize("name", ["x.nrrd", "x.mha", "x.mhd"])
def test_other_formats_equal_nifti(name: str, image: Any, tmp_path: Path) -> None:
    sitk.WriteImage(image, str(tmp_path / name), True)
    sitk.WriteImage(image, str(tmp_path / "x.nii.gz"))
    scan, header = read_scan(tmp_path / name)
    expected, expected_header = read_scan(tmp_path / "x.nii.gz")
    assert np.array_equal(scan.voxels, expected.voxels)
    assert scan.spacing == pytest.approx(expected.spacing)
    assert scan.orientation == expected.orientation == "RPI"
    assert np.allclose(header.affine, expected_header.affine, atol=1e-5)
    assert scan.warnings == ()
    nifti.write_labels(tmp_path / "labels.nii.gz", (scan.voxels > 0).astype(np.uint8), header)
    written = sitk.ReadImage(str(tmp_path / "labels.nii.gz"))
    assert written.GetSize() == image.GetSize()
    assert np.allclose(written.GetOrigin(), image.GetOrigin(), atol=1e-4)
    assert np.allclose(written.GetDirection(), image.GetDirection(), atol=1e-6)


def test_what_is_no_ct_of_three_dimensions(image: Any, tmp_path: Path, monkeypatch: Any) -> None:
    sitk.WriteImage(sitk.Compose(image, image), str(tmp_path / "vector.mha"))
    sitk.WriteImage(image[:, :, 3], str(tmp_path / "flat.mha"))
    for name, cause in (("vector.mha", "2 values a voxel"), ("flat.mha", "is 2-D")):
        with pytest.raises(ScanError, match=f"^{name} .*{cause}"):
            read_scan(tmp_path / name)
    sitk.WriteImage(image, str(tmp_path / "large.mha"))
    monkeypatch.setattr(machine, "memory_budget", lambda: 1000)
    with pytest.raises(MemoryBudgetError, match="too large"):
        read_scan(tmp_path / "large.mha")


def test_damaged_files_are_named_in_one_sentence(image: Any, tmp_path: Path) -> None:
    sitk.WriteImage(image, str(tmp_path / "x.nrrd"), True)
    whole = (tmp_path / "x.nrrd").read_bytes()
    for data in (whole[: len(whole) // 2], b"NRRD0004\n", b""):
        (tmp_path / "x.nrrd").write_bytes(data)
        with pytest.raises(ScanError, match=r"^x\.nrrd cannot be read: .") as caught:
            read_scan(tmp_path / "x.nrrd")
        assert "\n" not in str(caught.value)


def test_a_dicom_series_equals_the_nifti_of_it(shared_data: Path) -> None:
    scan, header = read_scan(shared_data / "dicom" / "ts_slab")
    expected, expected_header = read_scan(shared_data / "labelled" / "ts_slab_0000.nii.gz")
    turned = nifti_order(scan.voxels, header.affine, expected_header.affine)
    assert np.array_equal(turned, expected.voxels)
    assert scan.spacing == pytest.approx(expected.spacing, rel=1e-4)


def nifti_order(voxels: np.ndarray, affine: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Flip the axes (z, y, x) that run the other way in `like`."""
    same = np.sign(np.diag(affine)[:3]) == np.sign(np.diag(like)[:3])
    x, y, z = (slice(None, None, 1 if keep else -1) for keep in same)
    return voxels[z, y, x]


def test_a_series_with_a_slice_missing_is_refused(shared_data: Path, tmp_path: Path) -> None:
    files = sorted((shared_data / "dicom" / "ts_slab").rglob("*.dcm"))
    folder = tmp_path / "series"
    folder.mkdir()
    for file in files:
        shutil.copy(file, folder)
    reader = sitk.ImageSeriesReader()
    ordered = reader.GetGDCMSeriesFileNames(str(folder))
    Path(ordered[len(ordered) // 2]).unlink()
    with pytest.raises(ScanError, match=r"^series has slices .* missing"):
        read_scan(folder)


def test_a_folder_of_two_series_or_none_is_refused(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.dcm").write_bytes(b"no DICOM")
    with pytest.raises(ScanError, match="holds 0 DICOM series"):
        read_scan(tmp_path / "none")
