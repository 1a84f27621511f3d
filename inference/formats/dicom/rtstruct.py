"""Writes label maps as DICOM RTSTRUCT: closed contours on the slices of their series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian

from ...labels import Structure, is_tumor, structures
from ...scan import Scan
from ..written import Description, Written
from .contours import contours
from .references import (
    References,
    adopt,
    codes,
    date_and_time,
    equipment,
    found_in,
    lenient,
    references,
    series_description,
    values_in_planes,
)
from .saving import save

NUMBER = 901  # of the series
RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
STUDY_MANAGEMENT = "1.2.840.10008.3.1.2.3.1"  # the class of a study, retired, and required here all the same
DIGITS = 4  # of coordinates: 0.1 um, and numbers have 16 characters at most


def write(labels: np.ndarray, scan: Scan, path: Path, about: Description) -> Written:
    """Write labels (z, y, x) uint8.

    A hole is joined to the contour around it by a channel of no width, as PS3.3 C.8.8.6.3 has it: readers that know
    holes by nesting and those that do not fill the same voxels.

    Raises UnwrittenError if the file cannot be written, or the series cannot be referred to.
    """
    origin = references(labels, scan, about, path)
    with lenient():
        made = _made(origin.on_slices(labels), origin, about)
    return save(made, path)


def _made(planes: np.ndarray, origin: References, about: Description) -> Any:
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian  # explicit ones hold 64 KiB of contour at most
    made.SOPClassUID, made.SOPInstanceUID = RTSTRUCT, origin.uid("instance")
    made.Modality = "RTSTRUCT"
    made.SeriesInstanceUID, made.SeriesNumber = origin.uid("series"), NUMBER
    made.SeriesDescription = series_description(origin, "contours")
    made.OperatorsName = ""
    maker = equipment(about)
    made.Manufacturer, made.ManufacturerModelName = maker["manufacturer"], maker["manufacturer_model_name"]
    made.DeviceSerialNumber, made.SoftwareVersions = maker["device_serial_number"], maker["software_versions"]
    made.InstanceNumber = 1
    made.StructureSetLabel = "VISCERA"
    made.StructureSetDate, made.StructureSetTime = date_and_time(origin, about)
    made.ApprovalStatus = "UNAPPROVED"
    adopt(made, origin, about)
    made.ReferencedFrameOfReferenceSequence = [_frame_of_reference(origin)]
    values = values_in_planes(planes)
    found = found_in(values, about) or structures(about.names)
    made.StructureSetROISequence = [_region(one, origin) for one in found]
    made.ROIContourSequence = [_drawn(one, planes, values[:, one.value], origin) for one in found]
    made.RTROIObservationsSequence = [_observed(one) for one in found]
    return made


def _frame_of_reference(origin: References) -> Any:
    series = Dataset()
    series.SeriesInstanceUID = origin.first.SeriesInstanceUID
    series.ContourImageSequence = [_image(origin, z) for z in range(len(origin.slices))]
    study = Dataset()
    study.ReferencedSOPClassUID = STUDY_MANAGEMENT
    study.ReferencedSOPInstanceUID = origin.first.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame = Dataset()
    frame.FrameOfReferenceUID = origin.first.FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    return frame


def _image(origin: References, z: int) -> Any:
    image, one = Dataset(), origin.slices[z]
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = one.SOPClassUID, one.SOPInstanceUID
    if origin.frames[z]:
        image.ReferencedFrameNumber = origin.frames[z]
    return image


def _region(one: Structure, origin: References) -> Any:
    region = Dataset()
    region.ROINumber = one.value
    region.ReferencedFrameOfReferenceUID = origin.first.FrameOfReferenceUID
    region.ROIName = one.title[:64]
    region.ROIGenerationAlgorithm = "AUTOMATIC"
    return region


def _observed(one: Structure) -> Any:
    def item(code: Any) -> Any:
        made = Dataset()
        made.CodeValue, made.CodingSchemeDesignator, made.CodeMeaning = code.value, code.scheme, code.meaning
        return made

    observed = Dataset()
    observed.ObservationNumber = observed.ReferencedROINumber = one.value
    identity = item(codes(one)[1])
    if one.side:
        identity.SegmentedPropertyTypeModifierCodeSequence = [item(one.side)]
    observed.RTROIIdentificationCodeSequence = [identity]
    # Of a tumour it is empty, which is unknown (type 2): GTV would be a target that somebody has approved of.
    observed.RTROIInterpretedType = "" if is_tumor(one.key) else "ORGAN"
    observed.ROIInterpreter = ""
    return observed


def _drawn(one: Structure, planes: np.ndarray, on: np.ndarray, origin: References) -> Any:
    """A structure's contours, slice by slice, on those planes (z) where it is."""
    drawn = Dataset()
    drawn.ReferencedROINumber = one.value
    drawn.ROIDisplayColor = list(one.colour)
    made: list[Any] = []
    for z in map(int, np.flatnonzero(on)):
        for points in contours(planes[z] == one.value):
            made.append(_contour(_placed(points, origin.slices[z]), _image(origin, z), len(made) + 1))
    if made:
        drawn.ContourSequence = made
    return drawn


def _contour(text: str, image: Any, number: int) -> Any:
    contour = Dataset()
    contour.ContourNumber = number
    contour.ContourImageSequence = [image]
    contour.ContourGeometricType = "CLOSED_PLANAR"
    contour.NumberOfContourPoints = (text.count("\\") + 1) // 3
    # As text: a number of pydicom's for each coordinate takes ten times as long.
    contour.add(DataElement("ContourData", "DS", text, already_converted=True))
    return contour


def _placed(points: np.ndarray, image: Any) -> str:
    """Points (n, 2) of a slice, (row, column), as DICOM has them: mm, LPS, by the slice's own header."""
    row, column = np.array([float(cosine) for cosine in image.ImageOrientationPatient]).reshape(2, 3)
    down, along = (float(mm) for mm in image.PixelSpacing)
    place = np.array([float(mm) for mm in image.ImagePositionPatient])
    world = place + points[:, 1:] * along * row + points[:, :1] * down * column
    return "\\".join(map(f"{{:.{DIGITS}f}}".format, (world + 0.0).reshape(-1).tolist()))
