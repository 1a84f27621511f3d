"""Reads a folder of one DICOM series, slice by slice, through SimpleITK.

Whatever is doubtful is refused, naming file and tag. SimpleITK's own reader of series leaves out the files that it
cannot read, takes the first slice's rescaling for all, and 1 mm for a spacing that is missing.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ScanError, shown
from ..scan import FEWEST, SPACING, Grid, Scan
from .geometry import check_memory, lps_grid
from .hounsfield import SLOPE
from .itk import complaints, reader_of
from .sources import dicom_files, open_file

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
DEFLATED = b"1.2.840.10008.1.2.1.99"  # transfer syntax
MOST_SLICE = 1 << 30  # bytes: slices are read whole
MOST_META = 1024  # bytes from the start in which the transfer syntax is named
# What slices of one series have in common: as texts, and as numbers that may be rounded in another way.
SAME_TEXTS = ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "Rows", "Columns")
SAME_NUMBERS = {"PixelSpacing": 2, "ImageOrientationPatient": 6}
# What tells two slices at one place apart, where a series holds several phases or reconstructions.
PHASES = ("AcquisitionNumber", "TemporalPositionIdentifier", "ConvolutionKernel", "AcquisitionTime", "ImageType")
TURNS = PHASES[:3]  # these do not come back along the slices of one phase
ROUNDED = 1e-3  # share of a length, or cosine
UNEVEN = 0.1  # share of the distance of slices by which one may lie elsewhere
TILT = 0.85  # least cosine between the stack and its slices' normal: gantries tilt by 30 degrees at most
# A voxel is unlike both neighbours if it is this far from the nearer one, HU, and these are half as far apart at most.
FAR = 60
# A slice is, if so many times more of its voxels are than in the median slice, or this share, whichever is more. Over
# 55 scans it was 0.65 of that limit at most (a first or last slice, which has both neighbours on one side, 3.4);
# 4 KiB of zeros somewhere in a slice of JPEG 2000 gave 2 to 50 unless only fine detail was lost.
MORE, LEAST, AT_END = 6, 0.01, 5
THIN = 2  # every so many rows and columns are enough
MOST_NAMED = 3  # files or series in one message


@dataclass(frozen=True)
class _Slice:
    """A file and what it says of itself, by the names of TAGS; what is absent or empty is left out."""

    file: Path
    tags: dict[str, str]

    @property
    def name(self) -> str:
        return shown(self.file.name)

    def text(self, name: str) -> str:
        """Raises ScanError where the tag is missing."""
        if name not in self.tags:
            raise ScanError(f"{self._holds} has no {_tag(name)}: export the series again, complete")
        return self.tags[name]

    def numbers(self, name: str, count: int = 1) -> np.ndarray:
        """(count,) float64, finite. Raises ScanError."""
        parts = self.text(name).split("\\")
        try:
            numbers = np.array([float(part) for part in parts])
        except ValueError:
            numbers = np.array([])
        if len(numbers) != count or not np.isfinite(numbers).all():
            raise self.refused(f"has no {'number' if count == 1 else f'{count} numbers'} in {_tag(name)}")
        return numbers

    def refused(self, why: str) -> ScanError:
        return ScanError(f"{self._holds} {why}")

    @property
    def _holds(self) -> str:
        return f"holds {self.name}, which"


@dataclass(frozen=True)
class Series:
    """Where a scan came from: the files of its planes, in the order of z."""

    files: tuple[Path, ...]


def read(folder: Path) -> Scan:
    """A scan. Raises ScanError, whose text goes on from the folder's name, and MemoryBudgetError."""
    slices = _headers(folder)
    for one in slices:
        _check_ct(one)
    slices, grid, warnings = _stack(slices)
    check_memory(grid.shape[::-1], 4)
    voxels = _voxels(slices, grid.shape)
    odd = [f"{slices[z].name} is unlike both slices beside it: its pixels may be damaged" for z in _unlike(voxels)]
    return Scan((voxels,), grid, _origin(slices), (*warnings, *odd[:MOST_NAMED]))


def peek(folder: Path) -> Scan:
    """The scan without its voxels: pixels may be damaged. Raises ScanError."""
    slices, grid, warnings = _stack(_headers(folder))
    return Scan((), grid, _origin(slices), tuple(warnings))


def _origin(slices: Sequence[_Slice]) -> Series:
    return Series(tuple(one.file for one in slices))


def _headers(folder: Path) -> list[_Slice]:
    """Of all files of the one series in a folder, in the order of their names. Raises ScanError."""
    slices = []
    with complaints():
        for file in dicom_files(folder):
            with _holding(file), open_file(file) as opened:
                if os.fstat(opened.fileno()).st_size > MOST_SLICE:
                    raise ScanError("is too large for one slice")
                try:
                    reader = reader_of(opened, "GDCMImageIO")
                except RuntimeError:
                    raise ScanError("is damaged, cut off, or not a DICOM image") from None
                tags = {name: _metadata(reader, tag) for name, tag in TAGS.items()}
                slices.append(_Slice(file, {name: text for name, text in tags.items() if text}))
    _check_one_series(slices)
    for one in slices:
        _check_picture(one)
    return slices


@contextmanager
def _holding(file: Path) -> Iterator[None]:
    """Errors about a file become errors about its folder."""
    try:
        yield
    except ScanError as error:
        raise ScanError(f"holds {shown(file.name)}, which {error}") from error


def _metadata(reader: Any, tag: str) -> str:
    key = tag.lower().replace(",", "|")
    return reader.GetMetaData(key).strip(" \0") if reader.HasMetaDataKey(key) else ""


def _check_one_series(slices: Sequence[_Slice]) -> None:
    series: dict[tuple[str, ...], list[_Slice]] = {}
    for one in slices:
        key = tuple(one.tags.get(name, "") for name in ("SeriesInstanceUID", "SeriesNumber"))
        series.setdefault(key, []).append(one)
    if len(series) > 1:
        parts = [
            f"number {_code(number or 'unknown')} with {files[0].name}"
            + (f" and {len(files) - 1} more" if len(files) > 1 else "")
            for (_, number), files in series.items()
        ]
        more = [f"{len(parts) - MOST_NAMED} others"] if len(parts) > MOST_NAMED else []
        raise ScanError(
            f"holds {len(series)} DICOM series by {_tag('SeriesInstanceUID')} and {_tag('SeriesNumber')}: "
            f"{_listed(parts[:MOST_NAMED] + more)}; give each a folder of its own"
        )


def _check_ct(one: _Slice) -> None:
    """Whether a slice holds HU. Raises ScanError."""
    modality = one.text("Modality")
    if modality != "CT":
        raise one.refused(f"is not CT: its {_tag('Modality')} is {_code(modality)}")
    if "LOCALIZER" in one.tags.get("ImageType", "").split("\\"):
        raise one.refused(f"is a localizer by its {_tag('ImageType')}: take it out of the folder")
    if one.tags.get("RescaleType", "HU") not in ("HU", "US"):  # US is "unspecified"
        raise one.refused(f"is not in HU: its {_tag('RescaleType')} is {_code(one.tags['RescaleType'])}")
    one.numbers("RescaleIntercept")
    slope = float(one.numbers("RescaleSlope")[0])
    if not SLOPE[0] <= slope <= SLOPE[1]:
        raise one.refused(f"has {slope:g} as {_tag('RescaleSlope')}: HU cannot be computed")


def _check_picture(one: _Slice) -> None:
    """Whether a file is one grey picture. Raises ScanError."""
    if one.tags.get("NumberOfFrames", "1") != "1":
        raise one.refused(
            f"has several frames by its {_tag('NumberOfFrames')}: enhanced DICOM is not read; "
            "convert it to NIfTI, for instance with dcm2niix"
        )
    for name, right in (("SamplesPerPixel", "1"), ("PhotometricInterpretation", "MONOCHROME2")):
        if one.text(name) != right:
            raise one.refused(f"is not a CT image: its {_tag(name)} is {_code(one.text(name))}, not {right}")


def _stack(slices: Sequence[_Slice]) -> tuple[list[_Slice], Grid, list[str]]:
    """The slices in their order along the normal, their grid, and what is odd about it. Raises ScanError."""
    for one in slices:
        _check_same(slices[0], one)
    if len(slices) < FEWEST:
        raise ScanError(f"holds {len(slices)} of the {FEWEST} slices that a volume needs at least")
    row, column = slices[0].numbers("ImageOrientationPatient", 6).reshape(2, 3)
    if not np.allclose([row @ row, column @ column, row @ column], [1, 1, 0], atol=ROUNDED):
        raise slices[0].refused(f"has directions that are not at right angles in {_tag('ImageOrientationPatient')}")
    normal = np.cross(row, column)
    places = np.array([one.numbers("ImagePositionPatient", 3) for one in slices])
    order = np.argsort(places @ normal, kind="stable")
    slices, places = [slices[at] for at in order], places[order]
    _check_even(slices, places, normal)
    _check_turns(slices)
    down, along = slices[0].numbers("PixelSpacing", 2)  # mm from row to row, from column to column
    if min(down, along) <= 0:
        raise slices[0].refused(f"has a {_tag('PixelSpacing')} that is not above 0")
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * along, column * down
    affine[:3, 2] = (places[-1] - places[0]) / (len(slices) - 1)
    affine[:3, 3] = places[0]
    columns, rows = (int(slices[0].numbers(name)[0]) for name in ("Columns", "Rows"))
    return slices, *lps_grid(affine, (columns, rows, len(slices)))


def _check_same(first: _Slice, other: _Slice) -> None:
    differing = [name for name in SAME_TEXTS if first.tags.get(name) != other.tags.get(name)]
    for name, count in SAME_NUMBERS.items():
        one, two = first.numbers(name, count), other.numbers(name, count)
        if not np.allclose(one, two, rtol=ROUNDED, atol=0 if name == "PixelSpacing" else ROUNDED):
            differing.append(name)
    if differing:
        raise ScanError(
            f"holds {first.name} and {other.name}, which differ in {_listed([_tag(name) for name in differing])}: "
            "give each series a folder of its own"
        )


def _check_even(slices: Sequence[_Slice], places: np.ndarray, normal: np.ndarray) -> None:
    """Whether slices lie at equal distances on a line along their normal: one missing would shift the rest."""
    steps = np.diff(places, axis=0)
    apart = steps[steps @ normal > SPACING[0]]
    usual = np.median(apart, axis=0) if len(apart) else np.zeros(3)
    doubled = np.flatnonzero(steps @ normal <= UNEVEN * (usual @ normal))
    if doubled.size:
        one, two = slices[doubled[0]], slices[doubled[0] + 1]
        differ = [_tag(name) for name in PHASES if one.tags.get(name) != two.tags.get(name)]
        raise ScanError(
            f"holds {one.name} and {two.name} at the same {_tag('ImagePositionPatient')}: "
            + (f"they differ in {differ[0]}; give each phase a folder of its own" if differ else "take one of them out")
        )
    line = places[0] + np.linspace(0, 1, len(places))[:, None] * (places[-1] - places[0])
    aside = np.linalg.norm(places - line, axis=1)
    if aside.max() > UNEVEN * np.linalg.norm(usual):
        lengths = np.linalg.norm(steps, axis=1)
        if np.ptp(lengths) <= UNEVEN * np.median(lengths):
            raise ScanError(
                f"has {slices[int(aside.argmax())].name} {aside.max():.4g} mm beside the line of the other slices, "
                f"by {_tag('ImagePositionPatient')}"
            )
        at = int(np.linalg.norm(steps - usual, axis=1).argmax())
        raise ScanError(
            f"has {np.linalg.norm(steps[at]):.4g} mm between {slices[at].name} and {slices[at + 1].name} where "
            f"{np.linalg.norm(usual):.4g} mm are usual, by {_tag('ImagePositionPatient')}: are slices missing?"
        )
    if usual @ normal < TILT * np.linalg.norm(usual):
        raise ScanError(
            f"has slices that do not lie behind each other: {_tag('ImagePositionPatient')} runs across "
            f"{_tag('ImageOrientationPatient')}"
        )


def _check_turns(slices: Sequence[_Slice]) -> None:
    """Whether phases take turns: between each other's slices they can make up one even stack."""
    for name in TURNS:
        values = [one.tags.get(name) for one in slices]
        turns = [at for at in range(1, len(values)) if values[at] != values[at - 1]]
        if len(turns) >= len(set(values)) > 1:
            raise ScanError(
                f"holds {slices[turns[0] - 1].name} and {slices[turns[0]].name}, which lie side by side and differ in "
                f"{_tag(name)}, as slices of several phases do that take turns: give each phase a folder of its own"
            )


def _voxels(slices: Sequence[_Slice], shape: tuple[int, int, int]) -> np.ndarray:
    """(z, y, x) HU: int16 where that holds all of them, else float32. Each slice has its own slope and intercept."""
    voxels = np.empty(shape, np.int16)
    with complaints() as heard:
        for z, one in enumerate(slices):
            plane = _plane(one, voxels.shape[1:])
            if os.fstat(heard.fileno()).st_size:
                raise one.refused(f"is damaged: its {_tag('PixelData')} does not decode as it should")
            whole = plane.dtype.kind in "iu" and plane.min() >= -(2**15) and plane.max() < 2**15
            if voxels.dtype == np.int16 and not whole:
                voxels = voxels.astype(np.float32)
            voxels[z] = plane
    return voxels


def _plane(one: _Slice, shape: tuple[int, ...]) -> np.ndarray:
    """(y, x) HU. Raises ScanError where the file does not hold all of its pixels."""
    import SimpleITK

    bits = shape[0] * shape[1] * int(one.numbers("BitsAllocated")[0])
    with _holding(one.file), open_file(one.file) as file:
        _check_pixels(file.readall() or b"", (bits + 7) // 8)
        try:
            plane = SimpleITK.GetArrayFromImage(reader_of(file, "GDCMImageIO").Execute())
        except RuntimeError:
            raise ScanError(f"is damaged: its {_tag('PixelData')} does not decode") from None
        if plane.shape != (1, *shape):
            raise ScanError("changed while it was read")
    return plane[0]


def _check_pixels(data: bytes, size: int) -> None:
    """Where pixels are missing GDCM returns what its memory held before, and decoders of JPEG what they had until then.

    size  bytes of the pixels, unpacked
    Raises ScanError.
    """
    tag, length = b"\xe0\x7f\x10\x00", struct.pack("<I", size + size % 2)
    backward = b"\x7f\xe0\x00\x10OW\0\0" + struct.pack(">I", size + size % 2)  # in big-endian order
    if any(tag + kind + length in data for kind in (b"OW\0\0", b"OB\0\0", b"")) or backward in data:
        return
    if DEFLATED in data[:MOST_META]:
        raise ScanError("is deflated as a whole: convert it to plain DICOM, for instance with dcmconv")
    at = data.rfind(tag + b"OB\0\0\xff\xff\xff\xff")  # the last: an icon may come before
    if at < 0:
        raise ScanError(f"does not hold {size} bytes of {_tag('PixelData')}, as its rows and columns need")
    fragments = b"".join(_fragments(data, at + 12))
    # JPEG, JPEG-LS and JPEG 2000 end with a mark of their own, and perhaps a byte to make their number even.
    if fragments[:2] in (b"\xff\xd8", b"\xff\x4f") and not fragments.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise ScanError(f"has incomplete {_tag('PixelData')}")


def _fragments(data: bytes, at: int) -> Iterator[bytes]:
    """The parts of packed pixels, but for the first, which is a table of where frames begin."""
    table = True
    while data[at : at + 4] == b"\xfe\xff\x00\xe0":
        (length,) = struct.unpack_from("<I", data.ljust(at + 8, b"\0"), at + 4)
        if not table:
            yield data[at + 8 : at + 8 + length]
        at, table = at + 8 + length, False


def _unlike(voxels: np.ndarray) -> list[int]:
    """Slices that look damaged: pixels have no checksum, but neighbours."""
    thin = np.clip(voxels[:, ::THIN, ::THIN], -1024, 1024).astype(np.int16)
    shares = np.empty(len(thin))
    for z, plane in enumerate(thin):
        first = min(max(z - 1, 0), len(thin) - 3)
        one, two = (thin[near] for near in range(first, first + 3) if near != z)
        off = np.minimum(np.abs(plane - one), np.abs(plane - two))
        shares[z] = np.mean((off > FAR) & (2 * np.abs(one - two) < off))
    limits = np.full(len(thin), max(MORE * float(np.median(shares)), LEAST))
    limits[[0, -1]] *= AT_END
    return [int(z) for z in np.flatnonzero(shares > limits)]


def _tag(name: str) -> str:
    return f"{name} ({TAGS[name]})"


def _code(text: str) -> str:
    """A value of a tag, where that is the short code that it should be: nothing else of a header is passed on."""
    return (
        text if text.isascii() and text.replace("_", "").replace(" ", "").isalnum() and len(text) <= 16 else "another"
    )


def _listed(parts: Sequence[str]) -> str:
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]
