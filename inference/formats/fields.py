"""Fields of the headers of MetaImage and NRRD: numbers in text."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

from ..errors import JOIN, ScanError

NO_LENGTHS = "does not say how large its voxels are: it has no "
NO_SPACE = "the header gives no orientation: axes taken as a scanner stores them (LPS)"
MOST = 1 << 31  # of anything that is counted
# Keys of MetaImage of one meaning: where several are there they have to agree.
DIRECTION = ("TransformMatrix", "Orientation", "Rotation")
POSITION = ("Offset", "Position", "Origin")
BIG_ENDIAN = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")


def says(fields: Mapping[str, str], key: str, default: str = "F") -> bool:
    """Whether a field of MetaImage is true."""
    return fields.get(key, default)[:1] in ("T", "t", "1")


def numbers(key: str, text: str, count: int) -> list[float]:
    """The finite numbers of a field. Raises ScanError where there are not just so many; the text may be a name."""
    try:
        values = [float(part) for part in text.split()]
    except ValueError:
        values = []
    if len(values) != count or not all(map(isfinite, values)):
        wanted = "a number" if count == 1 else f"{count} numbers"
        raise ScanError(f"has a damaged header: {key} is not {wanted}")
    return values


def counts(key: str, text: str, count: int) -> list[int]:
    """The whole numbers above 0 of a field. Raises ScanError as `numbers`."""
    values = [int(value) for value in numbers(key, text, count) if value == int(value)]
    if len(values) != count or not 0 < min(values) <= max(values) <= MOST:
        raise ScanError(f"has a damaged header: {key} is not of whole numbers above 0")
    return values


def lengths(text: str) -> list[float] | None:
    """Three numbers above 0, or None."""
    try:
        values = [float(part) for part in text.split()]
    except ValueError:
        return None
    return values if len(values) == 3 and all(0 < value < float("inf") for value in values) else None


def only_volumes(axes: int, values: int = 1) -> None:
    """Raises ScanError where a voxel has several values, or the file not three axes."""
    if axes != 3:
        raise ScanError(f"is {axes}-D: a scan has three dimensions" + (f"; {JOIN}" if axes == 2 else ""))
    if values != 1:
        raise ScanError(f"has {values} values a voxel: a scan has one")
