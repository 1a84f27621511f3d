"""Reads CT from NIfTI files and writes label maps as such."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ...errors import ScanError, shown
from ...scan import Scan
from .. import written
from ..geometry import check_memory
from ..hounsfield import real_numbers, voxel_bytes
from ..stream import Stream, open_stream
from ..written import Written
from .header import LONGEST, Header, label_header, parse

# Of CIFTI's XML. A header may hold anything, so it is searched and not parsed, and each part is bounded.
LABEL = re.compile(r'<Label\b[^<>]{0,200}\bKey="(\d{1,3})"[^<>]{0,200}><!\[CDATA\[([^\]]{1,200})\]\]>')


def read(path: Path) -> Scan:
    """A scan, whose header its label map will carry.

    The header is checked before anything is allocated, the gzip stream to its last checksum.
    Raises ScanError, whose text goes on from the file's name, and MemoryBudgetError.
    """
    with open_stream(path) as stream:
        header, stored, warnings = _read(stream)
    return Scan((_hounsfield(stored, header),), header.grid, header, (*header.warnings, *warnings))


def peek(path: Path) -> Scan:
    """The scan without its voxels, which may be damaged. Raises ScanError."""
    with open_stream(path) as stream:
        head = bytearray(LONGEST)
        header = parse(bytes(head[: stream.read_into(memoryview(head))]))
    takes = voxel_bytes(header.dtype, header.scaling is not None)
    return Scan((), header.grid, header, header.warnings, voxel_bytes=takes)


def label_names(path: Path) -> dict[int, str]:
    """Value -> name by the table in an extension of the header, where TotalSegmentator puts one that names all labels
    of a file; empty if there is none. Raises ScanError."""
    with open_stream(path) as stream:
        head = bytearray(LONGEST)
        head = head[: stream.read_into(memoryview(head))]
        more = bytearray(max(parse(bytes(head)).offset - len(head), 0))
        stream.read_into(memoryview(more))
    return {int(value): name for value, name in LABEL.findall((head + more).decode(errors="replace"))}


def write_labels(path: str | Path, labels: np.ndarray, scan: Scan, slope: float = 1) -> Written:
    """Write labels (z, y, x) uint8 as .nii.gz on the grid of a scan.

    slope  what a stored 1 means
    Raises UnwrittenError if the file cannot be written, ValueError if its name has another ending.

    The file is the same for the same labels: no time, no name, no text of the scan's is in it.
    """
    if not str(path).lower().endswith(".nii.gz"):
        raise ValueError(f"{shown(Path(path).name)} does not end in .nii.gz, which is what is written")
    return written.write(Path(path), b"", label_header(scan.grid, scan.origin, slope), labels, scan)


def _read(stream: Stream) -> tuple[Header, np.ndarray, list[str]]:
    """Header, voxels (z, y, x) as stored, warnings."""
    head = bytearray(LONGEST)
    head = head[: stream.read_into(memoryview(head))]
    header = parse(bytes(head))
    size, shape = header.voxel_bytes, header.grid.shape
    if stream.most < header.offset + size:
        raise ScanError(f"is too short for {' x '.join(map(str, shape[::-1]))} voxels: cut off, or a broken header")
    check_memory(shape[::-1], header.dtype.itemsize)
    stored = np.empty(shape, header.dtype)
    target = stored.reshape(-1).view(np.uint8).data
    early = bytes(head[header.offset : header.offset + size])  # a NIfTI-1 file's first voxels came with the head
    target[: len(early)] = early
    skip = max(header.offset - len(head), 0)
    if stream.read_into(memoryview(bytearray(skip))) < skip:
        raise ScanError("is cut off before its first voxel")
    got = len(early) + stream.read_into(target[len(early) :])
    if got < size:
        raise ScanError(f"is cut off: {got} of {size} bytes of voxels are there")
    return header, stored, stream.after_voxels()


def _hounsfield(stored: np.ndarray, header: Header) -> np.ndarray:
    """int16 where that holds every stored value and none is scaled, else float32."""
    if header.scaling is None:
        return real_numbers(stored)
    slope, inter = header.scaling
    voxels = np.empty(stored.shape, np.float32)
    for plane, values in zip(voxels, stored, strict=True):  # in float64, as nibabel and ITK do: 0 is what is 0 there
        plane[...] = values.astype(np.float64) * slope + inter
    return voxels
