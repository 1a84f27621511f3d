"""HU and places beside those of other readers, voxel by voxel: SimpleITK's series reader and dcm2niix."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from inference.formats.reading import read_scan
from inference.scan import Scan
from tests.inference.dicom import enhanced_bytes, packed_in, series
from tests.inference.formats.test_dicom_folders import TURNED, at, body

sitk = pytest.importorskip("SimpleITK")
LARGE = body(12).repeat(6, axis=1).repeat(6, axis=2)
FINE: dict[str, Any] = {"PixelSpacing": "0.9\\0.7"}
SYNTAXES = {
    "plain": None,
    "JPEG 2000": "1.2.840.10008.1.2.4.90",
    "RLE": "1.2.840.10008.1.2.5",
    "implicit": "1.2.840.10008.1.2",
}


def made(folder: Path, name: str) -> Path:
    """A series in one of the orientations or syntaxes."""
    if name in TURNED:
        row, column = np.array([float(one) for one in TURNED[name].split("\\")]).reshape(2, 3)
        step = 3 * np.cross(row, column)
        tags = FINE | {"ImageOrientationPatient": TURNED[name]}
        series(
            folder,
            LARGE,
            lambda z: tags | {"InstanceNumber": z + 1} | at(*(float(one) for one in (z * step)[[2, 0, 1]])),
        )
    else:
        files = series(folder, LARGE, lambda z: FINE | {"InstanceNumber": z + 1})
        for file in files if SYNTAXES[name] else []:
            file.write_bytes(packed_in(file.read_bytes(), str(SYNTAXES[name])))
    return folder


def as_ras(image: Any) -> tuple[np.ndarray, np.ndarray]:
    turned = nib.as_closest_canonical(image)
    return np.asarray(turned.dataobj), turned.affine


def ours(scan: Scan) -> tuple[np.ndarray, np.ndarray]:
    return as_ras(nib.Nifti1Image(scan.voxels.transpose(2, 1, 0), scan.grid.affine))


@pytest.mark.parametrize("name", [*TURNED, *SYNTAXES])
def test_as_simpleitk_reads_it(name: str, tmp_path: Path) -> None:
    same_as_simpleitk(made(tmp_path / "s", name))


@pytest.mark.parametrize("name", [*TURNED, *SYNTAXES, "enhanced"])
def test_as_dcm2niix_reads_it(name: str, tmp_path: Path) -> None:
    if name == "enhanced":
        (tmp_path / "s").mkdir()
        (tmp_path / "s" / "E.dcm").write_bytes(enhanced_bytes(LARGE, **FINE))
        same_as_dcm2niix(tmp_path / "s", tmp_path)
    else:
        same_as_dcm2niix(made(tmp_path / "s", name), tmp_path)


@pytest.mark.slow
def test_a_real_series_as_both_read_it(shared_data: Path, tmp_path: Path) -> None:
    same_as_simpleitk(shared_data / "dicom" / "ts_slab")
    same_as_dcm2niix(shared_data / "dicom" / "ts_slab", tmp_path)


def same_as_simpleitk(folder: Path) -> None:
    reader = sitk.ImageSeriesReader()
    files = {file: sitk.ReadImage(str(file)).GetOrigin() for file in folder.iterdir()}
    first = sitk.ReadImage(str(next(iter(files))))
    normal = np.reshape(first.GetDirection(), (3, 3))[:, 2]
    reader.SetFileNames([str(file) for file in sorted(files, key=lambda file: float(np.dot(normal, files[file])))])
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    scan = read_scan(folder)
    assert np.array_equal(scan.voxels, sitk.GetArrayFromImage(image))
    assert np.allclose(scan.grid.affine, np.diag([-1, -1, 1, 1]) @ affine, atol=1e-3)


def same_as_dcm2niix(folder: Path, to: Path) -> None:
    program = shutil.which("dcm2niix")
    if program is None:
        pytest.skip("dcm2niix is not installed")
    (to / "niix").mkdir()
    subprocess.run(
        [program, "-z", "n", "-b", "n", "-f", "x", "-o", to / "niix", folder], check=True, capture_output=True
    )
    (file,) = (to / "niix").glob("x*.nii")
    theirs, affine = as_ras(nib.load(file))
    mine, place = ours(read_scan(folder))
    assert np.array_equal(mine, theirs)
    assert np.allclose(place, affine, atol=1e-3)
