"""The pixels of slices, whole or refused, and slices that look damaged."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence

import numpy as np

from ...errors import ScanError
from ..itk import complaints, reader_of
from ..opening import open_file
from .slices import Slice, holding, tag

DEFLATED = b"1.2.840.10008.1.2.1.99"  # transfer syntax
MOST_META = 1024  # bytes from the start in which the transfer syntax is named
# A voxel is unlike both neighbours if it is this far from the nearer one, HU, and these are half as far apart at most.
FAR = 60
# A slice is, if so many times more of its voxels are than in the median slice, or this share, whichever is more. Over
# 55 scans it was 0.65 of that limit at most (a first or last slice, which has both neighbours on one side, 3.4);
# 4 KiB of zeros somewhere in a slice of JPEG 2000 gave 2 to 50 unless only fine detail was lost.
MORE, LEAST, AT_END = 6, 0.01, 5
THIN = 2  # every so many rows and columns are enough


def voxels_of(slices: Sequence[Slice], shape: tuple[int, int, int]) -> np.ndarray:
    """(z, y, x) HU: int16 where that holds all of them, else float32. Each slice has its own slope and intercept."""
    voxels = np.empty(shape, np.int16)
    with complaints() as heard:
        for z, one in enumerate(slices):
            plane = _plane(one, voxels.shape[1:])
            if os.fstat(heard.fileno()).st_size:
                raise one.refused(f"is damaged: its {tag('PixelData')} does not decode as it should")
            whole = plane.dtype.kind in "iu" and plane.min() >= -(2**15) and plane.max() < 2**15
            if voxels.dtype == np.int16 and not whole:
                voxels = voxels.astype(np.float32)
            voxels[z] = plane
    return voxels


def _plane(one: Slice, shape: tuple[int, ...]) -> np.ndarray:
    """(y, x) HU. Raises ScanError where the file does not hold all of its pixels."""
    import SimpleITK

    bits = shape[0] * shape[1] * int(one.numbers("BitsAllocated")[0])
    with holding(one.file), open_file(one.file) as file:
        _check_pixels(file.readall() or b"", (bits + 7) // 8)
        try:
            with reader_of(file, "GDCMImageIO") as reader:
                plane = SimpleITK.GetArrayFromImage(reader.Execute())
        except RuntimeError:
            raise ScanError(f"is damaged: its {tag('PixelData')} does not decode") from None
        if plane.shape != (1, *shape):
            raise ScanError("changed while it was read")
    return plane[0]


def _check_pixels(data: bytes, size: int) -> None:
    """Where pixels are missing GDCM returns what its memory held before, and decoders of JPEG what they had until then.

    size  bytes of the pixels, unpacked
    Raises ScanError.
    """
    mark, length = b"\xe0\x7f\x10\x00", struct.pack("<I", size + size % 2)
    backward = b"\x7f\xe0\x00\x10OW\0\0" + struct.pack(">I", size + size % 2)  # in big-endian order
    if any(mark + kind + length in data for kind in (b"OW\0\0", b"OB\0\0", b"")) or backward in data:
        return
    if DEFLATED in data[:MOST_META]:
        raise ScanError("is deflated as a whole: convert it to plain DICOM, for instance with dcmconv")
    at = data.rfind(mark + b"OB\0\0\xff\xff\xff\xff")  # the last: an icon may come before
    if at < 0:
        raise ScanError(f"does not hold {size} bytes of {tag('PixelData')}, as its rows and columns need")
    fragments = b"".join(_fragments(data, at + 12))
    # JPEG, JPEG-LS and JPEG 2000 end with a mark of their own, and perhaps a byte to make their number even.
    if fragments[:2] in (b"\xff\xd8", b"\xff\x4f") and not fragments.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise ScanError(f"has incomplete {tag('PixelData')}")


def _fragments(data: bytes, at: int) -> Iterator[bytes]:
    """The parts of packed pixels, but for the first, which is a table of where frames begin."""
    table = True
    while data[at : at + 4] == b"\xfe\xff\x00\xe0":
        (length,) = struct.unpack_from("<I", data.ljust(at + 8, b"\0"), at + 4)
        if not table:
            yield data[at + 8 : at + 8 + length]
        at, table = at + 8 + length, False


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
