"""Makes DICOM files, byte by byte: tests take away, change and break what they like."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.uid import UID

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED, SECONDARY, REPORT = f"{CT_IMAGE}.1", "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.88.67"
IMPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
EXPLICIT, DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"
RLE = "1.2.840.10008.1.2.5"
JPEG_LOSSLESS, JPEG_2000 = "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.90"
LONG = ("OB", "OW", "SQ")  # value representations with a length of four bytes
KEYWORDS = {
    (0x0008, 0x0008): ("CS", "ImageType"),
    (0x0008, 0x0016): ("UI", "SOPClassUID"),
    (0x0008, 0x0018): ("UI", "SOPInstanceUID"),
    (0x0008, 0x0032): ("TM", "AcquisitionTime"),
    (0x0008, 0x0050): ("SH", "AccessionNumber"),
    (0x0008, 0x0060): ("CS", "Modality"),
    (0x0008, 0x103E): ("LO", "SeriesDescription"),
    (0x0010, 0x0010): ("PN", "PatientName"),
    (0x0010, 0x0020): ("LO", "PatientID"),
    (0x0018, 0x0060): ("DS", "KVP"),
    (0x0018, 0x1210): ("SH", "ConvolutionKernel"),
    (0x0020, 0x000D): ("UI", "StudyInstanceUID"),
    (0x0020, 0x000E): ("UI", "SeriesInstanceUID"),
    (0x0020, 0x0011): ("IS", "SeriesNumber"),
    (0x0020, 0x0012): ("IS", "AcquisitionNumber"),
    (0x0020, 0x0013): ("IS", "InstanceNumber"),
    (0x0020, 0x0032): ("DS", "ImagePositionPatient"),
    (0x0020, 0x0037): ("DS", "ImageOrientationPatient"),
    (0x0020, 0x0052): ("UI", "FrameOfReferenceUID"),
    (0x0020, 0x0100): ("IS", "TemporalPositionIdentifier"),
    (0x0028, 0x0002): ("US", "SamplesPerPixel"),
    (0x0028, 0x0004): ("CS", "PhotometricInterpretation"),
    (0x0028, 0x0008): ("IS", "NumberOfFrames"),
    (0x0028, 0x0010): ("US", "Rows"),
    (0x0028, 0x0011): ("US", "Columns"),
    (0x0028, 0x0030): ("DS", "PixelSpacing"),
    (0x0028, 0x0100): ("US", "BitsAllocated"),
    (0x0028, 0x0101): ("US", "BitsStored"),
    (0x0028, 0x0102): ("US", "HighBit"),
    (0x0028, 0x0103): ("US", "PixelRepresentation"),
    (0x0028, 0x0120): ("US", "PixelPaddingValue"),
    (0x0028, 0x0121): ("US", "PixelPaddingRangeLimit"),
    (0x0028, 0x1052): ("DS", "RescaleIntercept"),
    (0x0028, 0x1053): ("DS", "RescaleSlope"),
    (0x0028, 0x1054): ("LO", "RescaleType"),
}


def slice_bytes(
    hu: np.ndarray,
    syntax: str = EXPLICIT,
    packed: bytes | None = None,
    scaled: tuple[float, float] = (1, -1024),
    **changes: Any,
) -> bytes:
    """A CT slice of HU (y, x), stored by slope and intercept `scaled`; a tag that is changed to None is left out.

    packed  stands for the pixels
    """
    slope, intercept = scaled
    signed = intercept > -1024
    tags: dict[str, Any] = {
        "ImageType": "ORIGINAL\\PRIMARY\\AXIAL",
        "SOPClassUID": CT_IMAGE,
        "Modality": "CT",
        "PatientID": "P1",
        "StudyInstanceUID": "1.2.3.1",
        "SeriesInstanceUID": "1.2.3.2",
        "SeriesNumber": 2,
        "AcquisitionNumber": 1,
        "ImagePositionPatient": "0\\0\\0",
        "ImageOrientationPatient": "1\\0\\0\\0\\1\\0",
        "FrameOfReferenceUID": "1.2.3.3",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": hu.shape[0],
        "Columns": hu.shape[1],
        "PixelSpacing": "5\\4",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": int(signed),
        "RescaleIntercept": intercept,
        "RescaleSlope": slope,
        "RescaleType": "HU",
    } | changes
    body = b"".join(
        _element(tag, kind, tags[keyword])
        for tag, (kind, keyword) in sorted(KEYWORDS.items())
        if tags.get(keyword) is not None
    )
    stored = np.rint((hu - intercept) / slope).astype("<i2" if signed else "<u2").tobytes()
    pixels = _element((0x7FE0, 0x0010), "OW", stored) if packed is None else _packed(packed)
    meta = _element((0x0002, 0x0002), "UI", CT_IMAGE) + _element((0x0002, 0x0010), "UI", syntax)
    return bytes(128) + b"DICM" + _element((0x0002, 0x0000), "UL", struct.pack("<I", len(meta))) + meta + body + pixels


def series(folder: Path, hu: np.ndarray, each: Any = lambda z: {}, name: str = "{:03}.dcm") -> list[Path]:
    """Writes (z, y, x) HU as slices 3 mm apart; `each(z)` are the changes of a slice. Returns the files by z."""
    folder.mkdir(exist_ok=True)
    files = []
    for z, plane in enumerate(hu):
        files.append(folder / name.format(z))
        files[-1].write_bytes(slice_bytes(plane, **{"ImagePositionPatient": f"-20\\-30\\{7 + 3 * z}"} | each(z)))
    return files


def packed_in(plain: bytes, syntax: str) -> bytes:
    """A slice of `slice_bytes`, written another way, by pydicom: transfer syntaxes of any kind that it can write."""
    dataset = dcmread(BytesIO(plain))
    if UID(syntax).is_compressed and not UID(syntax).is_deflated:
        dataset.compress(syntax)
    else:
        dataset.file_meta.TransferSyntaxUID = syntax
    out = BytesIO()
    if syntax == BIG:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    dcmwrite(out, dataset, implicit_vr=syntax == IMPLICIT, little_endian=syntax != BIG)
    return out.getvalue()


def enhanced_bytes(hu: np.ndarray, each: Any = lambda z: {}, **changes: Any) -> bytes:
    """(z, y, x) HU as one enhanced CT, 3 mm apart; `each(z)` are changes of a frame, `changes` those of the file."""
    dataset = dcmread(BytesIO(slice_bytes(hu[0], **changes)))
    place = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept")
    rest = {name: dataset[name].value for name in (*place, "RescaleType")}
    for name in rest:
        del dataset[name]
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = changes.get("SOPClassUID", ENHANCED)
    dataset.NumberOfFrames = len(hu)
    frames = []
    for z in range(len(hu)):
        own = {"ImagePositionPatient": [-20, -30, 7 + 3 * z], "RescaleIntercept": -1024} | each(z)
        frames.append(
            _items(
                PlanePositionSequence={"ImagePositionPatient": own["ImagePositionPatient"]},
                PixelValueTransformationSequence={
                    "RescaleSlope": 1, "RescaleType": "HU", "RescaleIntercept": own["RescaleIntercept"],
                },
                FrameContentSequence={"TemporalPositionIndex": own.get("TemporalPositionIndex", 1)},
            )
        )  # fmt: skip
    dataset.PerFrameFunctionalGroupsSequence = frames
    dataset.SharedFunctionalGroupsSequence = [
        _items(
            PlaneOrientationSequence={"ImageOrientationPatient": rest["ImageOrientationPatient"]},
            PixelMeasuresSequence={
                "PixelSpacing": rest["PixelSpacing"],
                "SliceThickness": 3,
                "SpacingBetweenSlices": 3,
            },
            CTImageFrameTypeSequence={"FrameType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]},
        )
    ]
    intercepts = [frame.PixelValueTransformationSequence[0].RescaleIntercept for frame in frames]
    stored = np.stack([plane - int(intercept) for plane, intercept in zip(hu, intercepts, strict=True)])
    dataset.PixelData = stored.astype("<u2").tobytes()
    out = BytesIO()
    dcmwrite(out, dataset)
    return out.getvalue()


def _items(**groups: dict[str, Any]) -> Dataset:
    item = Dataset()
    for name, values in groups.items():
        group = Dataset()
        for key, value in values.items():
            setattr(group, key, value)
        setattr(item, name, [group])
    return item


def _element(tag: tuple[int, int], kind: str, value: Any) -> bytes:
    if kind == "US":
        data = struct.pack("<H", value)
    else:
        data = value if isinstance(value, bytes) else str(value).encode()
        data += (b"\0" if kind in ("UI", "OB") else b" ") * (len(data) % 2)
    if kind in LONG:
        return struct.pack("<HH2sHI", *tag, kind.encode(), 0, len(data)) + data
    return struct.pack("<HH2sH", *tag, kind.encode(), len(data)) + data


def _packed(frame: bytes) -> bytes:
    frame += bytes(len(frame) % 2)
    return (
        struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
        + struct.pack("<HHI", 0xFFFE, 0xE000, 0)
        + struct.pack("<HHI", 0xFFFE, 0xE000, len(frame))
        + frame
        + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    )
