"""Reads NRRD and MetaImage: SimpleITK understands the header, the voxels are read and checked here.

SimpleITK's own readers return what a damaged gzip or zlib stream happens to decode to, and no error.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import numpy as np

from ..errors import ScanError, shown
from ..names import METAIMAGE
from ..scan import Grid, Scan
from .complaints import IN_MEMORY, complaints, scratch
from .geometry import check_memory, lps_grid
from .hounsfield import real_numbers, voxel_bytes
from .layout import Layout, layout
from .opening import open_file
from .stream import open_stream


def read(path: Path) -> Scan:
    """A scan. Raises ScanError, whose text goes on from the file's name, and MemoryBudgetError."""
    lies = layout(path)
    grid, odd, dtype = _understood(path, lies)
    check_memory(grid.shape[::-1], dtype.itemsize)
    stored, damaged = _stored(path, lies, grid.shape, dtype)
    return Scan((real_numbers(stored),), grid, warnings=(*odd, *lies.warnings, *damaged))


def peek(path: Path) -> Scan:
    """The scan without its voxels, which may be damaged. Raises ScanError."""
    grid, odd, dtype = _understood(path, layout(path))
    return Scan((), grid, warnings=tuple(odd), voxel_bytes=voxel_bytes(dtype))


def library() -> Any:
    """SimpleITK. Raises ScanError if it is not installed."""
    try:
        import SimpleITK
    except ImportError as error:
        raise ScanError("needs SimpleITK to be read, which is not installed: pip install SimpleITK") from error
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # what matters is checked here, and said in our words
    return SimpleITK


@contextmanager
def reader_of(file: IO[bytes], kind: str) -> Iterator[Any]:
    """SimpleITK's reader of an open file, with its header read. Raises RuntimeError.

    The name that it gets works for any file, while it aborts the process over one that is not UTF-8.
    """
    reader = library().ImageFileReader()
    reader.SetImageIO(kind)
    with _name_of(file) as name:
        reader.SetFileName(name)
        reader.ReadImageInformation()
        yield reader


@contextmanager
def _name_of(file: IO[bytes]) -> Iterator[str]:
    """By which an open file can be opened again: Linux has one, elsewhere it is that of a copy."""
    if IN_MEMORY:
        yield f"/proc/self/fd/{file.fileno()}"
        return
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        copy = Path(folder) / "copy"
        file.seek(0)
        copy.write_bytes(file.read())
        yield str(copy)


def _understood(path: Path, lies: Layout) -> tuple[Grid, list[str], np.dtype[Any]]:
    """Grid, what is odd about it, type of the voxels, by SimpleITK: it sees a copy of the header and no other file."""
    kind = "MetaImageIO" if path.name.lower().endswith(METAIMAGE) else "NrrdImageIO"
    if lies.fault:
        raise ScanError(lies.fault)
    sitk = library()
    with complaints(), scratch() as copy:
        copy.write(lies.header)
        try:
            with reader_of(copy, kind) as reader:
                size, components = reader.GetSize(), reader.GetNumberOfComponents()
        except RuntimeError:
            raise ScanError("cannot be read: its header is damaged or is not of the format of its name") from None
    if components != 1 or len(size) != 3:
        raise ScanError(f"is {len(size)}-D with {components} values a voxel: one CT of three dimensions is needed")
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(reader.GetDirection(), (3, 3)) * reader.GetSpacing()
    affine[:3, 3] = reader.GetOrigin()
    one = sitk.GetArrayViewFromImage(sitk.Image([1, 1, 1], reader.GetPixelID()))
    return *lps_grid(affine, size), one.dtype.newbyteorder(">" if lies.big else "<")


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
