"""Where the voxels of a MetaImage or NRRD file lie, by its header."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath

from ..errors import ScanError
from ..names import METAIMAGE
from .opening import open_file

NO_LENGTHS = "does not say how large its voxels are: it has no "
NO_SPACE = "the header gives no orientation: axes taken as a scanner stores them (LPS)"
SPACES = ("right-anterior-superior", "left-anterior-superior", "left-posterior-superior", "ras", "las", "lps")
MOST_HEADER = 1 << 20
MOST_FILES = 100_000


@dataclass(frozen=True)
class Layout:
    """Where the voxels of a MetaImage or NRRD file lie.

    files    that hold them, an equal share each: the file itself, or those that its header names
    start    byte at which they begin in each file, None where they are its last bytes
    packing  "raw", "gzip" or "zlib"
    big      whether bytes come in big-endian order
    header   the text of the header that says the rest, as of a file that holds its own raw voxels
    warnings one sentence each for what the header lacks
    fault    what it lacks so that the scan cannot be read, where SimpleITK would take 1 mm; else empty
    """

    files: tuple[Path, ...]
    start: int | None
    packing: str
    big: bool
    header: bytes
    warnings: tuple[str, ...] = ()
    fault: str = ""


def layout(path: Path) -> Layout:
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
                found |= {str(file.relative_to(folder)) for file in layout(folder / entry).files}
    return found


def _metaimage(path: Path, head: bytes) -> Layout:
    """MetaIO's rules: itk.org/Wiki/MetaIO/Documentation."""
    fields: dict[str, str] = {}
    kept, end = [], 0
    while "ElementDataFile" not in fields:
        if end >= len(head):
            raise ScanError("is not MetaImage: its header has no ElementDataFile")
        line, end = _line(head, end)
        found = re.match(r"\s*(\w+)\s*[=:]\s*(.*)", line)
        if found:
            fields[found[1]] = found[2].rstrip()
        kept.append(line)

    def says(name: str, other: str = "", default: str = "F") -> bool:
        return fields.get(name, fields.get(other, default))[:1] in ("T", "t", "1")

    if not says("BinaryData", default="T"):
        raise ScanError("has its voxels as text (BinaryData = False): convert it to a binary file")
    for name, plain in (("ElementToIntensityFunctionSlope", 1), ("ElementToIntensityFunctionOffset", 0)):
        if name in fields and _number(fields[name]) != plain:
            raise ScanError(f"has {name} = {fields[name][:20]}, which is not applied: store HU")
    sized = _lengths(fields.get("ElementSpacing", fields.get("ElementSize", "")))
    fault = "" if sized else NO_LENGTHS + "ElementSpacing above 0"
    odd = () if {"TransformMatrix", "Orientation", "Rotation"} & fields.keys() else (NO_SPACE,)
    skip = int(_number(fields.get("HeaderSize", "0")))
    compressed = says("CompressedData")
    if compressed and skip:
        raise ScanError("has compressed voxels behind a HeaderSize: convert it to .nii.gz")
    named = fields["ElementDataFile"]
    local = named.upper() == "LOCAL"
    files = (path,) if local else _named(path.parent, named, head[end:], lists=named.split()[:1] == ["LIST"])
    start = None if skip < 0 else skip or (end if local else 0)
    header = "\n".join([*kept[:-1], "ElementDataFile = LOCAL", ""])
    big = says("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
    return Layout(files, start, "zlib" if compressed else "raw", big, os.fsencode(header), odd, fault)


def _nrrd(path: Path, head: bytes) -> Layout:
    """teem.sourceforge.net/nrrd/format.html"""
    if not head.startswith(b"NRRD"):
        raise ScanError("is not NRRD: it does not begin with NRRD")
    fields: dict[str, str] = {}
    kept, end = [], 0
    named, apart = "", False
    while end < len(head) and not (apart and named.split()[:1] == ["LIST"]):
        line, end = _line(head, end)
        if not line:
            break
        found = re.match(r"([^:#]+): *(.*)", line)
        name = found[1].strip().lower().replace(" ", "") if found else ""
        if found and name == "datafile":
            named, apart = found[2].rstrip(), True
        elif found and name in ("encoding", "byteskip", "lineskip"):
            fields[name] = found[2].strip().lower()
        else:
            kept.append(line)
            fields |= {name: found[2].strip().lower()} if found else {}
    packing = {"raw": "raw", "gzip": "gzip", "gz": "gzip"}.get(fields.get("encoding", ""))
    if packing is None:
        raise ScanError("has an encoding that is neither raw nor gzip: convert it to one of these")
    sized = "spacedirections" in fields or _lengths(fields.get("spacings", ""))
    fault = "" if sized else NO_LENGTHS + "space directions, and no spacings above 0"
    odd = () if "spacedirections" in fields and fields.get("space") in SPACES else (NO_SPACE,)
    skip = int(_number(fields.get("byteskip", "0")))
    if _number(fields.get("lineskip", "0")) or (skip and packing == "gzip"):
        raise ScanError("skips lines or bytes before its voxels: convert it to .nii.gz")
    files = _named(path.parent, named, head[end:], lists=named.split()[:1] == ["LIST"]) if apart else (path,)
    start = None if skip < 0 else skip + (0 if apart else end)
    header = "\n".join([*kept, "encoding: raw", "", ""])
    return Layout(files, start, packing, fields.get("endian") == "big", os.fsencode(header), odd, fault)


def _line(head: bytes, start: int) -> tuple[str, int]:
    """A line without its end, and where the next one begins."""
    end = head.find(b"\n", start)
    end = len(head) if end < 0 else end
    return os.fsdecode(head[start:end].rstrip(b"\r")), end + 1


def _named(folder: Path, named: str, rest: bytes, lists: bool) -> tuple[Path, ...]:
    """Files that a header names: by name, by LIST with a name on each following line, or by a pattern of printf's."""
    pattern = re.fullmatch(r"(.*%0?\d{0,2}d.*?)((?:\s+-?\d+){3,4})", named)
    if lists:
        names = [os.fsdecode(line.strip()) for line in rest.split(b"\n") if line.strip()]
    elif pattern and pattern[1].count("%") == 1:
        first, last, step = (int(number) for number in pattern[2].split()[:3])
        numbers = range(first, last + (1 if step > 0 else -1), step) if step else range(0)
        names = [pattern[1] % number for number in numbers[: MOST_FILES + 1]]
    else:
        names = [named]
    if not 0 < len(names) <= MOST_FILES or not all(names):
        raise ScanError("does not name the file of its voxels")
    for name in names:
        if PurePath(name).is_absolute() or ".." in PurePath(name).parts or "\0" in name:
            raise ScanError("has its voxels outside its own folder by its header: refused; move them beside it")
    return tuple(folder / name for name in names)


def _lengths(text: str) -> bool:
    """Whether numbers above 0 are there, and nothing else."""
    try:
        return bool(text.split()) and all(0 < float(part) < float("inf") for part in text.split())
    except ValueError:
        return False


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ScanError("has a broken header: a number was expected") from None
