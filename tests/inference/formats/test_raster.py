"""NRRD and MetaImage, against SimpleITK and the same scans as NIfTI."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pytest

from inference import machine
from inference.errors import MemoryBudgetError, ScanError, UnwrittenError, hide_names
from inference.formats import metaimage, nrrd, storage
from inference.formats.nifti import file as nifti
from inference.formats.reading import elsewhere, peek, read_scan, write_empty
from inference.formats.sources import files_of, scan_digest
from inference.formats.written import Description

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


@pytest.mark.parametrize("name", ["x.nrrd", "x.nhdr", "x.mha", "x.mhd"])
@pytest.mark.parametrize("packed", [False, True])
def test_other_formats_equal_nifti(name: str, packed: bool, image: Any, tmp_path: Path) -> None:
    sitk.WriteImage(image, str(tmp_path / name), packed)
    sitk.WriteImage(image, str(tmp_path / "x.nii.gz"))
    scan = read_scan(tmp_path / name)
    expected = read_scan(tmp_path / "x.nii.gz")
    assert np.array_equal(scan.voxels, expected.voxels)
    assert scan.grid.spacing == pytest.approx(expected.grid.spacing)
    assert scan.grid.orientation == expected.grid.orientation == "RPI"
    assert np.allclose(scan.grid.affine, expected.grid.affine, atol=1e-5)
    assert scan.warnings == ()
    nifti.write_labels(tmp_path / "labels.nii.gz", (scan.voxels > 0).astype(np.uint8), scan)
    written = sitk.ReadImage(str(tmp_path / "labels.nii.gz"))
    assert written.GetSize() == image.GetSize()
    assert np.allclose(written.GetOrigin(), image.GetOrigin(), atol=1e-4)
    assert np.allclose(written.GetDirection(), image.GetDirection(), atol=1e-6)


def test_what_is_no_ct_of_three_dimensions(image: Any, tmp_path: Path, monkeypatch: Any) -> None:
    sitk.WriteImage(sitk.Compose(image, image), str(tmp_path / "vector.mha"))
    sitk.WriteImage(image[:, :, 3], str(tmp_path / "flat.mha"))
    sitk.WriteImage(sitk.JoinSeries([image]), str(tmp_path / "four.mha"))
    flat = "is 2-D: .*; if it is one of several slices, join"
    for name, cause in (("vector.mha", "has 2 values a voxel: "), ("flat.mha", flat), ("four.mha", "is 4-D: ")):
        with pytest.raises(ScanError, match=f"^{name} {cause}"):
            read_scan(tmp_path / name)
    sitk.WriteImage(image, str(tmp_path / "large.mha"))
    monkeypatch.setattr(machine, "memory_budget", lambda: 1000)
    with pytest.raises(MemoryBudgetError, match="too large"):
        read_scan(tmp_path / "large.mha")


@pytest.mark.parametrize("name", ["x.nrrd", "x.mha", "x.mhd"])
def test_a_bit_that_flipped_is_refused_or_changes_nothing(name: str, image: Any, tmp_path: Path, capfd: Any) -> None:
    """SimpleITK returns the voxels of a tenth of these NRRD files, and of all MetaImage files, without an error."""
    sitk.WriteImage(image, str(tmp_path / name), True)
    voxels = sitk.GetArrayFromImage(image)
    path = files_of(tmp_path / name)[-1]
    whole = path.read_bytes()
    first = whole.rfind(b"\n\n") + 2 if name == "x.nrrd" else len(whole) - files_bytes(tmp_path / name)
    places = range(first, len(whole), 23)
    causes = []
    for at in places:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        try:
            assert np.array_equal(read_scan(tmp_path / name).voxels, voxels), at
        except ScanError as error:
            causes.append(str(error))
    assert len(causes) > 0.95 * len(places)
    assert all("is damaged" in cause or "is cut off" in cause for cause in causes)
    assert capfd.readouterr() == ("", "")


def files_bytes(path: Path) -> int:
    """CompressedDataSize of a MetaImage file."""
    lines = path.read_bytes().split(b"\n")
    return int(next(line for line in lines if line.startswith(b"CompressedDataSize")).split()[-1])


def test_damaged_files_are_named_in_one_sentence(image: Any, tmp_path: Path) -> None:
    for name in ("x.nrrd", "x.mha"):
        sitk.WriteImage(image, str(tmp_path / name), True)
        whole = (tmp_path / name).read_bytes()
        for data in (
            whole[: len(whole) // 2],
            whole[:-3],
            whole[:60],
            b"NRRD0004\n",
            b"NRRD",
            bytes(400),
            b"NDims = 3",
            b"",
        ):
            (tmp_path / name).write_bytes(data)
            with pytest.raises(ScanError, match=rf"^{name} (is|has|cannot be read) .") as caught:
                read_scan(tmp_path / name)
            assert "\n" not in str(caught.value) and str(tmp_path) not in str(caught.value)


META = """ObjectType = Image
NDims = 3
{}
TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = 0 0 0
ElementSpacing = 3 4 5
DimSize = 14 12 10
ElementType = MET_SHORT
ElementDataFile = """
NRRD = """NRRD0004
type: short
dimension: 3
sizes: 14 12 10
space: left-posterior-superior
space directions: (3,0,0) (0,4,0) (0,0,5)
space origin: (0,0,0)
{}
"""


@pytest.fixture
def made(image: Any, tmp_path: Path) -> Callable[..., Path]:
    """Writes a header and the voxels that it speaks of, whole or by slice; the header's own lines come first."""
    voxels = sitk.GetArrayFromImage(image)

    def make(name: str, lines: str, data: str = "", pack: Callable[[bytes], bytes] = bytes, order: str = "<") -> Path:
        plain = voxels.astype(f"{order}i2")
        for number, plane in enumerate(plain):
            (tmp_path / f"s{number}.raw").write_bytes(pack(plane.tobytes()))
        (tmp_path / "x.raw").write_bytes(pack(plain.tobytes()))
        head = (META if name.endswith(("mhd", "mha")) else NRRD).format(lines) + data
        (tmp_path / name).write_bytes(head.encode() + (b"" if data not in ("LOCAL\n", "\n") else pack(plain.tobytes())))
        return tmp_path / name

    return make


SLICES = "\n".join(f"s{number}.raw" for number in range(10)) + "\n"


@pytest.mark.parametrize(
    ("name", "lines", "data", "pack", "order"),
    [
        ("a.mhd", "", "x.raw\n", bytes, "<"),
        ("a.mhd", "", "x.raw", bytes, "<"),
        ("a.mha", "BinaryData = True", "LOCAL\n", bytes, "<"),
        ("a.mhd", "BinaryDataByteOrderMSB = True", "x.raw\n", bytes, ">"),
        ("a.mhd", "ElementByteOrderMSB: True", "x.raw\n", bytes, ">"),
        ("a.mhd", "", "LIST\n" + SLICES, bytes, "<"),
        ("a.mhd", "", "LIST 2\n" + SLICES, bytes, "<"),
        ("a.mhd", "", "s%d.raw 0 9 1\n", bytes, "<"),
        ("a.mhd", "HeaderSize = 5", "x.raw\n", lambda data: b"12345" + data, "<"),
        ("a.mhd", "HeaderSize = -1", "x.raw\n", lambda data: b"12345" + data, "<"),
        ("a.mhd", "CompressedData = True", "x.raw\n", zlib.compress, "<"),
        ("a.mha", "CompressedData = True\nCompressedDataSize = 100", "LOCAL\n", zlib.compress, "<"),
        ("a.nrrd", "endian: little\nencoding: raw", "\n", bytes, "<"),
        ("a.nrrd", "endian: big\nencoding: RAW", "\n", bytes, ">"),
        ("a.nrrd", "endian: little\nencoding: gz", "\n", gzip.compress, "<"),
        ("a.nrrd", "endian: little\nencoding: gzip\ndata file: x.raw\n", "\n", gzip.compress, "<"),
        ("a.nhdr", "endian: little\nencoding: raw\ndatafile: x.raw", "", bytes, "<"),
        ("a.nhdr", "endian: little\nencoding: raw\ndata file: LIST\n" + SLICES, "", bytes, "<"),
        ("a.nhdr", "endian: little\nencoding: raw\ndata file: s%01d.raw 0 9 1 2", "", bytes, "<"),
        ("a.nhdr", "endian: little\nencoding: raw\nbyte skip: 3\ndata file: x.raw", "", lambda d: b"123" + d, "<"),
        ("a.nhdr", "endian: little\nencoding: raw\nbyteskip: -1\ndata file: x.raw", "", lambda d: b"123" + d, "<"),
    ],
)
def test_every_file_that_is_read_is_in_the_digest(
    name: str,
    lines: str,
    data: str,
    pack: Callable[[bytes], bytes],
    order: str,
    made: Callable[..., Path],
    image: Any,
) -> None:
    path = made(name, lines, data, pack, order)
    scan = read_scan(path)
    assert np.array_equal(scan.voxels, sitk.GetArrayFromImage(image))
    assert scan.grid.spacing == (5.0, 4.0, 3.0)
    digests = {scan_digest(path)}
    for file in files_of(path):
        whole = file.read_bytes()
        changed = whole.replace(b" 12 10", b" 12 11") if file == path else whole[:-1] + bytes([whole[-1] ^ 1])
        file.write_bytes(changed)
        digests.add(scan_digest(path))
        file.write_bytes(whole)
    assert len(digests) == 1 + len(files_of(path))
    assert scan_digest(path) in digests


def test_a_header_that_leads_out_of_its_folder_is_refused(made: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for named in (
        "../x.raw",
        str(tmp_path / "x.raw"),
        "/dev/zero",
        "sub/../../x.raw",
        "LIST\n../x.raw\n",
        "../s%d.raw 0 9 1",
    ):
        for name, lines, data in (
            ("sub/a.mhd", "", f"{named}\n"),
            ("sub/a.nhdr", f"endian: little\nencoding: raw\ndata file: {named}", ""),
        ):
            path = made(name, lines, data)
            with pytest.raises(ScanError, match=f"^{path.name} has its voxels outside its own folder"):
                read_scan(path)


@pytest.mark.parametrize("named", ["C:x.raw", "C:\\x.raw", "\\x.raw", "/x.raw", "\\\\host\\share\\x.raw", "..\\x.raw"])
def test_a_header_that_leads_out_of_its_folder_on_windows(
    made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.setattr(storage, "PurePath", PureWindowsPath)
    path = made("a.mhd", "", f"{named}\n")
    with pytest.raises(ScanError, match="^a.mhd has its voxels outside its own folder"):
        read_scan(path)


def test_what_is_missing_or_no_file_is_named_and_not_waited_for(made: Callable[..., Path], tmp_path: Path) -> None:
    path = made("a.mhd", "", "x.raw\n")
    raw = tmp_path / "x.raw"
    whole = raw.read_bytes()
    raw.write_bytes(whole[:-10])
    with pytest.raises(ScanError, match=r"^a.mhd has voxels in x.raw, which is cut off: 3350 of 3360 bytes"):
        read_scan(path)
    raw.write_bytes(whole + b"four")
    assert read_scan(path).warnings == ("4 bytes follow the voxels: left out",)
    makers: tuple[tuple[Callable[[], Any], str], ...] = (
        (lambda: None, "No such file"),
        (lambda: os.mkfifo(raw), "is a FIFO"),
        (lambda: raw.symlink_to("/dev/zero"), "is a device"),
        (lambda: raw.mkdir(), "is a folder"),
    )
    for make, cause in makers:
        raw.unlink(missing_ok=True)
        make()
        with pytest.raises(ScanError, match=rf"^a.mhd has voxels in x.raw, which .*{cause}"):
            read_scan(path)
    os.mkfifo(tmp_path / "b.mha")
    (tmp_path / "c.nrrd").mkdir()
    for name, cause in (
        ("b.mha", "is a FIFO, not a file"),
        ("c.nrrd", "is a folder, not a file, and no slices of DICOM lie in it"),
    ):
        with pytest.raises(ScanError, match=f"^{name} {cause}$"):
            read_scan(tmp_path / name)


def test_what_would_be_read_wrongly_is_refused(made: Callable[..., Path]) -> None:
    for name, lines, data, cause in (
        ("a.mhd", "BinaryData = False", "x.raw\n", "has its voxels as text"),
        ("a.mhd", "ElementToIntensityFunctionSlope = 2", "x.raw\n", "is not applied"),
        ("a.mhd", "CompressedData = True", "x.raw\n", "is damaged"),
        ("a.mhd", "", "s%d.raw 0 8 1\n", "do not divide|cut off|follow"),
        ("a.mhd", "", "%s%d.raw 0 9 1\n", "No such file"),
        ("a.mhd", "", "s%9999999d.raw 0 9 1\n", "No such file|too long"),
        ("a.mhd", "", "s%d.raw 0 999999999 1\n", "does not name"),
        ("a.nrrd", "endian: little\nencoding: bzip2", "\n", "neither raw nor gzip"),
        ("a.nrrd", "endian: little\nencoding: ascii", "\n", "neither raw nor gzip"),
        ("a.nrrd", "encoding: raw", "\n", "has no endian"),
        ("a.nrrd", "endian: little\nencoding: raw\nline skip: 1", "\n", "skips lines"),
    ):
        with pytest.raises(ScanError, match=cause):
            read_scan(made(name, lines, data))


def test_voxels_of_unknown_size_are_refused_and_those_of_unknown_orientation_a_warning(
    made: Callable[..., Path],
) -> None:
    meta, nrrd = made("a.mha", "BinaryData = True", "LOCAL\n"), made("a.nrrd", "endian: little\nencoding: raw", "\n")
    spacing, directions = b"ElementSpacing = 3 4 5", b"space directions: (3,0,0) (0,4,0) (0,0,5)"
    space = b"space: left-posterior-superior"
    unknown = "does not say how large its voxels are"
    for path, old, new, said in (
        (meta, b"\n" + spacing, b"", unknown),
        (meta, b"\n" + spacing, b"\nelementspacing = 3 4 5", unknown),
        (meta, spacing, b"ElementSpacing = -3 4 5", unknown),
        (meta, spacing, b"ElementSpacing = 3 nan 5", unknown),
        (meta, spacing, b"ElementSpacing = 3,4,5", unknown),
        (meta, spacing, b"ElementSize = 3 4 5", ""),
        (meta, b"TransformMatrix", b"Comment", "no orientation"),
        (nrrd, space + b"\n" + directions + b"\nspace origin: (0,0,0)", b"content: ct", unknown),
        (nrrd, space + b"\n" + directions + b"\nspace origin: (0,0,0)", b"spacings: 3 nan 5", unknown),
        (nrrd, space + b"\n" + directions + b"\nspace origin: (0,0,0)", b"spacings: 3 4 -5", unknown),
        (nrrd, space + b"\n" + directions + b"\nspace origin: (0,0,0)", b"spacings: 3 4 5", "no orientation"),
        (nrrd, space, b"space: scanner-xyz", "no orientation"),
        (nrrd, space, b"space: LPS", ""),
    ):
        whole = path.read_bytes()
        assert whole.count(old) == 1
        path.write_bytes(whole.replace(old, new))
        if said == unknown:
            with pytest.raises(ScanError, match=f"^{path.name} {said}"):
                read_scan(path)
        else:
            scan = read_scan(path)
            assert scan.grid.spacing == (5, 4, 3) and scan.grid.orientation == "LPS"
            assert [said in text for text in scan.warnings] == ([True] if said else [])
        path.write_bytes(whole)


def test_a_name_that_is_not_utf8(made: Callable[..., Path], image: Any) -> None:
    path = made("a.mha", "BinaryData = True", "LOCAL\n")
    odd = path.rename(Path(os.fsdecode(os.fsencode(path.parent) + b"/\xff.mha")))
    assert np.array_equal(read_scan(odd).voxels, sitk.GetArrayFromImage(image))


def test_no_name_and_no_path_is_in_what_is_said(
    made: Callable[..., Path], tmp_path: Path, monkeypatch: Any, capfd: Any
) -> None:
    monkeypatch.setattr("inference.errors._hidden", False)
    hide_names()
    for lines, data in (
        ("", "Doe_Jane.raw\n"),
        ("", "Doe_Jane%d.raw 0 9 1\n"),
        ("", "../Doe_Jane.raw\n"),
        ("DimSize = Doe_Jane", "x.raw\n"),
        ("ElementToIntensityFunctionSlope = Doe_Jane", "x.raw\n"),
    ):
        with pytest.raises(ScanError) as caught:
            read_scan(made("Doe_Jane_0000.mhd", lines, data))
        assert "Doe" not in str(caught.value) and str(tmp_path) not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_an_empty_label_map_lies_on_the_grid_of_a_damaged_scan(made: Callable[..., Path], tmp_path: Path) -> None:
    path = made("a.mhd", "", "x.raw\n")
    scan = read_scan(path)
    (tmp_path / "x.raw").unlink()
    write_empty(path, [tmp_path / "empty.nii.gz"], Description({}))
    written = sitk.ReadImage(str(tmp_path / "empty.nii.gz"))
    assert written.GetSize() == (14, 12, 10) and written.GetSpacing() == (3, 4, 5)
    assert np.allclose(nifti.peek(tmp_path / "empty.nii.gz").grid.affine, scan.grid.affine)


LINES = {
    ".mha": META.format("BinaryData = True") + "LOCAL\n",
    ".nrrd": NRRD.format("endian: little\nencoding: raw") + "\n",
}


@pytest.fixture
def changed(tmp_path: Path, image: Any) -> Callable[..., Path]:
    """Writes a file whose header has other lines instead of some, and the voxels of a type."""

    def make(ending: str, old: str, new: str, dtype: str = "<i2") -> Path:
        whole = LINES[ending]
        assert whole.count(old) == 1
        voxels = np.abs(sitk.GetArrayFromImage(image) // 8).astype(dtype)
        (tmp_path / f"x{ending}").write_bytes(whole.replace(old, new).encode() + voxels.tobytes())
        return tmp_path / f"x{ending}"

    return make


def assert_as_simpleitk(path: Path) -> None:
    """Voxels, and the place of each corner to 0.1 um, which float32 has there."""
    scan, read = read_scan(path, accept=True), sitk.ReadImage(str(path))
    assert np.array_equal(scan.voxels, sitk.GetArrayFromImage(read))
    for corner in np.ndindex(2, 2, 2):
        index = [int(at * (n - 1)) for at, n in zip(corner, read.GetSize(), strict=True)]
        x, y, z, _ = scan.grid.affine @ [*index, 1]
        assert (-x, -y, z) == pytest.approx(read.TransformIndexToPhysicalPoint(index), abs=1e-4)


TURNED = "0.8 0.6 0 -0.6 0.8 0 0 0 -1"


@pytest.mark.parametrize(
    ("ending", "old", "new"),
    [
        (".mha", "TransformMatrix = 1 0 0 0 1 0 0 0 1", f"TransformMatrix = {TURNED}\nCenterOfRotation = 7 8 9"),
        (".mha", "TransformMatrix = 1 0 0 0 1 0 0 0 1", f"Rotation = {TURNED}\nAnatomicalOrientation = RAI"),
        (".mha", "TransformMatrix = 1 0 0 0 1 0 0 0 1", f"Orientation = {TURNED}\nRotation={TURNED}"),
        (".mha", "TransformMatrix = 1 0 0 0 1 0 0 0 1", "TransformMatrix = 1 0 0 0 1 0 0 0.1 0.995"),
        (".mha", "Offset = 0 0 0", "Position =  -250.009995 -250.009995\t-240.75"),
        (".mha", "Offset = 0 0 0", "Origin = 1 -2e2 3"),
        (".mha", "Offset = 0 0 0\n", ""),
        (".mha", "ElementSpacing = 3 4 5", "ElementSize = 1 1 1\nElementSpacing = 3 4 5"),
        (".mha", "ElementSpacing = 3 4 5", "ElementSize = 3 4 5\nComment = ElementSize = 1 1 1"),
        (".mha", "DimSize = 14 12 10", "DimSize = 12  14 10\nElementNumberOfChannels = 1\nElementMin = 3"),
        (".nrrd", "(3,0,0) (0,4,0)", "(2.4,1.8,0) (-2.4, 3.2, 0)"),
        (".nrrd", "left-posterior-superior", "right-anterior-superior"),
        (".nrrd", "left-posterior-superior", "RAS"),
        (".nrrd", "left-posterior-superior", "Left-Anterior-Superior"),
        (".nrrd", "space origin: (0,0,0)", "space origin: (-10.5,20.25,3e1)"),
        (".nrrd", "space origin: (0,0,0)", 'space units: "mm" "mm" "mm"\nkinds: domain space domain'),
        (".nrrd", "space origin: (0,0,0)", "measurement frame: (0,1,0) (1,0,0) (0,0,1)\ntype:=float"),
        (".nrrd", "type: short", "Type: signed short int\n# sizes: 1 1 1"),
    ],
)
def test_headers_mean_what_they_mean_to_simpleitk(
    ending: str, old: str, new: str, changed: Callable[..., Path]
) -> None:
    path = changed(ending, old, new)
    path.write_bytes(
        path.read_bytes().replace(b"(3,0,0) (0,4,0)", b"(2.4,1.8,0) (-2.4,3.2,0)")
    )  # no axis is as another
    assert_as_simpleitk(path)


@pytest.mark.parametrize(
    ("ending", "old", "new"),
    [
        (".mha", "ElementSpacing = 3 4 5", f"ElementSpacing = 3.1 4.7 5.3\nRotation = {TURNED}"),
        (".nrrd", "(3,0,0) (0,4,0)", "(3.1,0,0) (0,4.7,0)"),
    ],
)
def test_the_spacing_is_that_of_the_header_to_the_last_digit(
    ending: str, old: str, new: str, changed: Callable[..., Path]
) -> None:
    path = changed(ending, old, new)
    path.write_bytes(path.read_bytes().replace(b"TransformMatrix = 1 0 0 0 1 0 0 0 1\n", b""))
    assert read_scan(path, accept=True).grid.spacing == sitk.ReadImage(str(path)).GetSpacing()[::-1]


@pytest.mark.parametrize(
    ("ending", "name", "dtype"),
    [
        *((".mha", name, f"<{stored}") for name, stored in metaimage.TYPES.items()),
        (".mha", "MET_SHORT_ARRAY", "<i2"),
        *((".nrrd", name, f"<{stored}") for name, stored in nrrd.TYPES.items()),
    ],
)
def test_voxels_of_every_type(ending: str, name: str, dtype: str, changed: Callable[..., Path]) -> None:
    old, key = ("ElementType = MET_SHORT", "ElementType =") if ending == ".mha" else ("type: short", "type:")
    path = changed(ending, old, f"{key} {name}", dtype)
    scan = read_scan(path, accept=True)
    theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    assert np.array_equal(scan.voxels, theirs[..., 0] if theirs.ndim == 4 else theirs)
    assert scan.voxels.dtype == (np.int16 if np.can_cast(dtype, np.int16) else np.float32)


@pytest.mark.parametrize(
    ("ending", "old", "new", "cause"),
    [
        (".mha", "ObjectType = Image", "ObjectType = Tube", "an ObjectType other"),
        (".mha", "NDims = 3", "NDims = three", "NDims is not a number"),
        (".mha", "NDims = 3", "NDims = 2.5", "NDims is not of whole numbers above 0"),
        (".mha", "DimSize = 14 12 10", "DimSize = 14 12", "DimSize is not 3 numbers"),
        (".mha", "DimSize = 14 12 10", "DimSize = 14 0 10", "DimSize is not of whole numbers above 0"),
        (".mha", "DimSize = 14 12 10", "DimSize = 14 12 1e300", "DimSize is not of whole numbers above 0"),
        (".mha", "DimSize = 14 12 10", "DimSize = 14 12 10\nDimSize = 10 12 14", "two different values of DimSize"),
        (".mha", "DimSize = 14 12 10\n", "", "DimSize is not 3 numbers"),
        (".mha", "Offset = 0 0 0", "Offset = 0,0,0", "Offset is not 3 numbers"),
        (".mha", "Offset = 0 0 0", "Offset = 0 0 inf", "Offset is not 3 numbers"),
        (".mha", "Offset = 0 0 0", "Offset = 0 0 0\nOrigin = 0 0 1", "Offset and Origin differ"),
        (".mha", "TransformMatrix = 1 0", "TransformMatrix = 2 0", "not of length 1"),
        (".mha", "TransformMatrix = 1 0 0 0 1 0 0 0 1", "TransformMatrix = 1 0 0 1 0 0 0 0 1", "span a volume"),
        (".mha", "Offset = 0 0 0", "HeaderSize = 1e300", "HeaderSize is not a number of bytes"),
        (".mha", "Offset = 0 0 0", "HeaderSize = -2", "HeaderSize is not a number of bytes"),
        (".mha", "Offset = 0 0 0", "DistanceUnits = um", "DistanceUnits other than mm"),
        (".mha", "BinaryData = True", "BinaryDataByteOrderMSB = True\nElementByteOrderMSB = False", "differ"),
        (".mha", "MET_SHORT", "MET_STRING", "an ElementType that is not a number"),
        (".mha", "ElementType = MET_SHORT\n", "", "an ElementType that is not a number"),
        (".nrrd", "dimension: 3", "dimension: 4", "is 4-D"),
        (".nrrd", "sizes: 14 12 10", "sizes: 14 12", "sizes is not 3 numbers"),
        (".nrrd", "sizes: 14 12 10", "sizes: 14 12 10\nsizes: 10 12 14", "a field twice"),
        (".nrrd", "type: short", "type: block", "a type that is not a number"),
        (".nrrd", "(0,0,5)", "none", "space directions is not 3 vectors"),
        (".nrrd", "(0,0,5)", "(0,5)", "space directions is not 3 numbers"),
        (".nrrd", "(0,4,0)", "(3,0,0)", "span a volume"),
        (".nrrd", "space origin: (0,0,0)", "spacings: 3 4 5", "space directions and spacings"),
        (".nrrd", "space origin: (0,0,0)", "axis mins: 0 0 0", "axis mins"),
        (".nrrd", "space origin: (0,0,0)", "kinds: domain domain vector", "none of space"),
        (".nrrd", "space origin: (0,0,0)", 'space units: "um" "um" "um"', "space units other than mm"),
    ],
)
def test_headers_that_contradict_themselves_are_refused(
    ending: str, old: str, new: str, cause: str, changed: Callable[..., Path]
) -> None:
    with pytest.raises(ScanError, match=f"^x{ending} .*{cause}") as caught:
        read_scan(changed(ending, old, new), accept=True)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_no_byte_of_a_header_breaks_the_reader(ending: str, changed: Callable[..., Path]) -> None:
    path, whole = changed(ending, "14", "14"), (LINES[ending] + "\0" * 3360).encode()
    refused = []
    for at in range(len(LINES[ending])):
        for other in b"9-\n\xff":
            path.write_bytes(whole[:at] + bytes([other]) + whole[at + 1 :])
            try:
                peek(path)
            except (ScanError, MemoryBudgetError) as error:
                refused.append(str(error))
    assert len(refused) > len(LINES[ending]) and not any("\n" in text for text in refused)


def test_a_label_map_lies_where_the_scan_does_to_the_last_digit(changed: Callable[..., Path], tmp_path: Path) -> None:
    """ITK's filters refuse two images whose origins differ by more than a millionth of a voxel."""
    path = changed(".mha", "Offset = 0 0 0", "Offset = -250.00999512345 1e-7 -1240.7512345678")
    path.write_bytes(path.read_bytes().replace(b"TransformMatrix = 1 0 0 0 1 0 0 0 1", f"Rotation = {TURNED}".encode()))
    scan = read_scan(path, accept=True)
    labels = (scan.voxels > np.median(scan.voxels)).astype(np.uint8)
    done = metaimage.write_labels(tmp_path / "labels.mha", labels, scan)
    assert done.sha256 == hashlib.sha256((tmp_path / "labels.mha").read_bytes()).hexdigest()
    read, source = (sitk.ReadImage(str(file)) for file in (tmp_path / "labels.mha", path))
    assert np.array_equal(sitk.GetArrayFromImage(read), labels) and read.GetPixelID() == sitk.sitkUInt8
    assert (read.GetOrigin(), read.GetSpacing(), read.GetDirection()) == (
        source.GetOrigin(), source.GetSpacing(), source.GetDirection(),
    )  # fmt: skip
    assert np.array_equal(read_scan(tmp_path / "labels.mha", accept=True).voxels, labels)


def test_a_label_map_of_a_nifti(image: Any, tmp_path: Path) -> None:
    sitk.WriteImage(image, str(tmp_path / "x.nii.gz"))
    scan = read_scan(tmp_path / "x.nii.gz")
    metaimage.write_labels(tmp_path / "x.mha", (scan.voxels > 0).astype(np.uint8), scan)
    assert np.allclose(read_scan(tmp_path / "x.mha", accept=True).grid.affine, scan.grid.affine, atol=1e-5)
    sitk.ReadImage(str(tmp_path / "x.mha"))
    assert metaimage.write_labels(tmp_path / "y.mha", (scan.voxels > 0).astype(np.uint8), scan).sha256 == (
        hashlib.sha256((tmp_path / "x.mha").read_bytes()).hexdigest()
    )
    (tmp_path / "y.mha").unlink()
    with pytest.raises(UnwrittenError, match=r"^y.mha cannot be written: No such"):
        metaimage.write_labels(tmp_path / "none" / "y.mha", (scan.voxels > 0).astype(np.uint8), scan)


def test_a_label_map_lies_on_the_grid_of_a_nifti_whose_two_spacings_differ_a_little(image: Any, tmp_path: Path) -> None:
    sitk.WriteImage(image, str(tmp_path / "x.nii"))
    header = bytearray((tmp_path / "x.nii").read_bytes())
    header[88:92] = np.float32(5.003).tobytes()  # pixdim[3]; the sform has 5
    (tmp_path / "x.nii").write_bytes(header)
    scan = read_scan(tmp_path / "x.nii")
    metaimage.write_labels(tmp_path / "x.mha", (scan.voxels > 0).astype(np.uint8), scan)
    labels = read_scan(tmp_path / "x.mha", ct=[False])
    assert scan.grid.spacing[0] > labels.grid.spacing[0] == 5
    assert elsewhere(scan.grid, labels.grid) is None
