"""The pixels of slices, whole or refused, and slices that look damaged."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import cc3d
import numpy as np
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileDataset
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder
from pydicom.uid import UID

from ...errors import ScanError
from ..archive import open_anywhere
from ..complaints import complaints
from ..hounsfield import AIR
from .headers import LONGEST_HEADER, dataset_of
from .slices import Slice, holding, tag

PIXEL_DATA = 0x7FE00010
JPEG = (b"\xff\xd8", b"\xff\x4f")  # how JPEG, JPEG-LS and JPEG 2000 begin; they end alike
END = b"\xff\xd9"
# A voxel is unlike both neighbours if it is this far from the nearer one, HU, and these are half as far apart at most.
FAR = 60
# A slice is, if so many times more of its voxels are than in the median slice, or this share, whichever is more. Over
# 55 scans it was 0.65 of that limit at most (a first or last slice, which has both neighbours on one side, 3.4);
# 4 KiB of zeros somewhere in a slice of JPEG 2000 gave 2 to 50 unless only fine detail was lost.
MORE, LEAST, AT_END = 6, 0.01, 5
THIN = 2  # every so many rows and columns are enough


def voxels_of(slices: Sequence[Slice], planes: Iterable[tuple[int, np.ndarray]]) -> np.ndarray:
    """(z, y, x) HU: int16 where that holds all of them, else float32.

    planes  the place of each slice and its HU
    """
    rows, columns = (int(slices[0].numbers(name)[0]) for name in ("Rows", "Columns"))
    voxels = np.empty((len(slices), rows, columns), np.int16)
    for z, plane in planes:
        if plane.shape != (rows, columns):
            raise slices[z].refused("changed while it was read")
        if voxels.dtype == np.int16 and plane.dtype != np.int16:
            voxels = voxels.astype(np.float32)
        voxels[z] = plane
    return voxels


def stored(one: Slice) -> bytes:
    """The pixels of a slice, packed as its file has them, or of a frame, unpacked; to be called in `quiet`.

    Raises ScanError.
    """
    with holding(one.called):
        pixels = _Pixels(one)
        return pixels.of(one).tobytes() if one.has_frames else pixels.data


def planes(slices: Sequence[Slice]) -> Iterator[tuple[int, np.ndarray]]:
    """The place of each slice and its HU, file after file; to be called in `quiet`. Each slice has its own slope and
    intercept. Raises ScanError where a file does not hold all of its pixels.
    """
    by_file = sorted(range(len(slices)), key=lambda z: (slices[z].file, z))
    for _, group in groupby(by_file, key=lambda z: slices[z].file):
        pixels = None
        for z in group:
            with holding(slices[z].called):
                pixels = pixels or _Pixels(slices[z])
                yield z, _hu(pixels.of(slices[z]), slices[z])


def voxel_bytes(slices: Sequence[Slice]) -> tuple[int, int]:
    """Bytes of a voxel of these slices once they are read, and at most while they are: beside its int16, where others
    are none, or its slice, where planes lie between slices."""
    return (2, 5) if all(map(_is_short, slices)) else (4, 9)


def _is_short(one: Slice) -> bool:
    """Whether int16 holds whatever HU a slice may have."""
    try:
        slope, intercept = (float(one.numbers(name)[0]) for name in ("RescaleSlope", "RescaleIntercept"))
        bits = int(one.numbers("BitsStored")[0])
        low, high = (
            (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if one.text("PixelRepresentation") == "1" else (0, 2**bits - 1)
        )
    except (ScanError, OverflowError):
        return False
    ends = sorted((low * slope + intercept, high * slope + intercept))
    return slope.is_integer() and intercept.is_integer() and ends[0] >= -(2**15) and ends[1] < 2**15


def _hu(values: np.ndarray, one: Slice) -> np.ndarray:
    slope, intercept = float(one.numbers("RescaleSlope")[0]), float(one.numbers("RescaleIntercept")[0])
    if slope.is_integer() and intercept.is_integer():
        ends = [int(end) * int(slope) + int(intercept) for end in (values.min(), values.max())]
        whole = min(ends) >= -(2**15) and max(ends) < 2**15
        # Where the result fits, numbers that run over the ends of a type on the way come back.
        kind = np.dtype(np.int16) if whole else np.dtype(np.int64)
        hu = values.astype(kind)
        for apply, number in ((np.multiply, int(slope)), (np.add, int(intercept))):
            apply(hu, np.array(number % 2**16 if whole else number).astype(kind), out=hu)
    else:
        hu = (values * slope + intercept).astype(np.float32)
    return _without_padding(hu, values, one)


def _without_padding(hu: np.ndarray, values: np.ndarray, one: Slice) -> np.ndarray:
    """Air where a slice is padded with what looks denser: all that has the padding's value and touches the border.

    Padding that is below air stays: it is as dark as others show it.
    """
    if "PixelPaddingValue" not in one.tags:
        return hu
    signed = values.dtype.kind == "i"
    ends = [int(one.numbers(name)[0]) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit") if name in one.tags]
    low, high = min(ends), max(ends)
    if signed:
        low, high = sorted((end + 2**15) % 2**16 - 2**15 for end in (low, high))
    padded = (values >= low) & (values <= high) & (hu > AIR)
    if not padded.any():
        return hu
    pieces = cc3d.connected_components(padded, connectivity=4)
    border = np.unique(np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]]))
    return np.where(np.isin(pieces, border[border > 0]), hu.dtype.type(AIR), hu)


class _Pixels:
    """An open file's pixels. Raises ScanError, whose text goes on from the file's name."""

    def __init__(self, one: Slice) -> None:
        self.rows, self.columns, self.allocated = (
            int(one.numbers(name)[0]) for name in ("Rows", "Columns", "BitsAllocated")
        )
        self.bits = int(one.numbers("BitsStored")[0]) if "BitsStored" in one.tags else self.allocated
        self.high = int(one.numbers("HighBit")[0]) if "HighBit" in one.tags else self.bits - 1
        self.signed = one.text("PixelRepresentation") == "1"
        self.frames = int(one.numbers("NumberOfFrames")[0]) if one.has_frames else 1
        if self.allocated not in (8, 16, 32) or not 0 < self.bits <= self.high + 1 <= self.allocated:
            raise ScanError(f"has {tag('BitsAllocated')}, {tag('BitsStored')} and {tag('HighBit')} that do not fit")
        # Packed pixels take no more than unpacked ones, or hardly.
        most = LONGEST_HEADER + self.rows * self.columns * self.frames * self.allocated // 8
        with open_anywhere(one.file, most) as file:
            self.dataset: FileDataset = dataset_of(file, stop=False, most=most)
        element = self.dataset.get_item(PIXEL_DATA) if PIXEL_DATA in self.dataset else None
        if not isinstance(element, RawDataElement) or not isinstance(element.value, bytes):
            raise ScanError(f"has no {tag('PixelData')}: it is cut off, or not an image")
        self.data, self.order = element.value, "<" if element.is_little_endian else ">"
        self.syntax = UID(self.dataset.file_meta.get("TransferSyntaxUID", ""))

    def of(self, one: Slice) -> np.ndarray:
        """(y, x) of one frame."""
        packed = self.syntax and self.syntax.is_transfer_syntax and self.syntax.is_compressed
        values = self._decoded(one.frame) if packed and not self.syntax.is_deflated else self._plain(one.frame)
        kind = "i" if self.signed else "u"
        if values.itemsize * 8 == self.bits:
            return values.view(f"{kind}{values.itemsize}")
        # Bits beside those of the value may hold anything, and the value's own sign is not that of the whole.
        values = values.view(f"u{values.itemsize}") << np.uint8(self.allocated - 1 - self.high)
        return values.view(f"{kind}{values.itemsize}") >> np.uint8(self.allocated - self.bits)

    def _plain(self, frame: int) -> np.ndarray:
        size = self.rows * self.columns * self.allocated // 8
        whole = size * self.frames
        if len(self.data) < whole:
            raise ScanError(f"is cut off: {len(self.data)} of {whole} bytes of {tag('PixelData')} are there")
        if len(self.data) > whole + whole % 2:
            raise ScanError(
                f"holds {len(self.data)} bytes of {tag('PixelData')}, where its rows and columns need {whole}"
            )
        kind = f"u{self.allocated // 8}"
        values = np.frombuffer(self.data, self.order + kind, self.rows * self.columns, frame * size)
        return values.astype(kind, copy=False).reshape(self.rows, self.columns)

    def _decoded(self, frame: int) -> np.ndarray:
        try:
            packed = get_frame(self.data, frame, number_of_frames=self.frames)
        except Exception:  # whatever damaged fragments are to pydicom
            raise ScanError(f"has incomplete {tag('PixelData')}") from None
        if not packed or (packed[:2] in JPEG and not packed.rstrip(b"\0").endswith(END)):
            raise ScanError(f"has incomplete {tag('PixelData')}")
        try:
            decoder: Any = get_decoder(self.syntax)
        except NotImplementedError:
            raise ScanError(f"has {tag('PixelData')} packed in a way that is not read ({self.syntax.name})") from None
        with complaints() as heard:
            try:
                values, _ = decoder.as_array(self.dataset, index=frame, raw=True)
            except Exception:  # each decoder has errors of its own
                if not decoder.is_available:
                    raise ScanError("is packed as JPEG: pip install pylibjpeg-libjpeg to read it") from None
                raise ScanError(f"is damaged: its {tag('PixelData')} does not decode") from None
            if os.fstat(heard.fileno()).st_size:
                raise ScanError(f"is damaged: its {tag('PixelData')} does not decode as it should")
        if values.shape != (self.rows, self.columns):
            raise ScanError(f"is damaged: its {tag('PixelData')} does not have the size of its rows and columns")
        return np.ascontiguousarray(values)


def unlike(voxels: np.ndarray) -> list[int]:
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
