"""Makes CT series by pydicom: whole objects, as scanners write them, in any orientation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

STUDY, SERIES, FRAME = "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.2", "1.2.826.0.1.3680043.8.498.3"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # ImageOrientationPatient


def ct_series(
    folder: Path,
    hu: np.ndarray,
    orientation: tuple[float, ...] = AXIAL,
    spacing: tuple[float, float, float] = (3.0, 5.0, 4.0),
    origin: tuple[float, float, float] = (-20.0, 30.0, 7.0),
    backwards: bool = False,
    change: Callable[[int, Any], None] = lambda z, one: None,
) -> list[Path]:
    """Writes HU (z, y, x) as files in a folder, z along the normal of the slices; returns the files by z.

    spacing    (z, y, x) mm
    origin     of the first voxel, mm, LPS
    backwards  names and numbers of files fall along z
    change     is called with z and the object before it is written
    """
    folder.mkdir(parents=True, exist_ok=True)
    row, column = np.array(orientation).reshape(2, 3)
    files = []
    for z, plane in enumerate(hu):
        number = len(hu) - z if backwards else z + 1
        one: Any = Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.file_meta.MediaStorageSOPClassUID = CTImageStorage
        one.preamble = bytes(128)
        one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, f"{SERIES}.{number}"
        one.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        one.StudyDate, one.StudyTime, one.AccessionNumber, one.StudyID = "20200304", "101112", "A1", "S1"
        one.PatientName, one.PatientID, one.PatientBirthDate, one.PatientSex = "Doe^Jane", "P1", "19600102", "F"
        one.ReferringPhysicianName = ""
        one.Modality, one.Manufacturer = "CT", "Made"
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = STUDY, SERIES, FRAME
        one.SeriesNumber, one.InstanceNumber, one.AcquisitionNumber = 3, number, 1
        one.PatientPosition, one.PositionReferenceIndicator, one.KVP = "HFS", "", None
        place = np.array(origin) + z * spacing[0] * np.cross(row, column)
        one.ImagePositionPatient = [float(f"{mm:.6f}") for mm in place]
        one.ImageOrientationPatient = [float(f"{cosine:.9f}") for cosine in orientation]
        one.PixelSpacing, one.SliceThickness = list(spacing[1:]), spacing[0]
        one.Rows, one.Columns = plane.shape
        one.SamplesPerPixel, one.PhotometricInterpretation, one.PixelRepresentation = 1, "MONOCHROME2", 1
        one.BitsAllocated, one.BitsStored, one.HighBit = 16, 16, 15
        one.RescaleIntercept, one.RescaleSlope, one.RescaleType = 0, 1, "HU"
        one.PixelData = plane.astype("<i2").tobytes()
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        change(z, one)
        files.append(folder / f"{number:03}.dcm")
        one.save_as(files[-1])
    return files
