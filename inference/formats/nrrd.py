"""NRRD: what its header says, checked (teem.sourceforge.net/nrrd/format.html)."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from ..errors import ScanError
from .fields import NO_LENGTHS, NO_SPACE, counts, lengths, numbers, only_volumes
from .geometry import Image, lps_grid

TYPES = {
    name: stored
    for stored, names in {
        "i1": "signed char, int8, int8_t",
        "u1": "uchar, unsigned char, uint8, uint8_t",
        "i2": "short, short int, signed short, signed short int, int16, int16_t",
        "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
        "i4": "int, signed int, int32, int32_t",
        "u4": "uint, unsigned int, uint32, uint32_t",
        "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
        "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
        "f4": "float",
        "f8": "double",
    }.items()
    for name in names.split(", ")
}
# Which axes of a space run against those of LPS.
SPACES = {
    "left-posterior-superior": (1, 1, 1), "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1), "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1), "las": (1, -1, 1),
}  # fmt: skip
OF_SPACE = {"domain", "space", "???", "none"}  # kinds of axes
MM = {"mm", "millimeter", "millimeters", "", "???"}


def understood(fields: Mapping[str, str]) -> Image:
    """What the voxels are. Raises ScanError where the header lacks it, contradicts itself or is of no CT."""
    only_volumes(counts("dimension", fields.get("dimension", ""), 1)[0])
    if not set(fields.get("kinds", "").split()) <= OF_SPACE:
        raise ScanError("has an axis that is none of space, by kinds: one CT of three dimensions is needed")
    for key, name in (("spaceunits", "space units"), ("units", "units")):
        if not set(re.findall(r'"([^"]*)"', fields.get(key, ""))) <= MM:
            raise ScanError(f"has {name} other than mm")
    stored = TYPES.get(" ".join(fields.get("type", "").split()))
    if stored is None:
        raise ScanError("has a type that is not a number")
    order = fields.get("endian", "")
    if order not in ("little", "big") and not stored.endswith("1"):
        raise ScanError("does not say its byte order: it has no endian that is little or big")
    affine = np.eye(4)
    known = "spacedirections" in fields and fields.get("space") in SPACES
    affine[:3, :3] = _directions(fields)
    if "spaceorigin" in fields:
        affine[:3, 3] = _vectors("space origin", fields["spaceorigin"], 1)[0]
    if known:
        affine = np.diag([*SPACES[fields["space"]], 1]) @ affine
    spacing = [float(mm) for mm in np.linalg.norm(affine[:3, :3], axis=0)]
    grid, odd = lps_grid(affine, counts("sizes", fields.get("sizes", ""), 3), spacing=spacing)
    return Image(
        grid,
        np.dtype(stored).newbyteorder("big" if order == "big" else "little"),
        (*odd, *([] if known else [NO_SPACE])),
    )


def _directions(fields: Mapping[str, str]) -> np.ndarray:
    """(3, 3) mm: a column for each axis. Raises ScanError."""
    if "axismins" in fields:
        raise ScanError("has its position as axis mins, which are not read: convert it to .nii.gz")
    spacings = lengths(fields.get("spacings", ""))
    if "spacedirections" not in fields:
        if spacings is None:
            raise ScanError(NO_LENGTHS + "space directions, and no spacings above 0")
        return np.diag(spacings)
    if "spacings" in fields:
        raise ScanError("contradicts itself: it has space directions and spacings")
    return np.transpose(_vectors("space directions", fields["spacedirections"], 3))


def _vectors(key: str, text: str, count: int) -> list[list[float]]:
    """Vectors of three numbers such as (1,0,0). Raises ScanError where there are not just so many, and nothing else."""
    found = re.findall(r"\(([^()]*)\)", text)
    if len(found) != count or re.sub(r"\([^()]*\)", "", text).strip():
        raise ScanError(f"has a damaged header: {key} is not {count} vectors of three numbers")
    return [numbers(key, vector.replace(",", " "), 3) for vector in found]
