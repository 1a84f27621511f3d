"""Reading and writing NIfTI: every odd or broken file is made here, by editing the bytes of a good one.

The numbers in the names of the cases are those of the project's list of bad inputs.
"""

from __future__ import annotations

import gzip
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.eulerangles import euler2mat
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from inference import machine
from inference.errors import CaseError, MemoryBudgetError, ScanError
from inference.formats.nifti import file as nifti
from inference.formats.nifti.header import parse
from inference.formats.reading import read_scan, write_empty
from inference.formats.written import Description
from inference.scan import Grid, Scan, check_grid

SHAPE = (10, 12, 14)  # (z, y, x)
SPACING = (5.0, 4.0, 3.0)  # mm
RAS = np.array([[3.0, 0, 0, -20], [0, 4, 0, -30], [0, 0, 5, 7], [0, 0, 0, 1]])
TILT = np.deg2rad(25)


@pytest.fixture(scope="module")
def hu() -> np.ndarray:
    """(z, y, x) HU whole numbers: soft tissue in air, every plane different."""
    rng = np.random.default_rng(1)
    voxels = rng.integers(-40, 90, SHAPE).astype(np.int16)
    voxels[:, :3] = -1000
    voxels[0, 0, 0], voxels[-1, -1, -1] = -1024, 1500
    return voxels


def header(
    kind: type[Nifti1Header] = Nifti1Header, order: str = "<", dtype: Any = np.int16, **fields: Any
) -> Nifti1Header:
    """A good header of SHAPE at SPACING, both forms set; `fields` are written over it unchecked."""
    made = kind(endianness=order)
    made.set_data_shape(SHAPE[::-1])
    made.set_data_dtype(dtype)
    made.set_qform(RAS, 1)
    made.set_sform(RAS, 1)
    made.set_xyzt_units("mm", "sec")
    made["magic"] = b"n+1" if kind is Nifti1Header else b"n+2"
    made["vox_offset"] = int(made["sizeof_hdr"]) + 4
    made["scl_slope"], made["scl_inter"] = 1, 0
    for name, value in fields.items():
        made[name] = value
    return made


def file_bytes(made: Nifti1Header, voxels: np.ndarray, extender: bytes = bytes(4)) -> bytes:
    stored = voxels.astype(made.get_data_dtype())
    return bytes(made.binaryblock) + extender + stored.tobytes()


def read(folder: Path, data: bytes, name: str = "x_0000.nii", *, gz: bool = False) -> Scan:
    path = folder / (name + ".gz" if gz else name)
    path.write_bytes(gzip.compress(data, 1, mtime=0) if gz else data)
    return read_scan(path)


# --- what is odd


@pytest.mark.parametrize("signs", [(1, 1), (-1, -1)])  # of nibabel and of ITK
def test_geometry_that_nobody_gave_is_told(signs: tuple[int, int]) -> None:
    affine = np.diag([*signs, 1, 1]).astype(float)
    (told,) = check_grid(Grid((40, 50, 60), affine))
    assert told.startswith("voxels are 1 x 1 x 1 mm and begin at 0, 0, 0")
    affine[0, 3] = -120
    assert check_grid(Grid((40, 50, 60), affine)) == []


# --- what is right


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [Nifti1Header, Nifti2Header])
@pytest.mark.parametrize(
    "dtype", ["i1", "i2", "i4", "i8", "u2", "u4", "u8", "f4", "f8"], ids=lambda code: f"2-10 {code}"
)
def test_every_type_in_both_byte_orders(
    dtype: str, kind: type[Nifti1Header], order: str, hu: np.ndarray, tmp_path: Path
) -> None:
    voxels = np.clip(hu, -128, 127) if dtype == "i1" else hu
    if dtype.startswith("u"):
        voxels = np.maximum(hu, 0)
    scan = read(tmp_path, file_bytes(header(kind, order, np.dtype(dtype)), voxels), gz=True)
    assert np.array_equal(scan.voxels, voxels)
    assert scan.voxels.dtype in (np.int16, np.float32)
    assert scan.grid.spacing == SPACING
    assert scan.grid.orientation == "RAS"


def test_11_slope_and_intercept(hu: np.ndarray, tmp_path: Path) -> None:
    made = header(dtype=np.uint16, scl_slope=2, scl_inter=-1024)
    scan = read(tmp_path, file_bytes(made, (hu.astype(np.int32) + 1024) // 2))
    assert np.array_equal(scan.voxels, (hu.astype(np.int32) + 1024) // 2 * 2 - 1024)


def test_11_what_nibabel_scales_to_a_number_near_zero_is_not_zero(hu: np.ndarray, tmp_path: Path) -> None:
    """nnU-Net crops a scan to what is not 0."""
    made = header(dtype=np.int32, scl_slope=0.01, scl_inter=-1024)
    stored = np.rint((hu.astype(np.float64) + 1024) * 100)
    stored[:, :3] = 102400
    scan = read(tmp_path, file_bytes(made, stored))
    expected = np.asarray(nib.load(tmp_path / "x_0000.nii").get_fdata(), np.float32).T
    assert np.array_equal(scan.voxels, expected) and scan.voxels[0, 0, 0] != 0


def test_26_values_beyond_ct_are_kept_for_the_clip(hu: np.ndarray, tmp_path: Path) -> None:
    odd = hu.astype(np.float32)
    odd[0, 0, :4] = -2000, -3024, 1e30, 31743
    scan = read(tmp_path, file_bytes(header(dtype=np.float32), odd))
    assert np.array_equal(scan.voxels, odd)
    assert scan.warnings == ()


@pytest.mark.parametrize("code", ["RAS", "LPS", "LPI", "PIL", "SAR"], ids=lambda code: f"27-28 {code}")
def test_orientation_is_where_the_axes_point(code: str, hu: np.ndarray, tmp_path: Path) -> None:
    image = nib.Nifti1Image(hu.T, RAS)
    turn = nib.orientations.ornt_transform(nib.io_orientation(RAS), nib.orientations.axcodes2ornt(tuple(code)))
    turned = image.as_reoriented(turn)
    nib.save(turned, tmp_path / "x_0000.nii.gz")
    scan = read_scan(tmp_path / "x_0000.nii.gz")
    assert scan.grid.orientation == code
    assert np.array_equal(scan.voxels, np.asarray(turned.dataobj).T)
    assert scan.grid.spacing == pytest.approx(turned.header.get_zooms()[::-1])


def test_half_a_turn_is_half_a_turn_though_a_quaternion_is_rounded(hu: np.ndarray, tmp_path: Path) -> None:
    turn = np.array([[0, 3, 0, -20], [4, 0, 0, -30], [0, 0, -4, 50], [0, 0, 0, 1.0]])
    image = nib.Nifti1Image(hu.T, turn)
    image.set_qform(turn, 1)
    image.set_sform(None, 0)
    assert float(image.header["quatern_b"]) ** 2 + float(image.header["quatern_c"]) ** 2 < 1
    nib.save(image, tmp_path / "x_0000.nii")
    assert np.abs(read_scan(tmp_path / "x_0000.nii").grid.affine - turn).max() < 1e-6


def test_29_oblique(hu: np.ndarray, tmp_path: Path) -> None:
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(TILT), -np.sin(TILT)], [np.sin(TILT), np.cos(TILT)]]
    nib.save(nib.Nifti1Image(hu.T, turn @ RAS), tmp_path / "x_0000.nii")
    scan = read_scan(tmp_path / "x_0000.nii")
    assert scan.grid.spacing == pytest.approx(SPACING)
    assert (scan.grid.orientation, scan.warnings) == ("RAS", ())  # no unit either, as nibabel writes by itself


@pytest.mark.parametrize("form", ["sform", "qform"])
def test_29_the_spacing_is_that_of_the_header_to_the_last_digit(form: str, hu: np.ndarray, tmp_path: Path) -> None:
    """A voxel more or less is seen by a network where 11 slices of 7 mm come to slices of 2.8."""
    turn = np.diag([0.0, 0.0, 0.0, 1.0])
    turn[:3, :3] = euler2mat(0.2, 0.1, 0.3)
    image = nib.Nifti1Image(hu.T, turn @ np.diag([2.69, 3.1, 7.0, 1]))
    image.set_qform(image.affine, 1 if form == "qform" else 0)
    image.set_sform(image.affine, 1 if form == "sform" else 0)
    nib.save(image, tmp_path / "x_0000.nii")
    scan = read_scan(tmp_path / "x_0000.nii")
    assert scan.grid.spacing == tuple(map(float, image.header.get_zooms()[::-1]))
    assert np.linalg.norm(scan.grid.affine[:3, :3], axis=0).tolist() != list(scan.grid.spacing[::-1])


def shear(cosine: float) -> np.ndarray:
    sheared = RAS.copy()
    sheared[1, 2] = cosine * SPACING[0]
    sheared[2, 2] = np.sqrt(1 - cosine**2) * SPACING[0]
    return sheared


@pytest.mark.parametrize(("cosine", "said"), [(1e-5, False), (1e-4, False), (1e-3, False), (0.2, True)])
def test_31_32_sform_alone_with_shear(cosine: float, said: bool, hu: np.ndarray, tmp_path: Path) -> None:
    made = header(qform_code=0)
    made["srow_x"], made["srow_y"], made["srow_z"] = shear(cosine)[:3]
    scan = read(tmp_path, file_bytes(made, hu))
    assert scan.grid.spacing == pytest.approx(SPACING)
    assert [("right angles" in warning) for warning in scan.warnings] == [True] * said


@pytest.mark.parametrize(("unit", "scale"), [(1, 1e-3), (3, 1e3)])
def test_46_metres_and_microns(unit: int, scale: float, hu: np.ndarray, tmp_path: Path) -> None:
    made = header(xyzt_units=unit)
    for row in range(3):
        made[("srow_x", "srow_y", "srow_z")[row]] = RAS[row] * scale
    made["pixdim"] = np.asarray(made["pixdim"]) * [1, scale, scale, scale, 1, 1, 1, 1]
    scan = read(tmp_path, file_bytes(made, hu))
    assert scan.grid.spacing == pytest.approx(SPACING)
    assert scan.warnings == ()


@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
@pytest.mark.parametrize("gz", [False, True], ids=["plain", "gz"])
def test_48_no_unit_is_mm(gz: bool, order: str, hu: np.ndarray, tmp_path: Path) -> None:
    """So nibabel writes what it makes from an array: a warning would come with every scan of a data set."""
    scan = read(tmp_path, file_bytes(header(order=order, xyzt_units=0), hu), gz=gz)
    assert scan.grid.spacing == SPACING
    assert scan.warnings == ()


@pytest.mark.parametrize("dim", [[4, 14, 12, 10, 1, 1, 1, 1], [7, 14, 12, 10, 1, 1, 1, 1]])
def test_51_more_dimensions_of_size_1(dim: list[int], hu: np.ndarray, tmp_path: Path) -> None:
    scan = read(tmp_path, file_bytes(header(dim=dim), hu))
    assert np.array_equal(scan.voxels, hu)


@pytest.mark.parametrize(
    "extension",
    [
        struct.pack("<ii", 32, 6) + b"a comment".ljust(24, b"\0"),
        struct.pack("<ii", 2**31 - 1, 6) + bytes(24),
        struct.pack("<ii", -16, 6) + bytes(24),
        (struct.pack("<ii", 16, 6) + bytes(8)) * 100_000,
    ],
    ids=["68 good", "68 huge", "68 negative", "69 many"],
)
def test_extensions_are_stepped_over(extension: bytes, hu: np.ndarray, tmp_path: Path) -> None:
    made = header(vox_offset=352 + len(extension))
    scan = read(tmp_path, file_bytes(made, hu, bytes([1, 0, 0, 0]) + extension), gz=True)
    assert np.array_equal(scan.voxels, hu)
    nifti.write_labels(tmp_path / "x.nii.gz", (hu > 0).astype(np.uint8), scan)
    assert gzip.decompress((tmp_path / "x.nii.gz").read_bytes())[348:352] == bytes(4)


def test_70_texts_with_odd_bytes_are_not_copied(hu: np.ndarray, tmp_path: Path) -> None:
    made = header(descrip=b"M\xfcller\x1b[31m" + b"x" * 69, aux_file=b"1970-01-01 Smith", intent_name=b"\xff" * 16)
    scan = read(tmp_path, file_bytes(made, hu))
    assert np.array_equal(scan.voxels, hu)
    nifti.write_labels(tmp_path / "x.nii.gz", (hu > 0).astype(np.uint8), scan)
    written = gzip.decompress((tmp_path / "x.nii.gz").read_bytes())
    assert b"Smith" not in written
    assert b"ller" not in written


def test_77_78_79_gzip_in_parts_and_names_that_do_not_fit(hu: np.ndarray, tmp_path: Path) -> None:
    whole = file_bytes(header(), hu)
    parts = b"".join(gzip.compress(whole[start : start + 1000]) for start in range(0, len(whole), 1000))
    for name, data in (("parts.nii.gz", parts), ("plain.nii.gz", whole), ("packed.nii", gzip.compress(whole))):
        (tmp_path / name).write_bytes(data)
        scan = read_scan(tmp_path / name)
        assert np.array_equal(scan.voxels, hu), name


# --- what is odd: read, and said


def corrupt(data: bytes, at: int, form: str, value: Any) -> bytes:
    changed = bytearray(data)
    struct.pack_into(form, changed, at, value)
    return bytes(changed)


NAN, INF = float("nan"), float("inf")
NO_FORMS: dict[str, Any] = {"qform_code": 0, "sform_code": 0}
ODD: dict[str, tuple[dict[str, Any], str]] = {
    "12 slope 0 with an intercept": ({"scl_slope": 0, "scl_inter": -1024}, "means no scaling"),
    "13 slope NaN": ({"scl_slope": NAN}, "means no scaling"),
    "13 slope Inf": ({"scl_slope": INF}, "means no scaling"),
    "20 bitpix": ({"bitpix": 32}, "has 16: taken as 16"),
    "30 qform without the sform's shear": ({"srow_y": shear(0.2)[1], "srow_z": shear(0.2)[2]}, "other directions"),
    "33 the forms disagree": ({"srow_x": [-3, 0, 0, 0]}, "other directions"),
    "34 the forms disagree, sform code 2": ({"srow_x": [-3, 0, 0, 0], "sform_code": 2}, "other directions"),
    "35 sform spacing is not pixdim": ({"srow_z": [0, 0, 4.5, 7]}, "sform's is taken"),
    "36 no forms": (NO_FORMS, "no orientation"),
    "38 sform NaN, qform good": ({"srow_x": [NAN] * 4}, "the qform is taken"),
    "39 sform origin Inf": ({"srow_x": [3, 0, 0, INF]}, "the qform is taken"),
    "41 pixdim z 0": ({"pixdim": [1, 3, 4, 0, 0, 0, 0, 0]}, "sform's is taken"),
    "41 pixdim z NaN": ({"pixdim": [1, 3, 4, NAN, 0, 0, 0, 0]}, "sform's is taken"),
    "43 pixdim negative": ({"pixdim": [1, 3, 4, -5, 0, 0, 0, 0]}, "sform's is taken"),
    "45 slices of 20 mm": ({"srow_z": [0, 0, 20, 7], "pixdim": [1, 3, 4, 20, 0, 0, 0, 0], "qform_code": 0}, "coarse"),
    "48 a unit that does not exist": ({"xyzt_units": 255}, "the code 7, which means none: taken as mm"),
    "64 voxels at byte 0": ({"vox_offset": 0}, "taken from byte 352"),
}


@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
@pytest.mark.parametrize("gz", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("name", ODD)
def test_odd_headers_are_read_with_a_warning(name: str, gz: bool, order: str, hu: np.ndarray, tmp_path: Path) -> None:
    fields, said = ODD[name]
    scan = read(tmp_path, file_bytes(header(order=order, **fields), hu), gz=gz)
    assert np.array_equal(scan.voxels, hu)
    assert any(said in warning for warning in scan.warnings), scan.warnings


def test_33_34_the_sform_decides_as_in_nibabel(hu: np.ndarray, tmp_path: Path) -> None:
    scan = read(tmp_path, file_bytes(header(srow_x=[-3, 0, 0, 0], sform_code=2), hu))
    assert scan.grid.orientation == "LAS"
    assert np.array_equal(scan.grid.affine, nib.load(tmp_path / "x_0000.nii").affine)


def test_36_without_forms_axes_lie_as_a_scanner_stores_them(hu: np.ndarray, tmp_path: Path) -> None:
    scan = read(tmp_path, file_bytes(header(**NO_FORMS), hu))
    assert (scan.grid.orientation, scan.grid.spacing) == ("LPS", SPACING)


def test_21_22_values_that_are_no_numbers(hu: np.ndarray, tmp_path: Path) -> None:
    odd = hu.astype(np.float64)
    odd[1, 5, :3] = NAN, INF, -INF
    scan = read(tmp_path, file_bytes(header(dtype=np.float64), odd))
    assert list(scan.voxels[1, 5, :3]) == [-1024, 3071, -1024]
    assert np.array_equal(scan.voxels[2:], hu[2:])
    assert sorted(warning.split()[0] for warning in scan.warnings) == ["1", "2"]


def test_24_an_offset_of_1024_is_refused_unless_it_is_accepted(hu: np.ndarray, tmp_path: Path) -> None:
    data = file_bytes(header(dtype=np.uint16), hu + 1024)
    with pytest.raises(ScanError, match=r"^x_0000.nii is not CT in HU: .*\+1024.*--accept-intensities"):
        read(tmp_path, data)
    scan = read_scan(tmp_path / "x_0000.nii", accept=True)
    assert np.array_equal(scan.voxels, hu + 1024)
    assert any("offset" in warning for warning in scan.warnings)


@pytest.mark.parametrize("gz", [False, True])
def test_76_more_bytes_than_voxels(gz: bool, hu: np.ndarray, tmp_path: Path) -> None:
    scan = read(tmp_path, file_bytes(header(), hu) + b"more", gz=gz)
    assert np.array_equal(scan.voxels, hu)
    assert scan.warnings == ("4 bytes follow the voxels: left out",)


def test_76_garbage_after_the_gzip_stream(hu: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "x_0000.nii.gz"
    path.write_bytes(gzip.compress(file_bytes(header(), hu)) + b"garbage")
    scan = read_scan(path)
    assert scan.warnings == ("bytes after the gzip stream are ignored",)


def test_83_a_flood_of_zeros_is_not_read_to_its_end(hu: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "x_0000.nii.gz"
    flood = gzip.compress(bytes(40 << 20), 9)  # 40 MiB in 40 kB
    path.write_bytes(gzip.compress(file_bytes(header(), hu)) + flood)
    scan = read_scan(path)
    assert np.array_equal(scan.voxels, hu)
    assert any("16 MiB follow" in warning for warning in scan.warnings)


# --- what is broken: refused by name and cause

SYMMATRIX, DISPVECT = 1005, 1006
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "14 intercept Inf": ({"scl_inter": INF}, "intercept inf"),
    "15 slope -1": ({"scl_slope": -1}, "slope -1"),
    "15 slope 1e-38": ({"scl_slope": 1e-38}, "slope 1e-38"),
    "16 float128": ({"datatype": 1536}, "float128"),
    "16 one bit": ({"datatype": 1}, "binary"),
    "16 type 16384": ({"datatype": 16384}, "code 16384"),
    "16 type 0": ({"datatype": 0}, "type none"),
    "17 complex64": ({"datatype": 32}, "complex64"),
    "18 RGB24": ({"datatype": 128}, "RGB"),
    "19 RGBA32 with a slope": ({"datatype": 2304, "scl_slope": 2}, "RGBA"),
    "37 sform zero, no qform": (
        {"srow_x": [0] * 4, "srow_y": [0] * 4, "srow_z": [0] * 4, "qform_code": 0}, "broken orientation"),
    "37 sform singular, no qform": ({"srow_z": [3, 0, 0, 0], "qform_code": 0}, "broken orientation"),
    "37 sform NaN, no qform": ({"srow_z": [NAN] * 4, "qform_code": 0}, "broken orientation"),
    "40 quaternion NaN": ({"quatern_b": NAN, "sform_code": 0}, "broken orientation"),
    "40 quaternion longer than 1": ({"quatern_b": 1.5, "sform_code": 0}, "broken orientation"),
    "42 pixdim 0, no forms": ({"pixdim": [1, 3, 4, 0, 0, 0, 0, 0], **NO_FORMS}, "spacing"),
    "42 pixdim NaN, no forms": ({"pixdim": [1, 3, NAN, 5, 0, 0, 0, 0], **NO_FORMS}, "spacing"),
    "43 pixdim negative, no forms": ({"pixdim": [1, -3, 4, 5, 0, 0, 0, 0], **NO_FORMS}, "spacing"),
    "44 slices of 100 mm": ({"srow_z": [0, 0, 100, 7]}, "not plausible"),
    "44 voxels of a nanometre": ({"srow_z": [0, 0, 1e-6, 7]}, "not plausible"),
    "45 a field of 1.4 mm": ({"srow_x": [0.1, 0, 0, 0]}, "not plausible"),
    "47 mm named microns": ({"xyzt_units": 3}, "not plausible"),
    "47 mm named metres": ({"xyzt_units": 1}, "not plausible"),
    "49 one slice": ({"dim": [3, 14, 12, 1, 1, 1, 1, 1]}, "no volume"),
    "50 2-D": ({"dim": [2, 14, 12, 1, 1, 1, 1, 1]}, "14 x 12 x 1 voxels; if it is one of several slices, join"),
    "50 1-D": ({"dim": [1, 14, 1, 1, 1, 1, 1, 1]}, "is 1-D"),
    "52 4-D": ({"dim": [4, 14, 12, 5, 2, 1, 1, 1]}, "is 4-D"),
    "52 a vector a voxel": ({"dim": [5, 14, 12, 5, 1, 2, 1, 1]}, "is 5-D"),
    "53 matrices": ({"intent_code": SYMMATRIX}, "matrices"),
    "53 vectors": ({"intent_code": DISPVECT}, "vectors"),
    "54 no dimensions": ({"dim": [0, 14, 12, 10, 1, 1, 1, 1]}, "0 dimensions"),
    "54 8 dimensions": ({"dim": [8, 14, 12, 10, 1, 1, 1, 1]}, "8 dimensions"),
    "54 -3 dimensions": ({"dim": [-3, 14, 12, 10, 1, 1, 1, 1]}, "-3 dimensions"),
    "55 no slices": ({"dim": [3, 14, 12, 0, 1, 1, 1, 1]}, "14 x 12 x 0"),
    "55 -32 slices": ({"dim": [3, 14, 12, -32, 1, 1, 1, 1]}, "14 x 12 x -32"),
    "57 more voxels than 64 bits count": ({"dim": [7] + [32767] * 7}, "is 7-D"),
    "61 magic": ({"magic": b"abc"}, "magic"),
    "61 ANALYZE": ({"magic": b""}, "ANALYZE"),
    "62 the header of a pair": ({"magic": b"ni1"}, "pair"),
    "65 voxels at byte 100": ({"vox_offset": 100}, "at byte 100"),
    "65 voxels before the file": ({"vox_offset": -5000}, "at byte -5000"),
    "65 voxels at no byte": ({"vox_offset": NAN}, "at byte nan"),
    "65 voxels at byte 1e30": ({"vox_offset": 1e30}, "at byte 1e"),
    "66 voxels at byte 2e9": ({"vox_offset": 2e9}, "at byte 2e"),
    "67 voxels at byte 353": ({"vox_offset": 353}, "at byte 353"),
}  # fmt: skip


@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
@pytest.mark.parametrize("gz", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_headers_are_refused(name: str, gz: bool, order: str, hu: np.ndarray, tmp_path: Path) -> None:
    fields, cause = BROKEN[name]
    made = header(order=order)
    for field, value in fields.items():
        made[field] = value
    data = bytes(made.binaryblock) + bytes(4) + hu.tobytes()
    with pytest.raises(ScanError) as caught:
        read(tmp_path, data, gz=gz)
    message = str(caught.value)
    assert message.startswith("x_0000.nii")
    assert cause in message
    assert "\n" not in message


def test_56_a_claim_beyond_memory_is_refused_before_it_is_believed(tmp_path: Path, monkeypatch: Any) -> None:
    claim = header(dim=[3, 9000, 9000, 9000, 1, 1, 1, 1], srow_x=[0.1, 0, 0, 0], srow_y=[0, 0.1, 0, 0],
                   srow_z=[0, 0, 0.1, 0], pixdim=[1, 0.1, 0.1, 0.1, 0, 0, 0, 0])  # fmt: skip
    path = tmp_path / "x_0000.nii"
    path.write_bytes(bytes(claim.binaryblock))
    with pytest.raises(ScanError, match="too short"):
        read_scan(path)
    os.truncate(path, 352 + 2 * 9000**3)  # sparse: the file is as long as it claims, and takes no room
    with pytest.raises(MemoryBudgetError, match="too large: 9000 x 9000 x 9000"):
        read_scan(path)


def test_93_the_budget_decides_what_is_too_large(hu: np.ndarray, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(machine, "memory_budget", lambda: 1000)
    with pytest.raises(MemoryBudgetError, match="x_0000"):
        read(tmp_path, file_bytes(header(), hu))


def test_58_82_a_claim_beyond_what_deflate_can_hold(tmp_path: Path) -> None:
    claim = header(dim=[3, 2048, 1024, 2048, 1, 1, 1, 1], pixdim=[1, 0.5, 0.5, 0.5, 0, 0, 0, 0],
                   srow_x=[0.5, 0, 0, 0], srow_y=[0, 0.5, 0, 0], srow_z=[0, 0, 0.5, 0])  # fmt: skip
    with pytest.raises(ScanError, match="too short"):
        read(tmp_path, bytes(claim.binaryblock) + bytes(200_000), gz=True)


Cut = Callable[[bytes], bytes]
DAMAGED: dict[str, tuple[Cut, str]] = {
    "59 header only": (lambda packed: gzip.compress(gzip.decompress(packed)[:352]), "too short|cut off"),
    "60 empty file": (lambda packed: b"", "is empty"),
    "60 empty gzip": (lambda packed: gzip.compress(b""), "holds nothing"),
    "60 ten bytes": (lambda packed: b"0123456789", "not NIfTI"),
    "63 sizeof_hdr": (lambda packed: gzip.compress(corrupt(gzip.decompress(packed), 0, "<i", 999)), "not NIfTI"),
    "72 cut in the middle": (lambda packed: packed[: len(packed) // 2], "cut off"),
    "72 cut in the header": (lambda packed: packed[:30], "cut off"),
    "73 cut in the trailer": (lambda packed: packed[:-3], "cut off"),
    "74 wrong checksum": (lambda packed: packed[:-8] + bytes(4) + packed[-4:], "damaged"),
    "74 wrong length": (lambda packed: packed[:-4] + bytes(4), "damaged"),
    "74 a bit flipped": (
        lambda packed: packed[:900] + bytes([packed[900] ^ 4]) + packed[901:], "damaged|cut off"),
    "74 a hole": (lambda packed: packed[:900] + bytes(200) + packed[1100:], "damaged|cut off"),
    "75 a byte short": (lambda packed: gzip.compress(gzip.decompress(packed)[:-1]), "cut off"),
    "75 half": (lambda packed: gzip.compress(gzip.decompress(packed)[: 352 + 1680]), "cut off"),
    "79 packed twice": (lambda packed: gzip.compress(packed), "compressed twice"),
    "80 a web page": (lambda packed: b"<!DOCTYPE html><p>404</p>", "a web page"),
    "80 Git LFS": (lambda packed: b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
    "80 ZIP": (lambda packed: b"PK\x03\x04" + bytes(99), "a ZIP"),
    "81 PNG": (lambda packed: b"\x89PNG\r\n\x1a\n" + bytes(99), "a PNG"),
    "81 BMP": (lambda packed: b"BM" + bytes(99), "a BMP"),
    "81 TIFF": (lambda packed: b"II*\0" + bytes(99), "a TIFF"),
    "81 HDF5": (lambda packed: b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5"),
    "81 DICOM": (lambda packed: bytes(128) + b"DICM" + bytes(99), "a DICOM"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_refused(name: str, hu: np.ndarray, tmp_path: Path) -> None:
    damage, cause = DAMAGED[name]
    path = tmp_path / "x_0000.nii.gz"
    path.write_bytes(damage(gzip.compress(file_bytes(header(), hu), 1)))
    with pytest.raises(ScanError, match=f"^x_0000.nii.gz .*({cause})"):
        read_scan(path)


def test_84_a_far_offset_over_zeros(hu: np.ndarray, tmp_path: Path) -> None:
    made = header(vox_offset=352 + (60 << 20))
    with pytest.raises(ScanError, match="too short|cut off"):
        read(tmp_path, bytes(made.binaryblock) + bytes(1 << 20), gz=True)


NO_CT: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "21 mostly NaN": (lambda hu: np.where(np.arange(hu.size).reshape(hu.shape) % 3 > 0, NAN, hu), "NaN"),
    "23 all NaN": (lambda hu: np.full(hu.shape, NAN), "NaN"),
    "23 constant": (lambda hu: np.full(hu.shape, 7.0), "constant"),
    "23 air": (lambda hu: np.where(hu > 0, -990.0, -1010.0), "nothing but air"),
    "25 normalised": (lambda hu: (hu + 1024) / 3000, "not CT in HU"),
    "25 windowed": (lambda hu: np.rint((hu.clip(-160, 240) + 160) / 400 * 255), "not CT in HU"),
}


@pytest.mark.parametrize("name", NO_CT)
def test_values_that_are_no_ct(name: str, hu: np.ndarray, tmp_path: Path) -> None:
    change, cause = NO_CT[name]
    with pytest.raises(ScanError, match=cause):
        read(tmp_path, file_bytes(header(dtype=np.float32), change(hu)))


def test_89_90_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe_0000.nii.gz")
    (tmp_path / "zero_0000.nii.gz").symlink_to("/dev/zero")
    (tmp_path / "loop_0000.nii.gz").symlink_to("loop_0000.nii.gz")
    (tmp_path / "gone_0000.nii.gz").symlink_to("nowhere")
    for name, cause in (
        ("pipe", "is a FIFO"),
        ("zero", "is a device"),
        ("loop", "read"),
        ("gone", "a link to a file that is not there"),
    ):
        with pytest.raises(ScanError, match=f"^{name}_0000.nii.gz .*{cause}"):
            read_scan(tmp_path / f"{name}_0000.nii.gz")


def test_what_bears_the_name_of_a_scan_is_called_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "folder_0000.nii.gz").mkdir()
    (tmp_path / "folder_0000.nii.gz" / "inside_0000.nii.gz").touch()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket_0000.nii"))
    for name, cause in (("folder_0000.nii.gz", "a folder"), ("socket_0000.nii", "a socket")):
        with pytest.raises(ScanError, match=f"^{name} is {cause}, not a file"):
            read_scan(tmp_path / name)


@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti2Pair])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_either_file_of_a_pair_is_refused_with_what_to_do(
    kind: Any, ending: str, hu: np.ndarray, tmp_path: Path
) -> None:
    nib.save(kind(hu.astype(np.int16), np.diag([3, 3, 3, 1])), tmp_path / f"x.img{ending}")
    for name in (f"x.hdr{ending}", f"x.img{ending}"):
        with pytest.raises(
            ScanError, match=rf"^{name} is one half of a pair of .hdr and .img.*nibabel.load\('X.hdr'\)"
        ):
            read_scan(tmp_path / name)


def test_92_a_file_that_changes_while_it_is_read(hu: np.ndarray, tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "x_0000.nii"
    path.write_bytes(file_bytes(header(), hu))

    def write_meanwhile(block: bytes) -> Any:
        with path.open("ab") as other:
            other.write(b"more")
        return parse(block)

    monkeypatch.setattr(nifti, "parse", write_meanwhile)
    with pytest.raises(ScanError, match="changed while it was read"):
        read_scan(path)


# --- what is written


@pytest.mark.parametrize("kind", [Nifti1Header, Nifti2Header])
@pytest.mark.parametrize("order", ["<", ">"])
def test_labels_keep_the_bytes_of_the_geometry(
    kind: type[Nifti1Header], order: str, hu: np.ndarray, tmp_path: Path
) -> None:
    made = header(kind, order, np.float32, sform_code=2, qform_code=3, toffset=1.5, descrip=b"secret")
    scan = read(tmp_path, file_bytes(made, hu))
    labels = np.random.default_rng(0).integers(0, 15, SHAPE).astype(np.uint8)
    nifti.write_labels(tmp_path / "x.nii.gz", labels, scan)
    image = nib.load(tmp_path / "x.nii.gz")
    assert np.array_equal(np.asarray(image.dataobj).T, labels)
    assert image.get_data_dtype() == np.uint8
    geometry = ["sizeof_hdr", "dim", "pixdim", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "quatern_b",
                "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z", "xyzt_units", "toffset"]  # fmt: skip
    for name in geometry:
        assert image.header[name].tobytes() == made[name].tobytes(), name
    assert image.header["descrip"].tobytes().strip(b"\0") == b""


def test_the_same_labels_are_the_same_bytes_wherever_they_are_written(hu: np.ndarray, tmp_path: Path) -> None:
    scan = read(tmp_path, file_bytes(header(), hu))
    for name in ("a.nii.gz", "b.nii.gz"):
        nifti.write_labels(tmp_path / name, (hu > 0).astype(np.uint8), scan)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nii.gz", "b.nii.gz", "x_0000.nii"]


def test_a_full_disk_fails_the_case_and_leaves_nothing(hu: np.ndarray, tmp_path: Path, monkeypatch: Any) -> None:
    scan = read(tmp_path, file_bytes(header(), hu))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CaseError, match="x.nii.gz cannot be written: No space left"):
        nifti.write_labels(tmp_path / "x.nii.gz", (hu > 0).astype(np.uint8), scan)
    assert [path.name for path in tmp_path.iterdir()] == ["x_0000.nii"]


def test_labels_of_another_shape_are_a_fault_of_the_caller(hu: np.ndarray, tmp_path: Path) -> None:
    scan = read(tmp_path, file_bytes(header(), hu))
    with pytest.raises(ValueError, match="not uint8"):
        nifti.write_labels(tmp_path / "x.nii.gz", np.zeros((2, 3, 4), np.uint8), scan)


@pytest.mark.parametrize("name", ["x.nrrd", "x.nii", "x"])
def test_labels_are_not_written_under_the_ending_of_another_format(name: str, hu: np.ndarray, tmp_path: Path) -> None:
    scan = read(tmp_path, file_bytes(header(), hu))
    with pytest.raises(ValueError, match=f"^{name} does not end in .nii.gz"):
        nifti.write_labels(tmp_path / name, (hu > 0).astype(np.uint8), scan)
    assert not (tmp_path / name).exists()


def test_an_empty_label_map_needs_the_header_only(hu: np.ndarray, tmp_path: Path) -> None:
    scan = read(tmp_path, file_bytes(header(), hu))
    whole, empty, cut = tmp_path / "x.nii.gz", tmp_path / "y.nii.gz", tmp_path / "cut_0000.nii"
    nifti.write_labels(whole, np.zeros(hu.shape, np.uint8), scan)
    cut.write_bytes(file_bytes(header(), hu)[:400])
    write_empty(cut, [empty], Description({}))
    assert empty.read_bytes() == whole.read_bytes()
    cut.write_bytes(b"no NIfTI at all")
    with pytest.raises(ScanError):
        write_empty(cut, [tmp_path / "z.nii.gz"], Description({}))
    assert not (tmp_path / "z.nii.gz").exists()
