"""Reads the headers of DICOM files with pydicom: values as they are stored, of a file or of each of its frames."""

from __future__ import annotations

import logging
import os
import struct
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import IO, Any
from zlib import MAX_WBITS, decompressobj
from zlib import error as DamagedError

from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from ...errors import ScanError
from ..archive import TOO_LONG, open_anywhere, state_of
from ..sources import Picture
from .slices import TAGS, Slice, called_as, holding

NUMBERS = {int(code.replace(",", ""), 16): name for name, code in TAGS.items()}
CT_CLASSES = {f"1.2.840.10008.5.1.4.1.1.2{kind}" for kind in ("", ".1", ".2")}  # CT, enhanced, made enhanced
SHARED, OWN = 0x52009229, 0x52009230  # functional groups, which say of all frames or of one what a header says
# Of those: frame type, X-ray details, reconstruction, content, position, orientation, spacing, rescaling.
GROUPS = (0x00189329, 0x00189325, 0x00189314, 0x00209111, 0x00209113, 0x00209116, 0x00289110, 0x00289145)
# What frames have under another name than files.
RENAMED = {0x00089007: "ImageType", 0x00209156: "AcquisitionNumber", 0x00209128: "TemporalPositionIdentifier"}
FORMATS = {"US": "H", "SS": "H", "UL": "I", "SL": "i", "FD": "d", "FL": "f"}  # SS as bits: padding is compared so
# Where the file says no types: all of these are US, other numbers are text.
BINARY = {number for number in NUMBERS if number >> 8 == 0x002801} | {0x00280002, 0x00280010, 0x00280011, 0x00209156}
PIXELS = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")  # the tag of PixelData, in either order of bytes
UNDEFINED = 0xFFFFFFFF  # length of packed pixels
LONGEST_HEADER = 32 << 20  # bytes; 5000 frames of enhanced CT take about 10
DEFLATED = DeflatedExplicitVRLittleEndian.encode()
INFLATED = ExplicitVRLittleEndian.encode().ljust(len(DEFLATED), b"\0")
LONG_HEADER = f"has a header of more than {LONGEST_HEADER >> 20} MB"
NO_DICOM = "is damaged, cut off, or not a DICOM image"


@contextmanager
def quiet() -> Iterator[None]:
    """Meanwhile pydicom says nothing: it warns of values that are odd, and quotes them."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def headers(pictures: Iterable[Picture]) -> list[Slice]:
    """Of pictures, in their order. Raises ScanError, which names the file."""
    pictures = list(pictures)
    files = {one.picture: one for one in headers_of(dict.fromkeys(picture.file for picture in pictures))}
    for picture in pictures:
        if picture not in files:
            with holding(called_as(one.file for one in pictures)[picture.file]):
                raise ScanError("changed since it was found")
    return [files[picture] for picture in pictures]


def headers_of(files: Iterable[Path]) -> list[Slice]:
    """Of files, in their order, and of all frames in each. Raises ScanError, which names the file.

    The last answer is kept: a scan's memory is estimated before it is read.
    """
    files = tuple(files)
    return list(_headers_of(files, tuple(map(state_of, files))))


@lru_cache(maxsize=1)
def _headers_of(files: tuple[Path, ...], states: tuple[tuple[int, int] | None, ...]) -> list[Slice]:
    slices = []
    with quiet():
        for file, called in called_as(files).items():
            with holding(called):
                slices += read_header(file, called)
    return slices


def read_header(file: Path, called: str | None = None) -> list[Slice]:
    """The slice in a file, or its frames; to be called in `quiet`. By default the file is called by its name.

    Raises ScanError where it is damaged: without any DICOM, or a CT without pixels.
    """
    try:
        return _slices(file, called or file.name)
    except ScanError:
        raise
    except Exception:  # whatever a damaged file is to pydicom
        raise ScanError(NO_DICOM) from None


def _slices(file: Path, called: str) -> list[Slice]:
    with open_anywhere(file) as opened:
        dataset = dataset_of(opened, stop=True)
        tags = tags_of(dataset)
        tags.setdefault("SOPClassUID", str(dataset.file_meta.get("MediaStorageSOPClassUID", "")))
        is_ct = tags["SOPClassUID"] in CT_CLASSES or (not tags["SOPClassUID"] and tags.get("Modality", "CT") == "CT")
        syntax = UID(dataset.file_meta.get("TransferSyntaxUID", ""))
        deflated = syntax.is_transfer_syntax and syntax.is_deflated
        if syntax.is_transfer_syntax and syntax.is_compressed and not deflated:
            tags["packed"] = "yes"
        if not tags.keys() & {"Modality", "Rows"} and not tags["SOPClassUID"]:
            raise ScanError(NO_DICOM)
        if is_ct and not deflated:
            _check_pixels_follow(opened, tags)
    if not is_ct or (SHARED not in dataset and OWN not in dataset):  # a segmentation has thousands of frames
        return [Slice(file, called, tags)]
    shared = _of_groups(dataset[SHARED].value[0]) if SHARED in dataset else {}
    tags |= {"functional groups": "there", "NumberOfFrames": str(len(dataset[OWN].value))}
    frames = enumerate(dataset[OWN].value)
    return [Slice(file, called, tags | shared | _of_groups(one), at) for at, one in frames]


def dataset_of(file: IO[bytes], stop: bool, most: int = LONGEST_HEADER) -> FileDataset:
    """The tags of TAGS, without the pixels if it is to `stop` before them. Raises ScanError.

    most  bytes that a deflated file may have
    """
    try:
        return read(file, most, stop, [*NUMBERS, SHARED, OWN])
    except ScanError:
        raise
    except Exception:  # whatever a damaged file is to pydicom
        raise ScanError(NO_DICOM) from None


def read(file: IO[bytes], most: int, stop: bool, wanted: list[Any] | None = None) -> FileDataset:
    """What pydicom reads of a file, of which it gets `most` bytes, inflated ones included: it would take whatever a
    length in a file says. Raises ScanError, and what pydicom does."""
    deferred = LONGEST_HEADER if stop else None
    too_long = LONG_HEADER if stop else TOO_LONG
    try:
        return dcmread(_Parts(file, most, too_long), deferred, stop, force=True, specific_tags=wanted)
    except _DeflatedError:
        end = file.tell()
    file.seek(0)
    meta = file.read(end).replace(DEFLATED, INFLATED)
    stream = decompressobj(-MAX_WBITS)
    try:
        data = stream.decompress(file.read(2 * most), most + 1)  # deflating makes nothing much longer
    except DamagedError:
        raise ScanError(NO_DICOM) from None
    if len(data) <= most and not stream.eof:
        raise ScanError(NO_DICOM)
    if len(data) > most and not stop:
        raise ScanError(too_long)
    dataset = dcmread(BytesIO(meta + data), deferred, stop, force=True, specific_tags=wanted)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    return dataset


class _DeflatedError(Exception):
    pass


class _Parts:
    """A file that is read in parts only: all at once is how pydicom reads what is deflated, after the file's meta.

    left      bytes that may still be read, in all parts together; what is skipped does not count
    too_long  why no more may be
    """

    def __init__(self, file: IO[bytes], left: int, too_long: str) -> None:
        self.seek, self.tell, self._read = file.seek, file.tell, file.read
        self.left, self.too_long = left, too_long

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            raise _DeflatedError
        if size > self.left:
            raise ScanError(self.too_long)
        part = self._read(size)
        self.left -= len(part)
        return part


def tags_of(dataset: Dataset) -> dict[str, str]:
    """The values of TAGS as text, their parts divided by backslashes; what is absent or empty is left out."""
    found: dict[str, str] = {}
    for number in dataset.keys():  # noqa: SIM118  # iterating it reads all values
        name = RENAMED.get(number) or NUMBERS.get(number)
        element = dataset.get_item(number)
        if name and isinstance(element, RawDataElement) and isinstance(element.value, bytes) and element.value:
            found[name] = _text(element)
    return {name: text for name, text in found.items() if text}


def _text(element: RawDataElement) -> str:
    value = element.value or b""
    kind = FORMATS.get(element.VR or ("US" if element.tag in BINARY else ""))
    if kind is None:
        return "\\".join(part.strip(" \0") for part in value.decode("latin-1").split("\\"))
    count = len(value) // struct.calcsize(kind)
    order = "<" if element.is_little_endian else ">"
    return "\\".join(
        f"{one:.17g}" if kind in "df" else str(one) for one in struct.unpack_from(f"{order}{count}{kind}", value)
    )


def _of_groups(item: Dataset) -> dict[str, str]:
    tags: dict[str, str] = {}
    for group in GROUPS:
        if group in item and item[group].value:
            tags |= tags_of(item[group].value[0])
    return tags


def _check_pixels_follow(file: IO[bytes], tags: dict[str, str]) -> None:
    """Whether a file goes on with its pixels, all of them. Raises ScanError where it does not go on; where it ends too
    early the tags say so, since they tell the series."""
    head = file.read(12)
    if head[:4] not in PIXELS:
        raise ScanError(NO_DICOM)
    explicit = head[4:6] in (b"OB", b"OW", b"UN")  # as numbers all are odd, and the length of pixels is even
    start, order = (12 if explicit else 8), "<" if head[:4] == PIXELS[0] else ">"
    (length,) = struct.unpack_from(f"{order}I", head.ljust(12, b"\0"), start - 4)
    if isinstance(file, BufferedReader) and length != UNDEFINED:
        there = os.fstat(file.fileno()).st_size - file.tell() + len(head) - start
        if there < length:
            tags["cut off"] = f"{there} of {length}"
