"""Label maps as DICOM SEG and RTSTRUCT: places against the NIfTI of the same labels, read back by other programs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from skimage.draw import polygon2mask

from inference.errors import ScanError, UnwrittenError
from inference.formats.cases import find_cases
from inference.formats.dicom import saving
from inference.formats.reading import read_scan, write_empty
from inference.formats.sources import scan_digest
from inference.formats.writing import check, write
from inference.formats.written import Description
from inference.labels import BY_VALUE, TABLE
from inference.names import DICOM_FORMATS, labels_file
from inference.quantities import quantities
from inference.scan import Scan
from tests.inference.dicom import ENHANCED, enhanced_bytes
from tests.made.ct import AXIAL, FRAME, SERIES, STUDY, ct_series

pydicom = pytest.importorskip("pydicom")
srread = pytest.importorskip("highdicom.sr").srread
sitk = pytest.importorskip("SimpleITK")

ABOUT = Description({one.value: one.key for one in TABLE}, {"organ": "0" * 64})
SIGNED = [sign * axis for axis in np.eye(3) for sign in (1, -1)]
# Every ImageOrientationPatient along the axes: head or feet first, supine, prone or on a side, axial or not. Slices are
# stacked along their normal, so that there are 24, and twice as many series by the order of files.
ORIENTATIONS = [(*row, *column) for row, column in permutations(SIGNED, 2) if not row @ column]
a, b = 0.3, -0.2
OBLIQUE = (np.cos(b), np.sin(b), 0, -np.sin(b) * np.cos(a), np.cos(b) * np.cos(a), np.sin(a))


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    """(z, y, x) = (12, 12, 16): values of the table but for 8 and 12, no symmetry, a hole in 1 and an island in it."""
    made = np.zeros((12, 12, 16), np.uint8)
    made[1:7, 1:10, 2:11] = 1
    made[2:5, 3:8, 4:9] = 0
    made[3, 5, 6] = 1
    made[4, 5, 6] = 2
    made[0:3, 10:12, 0:4] = np.array([3, 4, 5, 6])
    made[7, 0:8, 12:16] = 7
    made[8, 2:9:2, 3] = [9, 10, 11, 13]
    made[5:8, 9:12, 13:16] = 14
    return made


def scan_of(labels: np.ndarray, folder: Path, **how: Any) -> Scan:
    hu = np.random.default_rng(1).integers(-900, 200, labels.shape).astype(np.int16)
    ct_series(folder, hu, **how)
    return read_scan(folder)


def written(labels: np.ndarray, scan: Scan, out: Path, *kinds: str, about: Description = ABOUT) -> list[Path]:
    out.mkdir(exist_ok=True)
    files = [labels_file(out, "x", kind) for kind in kinds]
    write(labels, scan, files, about)
    return files


def world(file: Path, value: int) -> np.ndarray:
    """(n, 3) mm, LPS: the voxels of a value in a NIfTI file, sorted."""
    image = nib.load(file)
    places = apply_affine(image.affine, np.argwhere(np.asarray(image.dataobj) == value))
    return in_order(places * (-1, -1, 1))


def in_order(places: np.ndarray) -> np.ndarray:
    rounded = np.round(places, 3) + 0.0
    return rounded[np.lexsort(rounded.T)]


def segments(file: Path) -> dict[str, np.ndarray]:
    """By label (n, 3) mm, LPS, of the pixels that are set: frame by frame, each by its own position."""
    seg = pydicom.dcmread(file)
    shared = seg.SharedFunctionalGroupsSequence[0]
    row, column = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    down, along = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    places: dict[str, list[np.ndarray]] = {str(one.SegmentLabel): [] for one in seg.SegmentSequence}
    numbers = {int(one.SegmentNumber): str(one.SegmentLabel) for one in seg.SegmentSequence}
    for frame, pixels in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
        name = numbers[frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber]
        start = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        at = np.argwhere(pixels)
        places[name].append(start + at[:, 1:] * along * row + at[:, :1] * down * column)
    return {name: in_order(np.concatenate(some)) for name, some in places.items()}


def regions(file: Path, like: Path) -> dict[int, np.ndarray]:
    """By number the mask (x, y, z) on the grid of a NIfTI file: contours are placed by that file's affine alone, and
    filled by scikit-image, those of one slice over each other by exclusive or.
    """
    image = nib.load(like)
    inverse = np.linalg.inv(image.affine)
    rt = pydicom.dcmread(file)
    found = {}
    for one in rt.ROIContourSequence:
        mask = np.zeros(image.shape, bool)
        for contour in one.ContourSequence:
            points = np.array(contour.ContourData, float).reshape(-1, 3) * (-1, -1, 1)
            at = apply_affine(inverse, points)
            assert contour.NumberOfContourPoints == len(at) > 2 and contour.ContourGeometricType == "CLOSED_PLANAR"
            assert np.abs(at[0] - at[-1]).max() > 1e-3  # the last is joined to the first, and does not repeat it
            plane = round(float(at[0, 2]))
            assert np.abs(at[:, 2] - plane).max() < 1e-3
            mask[..., plane] ^= polygon2mask(image.shape[:2], np.round(at[:, :2], 3))
        found[int(one.ReferencedROINumber)] = mask
    return found


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("orientation", [*ORIENTATIONS, OBLIQUE])
def test_every_voxel_lies_where_it_lies_in_the_nifti(
    orientation: tuple[float, ...], backwards: bool, labels: np.ndarray, tmp_path: Path
) -> None:
    scan = scan_of(labels, tmp_path / "s", orientation=orientation, backwards=backwards)
    nifti, seg, rt = written(labels, scan, tmp_path / "out", "nii.gz", "seg.dcm", "rtstruct.dcm")
    found = segments(seg)
    assert found.keys() == {BY_VALUE[value].title for value in np.unique(labels) if value}
    for value, mask in regions(rt, nifti).items():
        title = BY_VALUE[value].title
        assert np.allclose(found[title], world(nifti, value), atol=2e-3)
        assert np.allclose(found[title].mean(axis=0), world(nifti, value).mean(axis=0), atol=1e-3)
        assert np.array_equal(mask, np.asarray(nib.load(nifti).dataobj) == value)


def tool(name: str) -> str:
    """A program of another project; the test is skipped where it is not installed."""
    found = shutil.which(name) or shutil.which(str(Path(sys.executable).parent / name))
    return found or pytest.skip(f"{name} is not installed")


def by_dcmqi(seg: Path, folder: Path) -> dict[str, Any]:
    """By label the image that dcmqi makes of a segment, and what it says of it."""
    folder.mkdir()
    command = [tool("segimage2itkimage"), "--inputDICOM", seg, "--outputDirectory", folder, "--outputType", "nrrd"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    about = [one for group in json.loads((folder / "meta.json").read_text())["segmentAttributes"] for one in group]
    return {one["SegmentLabel"]: (sitk.ReadImage(str(folder / f"{one['labelID']}.nrrd")), one) for one in about}


@pytest.mark.parametrize(
    "orientation", [AXIAL, (-1.0, 0, 0, 0, -1, 0), (1.0, 0, 0, 0, -1, 0), (0, 1.0, 0, 0, 0, -1), OBLIQUE]
)
def test_dcmqi_reads_the_same_voxels_names_and_colours(
    orientation: tuple[float, ...], labels: np.ndarray, tmp_path: Path
) -> None:
    scan = scan_of(labels, tmp_path / "s", orientation=orientation)
    nifti, seg = written(labels, scan, tmp_path / "out", "nii.gz", "seg.dcm")
    found = by_dcmqi(seg, tmp_path / "itk")
    assert len(found) == 12
    for value in set(np.unique(labels).tolist()) - {0}:
        one = BY_VALUE[value]
        image, said = found[one.title]
        at = np.argwhere(sitk.GetArrayFromImage(image))[:, ::-1].tolist()
        places = np.array([image.TransformContinuousIndexToPhysicalPoint(point) for point in at])
        assert np.allclose(in_order(places), world(nifti, value), atol=2e-3)
        assert np.abs(np.subtract(said["recommendedDisplayRGBValue"], one.colour)).max() <= 1
        assert one.type and said["SegmentedPropertyTypeCodeSequence"]["CodeValue"] == one.type.value
        side = said.get("SegmentedPropertyTypeModifierCodeSequence", {}).get("CodeValue")
        assert side == (one.side and one.side.value)


def checked_by_dciodvfy(file: Path) -> str:
    """What it says of an object."""
    done = subprocess.run([tool("dciodvfy"), str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("kind", ["seg.dcm", "rtstruct.dcm", "sr.dcm"])
def test_dciodvfy_finds_no_error(kind: str, labels: np.ndarray, tmp_path: Path) -> None:
    (file,) = written(labels, scan_of(labels, tmp_path / "s"), tmp_path, kind)
    said = checked_by_dciodvfy(file)
    assert "Error" not in said and "Warning" not in said, said


def test_references_to_every_slice_and_what_made_it(labels: np.ndarray, tmp_path: Path) -> None:
    seg, rt = (
        pydicom.dcmread(file)
        for file in written(labels, scan_of(labels, tmp_path / "s"), tmp_path, "seg.dcm", "rtstruct.dcm")
    )
    slices = {f"{SERIES}.{z + 1}" for z in range(len(labels))}
    (series,) = seg.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == SERIES
    assert {one.ReferencedSOPInstanceUID for one in series.ReferencedInstanceSequence} == slices
    for frame in seg.PerFrameFunctionalGroupsSequence:
        (source,) = frame.DerivationImageSequence[0].SourceImageSequence
        z = (frame.PlanePositionSequence[0].ImagePositionPatient[2] - 7) / 3
        assert source.ReferencedSOPInstanceUID == f"{SERIES}.{round(z) + 1}"
    (study,) = rt.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence
    (series,) = study.RTReferencedSeriesSequence
    assert (study.ReferencedSOPInstanceUID, series.SeriesInstanceUID) == (STUDY, SERIES)
    assert {one.ReferencedSOPInstanceUID for one in series.ContourImageSequence} == slices
    for contour in rt.ROIContourSequence[0].ContourSequence:
        z = (contour.ContourData[2] - 7) / 3
        assert contour.ContourImageSequence[0].ReferencedSOPInstanceUID == f"{SERIES}.{round(z) + 1}"
    for one in (seg, rt):
        assert (one.StudyInstanceUID, one.FrameOfReferenceUID) == (STUDY, FRAME)
        assert (one.PatientName, one.PatientID, one.PatientBirthDate, one.PatientSex) == (
            "Doe^Jane",
            "P1",
            "19600102",
            "F",
        )
        assert (one.StudyDate, one.StudyTime, one.AccessionNumber, one.StudyID) == ("20200304", "101112", "A1", "S1")
        assert one.SeriesDescription.endswith(" of series 3")
    algorithm = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmName == "Viscera" and algorithm.AlgorithmParameters == f"organ={'0' * 64}"
    assert [str(one.ROIName) for one in rt.StructureSetROISequence][:2] == ["liver", "right kidney"]
    assert list(rt.ROIContourSequence[1].ROIDisplayColor) == list(BY_VALUE[2].colour)
    types = {int(one.ReferencedROINumber): one.RTROIInterpretedType for one in rt.RTROIObservationsSequence}
    assert types[1] == types[2] == "ORGAN" and not types[14]  # no doctor has said that it is a GTV
    identity = rt.RTROIObservationsSequence[1].RTROIIdentificationCodeSequence[0]
    assert (identity.CodeValue, identity.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning) == (
        "64033007",
        "Right",
    )


def test_a_repeat_is_the_same_byte_for_byte_and_anything_else_another_object(
    labels: np.ndarray, tmp_path: Path
) -> None:
    scan = scan_of(labels, tmp_path / "s")
    first = written(labels, scan, tmp_path / "1", *DICOM_FORMATS)
    again = written(labels, read_scan(tmp_path / "s"), tmp_path / "2", *DICOM_FORMATS)
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in again]
    other = labels.copy()
    other[4, 5, 6] = 0
    seen = [pydicom.dcmread(file, stop_before_pixels=True) for file in first]
    for changed, about in (
        (labels, Description(ABOUT.names, {"organ": "1" * 64})),
        (labels, Description(ABOUT.names, ABOUT.weights, anonymous=True)),
        (other, ABOUT),
    ):
        files = written(changed, scan, tmp_path / "3", *DICOM_FORMATS, about=about)
        seen += [pydicom.dcmread(file, stop_before_pixels=True) for file in files]
    for name in ("SOPInstanceUID", "SeriesInstanceUID"):
        uids = [str(one[name].value) for one in seen]
        assert len(set(uids)) == len(uids) == 16
        assert all(re.fullmatch(r"2\.25\.[1-9]\d{1,38}", uid) for uid in uids)


CANARIES = {  # not what an object of the study needs
    "InstitutionName": "CANARY1", "PatientAddress": "CANARY2", "PatientComments": "CANARY3", "OperatorsName": "CANARY4",
    "StudyDescription": "CANARY5", "SeriesDescription": "CANARY6", "ProtocolName": "CANARY7", "PatientAge": "099Y",
    "OtherPatientIDs": "CANARY8", "RequestingPhysician": "CANARY9", "StationName": "CANARY10",
    "ImageComments": "CANARY11", "DeviceSerialNumber": "CANARY12", "IssuerOfPatientID": "CANARY13",
    "PatientWeight": "77.7",
}  # fmt: skip
PATIENT = {
    "PatientName": "CANARY^Jörg", "PatientID": "CANARY/1", "PatientBirthDate": "1960/01/02", "PatientSex": "unknown!",
    "StudyDate": "CANARY20", "StudyTime": "CANARY21", "AccessionNumber": "CANARY22-that-is-too-long-for-it",
    "StudyID": "CANARY23", "ReferringPhysicianName": "CANARY24",
}  # fmt: skip


@pytest.mark.parametrize("kind", DICOM_FORMATS)
def test_what_an_object_tells_of_the_patient(kind: str, labels: np.ndarray, tmp_path: Path, capfd: Any) -> None:
    """Odd values are taken as they are, and nobody speaks of them: a warning would tell them."""

    def tell(z: int, one: Any) -> None:
        one.SpecificCharacterSet = "ISO_IR 100"
        for name, value in (CANARIES | PATIENT).items():
            setattr(one, name, value)
        private = one.private_block(0x0009, "CANARY30", create=True)
        private.add_new(0x10, "LO", "CANARY31")

    with pydicom.config.disable_value_validation():
        scan = scan_of(labels, tmp_path / "s", change=tell)
    capfd.readouterr()
    (file,) = written(labels, scan, tmp_path, kind)
    said = capfd.readouterr()
    assert said.out == said.err == ""
    data = file.read_bytes()
    for value in CANARIES.values():
        assert value.encode() not in data or value in ("CANARY1", "CANARY2"), value  # these begin others
    assert not re.search(rb"CANARY(1|2|30|31)\W", data)
    with pydicom.config.disable_value_validation():
        one = pydicom.dcmread(file)
        assert {name: str(one[name].value) for name in PATIENT} == PATIENT
        assert "PatientAge" not in one and "PatientWeight" not in one
    (file,) = written(labels, scan, tmp_path, kind, about=Description(ABOUT.names, {}, anonymous=True))
    assert b"CANARY" not in file.read_bytes() and b"J\xf6rg" not in file.read_bytes()
    one = pydicom.dcmread(file)
    assert {str(one[name].value or "") for name in PATIENT} == {""}
    assert one.StudyInstanceUID == STUDY


@pytest.mark.parametrize("kind", ["seg.dcm", "labelmap.dcm"])
def test_frames_are_written_as_pydicom_would(
    kind: str, labels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = enhanced(tmp_path / "e", np.random.default_rng(1).integers(-900, 200, labels.shape).astype(np.int16))
    for scan in (scan_of(labels, tmp_path / "s"), read_scan(frames)):
        for some in (labels, (labels == 1).astype(np.uint8), np.zeros_like(labels)):
            (ours,) = written(some, scan, tmp_path / "ours", kind)
            with monkeypatch.context() as patch:
                patch.setattr(saving, "_frames", lambda made: iter(()))
                (theirs,) = written(some, scan, tmp_path / "theirs", kind)
            assert len(pydicom.dcmread(theirs).PerFrameFunctionalGroupsSequence) >= 1
            assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize("kind", ["seg.dcm", "labelmap.dcm"])
def test_a_name_that_looks_like_the_place_of_frames(kind: str, labels: np.ndarray, tmp_path: Path) -> None:
    def tell(z: int, one: Any) -> None:
        one.SpecificCharacterSet, one.PatientName = "ISO_IR 100", saving.NO_FRAMES.decode("latin-1") + "x"

    with pydicom.config.disable_value_validation():
        (file,) = written(labels, scan_of(labels, tmp_path / "s", change=tell), tmp_path, kind)
        one = pydicom.dcmread(file)
        assert str(one.PatientName).endswith("x") and one.pixel_array.any()
    assert len(one.PerFrameFunctionalGroupsSequence) == one.NumberOfFrames > 1


def test_labels_of_another_network(labels: np.ndarray, tmp_path: Path) -> None:
    names = {1: "kidney_left", 2: "Rippe März", 3: "lung nodule tumour", 7: "vertebra_L1"}
    about = Description(names, {})
    some = np.where(np.isin(labels, [1, 2, 3, 7]), labels, 0).astype(np.uint8)

    def name(z: int, one: Any) -> None:
        one.SpecificCharacterSet, one.PatientName = "ISO_IR 100", "Müller^Jörg"

    scan = scan_of(some, tmp_path / "s", change=name)
    seg, rt = written(some, scan, tmp_path, "seg.dcm", "rtstruct.dcm", about=about)
    first = pydicom.dcmread(seg)
    said = [
        (str(one.SegmentLabel), *(code[0].CodeValue for code in codes))
        for one in first.SegmentSequence
        for codes in [(one.SegmentedPropertyCategoryCodeSequence, one.SegmentedPropertyTypeCodeSequence)]
    ]
    assert said == [
        ("left kidney", "123037004", "64033007"),
        ("Rippe März", "123037004", "123037004"),
        ("lung nodule tumour", "49755003", "108369006"),
        ("vertebra L1", "123037004", "123037004"),
    ]
    for one in (first, pydicom.dcmread(rt)):
        assert one.SpecificCharacterSet == "ISO_IR 192" and str(one.PatientName) == "Müller^Jörg"
    assert str(pydicom.dcmread(rt).StructureSetROISequence[1].ROIName) == "Rippe März"


def test_a_label_map_object_keeps_values(labels: np.ndarray, tmp_path: Path) -> None:
    (file,) = written(labels, scan_of(labels, tmp_path / "s"), tmp_path, "labelmap.dcm")
    seg = pydicom.dcmread(file)
    assert seg.SegmentationType == "LABELMAP"
    for frame, plane in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
        z = (frame.PlanePositionSequence[0].ImagePositionPatient[2] - 7) / 3
        assert np.array_equal(plane, labels[round(z)])
    assert seg.NumberOfFrames == np.count_nonzero(labels.any(axis=(1, 2)))
    assert [one.SegmentNumber for one in seg.SegmentSequence] == np.unique(labels).tolist()


def test_a_report_has_what_was_measured_of_each_segment(labels: np.ndarray, tmp_path: Path) -> None:
    """As highdicom reads it; what is measured is as of the table for the whole run."""
    scan = scan_of(labels, tmp_path / "s")
    found = quantities(labels, scan.grid, ABOUT.names, {0: scan.voxels})
    about = Description(ABOUT.names, ABOUT.weights, measured=found)
    seg, sr = written(labels, scan, tmp_path, "seg.dcm", "sr.dcm", about=about)
    segments, report = pydicom.dcmread(seg), srread(sr)
    numbers = {int(one.SegmentNumber): one for one in segments.SegmentSequence}
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert len(groups) == len(numbers) == len(found)
    for group in groups:
        (referred,) = group.referenced_segment[0].ReferencedSOPSequence
        assert referred.ReferencedSOPInstanceUID == segments.SOPInstanceUID
        segment = numbers.pop(int(referred.ReferencedSegmentNumber))
        value = next(value for value, one in BY_VALUE.items() if one.title == segment.SegmentLabel)
        entry, measured = BY_VALUE[value], found[str(value)]
        assert entry.type and group.finding_type.value == entry.type.value
        assert group.tracking_identifier == entry.title
        expected = {
            ("Volume", None, "cm3"): measured["ml"],
            ("Attenuation Coefficient", "Mean", "[hnsf'U]"): measured["hu"]["0"]["mean"],
            ("Attenuation Coefficient", "Median", "[hnsf'U]"): measured["hu"]["0"]["median"],
            ("Attenuation Coefficient", "Standard Deviation", "[hnsf'U]"): measured["hu"]["0"]["standard_deviation"],
        }
        if value == 14:
            expected["Long axis", None, "mm"] = measured["diameter"]["mm"]
            assert not group.finding_sites
        else:
            (site,) = group.finding_sites
            side = site.laterality.value if site.laterality else None
            assert (site.topographical_modifier, side) == (None, entry.side.value if entry.side else None)
        assert expected == {
            (one.name.meaning, one.derivation and one.derivation.meaning, one.unit.value): one.value
            for one in group.get_measurements()
        }
    assert not numbers
    evidence = {uid for _, _, uid, _ in report.get_evidence()}
    assert segments.SOPInstanceUID in evidence and report.StudyInstanceUID == STUDY


@pytest.mark.parametrize("kind", DICOM_FORMATS)
def test_where_nothing_was_found_every_label_is_named(kind: str, labels: np.ndarray, tmp_path: Path) -> None:
    scan_of(labels, tmp_path / "s")
    write_empty(tmp_path / "s", [tmp_path / f"x.{kind}"], ABOUT)
    one = pydicom.dcmread(tmp_path / f"x.{kind}")
    if kind == "rtstruct.dcm":
        assert [str(region.ROIName) for region in one.StructureSetROISequence] == [entry.title for entry in TABLE]
        assert all("ContourSequence" not in region for region in one.ROIContourSequence)
    elif kind == "sr.dcm":
        groups = srread(tmp_path / f"x.{kind}").content.get_volumetric_roi_measurement_groups()
        assert [group.tracking_identifier for group in groups] == [entry.title for entry in TABLE]
        assert not any(group.get_measurements() for group in groups)
    else:
        assert not one.pixel_array.any()
        assert [str(segment.SegmentLabel) for segment in one.SegmentSequence][-14:] == [entry.title for entry in TABLE]


@pytest.mark.parametrize("tag", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"])
def test_a_series_that_cannot_be_referred_to(tag: str, labels: np.ndarray, tmp_path: Path) -> None:
    def without(z: int, one: Any) -> None:
        one.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
        one[tag].value = ""  # as whoever takes out all UIDs leaves them

    scan = scan_of(labels, tmp_path / "s", change=without)
    with pytest.raises(ScanError, match=rf"^s holds 001.dcm, which has no {tag}: no labels in DICOM can refer"):
        check(scan, "s", [tmp_path / "x.seg.dcm"])
    check(scan, "s", [tmp_path / "x.nii.gz", tmp_path / "x.seg.nrrd"])


def test_slices_that_cannot_be_told_apart_are_not_referred_to(labels: np.ndarray, tmp_path: Path) -> None:
    def same(z: int, one: Any) -> None:
        one.SOPInstanceUID = f"1.2.{min(z, 4)}"

    scan = scan_of(labels, tmp_path / "s", change=same)
    with pytest.raises(ScanError, match=r"^s holds 005.dcm and 006.dcm, which have the same SOPInstanceUID: no labels"):
        check(scan, "s", [tmp_path / "x.seg.dcm"])
    check(scan, "s", [tmp_path / "x.nii.gz"])


@pytest.mark.parametrize(
    ("tag", "old", "new"),
    [
        (b"\x28\0\x08\0IS", b"1 ", b"x "),  # NumberOfFrames
        (b"\x18\0\x50\0DS", b".", b"\xff"),  # SliceThickness
        (b"\x18\0\x50\0DS", b"3.0", b"nan"),
        (b"\x08\0\x16\0UI", b"1.2.840", b"1.2.84q"),  # SOPClassUID
        (b"\x08\0\x18\0UI", b".", b"\\"),  # SOPInstanceUID: two of them
        (b"\x20\0\x52\0UI", b".", b"\\"),  # FrameOfReferenceUID
    ],
)
def test_a_damaged_header_is_said_before_a_network_runs(
    tag: bytes, old: bytes, new: bytes, labels: np.ndarray, tmp_path: Path
) -> None:
    def whole(z: int, one: Any) -> None:
        one.NumberOfFrames, one.SliceThickness = 1, "3.0"

    scan_of(labels, tmp_path / "s", change=whole)
    for file in (tmp_path / "s").iterdir():
        before, found, rest = file.read_bytes().partition(tag)
        file.write_bytes(before + (found + rest).replace(old, new, 1))
        assert old in found + rest
    scan = read_scan(tmp_path / "s")
    with pytest.raises(ScanError, match=r"^s holds 001.dcm, which cannot be referred to: its header is damaged"):
        check(scan, "s", [tmp_path / "x.seg.dcm"])


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda one: delattr(one, "SOPInstanceUID"), "has no SOPInstanceUID: no labels in DICOM can refer to it"),
        (lambda one: setattr(one, "SOPClassUID", "1.2.3"), "cannot be referred to: its header is damaged"),
    ],
)
def test_so_is_that_of_a_later_slice(
    spoil: Callable[[Any], None], why: str, labels: np.ndarray, tmp_path: Path
) -> None:
    scan = scan_of(labels, tmp_path / "s", change=lambda z, one: spoil(one) if z == 4 else None)
    with pytest.raises(ScanError, match=f"^s holds 005.dcm, which {why}"):
        check(scan, "s", [tmp_path / "x.seg.dcm"])
    check(scan, "s", [tmp_path / "x.nii.gz"])


@pytest.mark.parametrize("kind", DICOM_FORMATS)
def test_one_slice_that_cannot_be_referred_to_is_named_and_nothing_written(
    kind: str, labels: np.ndarray, tmp_path: Path
) -> None:
    def without(z: int, one: Any) -> None:
        if z == 4:
            one.SOPInstanceUID = ""

    scan = scan_of(labels, tmp_path / "s", change=without)
    with pytest.raises(
        UnwrittenError, match=rf"^x.{kind} cannot be written: the series holds 005.dcm, which has no SOP"
    ):
        written(labels, scan, tmp_path / "out", "nii.gz", kind)
    assert not list((tmp_path / "out").iterdir())


def test_a_slice_of_a_series_in_several_folders_is_named_with_its_folder(labels: np.ndarray, tmp_path: Path) -> None:
    def without(z: int, one: Any) -> None:
        if z == 4:
            one.SOPInstanceUID = ""

    scan_of(labels, tmp_path / "s", change=without)
    for number, file in enumerate(sorted((tmp_path / "s").iterdir())):
        folder = tmp_path / "s" / f"d{number // 4}"
        folder.mkdir(exist_ok=True)
        file.rename(folder / file.name)
    (case,) = find_cases(tmp_path / "s", tmp_path / "out").cases
    with pytest.raises(UnwrittenError, match=r"the series holds d1/005.dcm, which has no SOPInstanceUID"):
        written(labels, read_scan(case.sources[0]), tmp_path / "out", "nii.gz", "seg.dcm")


def test_slices_that_lie_unevenly_have_the_planes_nearest_to_them(labels: np.ndarray, tmp_path: Path) -> None:
    heights = np.array([0, 1, 2, 3, 4, 5.3, 7, 8, 11])  # of the 12 planes of the even grid
    nearest = np.rint(heights).astype(int)

    def move(z: int, one: Any) -> None:
        one.ImagePositionPatient = [-20, 30, 7 + 3 * float(heights[z])]

    noise = np.random.default_rng(1).integers(-900, 200, (9, 12, 16)).astype(np.int16)
    ct_series(tmp_path / "s", noise, change=move)
    scan = read_scan(tmp_path / "s", resample=True)
    assert scan.grid.shape == labels.shape
    seg, rt = written(labels, scan, tmp_path, "seg.dcm", "rtstruct.dcm")
    found = segments(seg)
    for value in np.unique(labels[nearest]).tolist()[1:]:
        z, y, x = np.nonzero(labels[nearest] == value)
        here = np.stack([x * 4.0 - 20, y * 5.0 + 30, heights[z] * 3 + 7], axis=1)
        assert np.array_equal(found[BY_VALUE[value].title], in_order(here))
    slices = {f"{SERIES}.{z + 1}": 7 + 3 * height for z, height in enumerate(heights)}
    for region in pydicom.dcmread(rt).ROIContourSequence:
        for contour in region.get("ContourSequence", []):
            assert contour.ContourData[2] == slices[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]


def test_slices_of_a_tilted_gantry(labels: np.ndarray, tmp_path: Path) -> None:
    """Frames and contours lie on the slices themselves, as the label map does."""

    def tilt(z: int, one: Any) -> None:
        one.ImagePositionPatient = [-20, 30 + 1.2 * z, 7 + 3 * z]

    scan = scan_of(labels, tmp_path / "s", change=tilt)
    assert scan.tilted
    nifti, seg, rt = written(labels, scan, tmp_path, "nii.gz", "seg.dcm", "rtstruct.dcm")
    found = segments(seg)
    for value, mask in regions(rt, nifti).items():
        assert np.allclose(found[BY_VALUE[value].title], world(nifti, value), atol=2e-3)
        assert np.array_equal(mask, np.asarray(nib.load(nifti).dataobj) == value)


def enhanced(folder: Path, hu: np.ndarray, each: Any = lambda z: {}) -> Path:
    folder.mkdir()
    (folder / "e.dcm").write_bytes(enhanced_bytes(hu, each, SOPInstanceUID="1.2.3.4"))
    return folder


def test_frames_of_an_enhanced_series(labels: np.ndarray, tmp_path: Path) -> None:
    """They fall along z, as scanners may have them."""
    hu = np.random.default_rng(1).integers(-900, 200, labels.shape).astype(np.int16)
    scan = read_scan(enhanced(tmp_path / "s", hu, lambda z: {"ImagePositionPatient": [-20, -30, 7 - 3 * z]}))
    assert np.array_equal(scan.voxels, hu[::-1])
    nifti, seg, rt = written(labels, scan, tmp_path, "nii.gz", "seg.dcm", "rtstruct.dcm")
    again = written(labels, scan, tmp_path / "again", "seg.dcm", "rtstruct.dcm")
    assert [file.read_bytes() for file in again] == [seg.read_bytes(), rt.read_bytes()]
    found = segments(seg)
    for value, mask in regions(rt, nifti).items():
        assert np.allclose(found[BY_VALUE[value].title], world(nifti, value), atol=2e-3)
        assert np.array_equal(mask, np.asarray(nib.load(nifti).dataobj) == value)
    one = pydicom.dcmread(seg)
    for frame in one.PerFrameFunctionalGroupsSequence:
        (source,) = frame.DerivationImageSequence[0].SourceImageSequence
        place = frame.PlanePositionSequence[0].ImagePositionPatient[2]
        assert (source.ReferencedSOPInstanceUID, source.ReferencedSOPClassUID) == ("1.2.3.4", ENHANCED)
        assert source.ReferencedFrameNumber == 1 + round((7 - place) / 3)
    for series in one.ReferencedSeriesSequence:
        assert [image.ReferencedSOPInstanceUID for image in series.ReferencedInstanceSequence] == ["1.2.3.4"]
    for contour in pydicom.dcmread(rt).ROIContourSequence[0].ContourSequence:
        (image,) = contour.ContourImageSequence
        assert image.ReferencedFrameNumber == 1 + round((7 - contour.ContourData[2]) / 3)
    assert "Error" not in checked_by_dciodvfy(seg) + checked_by_dciodvfy(rt)


def test_one_phase_of_an_enhanced_series_is_what_its_labels_refer_to(labels: np.ndarray, tmp_path: Path) -> None:
    def phase(k: int) -> dict[str, Any]:
        return {"ImagePositionPatient": [-20, -30, 7 + 3 * (k // 2)], "TemporalPositionIndex": 1 + k % 2}

    hu = np.random.default_rng(1).integers(-900, 200, labels.shape).astype(np.int16)
    folder = enhanced(tmp_path / "s", np.repeat(hu, 2, axis=0), phase)
    found = find_cases(folder, tmp_path / "out", formats=["nii.gz", "seg.dcm"])
    assert len(found.cases) == 2
    case = found.cases[1]
    scan = read_scan(case.sources)
    (tmp_path / "out").mkdir()
    write(labels, scan, case.outputs, ABOUT)
    for frame in pydicom.dcmread(case.outputs[1]).PerFrameFunctionalGroupsSequence:
        place = frame.PlanePositionSequence[0].ImagePositionPatient[2]
        number = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        assert number == 2 + 2 * round((place - 7) / 3)


def test_a_series_in_an_archive_gives_the_same_objects(labels: np.ndarray, tmp_path: Path) -> None:
    scan = scan_of(labels, tmp_path / "s")
    first = written(labels, scan, tmp_path / "1", *DICOM_FORMATS)
    archive = Path(shutil.make_archive(str(tmp_path / "export"), "zip", tmp_path / "s"))
    (case,) = find_cases(archive, tmp_path / "out").cases
    zipped = read_scan(case.sources)
    again = written(labels, zipped, tmp_path / "2", *DICOM_FORMATS)
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in again]


def test_what_was_written_into_the_folder_of_a_series_is_no_slice_of_it(labels: np.ndarray, tmp_path: Path) -> None:
    scan = scan_of(labels, tmp_path / "s")
    before = scan_digest(tmp_path / "s")
    written(labels, scan, tmp_path / "s", *DICOM_FORMATS)
    assert np.array_equal(read_scan(tmp_path / "s").voxels, scan.voxels) and scan_digest(tmp_path / "s") == before


def test_a_series_that_does_not_say_how_thick_its_slices_are(labels: np.ndarray, tmp_path: Path) -> None:
    def without(z: int, one: Any) -> None:
        del one.SliceThickness

    (seg,) = written(labels, scan_of(labels, tmp_path / "s", change=without), tmp_path, "seg.dcm")
    measures = pydicom.dcmread(seg).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert float(measures.SliceThickness) == 3


def test_a_scan_that_is_no_dicom(labels: np.ndarray, tmp_path: Path) -> None:
    scan = Scan.of(labels.astype(np.int16), (3.0, 5.0, 4.0), "LPS")
    for kind in DICOM_FORMATS:
        with pytest.raises(
            ScanError, match=r"^x_0000.nii.gz is not a DICOM series, to which labels in DICOM must refer"
        ):
            check(scan, "x_0000.nii.gz", [tmp_path / "x.nii.gz", tmp_path / f"x.{kind}"])
    check(scan, "x_0000.nii.gz", [tmp_path / "x.nii.gz"])


@pytest.mark.slow
def test_the_command(blob: np.ndarray, tmp_path: Path, tiny_weights: Path) -> None:
    ct_series(tmp_path / "in" / "s", blob, spacing=(3.0, 2.0, 2.0))
    out = tmp_path / "out"

    def run(inputs: Path, *flags: str) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]:
        command = [sys.executable, "-m", "inference", inputs, out, "--weights", tiny_weights, "--json", tmp_path / "r"]
        command += ["--device", "cpu", "--resume", "--format", "nifti,seg,rtstruct,seg.nrrd,labelmap,sr", *flags]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
        return done, json.loads((tmp_path / "r").read_text())

    done, (record,) = run(tmp_path / "in" / "s")
    assert done.returncode == 0, done.stderr
    kinds = ["labelmap.dcm", "nii.gz", "rtstruct.dcm", "seg.dcm", "seg.nrrd", "sr.dcm"]
    assert sorted(record["outputs"]) == kinds and not record["anonymous"]
    assert sorted(path.name for path in out.glob("s.*")) == sorted(["s.json", *(f"s.{kind}" for kind in kinds)])
    assert pydicom.dcmread(out / "s.seg.dcm").PatientID == "P1"
    groups = srread(out / "s.sr.dcm").content.get_volumetric_roi_measurement_groups()
    volumes = {group.tracking_identifier: group.get_measurements()[0].value for group in groups}
    assert volumes == {one["name"].replace("_", " "): one["ml"] for one in record["labels"].values()}
    done, (record,) = run(tmp_path / "in" / "s")
    assert record["status"] == "kept"
    done, (record,) = run(tmp_path / "in" / "s", "--anonymous")
    assert record["status"] == "done" and record["anonymous"]
    assert pydicom.dcmread(out / "s.seg.dcm").PatientID == ""
    nib.save(nib.Nifti1Image(blob.transpose(2, 1, 0), np.diag([2.0, 2.0, 3.0, 1.0])), tmp_path / "n_0000.nii.gz")
    done, (record,) = run(tmp_path / "n_0000.nii.gz")
    assert done.returncode == 4 and record["error"] == (
        "n_0000.nii.gz is not a DICOM series, to which labels in DICOM must refer: choose another --format"
    )
    assert not list(out.glob("n.*.dcm")) and not (out / "n.nii.gz").exists()


@pytest.mark.slow
def test_a_real_series(shared_data: Path, tmp_path: Path) -> None:
    """Its UIDs were taken out before it was published: these are made up."""
    files = sorted((shared_data / "dicom" / "ts_slab").iterdir())
    (tmp_path / "s").mkdir()
    for number, file in enumerate(files, 1):
        one = pydicom.dcmread(file)
        one.SOPClassUID, one.SOPInstanceUID = one.file_meta.MediaStorageSOPClassUID, f"{SERIES}.{number}"
        one.StudyInstanceUID, one.SeriesInstanceUID = STUDY, SERIES
        one.save_as(tmp_path / "s" / file.name)
    scan = read_scan(tmp_path / "s")
    reference = nib.load(shared_data / "labelled" / "ts_slab.nii.gz")
    ornt = nib.orientations.ornt_transform(nib.io_orientation(reference.affine), nib.io_orientation(scan.grid.affine))
    turned = nib.orientations.apply_orientation(np.asarray(reference.dataobj), ornt).transpose(2, 1, 0)
    labels = np.where(turned <= 14, turned, 0).astype(np.uint8)
    nifti, seg, rt = written(labels, scan, tmp_path, "nii.gz", "seg.dcm", "rtstruct.dcm")
    found = by_dcmqi(seg, tmp_path / "itk")
    for value, mask in regions(rt, nifti).items():
        right = np.asarray(nib.load(nifti).dataobj) == value
        assert 2 * (mask & right).sum() >= 0.9999 * (mask.sum() + right.sum())
        image, _ = found[BY_VALUE[value].title]
        assert np.count_nonzero(sitk.GetArrayFromImage(image)) == right.sum()
        at = np.argwhere(sitk.GetArrayFromImage(image)).mean(axis=0)[::-1]
        place = image.TransformContinuousIndexToPhysicalPoint(at.tolist())
        assert np.allclose(place, world(nifti, value).mean(axis=0), atol=1e-3)
