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
from .opening import open_file
from .storage import Storage, storage_of
from .stream import open_stream


def read(path: Path) -> Scan:
    """A scan. Raises ScanError, whose text goes on from the file's name, and MemoryBudgetError."""
    storage = storage_of(path)
    found = _image(path, storage)
    check_memory(found.grid.shape[::-1], found.dtype.itemsize)
    stored, damaged = _stored(path, storage, found.grid.shape, found.dtype)
    return Scan((real_numbers(stored),), found.grid, found.origin, (*found.warnings, *damaged))


def peek(path: Path) -> Scan:
    """The scan without its voxels, which may be damaged. Raises ScanError."""
    found = _image(path, storage_of(path))
    return Scan((), found.grid, found.origin, found.warnings, voxel_bytes=voxel_bytes(found.dtype))


def _image(path: Path, storage: Storage) -> Image:
    understood = metaimage.understood if path.name.lower().endswith(METAIMAGE) else nrrd.understood
    return understood(storage.fields)


def _stored(
    path: Path, storage: Storage, shape: tuple[int, int, int], dtype: np.dtype[Any]
) -> tuple[np.ndarray, list[str]]:
    """Voxels (z, y, x) as stored, read to the last checksum, and warnings."""
    stored = np.empty(shape, dtype)
    target = stored.reshape(-1).view(np.uint8).data
    share, rest = divmod(len(target), len(storage.files))
    if rest:
        raise ScanError(f"spreads {len(target)} bytes of voxels over {len(storage.files)} files: they do not divide")
    warnings: list[str] = []
    for number, file in enumerate(storage.files):
        part = target[number * share : (number + 1) * share]
        try:
            warnings += _read_into(part, file, storage)
        except ScanError as error:
            raise error if file == path else ScanError(f"has voxels in {shown(file.name)}, which {error}") from None
    return stored, warnings


def _read_into(part: memoryview, file: Path, storage: Storage) -> list[str]:
    start = storage.start
    if start is None:
        with open_file(file) as opened:
            start = max(os.fstat(opened.fileno()).st_size - len(part), 0)
    with open_stream(file, start, storage.packing) as stream:
        got = stream.read_into(part)
        if got < len(part):
            raise ScanError(f"is cut off: {got} of {len(part)} bytes of voxels are there")
        return stream.after_voxels()
