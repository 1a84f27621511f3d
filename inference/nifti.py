"""Reads CT from NIfTI files and writes label maps as such."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from inference.atomic import write_atomically
from inference.errors import ScanError, UnwrittenError, shown
from inference.header import LONGEST, Header, check_memory, parse, voxel_bytes
from inference.hounsfield import real_numbers
from inference.scan import Scan
from inference.stream import Stream, open_stream

LEVEL = 1  # of gzip: label maps shrink a hundredfold at any level
# Runs of one label are what there is to find: who looks for nothing else needs 3/4 of the time and 3/5 of the bytes.
STRATEGY = zlib.Z_RLE
GZIP_WINDOW = 31  # zlib.h: 15 bits of window, and 16 for a gzip header, which then holds neither time nor name


def read_scan(path: Path) -> tuple[Scan, Header]:
    """The scan and the header that its label map will carry.

    The header is checked before anything is allocated, the gzip stream to its last checksum.
    Raises ScanError, whose text goes on from the file's name, and MemoryBudgetError.
    """
    with open_stream(path) as stream:
        header, stored, warnings = _read(stream)
    voxels = _hounsfield(stored, header)
    return Scan(voxels, header.spacing, header.orientation, (*header.warnings, *warnings)), header


class Written(NamedTuple):
    """A label map that is in place: the file's digest, and what the file system could not promise about it."""

    sha256: str
    doubt: str | None


def write_labels(path: Path, labels: np.ndarray, header: Header) -> Written:
    """Write labels (z, y, x) uint8 as .nii.gz on the grid of the scan whose header this is.

    Raises UnwrittenError if the file cannot be written.

    The file is the same for the same labels: no time, no name, no text of the scan's is in it, and zlib's answer
    depends on nothing else. isal takes 20 ms instead of 120 for 60 million voxels, but looks at the processor.
    """
    if labels.dtype != np.uint8 or labels.shape != header.shape[::-1]:
        raise ValueError(f"labels {labels.dtype} {labels.shape} are not uint8 {header.shape[::-1]}")
    try:
        packer = zlib.compressobj(LEVEL, zlib.DEFLATED, GZIP_WINDOW, strategy=STRATEGY)
        pieces = [packer.compress(header.of_labels)]
        pieces += [packer.compress(np.ascontiguousarray(plane).data) for plane in labels]
        packed = b"".join([*pieces, packer.flush()])
        doubt = write_atomically(path, packed)
    except OSError as error:
        raise UnwrittenError(f"{shown(path.name)} cannot be written: {error.strerror or error}") from error
    except MemoryError as error:
        raise UnwrittenError(f"{shown(path.name)} cannot be written: not enough memory") from error
    return Written(hashlib.sha256(packed).hexdigest(), doubt)


def read_header(path: Path) -> Header:
    """The header alone, of a scan whose voxels may be damaged. Raises ScanError."""
    with open_stream(path) as stream:
        head = bytearray(LONGEST)
        return parse(bytes(head[: stream.read_into(memoryview(head))]))


def _read(stream: Stream) -> tuple[Header, np.ndarray, list[str]]:
    """Header, voxels (z, y, x) as stored, warnings."""
    head = bytearray(LONGEST)
    head = head[: stream.read_into(memoryview(head))]
    header = parse(bytes(head))
    size = voxel_bytes(header)
    if stream.most < header.offset + size:
        raise ScanError(f"is too short for {' x '.join(map(str, header.shape))} voxels: cut off, or a broken header")
    check_memory(header.shape, header.dtype.itemsize)
    stored = np.empty(header.shape[::-1], header.dtype)
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
    voxels = stored.astype(np.float32)
    voxels *= np.float32(slope)
    voxels += np.float32(inter)
    return voxels
