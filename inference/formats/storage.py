"""Where the voxels of a MetaImage or NRRD file lie, by its header.

The rules are those of itk.org/Wiki/MetaIO/Documentation and teem.sourceforge.net/nrrd/format.html.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath

from ..errors import ScanError
from ..names import METAIMAGE
from .fields import BIG_ENDIAN, DIRECTION, POSITION, numbers, says
from .opening import open_file

MOST_HEADER = 1 << 20
MOST_FILES = 100_000
# Of MetaImage: what must not stand there twice with different values.
KEYS = {
    *DIRECTION, *POSITION, *BIG_ENDIAN, "ObjectType", "NDims", "BinaryData", "CompressedData", "DistanceUnits",
    "DimSize", "HeaderSize", "ElementType", "ElementNumberOfChannels", "ElementSpacing", "ElementSize",
    "ElementDataFile", "ElementToIntensityFunctionSlope", "ElementToIntensityFunctionOffset",
}  # fmt: skip
PACKINGS = {"raw": "raw", "gzip": "gzip", "gz": "gzip"}


@dataclass(frozen=True)
class Storage:
    """Where the voxels of a file lie.

    files    that hold them, an equal share each: the file itself, or those that its header names
    start    byte at which they begin in each file, None where they are its last bytes
    packing  "raw", "gzip" or "zlib"
    fields   of the header: key -> text
    """

    files: tuple[Path, ...]
    start: int | None
    packing: str
    fields: Mapping[str, str]


def storage_of(path: Path) -> Storage:
    """Where a MetaImage or NRRD file has its voxels. Raises ScanError if that is unclear or outside its folder."""
    with open_file(path) as file:
        head = file.read(MOST_HEADER) or b""
    return _metaimage(path, head) if path.name.lower().endswith(METAIMAGE) else _nrrd(path, head)


def detached(folder: Path, entries: Iterable[str]) -> set[str]:
    """Names of the files in a folder that hold the voxels of its .mhd and .nhdr files."""
    found: set[str] = set()
    for entry in entries:
        if entry.lower().endswith((".mhd", ".nhdr")):
            with suppress(ScanError):
                found |= {str(file.relative_to(folder)) for file in storage_of(folder / entry).files}
    return found


def _metaimage(path: Path, head: bytes) -> Storage:
    """Where the voxels of a file that begins with `head` lie. Raises ScanError."""
    fields: dict[str, str] = {}
    end = 0
    while "ElementDataFile" not in fields:
        if end >= len(head):
            raise ScanError("is not MetaImage: its header has no ElementDataFile")
        text, end = _line(head, end)
        if found := re.match(r"\s*(\w+)\s*[=:]\s*(.*)", text):
            key, value = found[1], found[2].rstrip()
            if key in KEYS and fields.get(key, value) != value:
                raise ScanError(f"has two different values of {key} in its header")
            fields[key] = value
    if not says(fields, "BinaryData", default="T"):
        raise ScanError("has its voxels as text (BinaryData = False): convert it to a binary file")
    skip = _skipped("HeaderSize", fields.get("HeaderSize", "0"))
    compressed = says(fields, "CompressedData")
    if compressed and skip:
        raise ScanError("has compressed voxels behind a HeaderSize: convert it to .nii.gz")
    named = fields["ElementDataFile"]
    local = named.upper() == "LOCAL"
    files = (path,) if local else _named(path.parent, named, head[end:])
    start = None if skip < 0 else skip or (end if local else 0)
    return Storage(files, start, "zlib" if compressed else "raw", fields)


def _nrrd(path: Path, head: bytes) -> Storage:
    """Where the voxels of a file that begins with `head` lie. Raises ScanError."""
    if not head.startswith(b"NRRD"):
        raise ScanError("is not NRRD: it does not begin with NRRD")
    fields: dict[str, str] = {}
    end, named = 0, None
    while end < len(head) and not (named is not None and _is_list(named)):
        text, end = _line(head, end)
        if not text:
            break
        found = re.match(r"([^:#]+):(?!=)\s*(.*)", text)  # := is of what anybody may add
        if not found:
            continue
        key, value = re.sub(r"\s", "", found[1]).lower(), found[2].rstrip()
        if key == "datafile":
            named = value
        elif fields.setdefault(key, value.lower()) != value.lower():
            raise ScanError("has a field twice in its header, with different values")
    packing = PACKINGS.get(fields.get("encoding", ""))
    if packing is None:
        raise ScanError("has an encoding that is neither raw nor gzip: convert it to one of these")
    skip = _skipped("byte skip", fields.get("byteskip", "0"))
    if numbers("line skip", fields.get("lineskip", "0"), 1)[0] or (skip and packing == "gzip"):
        raise ScanError("skips lines or bytes before its voxels: convert it to .nii.gz")
    files = (path,) if named is None else _named(path.parent, named, head[end:])
    start = None if skip < 0 else skip + (end if named is None else 0)
    return Storage(files, start, packing, fields)


def _line(head: bytes, start: int) -> tuple[str, int]:
    """A line without its end, and where the next one begins."""
    end = head.find(b"\n", start)
    end = len(head) if end < 0 else end
    return os.fsdecode(head[start:end].rstrip(b"\r")), end + 1


def _skipped(key: str, text: str) -> int:
    """Bytes before the voxels, or -1: they are the last of the file. Raises ScanError as `numbers`."""
    value = numbers(key, text, 1)[0]
    if value != int(value) or not -1 <= value <= 1 << 48:
        raise ScanError(f"has a damaged header: {key} is not a number of bytes")
    return int(value)


def _named(folder: Path, named: str, rest: bytes) -> tuple[Path, ...]:
    """Files that a header names: by name, by LIST with a name on each following line, or by a pattern of printf's.

    Raises ScanError where one is outside the folder.
    """
    pattern = re.fullmatch(r"(.*%0?\d{0,2}d.*?)((?:\s+-?\d+){3,4})", named)
    if _is_list(named):
        names = [os.fsdecode(entry.strip()) for entry in rest.split(b"\n") if entry.strip()]
    elif pattern and pattern[1].count("%") == 1:
        first, last, step = (int(number) for number in pattern[2].split()[:3])
        chosen = range(first, last + (1 if step > 0 else -1), step) if step else range(0)
        names = [pattern[1] % number for number in chosen[: MOST_FILES + 1]]
    else:
        names = [named]
    if not 0 < len(names) <= MOST_FILES or not all(names):
        raise ScanError("does not name the file of its voxels")
    for name in names:
        # Not only what is absolute: C:x and \\x lead out of a folder on Windows, too.
        if PurePath(name).anchor or ".." in PurePath(name).parts or "\0" in name:
            raise ScanError("has its voxels outside its own folder by its header: refused; move them beside it")
    return tuple(folder / name for name in names)


def _is_list(named: str) -> bool:
    return named.split()[:1] == ["LIST"]
