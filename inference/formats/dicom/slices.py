"""The files of a DICOM series and what their headers say: one series, CT, one grey picture each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ScanError, shown
from ..hounsfield import SLOPE
from ..itk import complaints, reader_of
from ..opening import open_file
from ..sources import dicom_files

TAGS = {
    "ImageType": "0008,0008",
    "AcquisitionTime": "0008,0032",
    "Modality": "0008,0060",
    "PatientID": "0010,0020",
    "ConvolutionKernel": "0018,1210",
    "StudyInstanceUID": "0020,000D",
    "SeriesInstanceUID": "0020,000E",
    "SeriesNumber": "0020,0011",
    "AcquisitionNumber": "0020,0012",
    "ImagePositionPatient": "0020,0032",
    "ImageOrientationPatient": "0020,0037",
    "FrameOfReferenceUID": "0020,0052",
    "TemporalPositionIdentifier": "0020,0100",
    "SamplesPerPixel": "0028,0002",
    "PhotometricInterpretation": "0028,0004",
    "NumberOfFrames": "0028,0008",
    "Rows": "0028,0010",
    "Columns": "0028,0011",
    "PixelSpacing": "0028,0030",
    "BitsAllocated": "0028,0100",
    "RescaleIntercept": "0028,1052",
    "RescaleSlope": "0028,1053",
    "RescaleType": "0028,1054",
    "PixelData": "7FE0,0010",
}
MOST_SLICE = 1 << 30  # bytes: slices are read whole
MOST_NAMED = 3  # files or series in one message


@dataclass(frozen=True)
class Slice:
    """A file and what it says of itself, by the names of TAGS; what is absent or empty is left out."""

    file: Path
    tags: dict[str, str]

    @property
    def name(self) -> str:
        return shown(self.file.name)

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


def headers(folder: Path) -> list[Slice]:
    """Of all files of the one series in a folder, in the order of their names. Raises ScanError."""
    slices = []
    with complaints():
        for file in dicom_files(folder):
            with holding(file), open_file(file) as opened:
                if os.fstat(opened.fileno()).st_size > MOST_SLICE:
                    raise ScanError("is too large for one slice")
                try:
                    with reader_of(opened, "GDCMImageIO") as reader:
                        tags = {name: _metadata(reader, tag) for name, tag in TAGS.items()}
                except RuntimeError:
                    raise ScanError("is damaged, cut off, or not a DICOM image") from None
                slices.append(Slice(file, {name: text for name, text in tags.items() if text}))
    _check_one_series(slices)
    for one in slices:
        _check_picture(one)
    return slices


@contextmanager
def holding(file: Path) -> Iterator[None]:
    """Errors about a file become errors about its folder."""
    try:
        yield
    except ScanError as error:
        raise ScanError(f"holds {shown(file.name)}, which {error}") from error


def _metadata(reader: Any, tag: str) -> str:
    key = tag.lower().replace(",", "|")
    return reader.GetMetaData(key).strip(" \0") if reader.HasMetaDataKey(key) else ""


def _check_one_series(slices: Sequence[Slice]) -> None:
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
    if one.tags.get("RescaleType", "HU") not in ("HU", "US"):  # US is "unspecified"
        raise one.refused(f"is not in HU: its {tag('RescaleType')} is {code(one.tags['RescaleType'])}")
    one.numbers("RescaleIntercept")
    slope = float(one.numbers("RescaleSlope")[0])
    if not SLOPE[0] <= slope <= SLOPE[1]:
        raise one.refused(f"has {slope:g} as {tag('RescaleSlope')}: HU cannot be computed")


def _check_picture(one: Slice) -> None:
    """Whether a file is one grey picture. Raises ScanError."""
    if one.tags.get("NumberOfFrames", "1") != "1":
        raise one.refused(
            f"has several frames by its {tag('NumberOfFrames')}: enhanced DICOM is not read; "
            "convert it to NIfTI, for instance with dcm2niix"
        )
    for name, right in (("SamplesPerPixel", "1"), ("PhotometricInterpretation", "MONOCHROME2")):
        if one.text(name) != right:
            raise one.refused(f"is not a CT image: its {tag(name)} is {code(one.text(name))}, not {right}")


def tag(name: str) -> str:
    return f"{name} ({TAGS[name]})"


def code(text: str) -> str:
    """A value of a tag, where that is the short code that it should be: nothing else of a header is passed on."""
    return (
        text if text.isascii() and text.replace("_", "").replace(" ", "").isalnum() and len(text) <= 16 else "another"
    )


def listed(parts: Sequence[str]) -> str:
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]
