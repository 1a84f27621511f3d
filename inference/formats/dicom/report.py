"""Writes what was measured as a DICOM SR, TID 1500, by highdicom: a group for each segment of the SEG beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from ...labels import ANATOMY, Structure, structures
from ...scan import Scan
from ...version import __version__
from ..written import Description, Written
from .references import (
    MAKER,
    PATIENT,
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

NUMBER = 902  # of the series
SEG = "1.2.840.10008.5.1.4.1.1.66.4"
# PS3.16: CID 7469 (what is measured), 7464 (derivations), 7181 (units), 100 (the procedure).
VOLUME = ("118565006", "SCT", "Volume")
ATTENUATION = ("112031", "DCM", "Attenuation Coefficient")
LONG_AXIS = ("103339001", "SCT", "Long axis")
DERIVED = {
    "mean": ("373098007", "SCT", "Mean"),
    "median": ("373099004", "SCT", "Median"),
    "standard_deviation": ("386136009", "SCT", "Standard Deviation"),
}
CM3, MM = ("cm3", "UCUM", "cubic centimeter"), ("mm", "UCUM", "millimeter")
HU = ("[hnsf'U]", "UCUM", "Hounsfield unit")
PROCEDURE = ("25045-6", "LN", "CT unspecified body region")


@uncollected()
def write(labels: np.ndarray, scan: Scan, path: Path, about: Description) -> Written:
    """Write the measurements of labels (z, y, x) uint8. Their segments are those of the SEG that `seg.write_binary`
    makes of the same labels, whose UID needs no look at it.

    Raises UnwrittenError if the file cannot be written, or the series cannot be referred to.
    """
    origin = references(labels, scan, about, path)
    found = found_in(values_in_planes(origin.on_slices(labels)), about) or structures(about.names)
    with lenient():
        made = _made(found, origin, about)
    return save(made, path)


def _made(found: tuple[Structure, ...], origin: References, about: Description) -> Any:
    from highdicom.sr import (
        Comprehensive3DSR,
        DeviceObserverIdentifyingAttributes,
        MeasurementReport,
        ObservationContext,
        ObserverContext,
    )
    from pydicom.sr.coding import Code

    maker = equipment(about)
    device = DeviceObserverIdentifyingAttributes(
        uid=origin.uid("device"), name=MAKER, manufacturer_name=MAKER, serial_number=maker["device_serial_number"]
    )
    context = ObservationContext(ObserverContext(Code("121007", "DCM", "Device"), device))
    groups = [_group(number, one, origin, about) for number, one in enumerate(found, 1)]
    content = MeasurementReport(context, Code(*PROCEDURE), groups)
    segments = Dataset()
    segments.StudyInstanceUID = origin.first.StudyInstanceUID
    segments.SOPClassUID, segments.SOPInstanceUID = SEG, origin.beside("seg.dcm").uid("instance")
    segments.SeriesInstanceUID = origin.beside("seg.dcm").uid("series")
    for name in (*PATIENT, *STUDY):  # highdicom copies them, and refuses odd ones: they are set afterwards
        setattr(segments, name, "")
    made: Any = Comprehensive3DSR(
        evidence=[segments],
        content=content[0],
        series_instance_uid=origin.uid("series"),
        series_number=NUMBER,
        sop_instance_uid=origin.uid("instance"),
        instance_number=1,
        is_complete=True,
        series_description=series_description(origin, "measurements"),
        **maker,
    )
    made.ContentDate, made.ContentTime = date_and_time(origin, about)
    adopt(made, origin, about)
    del made.FrameOfReferenceUID, made.PositionReferenceIndicator  # which a report has no place for
    return made


def _group(number: int, one: Structure, origin: References, about: Description) -> Any:
    from highdicom.sr import (
        AlgorithmIdentification,
        FindingSite,
        ReferencedSegment,
        SourceSeriesForSegmentation,
        TrackingIdentifier,
        VolumetricROIMeasurementsAndQualitativeEvaluations,
    )
    from pydicom.sr.coding import Code

    category, kind = (Code(code.value, code.scheme, code.meaning) for code in codes(one))
    side = Code(one.side.value, one.side.scheme, one.side.meaning) if one.side else None
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(origin.uid("tracking", str(one.value)), one.title[:64]),
        referenced_segment=ReferencedSegment(
            SEG,
            origin.beside("seg.dcm").uid("instance"),
            number,
            source_series=SourceSeriesForSegmentation(origin.first.SeriesInstanceUID),
        ),
        finding_category=category,
        finding_type=kind,
        finding_sites=[FindingSite(kind, laterality=side)] if category.value == ANATOMY.value else None,
        algorithm_id=AlgorithmIdentification(MAKER, __version__),
        measurements=list(_measurements(about.measured.get(str(one.value), {}))),
    )


def _measurements(measured: dict[str, Any]) -> Iterator[Any]:
    """Those of a label, as `quantities` has them; HU where one channel is CT."""
    from highdicom.sr import Measurement
    from pydicom.sr.coding import Code

    if "ml" in measured:
        yield Measurement(Code(*VOLUME), measured["ml"], Code(*CM3))
    scales = list(measured.get("hu", {}).values())
    for name, derivation in DERIVED.items() if len(scales) == 1 else ():
        yield Measurement(Code(*ATTENUATION), scales[0][name], Code(*HU), derivation=Code(*derivation))
    if "diameter" in measured:
        yield Measurement(Code(*LONG_AXIS), measured["diameter"]["mm"], Code(*MM))
