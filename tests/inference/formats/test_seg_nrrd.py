"""Label maps as .seg.nrrd: voxels and geometry against the NIfTI of the same labels, fields as 3D Slicer reads them."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from inference.errors import UnwrittenError
from inference.formats import seg_nrrd
from inference.formats.nifti import file as nifti
from inference.formats.reading import read_scan
from inference.labels import TABLE, structures
from inference.scan import Scan
from tests.inference.dicom import series

sitk = pytest.importorskip("SimpleITK")

AXES = ["".join(axes) for pairs in permutations(("LR", "PA", "IS")) for axes in product(*pairs)]


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    """(z, y, x) = (8, 10, 14): each value of the table somewhere, no symmetry."""
    made = np.zeros((8, 10, 14), np.uint8)
    made[1:7, 2:9, 3:10] = np.arange(7, dtype=np.uint8) + 1
    made[2:5, 1:4, 10:13] = np.arange(8, 11, dtype=np.uint8)[:, None, None]
    made[5, 6:9, 11:14] = [11, 12, 13]
    made[7, 9, 0] = 14
    return made


def scan_of(labels: np.ndarray, affine: np.ndarray, folder: Path) -> Scan:
    hu = np.random.default_rng(1).integers(-900, 200, labels.shape).astype(np.int16)
    image = nib.Nifti1Image(hu.transpose(2, 1, 0), affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, folder / "x_0000.nii.gz")
    return read_scan(folder / "x_0000.nii.gz")


def both(labels: np.ndarray, scan: Scan, folder: Path) -> tuple[Any, Any]:
    """The label map as .nii.gz and as .seg.nrrd, read by SimpleITK."""
    nifti.write_labels(folder / "x.nii.gz", labels, scan)
    seg_nrrd.write(labels, scan, folder / "x.seg.nrrd", TABLE)
    return sitk.ReadImage(str(folder / "x.nii.gz")), sitk.ReadImage(str(folder / "x.seg.nrrd"))


def assert_same_place(one: Any, other: Any) -> None:
    assert np.array_equal(sitk.GetArrayFromImage(one), sitk.GetArrayFromImage(other))
    assert one.GetPixelIDTypeAsString() == other.GetPixelIDTypeAsString() == "8-bit unsigned integer"
    corners = list(product(*((0, n - 1) for n in one.GetSize())))
    for corner in corners:
        place = one.TransformIndexToPhysicalPoint(corner)
        assert other.TransformIndexToPhysicalPoint(corner) == pytest.approx(place, abs=1e-4)


@pytest.mark.parametrize("orientation", AXES)
def test_voxels_and_their_places_are_those_of_the_nifti(
    orientation: str, labels: np.ndarray, save_scan: Callable[..., Path], tmp_path: Path
) -> None:
    hu = np.random.default_rng(1).integers(-900, 200, labels.shape).astype(np.int16)
    scan = read_scan(save_scan(tmp_path / "x_0000.nii.gz", hu, (7.0, 5.0, 4.0), orientation))
    assert_same_place(*both(labels, scan, tmp_path))


def oblique(shear: float = 0.0) -> np.ndarray:
    a, b = 0.3, -0.2
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = np.diag([-4.0, 5.0, 7.0, 1.0])
    affine[1, 2] = 7 * shear
    affine[:3, :3] = about_z @ about_x @ affine[:3, :3]
    affine[:3, 3] = [31.3, -17.7, 1e-7]
    return affine


def test_an_oblique_scan(labels: np.ndarray, tmp_path: Path) -> None:
    assert_same_place(*both(labels, scan_of(labels, oblique(), tmp_path), tmp_path))


def test_a_tilted_gantry_keeps_its_shear(labels: np.ndarray, tmp_path: Path) -> None:
    """ITK reads no NIfTI with a shear, so that the places are worked out from the header."""
    scan = scan_of(labels, oblique(0.25), tmp_path)
    seg_nrrd.write(labels, scan, tmp_path / "x.seg.nrrd", TABLE)
    directions, origin = geometry((tmp_path / "x.seg.nrrd").read_bytes())
    assert np.allclose(np.column_stack([*directions, origin]), [[-1], [-1], [1]] * oblique(0.25)[:3], atol=1e-5)


def test_a_metaimage_and_a_series_of_dicom(labels: np.ndarray, tmp_path: Path) -> None:
    hu = np.random.default_rng(1).integers(-900, 200, labels.shape).astype(np.int16)
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing((4.0, 5.0, 7.0))
    image.SetOrigin((-20.0, 30.0, 7.0))
    image.SetDirection((-1, 0, 0, 0, 0, 1, 0, 1, 0))
    sitk.WriteImage(image, str(tmp_path / "x.mha"))
    assert_same_place(*both(labels, read_scan(tmp_path / "x.mha"), tmp_path))
    series(tmp_path / "series", np.concatenate([hu, hu]))
    assert_same_place(*both(np.concatenate([labels, labels]), read_scan(tmp_path / "series"), tmp_path))


def header(data: bytes) -> dict[str, str]:
    """The fields and the key/value pairs of a NRRD header, as its specification says."""
    lines = data[: data.index(b"\n\n")].decode().split("\n")
    assert lines[0] == "NRRD0004"
    found: dict[str, str] = {}
    for line in lines[1:]:
        if not line.startswith("#"):
            key, value = re.split(":=|: ", line, maxsplit=1)
            assert key not in found
            found[key] = value.replace("\\\\", "\\")
    return found


def geometry(data: bytes) -> tuple[list[list[float]], list[float]]:
    fields = header(data)
    *vectors, origin = (
        [float(part) for part in vector.split(",")]
        for vector in re.findall(r"\(([^)]*)\)", f"{fields['space directions']} {fields['space origin']}")
    )
    return vectors, origin


def test_the_fields_are_those_that_slicer_reads(labels: np.ndarray, tmp_path: Path) -> None:
    scan = scan_of(labels, np.diag([-4.0, -5.0, 7.0, 1.0]), tmp_path)
    seg_nrrd.write(labels, scan, tmp_path / "x.seg.nrrd", TABLE)
    data = (tmp_path / "x.seg.nrrd").read_bytes()
    found = header(data)
    assert gzip.decompress(data[data.index(b"\n\n") + 2 :]) == labels.tobytes()
    fixed = {
        "type": "unsigned char", "dimension": "3", "space": "left-posterior-superior", "sizes": "14 10 8",
        "space directions": "(4,0,0) (0,5,0) (0,0,7)", "kinds": "domain domain domain", "encoding": "gzip",
        "space origin": "(0,0,0)", "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_ConversionParameters": "Reference image geometry|"
            "-4;0;0;0;0;-5;0;0;0;0;7;0;0;0;0;1;0;13;0;9;0;7;|Geometry of the scan.&",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }  # fmt: skip
    assert {key: found[key] for key in found if not re.match(r"Segment\d", key)} == fixed
    right = {key.removeprefix("Segment1_"): value for key, value in found.items() if key.startswith("Segment1_")}
    assert right == {
        "Color": "0.94902 0.756863 0.305882", "ColorAutoGenerated": "0", "Extent": "0 13 0 9 0 7", "ID": "Segment_2",
        "LabelValue": "2", "Layer": "0", "Name": "right kidney", "NameAutoGenerated": "0",
        "Tags": "TerminologyEntry:Segmentation category and type - 3D Slicer General Anatomy list"
            "~SCT^123037004^Anatomical Structure~SCT^64033007^Kidney~SCT^24028007^Right"
            "~Anatomic codes - DICOM master list~^^~^^|",
    }  # fmt: skip
    assert found["Segment13_Tags"] == (
        "TerminologyEntry:Segmentation category and type - DICOM master list"
        "~SCT^49755003^Morphologically Altered Structure~SCT^108369006^Neoplasm~^^"
        "~Anatomic codes - DICOM master list~^^~^^|"
    )
    assert [found[f"Segment{number}_LabelValue"] for number in range(14)] == [str(one.value) for one in TABLE]


def test_every_segment_may_reach_as_far_as_the_scan(labels: np.ndarray, tmp_path: Path) -> None:
    """Slicer cuts the whole label map to the extent of its first segment: one of the liver would cost all others."""
    scan = scan_of(labels, np.diag([-4.0, -5.0, 7.0, 1.0]), tmp_path)
    for some in (labels, labels * 0):
        seg_nrrd.write(some, scan, tmp_path / "x.seg.nrrd", TABLE)
        found = header((tmp_path / "x.seg.nrrd").read_bytes())
        assert {found[f"Segment{number}_Extent"] for number in range(14)} == {"0 13 0 9 0 7"}


def test_labels_of_any_network_have_names_and_ids_of_their_own(labels: np.ndarray, tmp_path: Path) -> None:
    table = structures({1: "rib_left_1", 2: "rib_left_1", 3: "a\\n\n:=ü", 4: "Kidney_Left"})
    scan = scan_of(labels, np.diag([-4.0, -5.0, 7.0, 1.0]), tmp_path)
    seg_nrrd.write(labels, scan, tmp_path / "x.seg.nrrd", table)
    found = header((tmp_path / "x.seg.nrrd").read_bytes())
    assert [found[f"Segment{n}_Name"] for n in range(4)] == ["rib left 1", "rib left 1", "a\\n :=ü", "left kidney"]
    assert len({found[f"Segment{n}_ID"] for n in range(4)}) == 4
    assert [n for n in range(4) if f"Segment{n}_Tags" in found] == [3]
    image = sitk.ReadImage(str(tmp_path / "x.seg.nrrd"))
    assert image.GetMetaData("Segment2_Name") == "a\\n :=ü"


def test_the_same_labels_are_the_same_bytes_and_their_digest_is_told(labels: np.ndarray, tmp_path: Path) -> None:
    scan = scan_of(labels, oblique(), tmp_path)
    one = seg_nrrd.write(labels, scan, tmp_path / "x.seg.nrrd", TABLE)
    other = seg_nrrd.write(np.asfortranarray(labels), scan, tmp_path / "y.seg.nrrd", TABLE)
    assert (tmp_path / "x.seg.nrrd").read_bytes() == (tmp_path / "y.seg.nrrd").read_bytes()
    assert one.sha256 == other.sha256
    assert b"x_0000" not in (tmp_path / "x.seg.nrrd").read_bytes()


def test_what_cannot_be_written_leaves_nothing(labels: np.ndarray, tmp_path: Path) -> None:
    scan = scan_of(labels, oblique(), tmp_path)
    with pytest.raises(UnwrittenError, match="x.seg.nrrd cannot be written: No such file"):
        seg_nrrd.write(labels, scan, tmp_path / "none" / "x.seg.nrrd", TABLE)
    with pytest.raises(ValueError, match="are not uint8"):
        seg_nrrd.write(labels[1:], scan, tmp_path / "x.seg.nrrd", TABLE)
    assert [path.name for path in tmp_path.iterdir()] == ["x_0000.nii.gz"]


def test_slicerio_reads_names_terminology_and_geometry(labels: np.ndarray, tmp_path: Path) -> None:
    slicerio = pytest.importorskip("slicerio")
    scan = scan_of(labels, oblique(), tmp_path)
    seg_nrrd.write(labels, scan, tmp_path / "x.seg.nrrd", TABLE)
    read = slicerio.read_segmentation(str(tmp_path / "x.seg.nrrd"))
    assert np.array_equal(read["voxels"], labels.transpose(2, 1, 0))
    assert np.allclose(read["ijkToLPS"], np.diag([-1, -1, 1, 1]) @ scan.grid.affine)
    assert read["masterRepresentation"] == "Binary labelmap"
    for one, segment in zip(TABLE, read["segments"], strict=True):
        assert (segment["name"], segment["labelValue"], segment["layer"]) == (one.title, one.value, 0)
        assert segment["color"] == pytest.approx([part / 255 for part in one.colour], abs=1e-6)
        terms = segment["terminology"]
        for field, code in (("category", one.category), ("type", one.type), ("typeModifier", one.side)):
            assert terms.get(field) == ([code.scheme, code.value, code.meaning] if code else None)
