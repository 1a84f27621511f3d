"""Writes label maps as DICOM SEG on the slices of their series, by highdicom.

Every frame stands on a slice: nothing is turned, and no place is computed that the series does not state itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from ...labels import Structure, structures
from ...scan import Scan
from ...version import __version__
from ..written import Description, Written
from .references import (
    INSTANCE,
    PATIENT,
    PLACE,
    SERIES,
    SHAPE,
    STUDY,
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
from .saving import save, uncollected

NUMBER = 900  # of the series
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
INTELLIGENCE = ("123109", "DCM", "Artificial Intelligence")  # PS3.16 CID 7162


def write_binary(labels: np.ndarray, scan: Scan, path: Path, about: Description) -> Written:
    """Write labels (z, y, x) uint8 as one bit a voxel and segment, which all readers know.

    Raises UnwrittenError if the file cannot be written, or the series cannot be referred to.
    """
    return save(_made(labels, scan, path, about, "BINARY"), path)


def write_labelmap(labels: np.ndarray, scan: Scan, path: Path, about: Description) -> Written:
    """The same as one byte a voxel, its value that of the label map: since DICOM 2024d, and few readers know it."""
    return save(_made(labels, scan, path, about, "LABELMAP"), path)


@uncollected()
def _made(labels: np.ndarray, scan: Scan, path: Path, about: Description, kind: str) -> Any:
    from highdicom.seg import Segmentation

    origin = references(labels, scan, about, path)
    slices, pixels = list(origin.slices), origin.on_slices(labels)
    found = found_in(values_in_planes(pixels), about)
    if not found:  # an object without a frame is none: each label has an empty one
        found, slices, pixels = structures(about.names), slices[:1], pixels[:1]
    numbers = list(range(1, len(found) + 1))  # BINARY has to count them from 1 without a gap
    if kind == "LABELMAP":
        numbers = [one.value for one in found]
    elif any(one.value != number for one, number in zip(found, numbers, strict=True)):
        to = np.zeros(256, np.uint8)
        to[[one.value for one in found]] = numbers
        pixels = to[pixels]
    date, time = date_and_time(origin, about)
    with lenient():
        made: Any = Segmentation(
            source_images=_without_patient(slices, origin),
            pixel_array=pixels,
            segmentation_type=kind,
            segment_descriptions=[_segment(*one, about) for one in zip(numbers, found, strict=True)],
            series_instance_uid=origin.uid("series"),
            series_number=NUMBER,
            sop_instance_uid=origin.uid("instance"),
            instance_number=1,
            **equipment(about),
            omit_empty_frames=bool(pixels.any()),
            content_label="VISCERA",
            content_description="Labels by Viscera, not for diagnosis",
            series_description=series_description(origin, "segmentation"),
            content_date=date,
            content_time=time,
        )
        made.ContentCreatorName = ""
        adopt(made, origin, about)
        _refer(made, origin)
        _same_again(made, origin)
    return made


def _without_patient(slices: list[Any], origin: References) -> list[Any]:
    """For highdicom, which refuses odd dates and names: they are copied as they are instead, afterwards. Frames pass
    for files of their own, since a volume may be some of a file's frames, or those of several files.
    """
    without = []
    for z, one in enumerate(slices):
        bare: Any = Dataset()
        for name in (*INSTANCE, *PLACE, *SERIES, *SHAPE):
            if name in one:
                setattr(bare, name, one[name].value)
        if origin.frames[z]:
            bare.SOPClassUID, bare.SOPInstanceUID = CT_IMAGE, origin.uid("frame", str(z))
        without.append(bare)
    for name in (*PATIENT, *STUDY):  # it looks for them in the first
        setattr(without[0], name, "")
    without[0].Modality = "CT"
    return without


def _segment(number: int, one: Structure, about: Description) -> Any:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription
    from pydicom.sr.coding import Code

    category, kind = (Code(code.value, code.scheme, code.meaning) for code in codes(one))
    made: Any = SegmentDescription(
        segment_number=number,
        segment_label=one.title[:64],
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name="Viscera", version=__version__, family=Code(*INTELLIGENCE), parameters=dict(about.weights) or None
        ),
        display_color=CIELabColor.from_rgb(*one.colour),
    )
    if one.side:
        from highdicom.sr import CodedConcept

        side = CodedConcept(one.side.value, one.side.scheme, one.side.meaning)
        made.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [side]
    return made


def _refer(made: Any, origin: References) -> None:
    """To frames where frames passed for files."""
    frames = {origin.uid("frame", str(z)): z for z, frame in enumerate(origin.frames) if frame}
    if not frames:
        return
    for item in made.PerFrameFunctionalGroupsSequence:
        for source in item.DerivationImageSequence[0].SourceImageSequence:
            z = frames.get(source.ReferencedSOPInstanceUID)
            if z is None:  # segments on one slice share it
                continue
            source.ReferencedSOPClassUID = origin.slices[z].SOPClassUID
            source.ReferencedSOPInstanceUID = origin.slices[z].SOPInstanceUID
            source.ReferencedFrameNumber = origin.frames[z]
    files = {}
    for one in origin.slices:
        files[one.SOPInstanceUID] = image = Dataset()
        image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = one.SOPClassUID, one.SOPInstanceUID
    made.SourceImageSequence = list(files.values())
    made.ReferencedSeriesSequence[0].ReferencedInstanceSequence = list(files.values())


def _same_again(made: Any, origin: References) -> None:
    """highdicom draws one UID by chance."""
    dimensions = origin.uid("dimensions")
    for item in (*made.DimensionOrganizationSequence, *made.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions
