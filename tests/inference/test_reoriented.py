"""A scan stored in any of the 48 ways, in any type and byte order, gives the labels of the scan itself."""

from __future__ import annotations

import gzip
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Header
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from inference.formats.nifti import file as nifti
from inference.predictor import Predictor

SPACING = (3.0, 2.0, 2.0)  # mm (z, y, x)
ORIENTATIONS = [
    "".join(letters)
    for axes in permutations(("LR", "AP", "IS"))
    for letters in product(*axes)
]  # fmt: skip
STORED_AS = [np.int16, np.int32, np.float32, np.float64, np.uint16, np.int64]
ALIKE = 0.9999  # of the voxels: rounding may fall otherwise where the sums run in another order


@pytest.fixture(scope="module")
def predictor(tiny_weights: Path) -> Predictor:
    return Predictor(tiny_weights, device="cpu", precision="f32", threads=1)


@pytest.fixture(scope="module")
def canonical(blob: np.ndarray, predictor: Predictor) -> np.ndarray:
    labels = predictor(blob, SPACING, "LPS")
    assert len(np.unique(labels)) > 3
    return labels


@pytest.mark.parametrize("order", ["<", pytest.param(">", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("number", "orientation"), list(enumerate(ORIENTATIONS)))
def test_labels_follow_the_scan(
    number: int,
    orientation: str,
    order: str,
    blob: np.ndarray,
    canonical: np.ndarray,
    predictor: Predictor,
    tmp_path: Path,
) -> None:
    assert len(set(ORIENTATIONS)) == 48
    lps = np.diag([-SPACING[2], -SPACING[1], SPACING[0], 1.0])
    turn = ornt_transform(io_orientation(lps), axcodes2ornt(tuple(orientation)))
    turned = nib.orientations.apply_orientation(blob.transpose(2, 1, 0), turn)
    affine = lps @ inv_ornt_aff(turn, blob.shape[::-1])
    dtype = np.dtype(STORED_AS[(number + (order == ">")) % len(STORED_AS)]).newbyteorder(order)  # type: ignore[arg-type]
    header = Nifti1Header(endianness=order)
    header.set_data_shape(turned.shape)
    header.set_data_dtype(dtype)
    header.set_sform(affine, 1)
    header.set_qform(affine, 1)
    header.set_xyzt_units("mm", "sec")
    header["magic"], header["vox_offset"], header["scl_slope"] = b"n+1", 352, 1
    if dtype.kind == "u":
        header["scl_inter"] = -2048
        turned = turned.astype(np.int32) + 2048
    path = tmp_path / "x_0000.nii.gz"
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4) + turned.astype(dtype).tobytes("F"), 1))

    scan = nifti.read(path)
    nifti.write_labels(tmp_path / "x.nii.gz", predictor.segment(scan)[0], scan)
    written = nib.load(tmp_path / "x.nii.gz")
    assert nib.aff2axcodes(written.affine) == tuple(orientation)
    back = nib.orientations.apply_orientation(
        np.asarray(written.dataobj), ornt_transform(io_orientation(written.affine), io_orientation(lps))
    )
    assert np.mean(back.transpose(2, 1, 0) == canonical) >= ALIKE
    for field in ("dim", "pixdim", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "xyzt_units"):
        assert written.header[field].tobytes() == header[field].tobytes(), field
