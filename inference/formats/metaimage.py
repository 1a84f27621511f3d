"""MetaImage: what its header says, checked, and label maps.

The rules are MetaIO's (itk.org/Wiki/MetaIO/Documentation) as ITK follows them: a row of TransformMatrix is the
direction of an axis, and neither CenterOfRotation nor AnatomicalOrientation moves a voxel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ScanError
from ..scan import Grid, Scan
from . import written
from .fields import BIG_ENDIAN, DIRECTION, NO_LENGTHS, NO_SPACE, POSITION, counts, lengths, numbers, only_volumes, says
from .geometry import LPS, Image, lps_grid
from .written import Written, digits

# A long has 4 bytes, wherever the file was written.
TYPES = {
    "MET_CHAR": "i1", "MET_ASCII_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4",
    "MET_UINT": "u4", "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
UPRIGHT = "1 0 0 0 1 0 0 0 1"
TOLERANCE = 0.01  # by which the length of an axis' direction may differ from 1


@dataclass(frozen=True)
class Place:
    """Where voxels lie, in the header's own digits: ITK takes two images for one space only where these agree to a
    millionth of a voxel."""

    matrix: str
    offset: str
    spacing: str


def understood(fields: Mapping[str, str]) -> Image:
    """What the voxels are. Raises ScanError where the header lacks it, contradicts itself or is of no CT."""
    if fields.get("ObjectType", "Image") != "Image":
        raise ScanError("has an ObjectType other than Image")
    axes, values = (counts(key, fields.get(key, "1"), 1)[0] for key in ("NDims", "ElementNumberOfChannels"))
    only_volumes(axes, values)
    if fields.get("DistanceUnits", "mm") not in ("mm", "?", ""):
        raise ScanError("has DistanceUnits other than mm")
    for key, plain in (("ElementToIntensityFunctionSlope", 1), ("ElementToIntensityFunctionOffset", 0)):
        if key in fields and (value := numbers(key, fields[key], 1)[0]) != plain:
            raise ScanError(f"has {key} = {value:g}, which is not applied: store HU")
    stored = TYPES.get(fields.get("ElementType", "").removesuffix("_ARRAY"))
    if stored is None:
        raise ScanError("has an ElementType that is not a number")
    big = {says(fields, key) for key in BIG_ENDIAN if key in fields}
    if len(big) > 1:
        raise ScanError(f"contradicts itself: {' and '.join(BIG_ENDIAN)} differ")
    sizes = fields.get("ElementSpacing", fields.get("ElementSize", ""))
    spacing = lengths(sizes)
    if spacing is None:
        raise ScanError(NO_LENGTHS + "ElementSpacing above 0")
    matrix, offset = _one(fields, DIRECTION, 9), _one(fields, POSITION, 3)
    place = Place(matrix or UPRIGHT, offset or "0 0 0", sizes)
    directions = np.reshape(_numbers(place.matrix), (3, 3))
    if np.abs(np.linalg.norm(directions, axis=1) - 1).max() > TOLERANCE:
        raise ScanError("has a broken orientation: the rows of its TransformMatrix are not of length 1")
    affine = np.eye(4)
    affine[:3, :3] = directions.T * spacing
    affine[:3, 3] = _numbers(place.offset)
    grid, odd = lps_grid(affine, counts("DimSize", fields.get("DimSize", ""), 3), spacing=spacing)
    dtype = np.dtype(stored).newbyteorder(">" if True in big else "<")
    return Image(grid, dtype, (*odd, *([] if matrix else [NO_SPACE])), place)


def write_labels(path: Path, labels: np.ndarray, scan: Scan) -> Written:
    """Write labels (z, y, x) uint8 as .mha on the grid of a scan, which is told in the same digits if it was MetaImage.

    Raises UnwrittenError if the file cannot be written. No text of the scan's is in it.
    """
    place = scan.origin if isinstance(scan.origin, Place) else _made(scan.grid)

    def head(packed: int) -> bytes:
        lines = (
            "ObjectType = Image",
            "NDims = 3",
            "BinaryData = True",
            "BinaryDataByteOrderMSB = False",
            "CompressedData = True",
            f"CompressedDataSize = {packed}",
            f"TransformMatrix = {place.matrix}",
            f"Offset = {place.offset}",
            "CenterOfRotation = 0 0 0",
            f"ElementSpacing = {place.spacing}",
            f"DimSize = {' '.join(str(n) for n in scan.grid.shape[::-1])}",
            "ElementType = MET_UCHAR",
            "ElementDataFile = LOCAL",
        )
        return "".join(f"{text}\n" for text in lines).encode()

    return written.write(path, head, b"", labels, scan, written.ZLIB_WINDOW)


def _made(grid: Grid) -> Place:
    affine = LPS @ grid.affine + 0.0  # no -0
    spacing = grid.steps[::-1]
    matrix = (affine[:3, :3] / spacing).T.reshape(-1)
    return Place(*(" ".join(map(digits, values)) for values in (matrix, affine[:3, 3], spacing)))


def _one(fields: Mapping[str, str], keys: Sequence[str], count: int) -> str | None:
    """The numbers of the keys that are there, as text. Raises ScanError where they differ."""
    found = {key: numbers(key, fields[key], count) for key in keys if key in fields}
    if not found:
        return None
    first, *others = found
    for key in others:
        if found[key] != found[first]:
            raise ScanError(f"contradicts itself: {first} and {key} differ")
    return " ".join(fields[first].split())


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split()]
