"""A slice of a DICOM series and what its header says of it: whether it is CT, and one grey picture."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import ScanError, shown
from ...names import listed
from ..hounsfield import SLOPE
from ..sources import Picture

TAGS = {
    "ImageType": "0008,0008",
    "SOPClassUID": "0008,0016",
    "SOPInstanceUID": "0008,0018",
    "AcquisitionDateTime": "0008,002A",
    "AcquisitionTime": "0008,0032",
    "Modality": "0008,0060",
    "SeriesDescription": "0008,103E",
    "PatientID": "0010,0020",
    "SliceThickness": "0018,0050",
    "KVP": "0018,0060",
    "ReconstructionDiameter": "0018,1100",
    "FilterType": "0018,1160",
    "ConvolutionKernel": "0018,1210",
    "StudyInstanceUID": "0020,000D",
    "SeriesInstanceUID": "0020,000E",
    "SeriesNumber": "0020,0011",
    "AcquisitionNumber": "0020,0012",
    "ImagePositionPatient": "0020,0032",
    "ImageOrientationPatient": "0020,0037",
    "FrameOfReferenceUID": "0020,0052",
    "TemporalPositionIdentifier": "0020,0100",
    "StackID": "0020,9056",
    "TemporalPositionIndex": "0020,9128",
    "NominalPercentageOfCardiacPhase": "0020,9241",
    "SamplesPerPixel": "0028,0002",
    "PhotometricInterpretation": "0028,0004",
    "NumberOfFrames": "0028,0008",
    "Rows": "0028,0010",
    "Columns": "0028,0011",
    "PixelSpacing": "0028,0030",
    "BitsAllocated": "0028,0100",
    "BitsStored": "0028,0101",
    "HighBit": "0028,0102",
    "PixelRepresentation": "0028,0103",
    "PixelPaddingValue": "0028,0120",
    "PixelPaddingRangeLimit": "0028,0121",
    "RescaleIntercept": "0028,1052",
    "RescaleSlope": "0028,1053",
    "RescaleType": "0028,1054",
    "PixelData": "7FE0,0010",
}
CODES = (
    "unknown", "CR", "CT", "DX", "MG", "MR", "NM", "OT", "PT", "RF", "US", "XA",
    "RTDOSE", "RTPLAN", "RTSTRUCT", "SEG", "SR", "KO", "PR", "DOC", "REG",
    "MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT",
    "ED", "EDW", "HU_MOD", "MGML", "OD", "PCT", "Z_EFF",
)  # fmt: skip
# What tells two slices at one place apart, where a series holds several phases or reconstructions.
PHASES = (
    "AcquisitionNumber", "TemporalPositionIdentifier", "ConvolutionKernel", "StackID", "ImageType", "KVP",
    "NominalPercentageOfCardiacPhase", "SliceThickness", "ReconstructionDiameter", "FilterType",
    "AcquisitionDateTime", "AcquisitionTime",
)  # fmt: skip
# What pixels are decoded by, and those of it that no file may lack.
NUMBERS = (
    "BitsAllocated", "PixelRepresentation", "BitsStored", "HighBit", "PixelPaddingValue", "PixelPaddingRangeLimit",
)  # fmt: skip
NEEDED = NUMBERS[:2]
MOST_NAMED = 3  # files or series in one message


@dataclass(frozen=True)
class Slice:
    """A picture and what its file says of it, by the names of TAGS; what is absent or empty is left out.

    called  how messages call the file, as of `called_as`
    tags    also "cut off", "packed" and "functional groups", which are none, where the file is or has that
    frame   its place in a file of several
    """

    file: Path
    called: str
    tags: dict[str, str]
    frame: int = 0

    @property
    def picture(self) -> Picture:
        return Picture(self.file, self.frame)

    @property
    def name(self) -> str:
        return shown(self.called) + (f" (frame {self.frame + 1})" if self.has_frames else "")

    @property
    def has_frames(self) -> bool:
        return self.frames > 1

    @property
    def is_packed(self) -> bool:
        return "packed" in self.tags

    @property
    def frames(self) -> int:
        """In its file."""
        number = self.tags.get("NumberOfFrames", "1")
        return int(number) if number.isascii() and number.isdigit() else 1

    def text(self, name: str) -> str:
        """Raises ScanError where the tag is missing."""
        if name not in self.tags:
            raise ScanError(f"{self._holds} has no {tag(name)}: export the series again, complete")
        return self.tags[name]

    def numbers(self, name: str, count: int = 1) -> np.ndarray:
        """(count,) float64, finite. Raises ScanError."""
        parts = self.text(name).split("\\")
        try:
            numbers = np.array([float(part) for part in parts])
        except ValueError:
            numbers = np.array([])
        if len(numbers) != count or not np.isfinite(numbers).all():
            raise self.refused(f"has no {'number' if count == 1 else f'{count} numbers'} in {tag(name)}")
        return numbers

    def refused(self, why: str) -> ScanError:
        return ScanError(f"{self._holds} {why}")

    @property
    def _holds(self) -> str:
        return f"holds {self.name}, which"


def called_as(files: Iterable[Path]) -> dict[Path, str]:
    """How messages call the files of a scan: by their names, or, where they lie in several folders, in each of which
    slices may have the same names, by their paths from the folder that holds them all."""
    files = list(files)
    folders = {file.parent for file in files}
    if len(folders) < 2:
        return {file: file.name for file in files}
    folder = os.path.commonpath(folders)
    return {file: file.relative_to(folder).as_posix() for file in files}


@contextmanager
def holding(called: str) -> Iterator[None]:
    """Errors about a file, as messages call it, become errors about its folder."""
    try:
        yield
    except ScanError as error:
        raise ScanError(f"holds {shown(called)}, which {error}") from error


def check_one_series(slices: Sequence[Slice]) -> None:
    series: dict[tuple[str, ...], list[Slice]] = {}
    for one in slices:
        key = tuple(one.tags.get(name, "") for name in ("SeriesInstanceUID", "SeriesNumber"))
        series.setdefault(key, []).append(one)
    if len(series) > 1:
        parts = [
            f"number {code(number or 'unknown')} with {files[0].name}"
            + (f" and {len(files) - 1} more" if len(files) > 1 else "")
            for (_, number), files in series.items()
        ]
        more = [f"{len(parts) - MOST_NAMED} others"] if len(parts) > MOST_NAMED else []
        raise ScanError(
            f"holds {len(series)} DICOM series by {tag('SeriesInstanceUID')} and {tag('SeriesNumber')}: "
            f"{listed(parts[:MOST_NAMED] + more)}; give each a folder of its own"
        )


def check_ct(one: Slice) -> None:
    """Whether a slice holds HU. Raises ScanError."""
    modality = one.text("Modality")
    if modality != "CT":
        raise one.refused(f"is not CT: its {tag('Modality')} is {code(modality)}")
    if "LOCALIZER" in one.tags.get("ImageType", "").split("\\"):
        raise one.refused(f"is a localizer by its {tag('ImageType')}: take it out of the folder")
    if one.tags.get("RescaleType", "HU").upper() not in ("HU", "US"):  # US is "unspecified"
        raise one.refused(f"is not in HU: its {tag('RescaleType')} is {code(one.tags['RescaleType'])}")
    one.numbers("RescaleIntercept")
    slope = float(one.numbers("RescaleSlope")[0])
    if not SLOPE[0] <= slope <= SLOPE[1]:
        raise one.refused(f"has {slope:g} as {tag('RescaleSlope')}: HU cannot be computed")


def check_picture(one: Slice) -> None:
    """Whether it is one grey picture of a kind that is read. Raises ScanError."""
    if lacking := one.tags.get("cut off"):
        raise one.refused(f"is cut off: {lacking} bytes of {tag('PixelData')} are there")
    if one.has_frames and "functional groups" not in one.tags:
        raise one.refused(f"has several frames by its {tag('NumberOfFrames')}, and does not say where each lies")
    for name in NUMBERS:
        if name in NEEDED or name in one.tags:
            one.numbers(name)
    for name, right in (("SamplesPerPixel", "1"), ("PhotometricInterpretation", "MONOCHROME2")):
        if one.text(name) != right:
            raise one.refused(f"is not a CT image: its {tag(name)} is {code(one.text(name))}, not {right}")


def tag(name: str) -> str:
    return f"{name} ({TAGS[name]})"


def code(text: str) -> str:
    """A value of a tag, where that is a number or one of the codes that mean something here: nothing else of a header
    is passed on."""
    return text if text in CODES or (text.isascii() and text.isdigit() and len(text) <= 4) else "another"
