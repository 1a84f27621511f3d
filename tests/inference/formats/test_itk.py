"""Reading NRRD and MetaImage, against SimpleITK and the same scans as NIfTI."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference import machine
from inference.errors import MemoryBudgetError, ScanError, hide_names
from inference.formats.nifti import file as nifti
from inference.formats.reading import read_scan, write_empty
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
    for name, cause in (("vector.mha", "2 values a voxel"), ("flat.mha", "is 2-D")):
        with pytest.raises(ScanError, match=f"^{name} .*{cause}"):
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
    for name, cause in (("b.mha", "is a FIFO, not a file"), ("c.nrrd", "is a folder, not a file")):
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
        ("a.nrrd", "encoding: raw", "\n", "header is damaged"),
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
