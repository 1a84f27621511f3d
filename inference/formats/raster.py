"""Reads MetaImage and NRRD: a header of text, and voxels that are read to the last checksum.

SimpleITK 2.5 returns what a damaged gzip or zlib stream happens to decode to, and no error.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ScanError, shown
from ..names import METAIMAGE
from ..scan import Scan
from . import metaimage, nrrd
from .geometry import Image, check_memory
from .hounsfield import real_numbers, voxel_bytes
from .layout import Layout, layout
from .opening import open_file
from .stream import open_stream


def read(path: Path) -> Scan:
    """A scan. Raises ScanError, whose text goes on from the file's name, and MemoryBudgetError."""
    lies = layout(path)
    found = _image(path, lies)
    check_memory(found.grid.shape[::-1], found.dtype.itemsize)
    stored, damaged = _stored(path, lies, found.grid.shape, found.dtype)
    return Scan((real_numbers(stored),), found.grid, found.origin, (*found.warnings, *damaged))


def peek(path: Path) -> Scan:
    """The scan without its voxels, which may be damaged. Raises ScanError."""
    found = _image(path, layout(path))
    return Scan((), found.grid, found.origin, found.warnings, voxel_bytes=voxel_bytes(found.dtype))


def _image(path: Path, lies: Layout) -> Image:
    understood = metaimage.understood if path.name.lower().endswith(METAIMAGE) else nrrd.understood
    return understood(lies.fields)


def _stored(
    path: Path, lies: Layout, shape: tuple[int, int, int], dtype: np.dtype[Any]
) -> tuple[np.ndarray, list[str]]:
    """Voxels (z, y, x) as stored, read to the last checksum, and warnings."""
    stored = np.empty(shape, dtype)
    target = stored.reshape(-1).view(np.uint8).data
    share, rest = divmod(len(target), len(lies.files))
    if rest:
        raise ScanError(f"spreads {len(target)} bytes of voxels over {len(lies.files)} files: they do not divide")
    warnings: list[str] = []
    for number, file in enumerate(lies.files):
        part = target[number * share : (number + 1) * share]
        try:
            warnings += _read_into(part, file, lies)
        except ScanError as error:
            raise error if file == path else ScanError(f"has voxels in {shown(file.name)}, which {error}") from None
    return stored, warnings


def _read_into(part: memoryview, file: Path, lies: Layout) -> list[str]:
    start = lies.start
    if start is None:
        with open_file(file) as opened:
            start = max(os.fstat(opened.fileno()).st_size - len(part), 0)
    with open_stream(file, start, lies.packing) as stream:
        got = stream.read_into(part)
        if got < len(part):
            raise ScanError(f"is cut off: {got} of {len(part)} bytes of voxels are there")
        return stream.after_voxels()
