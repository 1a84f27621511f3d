"""Reading folders of DICOM slices: what is doubtful is refused by file and tag, the rest lies where its tags say."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from inference.errors import ScanError, hide_names
from inference.formats.cases import find_cases
from inference.formats.dicom.headers import headers_of
from inference.formats.reading import read_scan, write_empty
from inference.formats.sources import dicom_files, scan_digest
from inference.formats.written import Description
from tests.inference.dicom import DEFLATED, IMPLICIT, JPEG_2000, JPEG_LOSSLESS, packed_in, series, slice_bytes

sitk = pytest.importorskip("SimpleITK")

ROUND = np.pi / 180


@pytest.fixture(scope="module")
def hu() -> np.ndarray:
    """A body that changes from slice to slice as bodies do, (10, 12, 14)."""
    z, y, x = np.meshgrid(np.arange(10), np.arange(12) - 6, np.arange(14) - 7, indexing="ij")
    return np.where((x / 6) ** 2 + (y / 5) ** 2 < 1, 40 + 8 * z + 5 * x, -1000 + y).astype(np.int16)


def position(x: float = -20, y: float = -30, z: float = 7) -> dict[str, Any]:
    return {"ImagePositionPatient": f"{x:.9g}\\{y:.9g}\\{z:.9g}"}


def test_a_series_lies_where_its_tags_say(hu: np.ndarray, tmp_path: Path) -> None:
    series(tmp_path / "s", hu)
    scan = read_scan(tmp_path / "s")
    assert np.array_equal(scan.voxels, hu) and scan.voxels.dtype == np.int16
    assert (scan.grid.spacing, scan.grid.orientation, scan.warnings) == ((3.0, 5.0, 4.0), "LPS", ())
    assert np.allclose(scan.grid.affine, [[-4, 0, 0, 20], [0, -5, 0, 30], [0, 0, 3, 7], [0, 0, 0, 1]])


def test_files_are_ordered_by_position_and_not_by_name(hu: np.ndarray, tmp_path: Path) -> None:
    series(tmp_path / "s", hu, lambda z: position(z=70 - 3 * z))
    scan = read_scan(tmp_path / "s")
    assert np.array_equal(scan.voxels, hu[::-1])
    assert scan.grid.affine[2, 3] == 43


def test_oblique_sagittal_and_feet_first_series(hu: np.ndarray, tmp_path: Path) -> None:
    cos, sin = np.cos(20 * ROUND), np.sin(20 * ROUND)
    for name, row, column in (
        ("oblique", (cos, 0, sin), (0, 1, 0)),
        ("sagittal", (0, 1, 0), (0, 0, -1)),
        ("feet", (-1, 0, 0), (0, 1, 0)),
    ):
        normal = np.cross(row, column)
        along = "\\".join(f"{part:.9g}" for part in (*row, *column))
        series(tmp_path / name, hu, lambda z: position(*3 * z * normal) | {"ImageOrientationPatient": along})  # noqa: B023
        scan = read_scan(tmp_path / name)
        lps = np.diag([-1, -1, 1, 1]) @ scan.grid.affine
        assert np.allclose(
            lps[:3, :3], np.array([np.multiply(row, 4), np.multiply(column, 5), 3 * normal]).T, atol=1e-5
        )
        assert np.array_equal(scan.voxels, hu) and scan.warnings == ()


def test_gantry_tilt_is_a_shear_and_not_straightened(hu: np.ndarray, tmp_path: Path) -> None:
    tilted = f"1\\0\\0\\0\\{np.cos(15 * ROUND)}\\{-np.sin(15 * ROUND)}"
    series(tmp_path / "s", hu, lambda z: {"ImageOrientationPatient": tilted})
    scan = read_scan(tmp_path / "s")
    last = scan.grid.affine @ [0, 0, 9, 1]
    assert np.allclose(last, [20, 30, 7 + 27, 1], atol=1e-4)
    assert any("right angles" in warning for warning in scan.warnings)
    write_empty(tmp_path / "s", [tmp_path / "empty.nii.gz"], Description({}))
    assert np.allclose(nib.load(tmp_path / "empty.nii.gz").affine, scan.grid.affine)


def test_positions_may_be_rounded(hu: np.ndarray, tmp_path: Path) -> None:
    series(tmp_path / "s", hu, lambda z: position(z=7 + 3 * z + 0.2 * (z % 2) * (z < 9)))
    scan = read_scan(tmp_path / "s")
    assert np.allclose(scan.grid.affine[:3, 2], [0, 0, 3])
    assert np.array_equal(scan.voxels, hu)


def test_each_slice_has_its_own_rescaling(hu: np.ndarray, tmp_path: Path) -> None:
    kinds = ((1, -1024), (1, 0), (0.5, -1024), (1, -8192))
    series(tmp_path / "s", hu, lambda z: {"scaled": kinds[z % 4]})
    scan = read_scan(tmp_path / "s")
    assert np.array_equal(scan.voxels, hu)


ONE = "holds 004.dcm, which "
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no spacing": ({"PixelSpacing": None}, ONE + "has no PixelSpacing (0028,0030): "),
    "empty spacing": ({"PixelSpacing": ""}, ONE + "has no PixelSpacing (0028,0030): "),
    "one number of spacing": ({"PixelSpacing": "4"}, ONE + "has no 2 numbers in PixelSpacing (0028,0030)"),
    "no orientation": ({"ImageOrientationPatient": None}, ONE + "has no ImageOrientationPatient (0020,0037): "),
    "no position": ({"ImagePositionPatient": None}, ONE + "has no ImagePositionPatient (0020,0032): "),
    "a position in words": (
        {"ImagePositionPatient": "a\\b\\c"},
        ONE + "has no 3 numbers in ImagePositionPatient (0020,0032)",
    ),
    "a position at nan": ({"ImagePositionPatient": "0\\0\\nan"}, ONE + "has no 3 numbers in ImagePositionPatient"),
    "no slope": ({"RescaleSlope": None}, ONE + "has no RescaleSlope (0028,1053): "),
    "no intercept": ({"RescaleIntercept": None}, ONE + "has no RescaleIntercept (0028,1052): "),
    "slope 0": ({"RescaleSlope": 0}, ONE + "has 0 as RescaleSlope (0028,1053)"),
    "no bits": ({"BitsAllocated": None}, "s " + ONE + "has no BitsAllocated (0028,0100): "),
    "no sign": ({"PixelRepresentation": None}, "s " + ONE + "has no PixelRepresentation (0028,0103): "),
    "two slopes": ({"RescaleSlope": "1\\2"}, ONE + "has no number in RescaleSlope (0028,1053)"),
    "electron density": ({"RescaleType": "ED"}, ONE + "is not in HU: its RescaleType (0028,1054) is ED"),
    "MR": ({"Modality": "MR"}, ONE + "is not CT: its Modality (0008,0060) is MR"),
    "PT": ({"Modality": "PT"}, ONE + "is not CT: its Modality (0008,0060) is PT"),
    "no modality": ({"Modality": None}, ONE + "has no Modality (0008,0060): "),
    "no code": ({"Modality": "Doe^Jane"}, ONE + "is not CT: its Modality (0008,0060) is another"),
    "localizer": ({"ImageType": "ORIGINAL\\PRIMARY\\LOCALIZER"}, ONE + "is a localizer by its ImageType (0008,0008)"),
    "colour": ({"PhotometricInterpretation": "RGB"}, ONE + "is not a CT image: its PhotometricInterpretation "),
    "inverted": ({"PhotometricInterpretation": "MONOCHROME1"}, ONE + "is not a CT image: its Photometric"),
    "samples": ({"SamplesPerPixel": 3}, ONE + "is not a CT image: its SamplesPerPixel (0028,0002) is 3, not 1"),
    "frames": (
        {"NumberOfFrames": 2},
        "holds 004.dcm (frame 1), which has several frames by its NumberOfFrames (0028,0008)",
    ),
    "other patient": ({"PatientID": "P2"}, "holds 000.dcm and 004.dcm, which differ in PatientID (0010,0020): "),
    "other study": ({"StudyInstanceUID": "1.9"}, "differ in StudyInstanceUID (0020,000D)"),
    "other frame": ({"FrameOfReferenceUID": "1.9"}, "differ in FrameOfReferenceUID (0020,0052)"),
    "other spacing": ({"PixelSpacing": "5\\4.1"}, "differ in PixelSpacing (0028,0030)"),
    "other orientation": (
        {"ImageOrientationPatient": "1\\0\\0\\0\\0.9998\\0.02"},
        "differ in ImageOrientationPatient (0020,0037)",
    ),
    "other series": (
        {"SeriesInstanceUID": "1.9", "SeriesNumber": 7},
        "holds 2 DICOM series by SeriesInstanceUID (0020,000E) and SeriesNumber (0020,0011): "
        "number 2 with 000.dcm and 8 more and number 7 with 004.dcm; give each a folder",
    ),
    "a copy": (
        {"ImagePositionPatient": "-20\\-30\\16"},
        "holds 003.dcm and 004.dcm at the same ImagePositionPatient (0020,0032): take one of them out",
    ),
    "two phases": (
        {"ImagePositionPatient": "-20\\-30\\16", "AcquisitionNumber": 2},
        "they differ in AcquisitionNumber (0020,0012); give each phase a folder of its own",
    ),
    "far off": (
        {"ImagePositionPatient": "-20\\-30\\20"},
        "has 4 mm between 003.dcm and 004.dcm where 3 mm are usual, by ImagePositionPatient (0020,0032): "
        "are slices missing? --uneven resample interpolates between them",
    ),
    "aside": ({"ImagePositionPatient": "-15\\-30\\19"}, "mm between 003.dcm and 004.dcm where 3 mm are usual"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_doubtful_slice_fails_the_series_by_file_and_tag(name: str, hu: np.ndarray, tmp_path: Path) -> None:
    changes, cause = REFUSED[name]
    series(tmp_path / "s", hu, lambda z: changes if z == 4 else {})
    with pytest.raises(ScanError) as caught:
        read_scan(tmp_path / "s")
    assert str(caught.value).startswith("s h") and cause in str(caught.value)


IN_ALL: dict[str, tuple[dict[str, Any], str]] = {
    "a tag missing in all": ({"PixelSpacing": None}, "holds 000.dcm, which has no PixelSpacing (0028,0030)"),
    "axes at no right angles": (
        {"ImageOrientationPatient": "1\\0\\0\\0.1\\0.995\\0"},
        "holds 000.dcm, which has directions that are not at right angles in ImageOrientationPatient (0020,0037)",
    ),
    "directions of no length": (
        {"ImageOrientationPatient": "0\\0\\0\\0\\0\\0"},
        "directions that are not at right angles",
    ),
    "one position": (position(), "holds 000.dcm and 001.dcm at the same ImagePositionPatient (0020,0032)"),
    "side by side": (
        {"ImageOrientationPatient": "1\\0\\0\\0\\0.1\\-0.994987437"},
        "has slices that do not lie behind each other: ImagePositionPatient (0020,0032) runs across ",
    ),
    "MR throughout": ({"Modality": "MR"}, "holds 000.dcm, which is not CT: its Modality (0008,0060) is MR"),
}


@pytest.mark.parametrize("name", IN_ALL)
def test_a_doubtful_series_is_refused_by_tag(name: str, hu: np.ndarray, tmp_path: Path) -> None:
    changes, cause = IN_ALL[name]
    series(tmp_path / "s", hu, lambda _: changes)
    with pytest.raises(ScanError) as caught:
        read_scan(tmp_path / "s")
    assert cause in str(caught.value)


def test_phases_between_each_other_are_no_volume_but_acquisitions_one_after_another_are(
    hu: np.ndarray, tmp_path: Path
) -> None:
    for name, tag, values in (
        ("turns", "AcquisitionNumber", "1212121212"),
        ("kernels", "ConvolutionKernel", "AABBAABBAA"),
        ("returns", "TemporalPositionIdentifier", "1112221111"),
    ):
        series(tmp_path / name, hu, lambda z: {tag: values[z]})  # noqa: B023
        with pytest.raises(ScanError, match=rf"which lie side by side and differ in {tag} \("):
            read_scan(tmp_path / name)
    for name, values in (("halves", "1111122222"), ("each", "0123456789")):
        series(tmp_path / name, hu, lambda z: {"AcquisitionNumber": values[z]})  # noqa: B023
        assert np.array_equal(read_scan(tmp_path / name).voxels, hu)


def test_pixels_of_no_size_and_a_slice_aside_are_refused(hu: np.ndarray, tmp_path: Path) -> None:
    for number, spacing in enumerate(("-5\\4", "0\\0", "5\\-4")):
        series(tmp_path / f"s{number}", hu, lambda z, spacing=spacing: {"PixelSpacing": spacing})
        with pytest.raises(ScanError, match=r"^s\d holds 000.dcm, which has a PixelSpacing .* that is not above 0$"):
            read_scan(tmp_path / f"s{number}")
    series(tmp_path / "x", hu, lambda z: position(x=-20 + 2 * (z % 2), z=7 + 3 * z))
    with pytest.raises(ScanError, match=r"^x has 00\d.dcm \S+ mm beside the line of the other slices"):
        read_scan(tmp_path / "x")


@pytest.mark.parametrize("name", ["{:03}.dcm", "IM{:04}", "1.2.840.{}"])
def test_a_web_page_in_the_place_of_a_slice_fails_the_series(name: str, hu: np.ndarray, tmp_path: Path) -> None:
    last = series(tmp_path / "s", hu, name=name)[-1]
    (tmp_path / "s" / "readme").write_text("text of another name is left alone")
    assert read_scan(tmp_path / "s").voxels.shape == hu.shape
    last.write_text("<html>404</html>")
    with pytest.raises(ScanError, match=f"holds {last.name}, which is damaged"):
        read_scan(tmp_path / "s")


def test_a_slice_of_another_size_is_named(hu: np.ndarray, tmp_path: Path) -> None:
    files = series(tmp_path / "s", hu)
    files[4].write_bytes(slice_bytes(hu[4, :, :8], ImagePositionPatient="-20\\-30\\19"))
    with pytest.raises(ScanError, match=r"holds 000.dcm and 004.dcm, which differ in Columns \(0028,0011\)"):
        read_scan(tmp_path / "s")


def test_a_missing_slice_is_said_by_its_neighbours(hu: np.ndarray, tmp_path: Path) -> None:
    for gone in (1, 5, 8):
        files = series(tmp_path / f"s{gone}", hu)
        files[gone].unlink()
        with pytest.raises(ScanError, match=rf"has 6 mm between 00{gone - 1}.dcm and 00{gone + 1}.dcm .* missing"):
            read_scan(tmp_path / f"s{gone}")


def codestream(plane: np.ndarray, compressor: str, folder: Path) -> bytes:
    """Pixels (y, x) as SimpleITK packs them."""
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.UseCompressionOn()
    writer.SetCompressor(compressor)
    path = folder / f"{compressor}.dcm"
    writer.SetFileName(str(path))
    writer.Execute(sitk.GetImageFromArray((plane + 1024).astype(np.uint16)))
    data = path.read_bytes()
    at = data.rindex(b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff") + 12
    at += 8 + struct.unpack_from("<I", data, at + 4)[0]
    return data[at + 8 : at + 8 + struct.unpack_from("<I", data, at + 4)[0]]


@pytest.mark.parametrize(("compressor", "syntax"), [("JPEG2000", JPEG_2000), ("JPEG", JPEG_LOSSLESS)])
def test_packed_pixels_are_read_or_refused(
    compressor: str, syntax: str, hu: np.ndarray, tmp_path: Path, capfd: Any
) -> None:
    large = hu.repeat(8, axis=1).repeat(8, axis=2) + np.random.default_rng(1).integers(-9, 9, (10, 96, 112))
    fine: dict[str, Any] = {"PixelSpacing": "0.5\\0.5"}
    files = series(tmp_path / "s", large, lambda z: fine)
    whole = codestream(large[4], compressor, tmp_path)
    middle, end = len(whole) // 2, len(whole)

    def write(packed: bytes) -> None:
        changes = fine | {"ImagePositionPatient": "-20\\-30\\19"}
        files[4].write_bytes(slice_bytes(large[4], syntax, packed, **changes))

    write(whole)
    scan = read_scan(tmp_path / "s")
    assert np.array_equal(scan.voxels, large) and scan.warnings == ()
    damaged = [whole[:middle], whole[:middle] + bytes(end - middle), whole[:-60] + bytes(60), whole[:-2], b""]
    for packed in damaged:
        write(packed)
        with pytest.raises(ScanError, match=r"^s holds 004.dcm, which .*PixelData \(7FE0,0010\)"):
            read_scan(tmp_path / "s")
    write(whole[:middle] + bytes(400) + whole[middle + 400 :])  # nothing in the file tells, but its neighbours do
    try:
        said = read_scan(tmp_path / "s").warnings[0]
    except ScanError as error:
        said = str(error)
    assert "004.dcm is unlike both slices beside it" in said or "holds 004.dcm, which is damaged" in said
    assert capfd.readouterr().err == ""


def test_a_slice_that_decodes_to_something_else_is_a_warning(hu: np.ndarray, tmp_path: Path) -> None:
    for at in (0, 4, 9):
        damaged = hu.copy()
        damaged[at] = np.random.default_rng(2).permutation(hu[at].reshape(-1)).reshape(hu[at].shape)
        series(tmp_path / "s", damaged)
        assert read_scan(tmp_path / "s").warnings == (
            f"00{at}.dcm is unlike both slices beside it: its pixels may be damaged",
        )


@pytest.mark.parametrize("at", [0, 4, 9])
@pytest.mark.parametrize("keep", [0, 100, 131, 132, 300, -1, -200])
def test_a_file_that_is_cut_off_fails_the_series_by_name(at: int, keep: int, hu: np.ndarray, tmp_path: Path) -> None:
    for name in ("{:03}.dcm", "IM{:04}", "1.2.840.{}"):
        files = series(tmp_path / name, hu, name=name)
        files[at].write_bytes(files[at].read_bytes()[:keep])
        with pytest.raises(ScanError, match=rf"holds {files[at].name}, which (is empty|is damaged|is cut off)"):
            read_scan(tmp_path / name)


def test_fewer_pixels_than_rows_and_columns_are_not_filled_from_memory(hu: np.ndarray, tmp_path: Path) -> None:
    files = series(tmp_path / "s", hu)
    for rows, cause in (
        (11, "holds 336 bytes of PixelData (7FE0,0010), where its rows and columns need 308"),
        (13, "is cut off: 336 of 364 bytes"),
        (65535, "too long"),
    ):
        changes = {"Rows": rows}
        series(tmp_path / "s", hu, lambda z: changes)  # noqa: B023
        with pytest.raises(ScanError) as caught:
            read_scan(tmp_path / "s")
        assert cause in str(caught.value)
    series(tmp_path / "s", hu)
    files[4].write_bytes(slice_bytes(hu[4], DEFLATED, ImagePositionPatient="-20\\-30\\19")[:-336])
    with pytest.raises(ScanError, match=r"holds 004.dcm, which "):
        read_scan(tmp_path / "s")


def test_a_deflated_bomb_is_refused_by_name_and_takes_little_memory(hu: np.ndarray, tmp_path: Path) -> None:
    files = series(tmp_path / "s", hu)
    plain = slice_bytes(hu[4], DEFLATED, packed=b"", ImagePositionPatient="-20\\-30\\19")
    start = 132 + 12 + struct.unpack_from("<I", plain, 140)[0]
    body = plain[start : plain.rindex(b"\xe0\x7f\x10\x00")]
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = packer.compress(body + b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<I", 400 << 20))
    bomb += b"".join(packer.compress(bytes(1 << 20)) for _ in range(400)) + packer.flush()
    files[4].write_bytes(plain[:start] + bomb)
    assert files[4].stat().st_size < 500_000
    tracemalloc.start()
    try:
        with pytest.raises(ScanError, match=r"^s holds 004.dcm, which unpacks to far more bytes than its rows and"):
            read_scan(tmp_path / "s")
        assert tracemalloc.get_traced_memory()[1] < 150e6
    finally:
        tracemalloc.stop()


def test_a_slice_in_an_archive_that_unpacks_to_more_than_its_pixels_is_refused(hu: np.ndarray, tmp_path: Path) -> None:
    files = series(tmp_path / "s", hu)
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in" / "e.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for z, file in enumerate(files):
            archive.writestr(file.name, file.read_bytes() + bytes(40 << 20 if z == 4 else 0))
    (case,) = find_cases(tmp_path / "in", tmp_path / "out").cases
    with pytest.raises(ScanError, match="004.dcm, which unpacks to far more bytes"):
        read_scan(case.sources)


@pytest.mark.parametrize("count", [1, 100], ids=["one element", "many"])
def test_a_header_in_an_archive_that_unpacks_to_more_than_any_has_is_refused(
    count: int, hu: np.ndarray, tmp_path: Path
) -> None:
    """In the file's meta, all of which pydicom reads whatever its lengths say."""
    files = series(tmp_path / "s", hu)
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in" / "e.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for z, file in enumerate(files):
            data = file.read_bytes()
            with archive.open(file.name, "w") as member:
                member.write(data[:144])  # preamble and length of the meta
                size = (100 << 20) // count
                for number in range(count if z == 4 else 0):
                    member.write(struct.pack("<HH2sHI", 2, 0x0102 + number, b"OB", 0, size))
                    for _ in range(size >> 20):
                        member.write(bytes(1 << 20))
                member.write(data[144:])
    tracemalloc.start()
    try:
        (case,) = find_cases(tmp_path / "in", tmp_path / "out").cases
        with pytest.raises(ScanError, match=r"004.dcm, which has a header of more than 32 MB"):
            read_scan(case.sources)
        assert tracemalloc.get_traced_memory()[1] < 45e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("side", [102, 107, 115])
def test_a_length_that_looks_like_letters_is_a_length(side: int, tmp_path: Path) -> None:
    (tmp_path / "one.dcm").write_bytes(packed_in(slice_bytes(np.zeros((side, side), np.int16)), IMPLICIT))
    (one,) = headers_of([tmp_path / "one.dcm"])
    assert "cut off" not in one.tags and struct.pack("<I", 2 * side * side)[:2].isalpha()


def test_what_is_no_file_or_no_picture_fails_the_series_by_name(hu: np.ndarray, tmp_path: Path) -> None:
    makers: dict[str, tuple[Callable[[Path], Any], str]] = {
        "x.dcm": (lambda path: os.mkfifo(path), "is a FIFO"),
        "y.DCM": (lambda path: path.symlink_to("nowhere"), "a link to a file that is not there"),
        "z.dcm": (lambda path: path.write_text("no DICOM"), "not a DICOM image"),
        "w.dcm": (lambda path: path.symlink_to("/dev/zero"), "is a device"),
        "plan": (lambda path: path.write_bytes(slice_bytes(hu[0])[:400]), "not a DICOM image"),
        "plain": (lambda path: path.write_bytes(slice_bytes(hu[0])[:-9]), "is cut off: 327 of 336 bytes of PixelData"),
    }
    for name, (make, cause) in makers.items():
        series(tmp_path / name, hu)
        make(tmp_path / name / name)
        with pytest.raises(ScanError, match=rf"holds {name}, which .*{cause}"):
            read_scan(tmp_path / name)


def test_neighbours_that_are_no_dicom_are_left_alone(hu: np.ndarray, tmp_path: Path) -> None:
    series(tmp_path / "s", hu, name="IM{:04}")
    before = scan_digest(tmp_path / "s")
    for name in ("notes.txt", "Thumbs.db", "DICOMDIR", "index.json", ".hidden", ".IM.part", "s.nii.gz", "x.png"):
        (tmp_path / "s" / name).write_bytes(bytes(200))
    (tmp_path / "s" / "DICOMDIR").write_bytes(slice_bytes(hu[0]))
    (tmp_path / "s" / "README").write_text("Für dich:\n\tslices\n" * 20)
    (tmp_path / "s" / "folder.dcm").mkdir()
    assert np.array_equal(read_scan(tmp_path / "s").voxels, hu)
    assert scan_digest(tmp_path / "s") == before
    with (tmp_path / "s" / "IM0003").open("ab") as file:
        file.write(b"\0")
    assert scan_digest(tmp_path / "s") != before


@pytest.mark.parametrize("name", ["{:03}.dcm", "IM{:04}", "1.2.840.113619.{}", "{}.ima", "{}.DCM", "i{}.bin"])
def test_a_folder_of_dicom_files_is_a_case_whatever_they_are_called(name: str, hu: np.ndarray, tmp_path: Path) -> None:
    files = series(tmp_path / "s", hu, name=name)
    found = find_cases(tmp_path / "s", tmp_path / "out")
    assert [(case.name, case.scan) for case in found.cases] == [("s", tmp_path / "s")]
    assert (found.left_out, found.warnings) == ([], [])
    assert dicom_files(tmp_path / "s") == sorted(files)


def test_the_folder_one_stands_in_has_a_name(hu: np.ndarray, tmp_path: Path, monkeypatch: Any) -> None:
    series(tmp_path / "s", hu)
    (tmp_path / "s" / "sub").mkdir()
    for there, spelled in (("s", "."), ("s/sub", ".."), ("s/sub", "../../s"), ("s", "./sub/..")):
        monkeypatch.chdir(tmp_path / there)
        (case,) = find_cases(Path(spelled), tmp_path / "out").cases
        assert case.name == "s" and case.labels == tmp_path / "out" / "s.nii.gz"


def test_a_series_and_scans_in_one_folder_are_all_cases_and_that_is_said(hu: np.ndarray, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    series(folder, hu)
    shutil.copy(folder / "000.dcm", folder / "x_0000.nii.gz")
    found = find_cases(folder, tmp_path)
    assert [case.name for case in found.cases] == ["s", "x"]
    assert found.warnings == ["s holds a DICOM series and other scans: each is a case"]
    (folder / "patient").mkdir()
    for file in folder.glob("*.dcm"):
        file.rename(folder / "patient" / file.name)
    assert find_cases(folder, tmp_path).warnings == found.warnings


def test_an_empty_label_map_lies_on_the_grid_of_a_series_that_failed(hu: np.ndarray, tmp_path: Path) -> None:
    files = series(tmp_path / "s", hu, lambda z: {"Modality": "MR", "Rows": 12})
    with pytest.raises(ScanError, match="is not CT"):
        read_scan(tmp_path / "s")
    write_empty(tmp_path / "s", [tmp_path / "empty.nii.gz"], Description({}))
    image = nib.load(tmp_path / "empty.nii.gz")
    assert image.shape == (14, 12, 10) and not np.asarray(image.dataobj).any()
    assert np.allclose(image.affine, [[-4, 0, 0, 20], [0, -5, 0, 30], [0, 0, 3, 7], [0, 0, 0, 1]])
    files[3].write_bytes(b"")
    with pytest.raises(ScanError, match=r"^s holds 003.dcm, which is empty"):
        write_empty(tmp_path / "s", [tmp_path / "other.nii.gz"], Description({}))


def test_hidden_names_stay_hidden_in_every_refusal(hu: np.ndarray, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("inference.errors._hidden", False)
    hide_names()
    for changes in ({"Modality": "Doe"}, {"PixelSpacing": None}, {"SeriesInstanceUID": "1.9"}, {"PatientID": "Doe"}):
        series(tmp_path / "Doe", hu, lambda z: changes if z == 4 else {}, name="Doe{}")  # noqa: B023
        with pytest.raises(ScanError) as caught:
            read_scan(tmp_path / "Doe")
        assert "Doe" not in str(caught.value).replace("is Doe", "")


def test_a_dicom_series_equals_the_nifti_of_it(shared_data: Path) -> None:
    scan = read_scan(shared_data / "dicom" / "ts_slab")
    expected = read_scan(shared_data / "labelled" / "ts_slab_0000.nii.gz")
    turned = nifti_order(scan.voxels, scan.grid.affine, expected.grid.affine)
    assert np.array_equal(turned, expected.voxels)
    assert scan.grid.spacing == pytest.approx(expected.grid.spacing, rel=1e-4)


def nifti_order(voxels: np.ndarray, affine: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Flip the axes (z, y, x) that run the other way in `like`."""
    same = np.sign(np.diag(affine)[:3]) == np.sign(np.diag(like)[:3])
    x, y, z = (slice(None, None, 1 if keep else -1) for keep in same)
    return voxels[z, y, x]


@pytest.mark.slow
def test_the_command_keeps_a_series_and_a_raw_file_only_as_long_as_they_stay_the_same(
    blob: np.ndarray, tmp_path: Path, tiny_weights: Path
) -> None:
    folder = tmp_path / "s"  # of the label maps as well
    series(folder, blob, lambda _: {"PixelSpacing": "2\\2"})
    image = sitk.GetImageFromArray(blob)
    image.SetSpacing((2, 2, 3))
    sitk.WriteImage(image, str(folder / "x_0000.mhd"))

    def statuses() -> list[str]:
        flags = ("--resume", "--device", "cpu", "--engine", "onnxruntime", "--json", tmp_path / "r.json")
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "inference",
            folder,
            tmp_path / "out",
            "--weights",
            tiny_weights,
            *flags,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return [one["status"] for one in json.loads((tmp_path / "r.json").read_text())]

    assert statuses() == ["done", "done"]
    assert statuses() == ["kept", "kept"]
    (folder / "x_0000.raw").write_bytes(blob[::-1].tobytes())
    assert statuses() == ["kept", "done"]
    series(folder, blob[::-1], lambda _: {"PixelSpacing": "2\\2"})
    assert statuses() == ["done", "kept"]
