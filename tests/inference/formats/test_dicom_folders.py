"""Folders of DICOM as they come from scanners, archives and accidents, each with its verdict: what is a case, and reads
as the scan that was written; what is a case and fails, and why; what is left out, and why."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.errors import NoInputError, ScanError
from inference.formats.cases import Found, find_cases
from inference.formats.reading import read_scan
from inference.scan import Scan
from tests.inference.dicom import (
    BIG,
    CT_IMAGE,
    DEFLATED,
    IMPLICIT,
    JPEG_2000,
    REPORT,
    SECONDARY,
    enhanced_bytes,
    packed_in,
    series,
    slice_bytes,
)

Tags = dict[str, Any]
Make = Callable[[Path], Any]


def body(depth: int = 10, seed: int = 0) -> np.ndarray:
    """(z, 12, 14) HU."""
    z, y, x = np.meshgrid(np.arange(depth), np.arange(12) - 6, np.arange(14) - 7, indexing="ij")
    return np.where((x / 6) ** 2 + (y / 5) ** 2 < 1, 40 + seed + 8 * z + 5 * x, -1000 + y).astype(np.int16)


HU = body()
LARGE = HU.repeat(8, axis=1).repeat(8, axis=2)  # JPEG 2000 does not pack less


@dataclass
class Verdict:
    """What is said of a folder.

    read      name of a case -> (z, y, x) HU, which it reads as
    fails     name of a case -> a part of the sentence by which it fails
    left_out  parts of what is said of what is left out
    warns     parts of what is said of a case that is read
    """

    read: dict[str, np.ndarray] = field(default_factory=dict)
    fails: dict[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    warns: tuple[str, ...] = ()


ALONE = Verdict(read={"in": HU})
FOLDERS: dict[str, tuple[Make, Verdict]] = {}


def write(
    each: Any = lambda z: {}, hu: np.ndarray = HU, name: str = "{:03}.dcm", folder: str = "", **same: Any
) -> Make:
    """Makes one series."""

    def make(path: Path) -> None:
        (path / folder).mkdir(parents=True, exist_ok=True)
        series(path / folder, hu, lambda z: same | each(z), name)

    return make


def together(*makers: Make) -> Make:
    def make(path: Path) -> None:
        for one in makers:
            one(path)

    return make


def without(name: str) -> Make:
    return lambda path: (path / name).unlink()


def at(z: float, x: float = -20, y: float = -30) -> Tags:
    return {"ImagePositionPatient": f"{x:.9g}\\{y:.9g}\\{z:.9g}"}


def uid(number: int) -> Tags:
    return {"SeriesInstanceUID": f"1.2.3.{number}", "SeriesNumber": number}


def fails(sentence: str, name: str = "in") -> Verdict:
    return Verdict(fails={name: sentence})


def damaged(spoil: Callable[[bytes], bytes], which: int = 4, **same: Any) -> Make:
    def make(path: Path) -> None:
        write(**same)(path)
        file = sorted(path.rglob("*.dcm"))[which]
        file.write_bytes(spoil(file.read_bytes()))

    return make


# How files are called, and where they lie.
for number, name in enumerate(
    ["{}.dcm", "IM{:04}", "1.2.840.113619.{}", "{}.ima", "{}.DCM", "i{}.bin", "I{}", "CT.{}.img2", "{:08X}", "e+{}.2"]
):
    FOLDERS[f"named {number}"] = (write(name=name), ALONE)
for number, folder in enumerate(["P/ST/SE", "DICOM/24112700/12000000/99", "a b/ü", "x.nii.gz.d", "S.dcm"]):
    FOLDERS[f"in folders {number}"] = (write(folder=folder), ALONE)
FOLDERS["in several folders"] = (
    together(
        *(lambda p, z=z: write(lambda k: at(7 + 3 * z), HU[z : z + 1], f"{z}.dcm", f"d{z % 3}")(p) for z in range(10))
    ),
    ALONE,
)


def twins(path: Path) -> None:
    """Two folders whose slices have the same names, and one slice that is cut off."""
    write(lambda z: at(7 + 3 * z), HU[:5], folder="d0")(path)
    write(lambda z: at(22 + 3 * z), HU[5:], folder="d1")(path)
    file = path / "d1" / "001.dcm"
    file.write_bytes(file.read_bytes()[:-9])


FOLDERS["a transfer syntax of no kind of value"] = (
    damaged(lambda data: data.replace(b"\2\0\x10\0UI", b"\2\0\x10\0-I")),
    fails("004.dcm, which is damaged"),
)
FOLDERS["under one name in several folders"] = (twins, fails("in holds d1/001.dcm, which is cut off"))
FOLDERS["with DICOMDIR and a viewer"] = (
    together(
        write(name="IM{:04}", folder="IMAGES"),
        lambda p: (p / "DICOMDIR").write_bytes(bytes(128) + b"DICM\2\0\0\0" + bytes(100)),
        lambda p: (p / "viewer.exe").write_bytes(b"MZ\0\0" + bytes(300)),
        lambda p: (p / "LIB").write_bytes(b"\x7fELF\0\0" + bytes(300)),
        lambda p: (p / "autorun.inf").write_text("[autorun]"),
    ),
    Verdict(read={"in": HU}, left_out=("viewer.exe",)),
)


def zipped(path: Path) -> None:
    write(folder="P/SE")(path)
    with zipfile.ZipFile(path / "export.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in (path / "P" / "SE").iterdir():
            archive.write(file, f"P/SE/{file.name}")
    shutil.rmtree(path / "P")


FOLDERS["a ZIP"] = (zipped, ALONE)


def damaged_zip(path: Path) -> None:
    zipped(path)
    data = bytearray((path / "export.zip").read_bytes())
    data[data.index(b"P/SE/004.dcm") + 200] ^= 0xFF
    (path / "export.zip").write_bytes(data)


FOLDERS["a damaged ZIP"] = (damaged_zip, fails("004.dcm, which is damaged"))
FOLDERS["a ZIP cut off"] = (
    together(zipped, lambda p: (p / "export.zip").write_bytes((p / "export.zip").read_bytes()[:-60])),
    Verdict(left_out=("export.zip",)),
)

# How slices are stored.
for name, syntax in {
    "implicit": IMPLICIT,
    "deflated": DEFLATED,
    "JPEG 2000": JPEG_2000,
    "RLE": "1.2.840.10008.1.2.5",
    "big endian": BIG,
    **({"JPEG-LS": "1.2.840.10008.1.2.4.80"} if find_spec("jpeg_ls") else {}),  # which can pack it
}.items():

    def rewritten(path: Path, syntax: str = syntax) -> None:
        write(hu=LARGE, PixelSpacing="0.6\\0.6")(path)
        for file in path.iterdir():
            file.write_bytes(packed_in(file.read_bytes(), syntax))

    FOLDERS[name] = (rewritten, Verdict(read={"in": LARGE}))


def no_preamble(path: Path) -> None:
    write()(path)
    for file in path.iterdir():
        data = file.read_bytes()
        start = 132 + 12 + int.from_bytes(data[140:144], "little")
        file.write_bytes(data[start:])


FOLDERS["without preamble and meta"] = (no_preamble, ALONE)
FOLDERS["signed"] = (write(scaled=(1, 0)), ALONE)
FOLDERS["signed, 13 bits"] = (write(scaled=(1, 0), BitsStored=13, HighBit=12), ALONE)
FOLDERS["unsigned, 12 bits"] = (write(BitsStored=12, HighBit=11), ALONE)
FOLDERS["rescaled by slice"] = (
    write(lambda z: {"scaled": ((1, -1024), (1, 0), (0.5, -1024), (1, -8192))[z % 4]}),
    ALONE,
)
FOLDERS["slope 2"] = (write(hu=HU // 2 * 2, scaled=(2, -1024)), Verdict(read={"in": HU // 2 * 2}))
FOLDERS["no rescale type"] = (write(RescaleType=None), ALONE)
FOLDERS["rescale type US"] = (write(RescaleType="US"), ALONE)
FOLDERS["non-square pixels"] = (write(PixelSpacing="4\\7"), ALONE)
FOLDERS["UIDs taken out"] = (write(SeriesInstanceUID="", StudyInstanceUID="", SOPClassUID=""), ALONE)
FOLDERS["no series number"] = (write(SeriesNumber=None), ALONE)


def overlaid(path: Path) -> None:
    """Bits above the value hold an overlay, as old scanners have it."""
    write(BitsStored=12, HighBit=11)(path)
    for file in path.iterdir():
        data = bytearray(file.read_bytes())
        data[-335::2] = bytes(byte | 0x40 for byte in data[-335::2])
        file.write_bytes(data)


FOLDERS["overlays in pixels"] = (overlaid, ALONE)
PADDED = HU.copy()
PADDED[:, :3] = 0
FILLED = HU.copy()
FILLED[:, :3] = -1024
FOLDERS["padding that looks like water"] = (
    write(hu=PADDED, scaled=(1, 0), PixelPaddingValue=0),
    Verdict(read={"in": FILLED}),
)
FOLDERS["a range of padding"] = (
    write(hu=PADDED, scaled=(1, -1024), PixelPaddingValue=1024, PixelPaddingRangeLimit=1020),
    Verdict(read={"in": FILLED}),
)
DARK = HU.copy()
DARK[:, :3] = -2000
FOLDERS["dark padding"] = (write(hu=DARK, scaled=(1, 0), PixelPaddingValue=63536), Verdict(read={"in": DARK}))

# Where slices lie.
TURNED = {
    "feet first, supine": "-1\\0\\0\\0\\1\\0",
    "head first, prone": "-1\\0\\0\\0\\-1\\0",
    "feet first, prone": "1\\0\\0\\0\\-1\\0",
    "on the side": "0\\1\\0\\-1\\0\\0",
    "oblique": "0.939692621\\0\\0.342020143\\0\\1\\0",
}
for name, along in TURNED.items():
    row, column = np.array([float(one) for one in along.split("\\")]).reshape(2, 3)
    step = 3 * np.cross(row, column)
    FOLDERS[name] = (write(lambda z, step=step: at(*(z * step)[[2, 0, 1]]), ImageOrientationPatient=along), ALONE)
FOLDERS["from head to feet"] = (write(lambda z: at(70 - 3 * z)), Verdict(read={"in": HU[::-1]}))
FOLDERS["rounded positions"] = (write(lambda z: at(7 + 3 * z + 0.2 * (z % 2) * (z < 9))), ALONE)
FOLDERS["gantry tilt"] = (
    write(ImageOrientationPatient=f"1\\0\\0\\0\\{np.cos(0.3):.9f}\\{-np.sin(0.3):.9f}"),
    Verdict(read={"in": HU}, warns=("moved upright for the networks",)),
)
FOLDERS["a missing slice"] = (
    together(write(), without("005.dcm")),
    fails("6 mm between 004.dcm and 006.dcm where 3 mm are usual"),
)
FOLDERS["one of 200 missing"] = (
    together(write(hu=body(200)), without("150.dcm")),
    fails("6 mm between 149.dcm and 151.dcm"),
)
FOLDERS["two distances"] = (write(lambda z: at(7 + 3 * z if z < 5 else 22 + 5 * (z - 5))), fails("5 mm between"))
FOLDERS["a slice aside"] = (
    write(lambda z: at(7 + 3 * z, x=-20 + 3 * (z == 4))),
    fails("mm between 003.dcm and 004.dcm"),
)
FOLDERS["all at one place"] = (write(lambda z: at(7)), Verdict(left_out=("fewer than 8 slices",)))
FOLDERS["seven slices"] = (write(hu=HU[:7]), Verdict(left_out=("fewer than 8 slices",)))
FOLDERS["sagittal"] = (
    write(lambda z: at(0, x=3 * z), ImageOrientationPatient="0\\1\\0\\0\\0\\-1"),
    Verdict(left_out=("not axial",)),
)
FOLDERS["coronal"] = (
    write(lambda z: at(0, y=3 * z), ImageOrientationPatient="1\\0\\0\\0\\0\\-1"),
    Verdict(left_out=("not axial",)),
)

# What is damaged, missing or contradicts itself.
for name, spoil, sentence in (
    ("empty", lambda data: b"", "004.dcm, which is empty (0 bytes)"),
    ("cut in the preamble", lambda data: data[:100], "004.dcm, which is damaged"),
    ("cut in the header", lambda data: data[:300], "004.dcm, which is damaged"),
    ("cut in the pixels", lambda data: data[:-100], "004.dcm, which is cut off: 236 of 336 bytes"),
    ("one byte short", lambda data: data[:-1], "004.dcm, which is cut off: 335 of 336 bytes"),
    ("zeros throughout", lambda data: bytes(len(data)), "004.dcm, which is damaged"),
    ("a web page", lambda data: b"<html>404</html>", "004.dcm, which is damaged"),
):
    FOLDERS[name] = (damaged(spoil), fails(sentence))
FOLDERS["the first is empty"] = (damaged(lambda data: b"", 0), fails("000.dcm, which is empty"))
FOLDERS["the last is cut"] = (damaged(lambda data: data[:-9], 9), fails("009.dcm, which is cut off"))
FOLDERS["nothing but damaged files"] = (lambda p: (p / "x.dcm").write_bytes(b""), fails("x.dcm, which is empty"))
ONE_SLICE: tuple[tuple[str, Tags, str], ...] = (
    ("no spacing", {"PixelSpacing": None}, "has no PixelSpacing (0028,0030)"),
    ("empty spacing", {"PixelSpacing": ""}, "has no PixelSpacing (0028,0030)"),
    ("no orientation", {"ImageOrientationPatient": None}, "has no ImageOrientationPatient (0020,0037)"),
    ("no position", {"ImagePositionPatient": None}, "has no ImagePositionPatient (0020,0032)"),
    ("position in words", {"ImagePositionPatient": "a\\b\\c"}, "has no 3 numbers in ImagePositionPatient"),
    ("position nan", {"ImagePositionPatient": "0\\0\\nan"}, "has no 3 numbers in ImagePositionPatient"),
    ("no slope", {"RescaleSlope": None}, "has no RescaleSlope (0028,1053)"),
    ("no intercept", {"RescaleIntercept": None}, "has no RescaleIntercept (0028,1052)"),
    ("slope 0", {"RescaleSlope": 0}, "has 0 as RescaleSlope"),
    ("no rows", {"Rows": None}, "Rows (0028,0010)"),
    ("bits that do not fit", {"BitsStored": 12, "HighBit": 15, "BitsAllocated": 8}, "that do not fit"),
    ("other patient", {"PatientID": "P2"}, "differ in PatientID (0010,0020)"),
    ("other frame of reference", {"FrameOfReferenceUID": "1.9"}, "differ in FrameOfReferenceUID"),
    ("other spacing", {"PixelSpacing": "5\\4.1"}, "differ in PixelSpacing"),
    ("other direction", {"ImageOrientationPatient": "1\\0\\0\\0\\0.9998\\0.02"}, "differ in ImageOrientationPatient"),
    ("inverted", {"PhotometricInterpretation": "MONOCHROME1"}, "PhotometricInterpretation (0028,0004) is MONOCHROME1"),
    ("one MR among CT", {"Modality": "MR"}, "is not CT: its Modality (0008,0060) is MR"),
    ("frames without places", {"NumberOfFrames": 2}, "has several frames"),
)
for name, changes, sentence in ONE_SLICE:
    FOLDERS[f"one slice: {name}"] = (write(lambda z, changes=changes: changes if z == 4 else {}), fails(sentence))
ALL_SLICES: tuple[tuple[str, Tags, str], ...] = (
    ("no spacing", {"PixelSpacing": None}, "has no PixelSpacing (0028,0030)"),
    ("no slope", {"RescaleSlope": None}, "has no RescaleSlope (0028,1053)"),
    ("negative spacing", {"PixelSpacing": "-5\\4"}, "that is not above 0"),
    ("crooked", {"ImageOrientationPatient": "1\\0\\0\\0.1\\0.995\\0"}, "not at right angles"),
    ("no directions", {"ImageOrientationPatient": "0\\0\\0\\0\\0\\0"}, "not at right angles"),
    ("too many rows", {"Rows": 13}, "which is cut off: 336 of 364 bytes"),
    ("far too many rows", {"Rows": 65535}, "is too long for a label map"),
    ("too few rows", {"Rows": 11}, "where its rows and columns need 308"),
    ("no modality", {"Modality": None}, "has no Modality (0008,0060)"),
)
for name, changes, sentence in ALL_SLICES:
    FOLDERS[f"all slices: {name}"] = (write(**changes), fails(sentence))

# What is no CT volume.
NO_CT: tuple[tuple[str, Tags, str], ...] = (
    ("MR", {"Modality": "MR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, "Modality (0008,0060) is MR"),
    ("PET", {"Modality": "PT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.128"}, "Modality (0008,0060) is PT"),
    ("MR, class empty", {"Modality": "MR", "SOPClassUID": ""}, "Modality (0008,0060) is MR"),
    ("a localizer", {"ImageType": "ORIGINAL\\PRIMARY\\LOCALIZER"}, "a localizer by its ImageType"),
    ("a projection", {"ImageType": "DERIVED\\SECONDARY\\AXIAL\\MIP"}, "a projection by its ImageType"),
    ("a secondary capture", {"SOPClassUID": SECONDARY}, "not a CT image by its SOPClassUID"),
    ("an iodine map", {"RescaleType": "MGML"}, "not in HU: its RescaleType (0028,1054) is MGML"),
    ("electron density", {"RescaleType": "ED"}, "not in HU: its RescaleType (0028,1054) is ED"),
    ("colour", {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "a picture in colour"),
    ("a modality that is none", {"Modality": "DOE^JANE", "SOPClassUID": SECONDARY}, "is another"),
)
for name, changes, reason in NO_CT:
    FOLDERS[f"{name} alone"] = (write(**changes), Verdict(left_out=(reason,)))
    FOLDERS[f"{name} beside CT"] = (
        together(write(), write(name="x{}.dcm", **(uid(7) | changes))),
        Verdict(read={"in": HU}, left_out=(reason,)),
    )


def report(path: Path) -> None:
    """A dose report: no picture."""
    whole = slice_bytes(HU[0], SOPClassUID=REPORT, Modality="SR", SeriesInstanceUID="1.2.3.9", Rows=None, Columns=None)
    (path / "SR1.dcm").write_bytes(whole[: whole.rindex(b"\xe0\x7f\x10\x00")])


FOLDERS["a dose report"] = (
    together(write(), report),
    Verdict(read={"in": HU}, left_out=("Modality (0008,0060) is SR",)),
)
FOLDERS["a localizer in the series"] = (
    together(
        write(), lambda p: (p / "scout.dcm").write_bytes(slice_bytes(HU[0], ImageType="ORIGINAL\\PRIMARY\\LOCALIZER"))
    ),
    Verdict(read={"in": HU}, left_out=("a localizer",)),
)

# Several scans.
LATER = body(seed=100)
TWO = Verdict(read={"2_venous": HU, "3_late": LATER})
FIRST: Tags = {"SeriesDescription": "Venous", **uid(2)}
SECOND: Tags = {"SeriesDescription": "late", **uid(3)}
FOLDERS["two series in folders"] = (together(write(folder="a", **FIRST), write(hu=LATER, folder="b", **SECOND)), TWO)
FOLDERS["two series in one folder"] = (
    together(write(name="a{}.dcm", **FIRST), write(hu=LATER, name="b{}.dcm", **SECOND)),
    TWO,
)
FOLDERS["two series, one of them fails"] = (
    together(
        write(folder="a", **FIRST), damaged(lambda data: data[:-9], hu=LATER, folder="b", name="{}.dcm", **SECOND)
    ),
    Verdict(read={"3_late": LATER}, fails={"2_venous": "is cut off"}),
)
FOLDERS["two series of one name"] = (
    together(write(folder="a", **uid(2)), write(hu=LATER, folder="b", **(uid(3) | {"SeriesNumber": 2}))),
    Verdict(read={"2_660d7740": LATER, "2_865c8b72": HU}),
)
PHASES: dict[str, tuple[Any, Any]] = {
    "AcquisitionNumber": (1, 2), "TemporalPositionIdentifier": (1, 2), "ConvolutionKernel": ("B30f", "B60f"),
    "AcquisitionTime": ("101010", "101150"), "ImageType": ("ORIGINAL\\PRIMARY\\AXIAL", "DERIVED\\PRIMARY\\AXIAL"),
    "KVP": (80, 140),
}  # fmt: skip
for tag, values in PHASES.items():
    FOLDERS[f"two volumes by {tag}"] = (
        together(write(name="a{}.dcm", **{tag: values[0]}), write(hu=LATER, name="b{}.dcm", **{tag: values[1]})),
        Verdict(read={"2_1": HU, "2_2": LATER} if tag != "ImageType" else {"2_1": LATER, "2_2": HU}),
    )
FOLDERS["two volumes between each other"] = (
    write(lambda z: {"AcquisitionNumber": 1 + z % 2}, hu=body(20)),
    Verdict(read={"2_1": body(20)[::2], "2_2": body(20)[1::2]}),
)
FOLDERS["two volumes above each other"] = (
    write(lambda z: {"AcquisitionNumber": 1 + z // 10} | at(7 + 3 * z + 50 * (z // 10)), hu=body(20)),
    Verdict(read={"2_1": body(20)[:10], "2_2": body(20)[10:]}),
)
FOLDERS["acquisitions one after another"] = (write(lambda z: {"AcquisitionNumber": 1 + z // 5}), ALONE)
FOLDERS["two phases, one lacks a slice"] = (
    together(
        write(name="a{}.dcm", AcquisitionNumber=1),
        write(hu=LATER, name="b{}.dcm", AcquisitionNumber=2),
        without("b4.dcm"),
    ),
    Verdict(read={"2_1": HU}, fails={"2_2": "6 mm between b3.dcm and b5.dcm"}),
)
FOLDERS["contrast is watched in the series"] = (
    together(write(), write(lambda z: at(16) | {"AcquisitionNumber": 9}, name="watch{}.dcm")),
    Verdict(read={"in": HU}, left_out=("fewer than 8 slices",)),
)
FOLDERS["copies"] = (
    together(write(), write(name="again{}.dcm")),
    Verdict(read={"in": HU}, warns=("10 slices are copies",)),
)
FOLDERS["one copy"] = (
    lambda p: (write(SOPInstanceUID="1.2")(p), shutil.copy(p / "004.dcm", p / "copy.dcm")),
    Verdict(read={"in": HU}, warns=("1 slice is a copy",)),
)
FOLDERS["one true copy"] = (
    lambda p: (write(lambda z: {"SOPInstanceUID": f"1.2.{z}"})(p), shutil.copy(p / "004.dcm", p / "copy.dcm")),
    Verdict(read={"in": HU}, warns=("1 slice is a copy",)),
)
FOLDERS["a contradicting copy"] = (
    together(
        write(lambda z: {"SOPInstanceUID": f"1.2.{z}"}),
        lambda p: (p / "x.dcm").write_bytes(slice_bytes(LATER[4], SOPInstanceUID="1.2.4", **at(19))),
    ),
    fails("have the same SOPInstanceUID (0008,0018) and differ"),
)
FOLDERS["another slice at one place"] = (
    together(write(), lambda p: (p / "x.dcm").write_bytes(slice_bytes(LATER[4], **at(19)))),
    fails("at the same ImagePositionPatient (0020,0032)"),
)
FOLDERS["axial and coronal in one series"] = (
    together(
        write(),
        write(lambda z: at(0, y=3 * z), hu=LATER, name="cor{}.dcm", ImageOrientationPatient="1\\0\\0\\0\\0\\-1"),
    ),
    Verdict(read={"in": HU}, left_out=("not axial",)),
)
FOLDERS["thin and thick in one series"] = (
    together(write(), write(hu=LATER, name="wide{}.dcm", PixelSpacing="7\\7")),
    Verdict(read={"2_1": HU, "2_2": LATER}),
)

# Enhanced CT.
FOLDERS["enhanced"] = (lambda p: (p / "E").write_bytes(enhanced_bytes(HU)), ALONE)
FOLDERS["enhanced, made of others"] = (
    lambda p: (p / "E.dcm").write_bytes(enhanced_bytes(HU, SOPClassUID=f"{CT_IMAGE}.2")),
    ALONE,
)
FOLDERS["enhanced, frames out of order"] = (
    lambda p: (p / "E.dcm").write_bytes(enhanced_bytes(HU, lambda z: {"ImagePositionPatient": [0, 0, 30 - 3 * z]})),
    Verdict(read={"in": HU[::-1]}),
)
FOLDERS["enhanced, rescaled by frame"] = (
    lambda p: (p / "E.dcm").write_bytes(enhanced_bytes(HU, lambda z: {"RescaleIntercept": -1024 - 100 * z})),
    ALONE,
)
FOLDERS["enhanced, JPEG 2000"] = (
    lambda p: (p / "E.dcm").write_bytes(packed_in(enhanced_bytes(LARGE, PixelSpacing="0.6\\0.6"), JPEG_2000)),
    Verdict(read={"in": LARGE}),
)
FOLDERS["enhanced, RLE"] = (
    lambda p: (p / "E.dcm").write_bytes(packed_in(enhanced_bytes(HU), "1.2.840.10008.1.2.5")),
    ALONE,
)
FOLDERS["enhanced, two phases"] = (
    lambda p: (p / "E.dcm").write_bytes(
        enhanced_bytes(
            np.concatenate([HU, LATER]),
            lambda z: {"ImagePositionPatient": [0, 0, 3 * (z % 10)], "TemporalPositionIndex": 1 + z // 10},
        )
    ),
    Verdict(read={"2_1": HU, "2_2": LATER}),
)
FOLDERS["enhanced, a frame missing"] = (
    lambda p: (p / "E.dcm").write_bytes(
        enhanced_bytes(HU, lambda z: {"ImagePositionPatient": [0, 0, 3 * (z + (z > 5))]})
    ),
    fails("6 mm between E.dcm (frame 6) and E.dcm (frame 7)"),
)
FOLDERS["enhanced, cut off"] = (
    lambda p: (p / "E.dcm").write_bytes(enhanced_bytes(HU)[:-500]),
    fails("is cut off: 2860 of 3360 bytes"),
)
FOLDERS["two enhanced files of one series"] = (
    lambda p: [
        (p / f"E{half}").write_bytes(
            enhanced_bytes(
                HU[5 * half :][:5], lambda z, half=half: {"ImagePositionPatient": [0, 0, 3 * (z + 5 * half)]}
            )
        )
        for half in (0, 1)
    ],
    ALONE,
)


def test_there_are_many() -> None:
    assert len(FOLDERS) >= 120


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_gets_its_verdict(name: str, tmp_path: Path) -> None:
    make, verdict = FOLDERS[name]
    inputs = tmp_path / "in"
    inputs.mkdir()
    make(inputs)
    said = ""
    try:
        found = find_cases(inputs, tmp_path / "out")
    except NoInputError as error:
        found, said = Found([], [], []), str(error)
    assert sorted(case.name for case in found.cases) == sorted([*verdict.read, *verdict.fails])
    for case in found.cases:
        assert case.refused is None
        if case.name in verdict.fails:
            with pytest.raises(ScanError) as caught:
                read_scan(case.sources)
            assert verdict.fails[case.name] in str(caught.value)
        else:
            scan = read_scan(case.sources)
            check(scan, verdict.read[case.name], verdict.warns)
    said += "; ".join(found.warnings)
    assert all(part in said for part in verdict.left_out) and (bool(said) == bool(verdict.left_out))
    assert not any(one.is_scan for one in found.left_out)


def check(scan: Scan, hu: np.ndarray, warns: tuple[str, ...]) -> None:
    assert scan.voxels.shape == hu.shape
    assert np.array_equal(scan.voxels, hu)
    said = "; ".join(scan.warnings)
    assert all(part in said for part in warns)
