"""Reads NRRD and MetaImage: SimpleITK understands the header, the voxels are read and checked here.

SimpleITK's own readers return what a damaged gzip or zlib stream happens to decode to, and no error.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Header

from ..errors import ScanError, shown
from ..names import METAIMAGE
from ..scan import Scan
from .hounsfield import real_numbers
from .nifti.header import LONGEST, SHEAR, Header, check_memory, parse
from .sources import Layout, layout, open_file
from .stream import open_stream

MOST_NIFTI = 2**15 - 1  # voxels along an axis, by NIfTI-1's header


def read_scan(path: Path) -> tuple[Scan, Header]:
    """The scan and a NIfTI header for its label map. Raises ScanError and MemoryBudgetError, as nifti.read_scan."""
    lies = layout(path)
    header, dtype = _understood(path, lies)
    check_memory(header.shape, dtype.itemsize)
    stored, odd = _stored(path, lies, header.shape, dtype)
    return Scan(
        real_numbers(stored), header.spacing, header.orientation, (*header.warnings, *lies.warnings, *odd)
    ), header


def read_header(path: Path) -> Header:
    """The header alone, of a scan whose voxels may be damaged. Raises ScanError."""
    return _understood(path, layout(path))[0]


def library() -> Any:
    """SimpleITK. Raises ScanError if it is not installed."""
    try:
        import SimpleITK
    except ImportError as error:
        raise ScanError("needs SimpleITK to be read, which is not installed: pip install SimpleITK") from error
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # what matters is checked here, and said in our words
    return SimpleITK


@contextmanager
def complaints() -> Iterator[FileIO]:
    """Meanwhile this process's error stream is a file in memory: libraries in C complain there, some only there.

    Their texts are never passed on: they name no file, or hold its whole path.
    """
    try:
        kept = os.dup(2)
    except OSError:  # the process was started without an error stream
        kept = os.open(os.devnull, os.O_WRONLY)
    try:
        with open(os.memfd_create("complaints"), "w+b", buffering=0) as file:
            os.dup2(file.fileno(), 2)
            yield file
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def reader_of(file: FileIO, kind: str) -> Any:
    """SimpleITK's reader of an open file, with its header read. Raises RuntimeError.

    The name that it gets works for any file, while it aborts the process over one that is not UTF-8.
    """
    reader = library().ImageFileReader()
    reader.SetImageIO(kind)
    reader.SetFileName(f"/proc/self/fd/{file.fileno()}")
    reader.ReadImageInformation()
    return reader


def nifti_header(affine: np.ndarray, shape: tuple[int, ...]) -> Header:
    """A NIfTI-1 header of a grid: `affine` (4, 4) from index (x, y, z) to mm in LPS, which is ITK's and DICOM's world.

    Raises ScanError where no CT lies on such a grid.
    """
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine)) == 0:
        raise ScanError("has a broken orientation: its axes do not span a volume")
    if max(shape) > MOST_NIFTI:
        raise ScanError(f"is too long for a label map: {max(shape)} voxels along an axis, NIfTI holds {MOST_NIFTI}")
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    square = np.abs(axes.T @ axes - np.eye(3)).max() <= SHEAR
    fields = Nifti1Header()
    fields.set_data_shape(shape)
    fields.set_data_dtype(np.int16)
    fields.set_qform(affine, "scanner" if square else "unknown")  # a quaternion has no shear
    fields.set_sform(affine, "scanner")
    fields.set_xyzt_units("mm")
    fields["magic"] = b"n+1"
    fields["vox_offset"] = fields.sizeof_hdr + 4
    return parse(fields.binaryblock.ljust(LONGEST, b"\0"))


def _understood(path: Path, lies: Layout) -> tuple[Header, np.dtype[Any]]:
    """Grid and type of the voxels, by SimpleITK: it sees a copy of the header and no other file."""
    kind = "MetaImageIO" if path.name.lower().endswith(METAIMAGE) else "NrrdImageIO"
    if lies.fault:
        raise ScanError(lies.fault)
    sitk = library()
    with complaints(), open(os.memfd_create("header"), "w+b", buffering=0) as copy:
        copy.write(lies.header)
        try:
            reader = reader_of(copy, kind)
        except RuntimeError:
            raise ScanError("cannot be read: its header is damaged or is not of the format of its name") from None
    size, components = reader.GetSize(), reader.GetNumberOfComponents()
    if components != 1 or len(size) != 3:
        raise ScanError(f"is {len(size)}-D with {components} values a voxel: one CT of three dimensions is needed")
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(reader.GetDirection(), (3, 3)) * reader.GetSpacing()
    affine[:3, 3] = reader.GetOrigin()
    one = sitk.GetArrayViewFromImage(sitk.Image([1, 1, 1], reader.GetPixelID()))
    return nifti_header(affine, size), one.dtype.newbyteorder(">" if lies.big else "<")


def _stored(
    path: Path, lies: Layout, shape: tuple[int, int, int], dtype: np.dtype[Any]
) -> tuple[np.ndarray, list[str]]:
    """Voxels (z, y, x) as stored, read to the last checksum, and warnings."""
    stored = np.empty(shape[::-1], dtype)
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
