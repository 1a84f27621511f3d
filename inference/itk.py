"""Reads what NIfTI is not: NRRD, MetaImage and folders of one DICOM series, through SimpleITK."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Header

from inference import machine
from inference.errors import MemoryBudgetError, ScanError
from inference.header import LONGEST, Header, parse
from inference.hounsfield import checked, real_numbers
from inference.scan import Scan

POSITION = "0020|0032"  # DICOM's Image Position (Patient)
UNEVEN = 0.01  # share of the distance of slices by which one may differ


def read_scan(path: Path, accept: bool = False) -> tuple[Scan, Header]:
    """The scan and a NIfTI header for its label map. Raises ScanError and MemoryBudgetError, as nifti.read_scan."""
    try:
        import SimpleITK
    except ImportError as error:
        raise ScanError("needs SimpleITK to be read, which is not installed: pip install SimpleITK") from error
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # what matters is checked here, and said in our words
    try:
        image = _series(SimpleITK, path) if path.is_dir() else _image(SimpleITK, path)
    except RuntimeError as error:
        raise ScanError(f"cannot be read: {_cause(error)}") from error
    header = _header(image)
    voxels, odd = checked(real_numbers(SimpleITK.GetArrayFromImage(image)), accept)
    return Scan(voxels, header.spacing, header.orientation, (*header.warnings, *odd), checked=True), header


def _image(sitk: Any, path: Path) -> Any:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    _check(reader.GetSize(), reader.GetNumberOfComponents())
    return reader.Execute()


def _series(sitk: Any, folder: Path) -> Any:
    ids = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if len(ids) != 1:
        raise ScanError(f"holds {len(ids)} DICOM series: give a folder with one")
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), ids[0])
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(files)
    reader.MetaDataDictionaryArrayUpdateOn()
    image = reader.Execute()
    _check(image.GetSize(), image.GetNumberOfComponentsPerPixel())
    if len(files) > 1:
        _check_positions([reader.GetMetaData(number, POSITION) for number in range(len(files))])
    return image


def _check(size: tuple[int, ...], components: int) -> None:
    """Before voxels are read, where the format allows that."""
    if components != 1 or len(size) != 3:
        raise ScanError(f"is {len(size)}-D with {components} values a voxel: one CT of three dimensions is needed")
    need, budget = prod(size) * 10, machine.memory_budget()  # as stored, as float32, and labels twice
    if need > budget:
        raise MemoryBudgetError(
            f"is too large: {' x '.join(map(str, size))} voxels need {need / 1e9:.1f} GB, "
            f"and {budget / 1e9:.1f} GB are free"
        )


def _check_positions(texts: list[str]) -> None:
    """SimpleITK puts slices side by side however far apart they were taken: one missing would shift the rest."""
    positions = np.array([[float(mm) for mm in text.split("\\")] for text in texts])
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    if steps.max() - steps.min() > UNEVEN * np.median(steps):
        raise ScanError(f"has slices {steps.min():g} to {steps.max():g} mm apart: some are missing or doubled")


def _header(image: Any) -> Header:
    """A NIfTI-1 header with the image's grid; ITK's world is LPS, NIfTI's RAS."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    affine[:2] *= -1
    fields = Nifti1Header()
    fields.set_data_shape(image.GetSize())
    fields.set_data_dtype(np.int16)
    fields.set_qform(affine, "scanner")
    fields.set_sform(affine, "scanner")
    fields.set_xyzt_units("mm")
    fields["magic"] = b"n+1"
    fields["vox_offset"] = fields.sizeof_hdr + 4
    return parse(fields.binaryblock.ljust(LONGEST, b"\0"))


def _cause(error: RuntimeError) -> str:
    """The last line of SimpleITK's message but for errno's text, which is of some earlier call."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "Reason:" not in line]
    return lines[-1].split("ERROR: ")[-1] if lines else "SimpleITK says no cause"
