"""What a DICOM object says of the series that it was made from: its slices, its patient and study, UIDs of its own."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
from pydicom.dataset import Dataset

from ...errors import ScanError, UnwrittenError, shown
from ...labels import ALTERED, ANATOMY, NEOPLASM, Code, Structure, is_tumor, structures
from ...names import format_of
from ...scan import Scan
from ...version import __version__
from ..archive import open_anywhere, state_of
from ..sources import Picture
from ..written import Description
from .headers import CT_CLASSES, LONGEST_HEADER, read
from .read import Series
from .slices import called_as

# What an object must tell of each slice, and what of all of them: without these nobody could find them.
INSTANCE = ("SOPClassUID", "SOPInstanceUID")
PLACE = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}  # and how many numbers
# Where a file of several frames tells these, of one frame or of all.
GROUPS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
}
FUNCTIONAL = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")
SERIES = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
# Of the patient and the study: what an object of the same study has to have, empty or not (types 1 and 2 of PS3.3).
PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
STUDY = ("StudyDate", "StudyTime", "AccessionNumber", "StudyID", "ReferringPhysicianName")
SHAPE = ("Rows", "Columns", "SliceThickness")
OTHERS = ("SpecificCharacterSet", "SeriesNumber", "NumberOfFrames")
NO_DATE, NO_TIME = "19000101", "000000"
MAKER = "Viscera"


@dataclass(frozen=True)
class References:
    """The slices that labels lie on.

    slices  their headers in the order of z, cut down to what may be said of them, each as if it had a file of its own
    frames  for each slice its number in its file, from 1; None in a file of one
    planes  for each slice the plane z of the labels that lies on it, or nearest to it
    seed    of the UIDs of what is made: slices, networks, labels and all else that the object holds
    """

    slices: tuple[Any, ...]
    frames: tuple[int | None, ...]
    planes: tuple[int, ...]
    seed: str

    @property
    def first(self) -> Any:
        return self.slices[0]

    def on_slices(self, labels: np.ndarray) -> np.ndarray:
        """Of labels (z, y, x) the planes that lie on the slices, in their order."""
        return labels if self.planes == tuple(range(len(labels))) else labels[list(self.planes)]

    def beside(self, kind: str) -> References:
        """The same for an object in another format of the same labels."""
        return replace(self, seed="\0".join([kind, *self.seed.split("\0")[1:]]))

    def uid(self, *parts: str) -> str:
        """The same for the same parts, slices, networks and labels (PS3.5 B.2: a UUID as a decimal number)."""
        digest = hashlib.sha256("\0".join((self.seed, *parts)).encode()).digest()
        return f"2.25.{uuid.UUID(bytes=digest[:16], version=4).int}"


def check(scan: Scan) -> None:
    """Whether a DICOM object can be made of labels of a scan, before they are. Raises ScanError, whose text goes on
    from the scan's name.
    """
    if not isinstance(scan.origin, Series):
        raise ScanError("is not a DICOM series, to which labels in DICOM must refer: choose another --format")
    _check_told_apart(scan.origin)
    _headers(scan)


def _check_told_apart(series: Series) -> None:
    """Whether what refers to a slice by its SOPInstanceUID means no other. Raises ScanError."""
    called = called_as(picture.file for picture in series.pictures)
    seen: dict[tuple[str, int], str] = {}
    for picture, uid in zip(series.pictures, series.uids, strict=True):
        this, key = shown(called[picture.file]), (uid, picture.frame)
        if uid and key in seen:
            raise ScanError(
                f"holds {seen[key]} and {this}, which have the same SOPInstanceUID: no labels in DICOM can refer to "
                "one of them"
            )
        seen[key] = this


def references(labels: np.ndarray, scan: Scan, about: Description, path: Path) -> References:
    """The slices of the scan that labels (z, y, x) lie on, for a file that is to be written. Raises UnwrittenError."""
    series: Series = scan.origin
    try:
        slices = _headers(scan)
    except ScanError as error:
        raise UnwrittenError(f"{shown(path.name)} cannot be written: the series {error}") from error
    frames = tuple(
        picture.frame + 1 if int(one.get("NumberOfFrames") or 1) > 1 else None
        for picture, one in zip(series.pictures, slices, strict=True)
    )
    parts = [str(format_of(path)), __version__, str(about.anonymous)]
    parts += [f"{one.SOPInstanceUID}{frame or ''}" for one, frame in zip(slices, frames, strict=True)]
    parts += [text for name, digest in sorted(about.weights.items()) for text in (name, digest)]
    parts += [f"{value}={name}" for value, name in sorted(about.names.items())]
    parts.append(hashlib.sha256(np.ascontiguousarray(labels).data).hexdigest())
    planes = tuple(round(place) for place in series.places)
    return References(slices, frames, planes, "\0".join(parts))


def _headers(scan: Scan) -> tuple[Any, ...]:
    """Of each slice, as References has them. Raises ScanError.

    The last answer is kept: the same is asked before labels are made, and for each object of them.
    """
    pictures = scan.origin.pictures
    states = tuple(state_of(file) for file in dict.fromkeys(picture.file for picture in pictures))
    return _headers_of(pictures, f"{scan.grid.spacing[0]:.6g}", states)


@lru_cache(maxsize=1)
def _headers_of(
    pictures: tuple[Picture, ...], thickness: str, states: tuple[tuple[int, int] | None, ...]
) -> tuple[Any, ...]:
    """thickness: of slices that do not tell it, as a SEG has to and a CT need not."""
    with lenient():
        slices = _read_all(pictures)
        first = slices[0]
        for one in slices:
            for name in ("ImageOrientationPatient", "PixelSpacing"):  # the same but for rounding, as their reader saw
                setattr(one, name, first[name].value)
            if not one.get("SliceThickness"):
                one.SliceThickness = thickness
    return tuple(slices)


def _read_all(pictures: Sequence[Picture]) -> list[Any]:
    """The header of each picture. Raises ScanError."""
    files: dict[Path, Any] = {}
    called = called_as(picture.file for picture in pictures)
    slices = []
    for picture in pictures:
        holds = f"holds {shown(called[picture.file])}, which"
        try:
            if picture.file not in files:
                files[picture.file] = _read(picture.file)
            one = _slice(files[picture.file], picture.frame)
            missing = [name for name in (*INSTANCE, *SERIES, *PLACE) if not one.get(name)]
            whole = _is_whole(one)
        except Exception:  # whatever a damaged file is to pydicom
            whole, missing = False, []
        if not whole:
            raise ScanError(f"{holds} cannot be referred to: its header is damaged")
        if missing:
            raise ScanError(f"{holds} has no {missing[0]}: no labels in DICOM can refer to it")
        slices.append(one)
    return slices


def _is_whole(one: Any) -> bool:
    """Whether what an object tells of a slice is of the right kind, as far as the slice has it. Raises what pydicom
    does where a value cannot be read at all."""
    list(one)  # reads all values
    int(one.get("NumberOfFrames") or 1)
    return (
        isfinite(float(one.get("SliceThickness") or 0))
        and all(len([float(mm) for mm in one.get(name) or ()]) in (0, count) for name, count in PLACE.items())
        and all(isinstance(one.get(name) or "", str) for name in (*INSTANCE, *SERIES))  # not several
        and one.get("SOPClassUID") in (*CT_CLASSES, "", None)
    )


def _read(file: Path) -> Any:
    wanted = [*INSTANCE, *PLACE, *SERIES, *PATIENT, *STUDY, *SHAPE, *OTHERS, *FUNCTIONAL]
    with open_anywhere(file) as opened:
        return read(opened, LONGEST_HEADER, stop=True, wanted=wanted)


def _slice(found: Any, frame: int) -> Any:
    """A frame of a file as if it had one of its own; of a file without frames all that it tells."""
    if not any(name in found for name in (*FUNCTIONAL, "NumberOfFrames")):
        return found
    one = Dataset()
    for element in found:
        if element.keyword not in FUNCTIONAL:
            one.add(copy(element))  # which slices of one file do not share
    groups = [found[name].value[at] for name, at in zip(FUNCTIONAL, (frame, 0), strict=True) if name in found]
    for name, group in GROUPS.items():
        told: Any = next((item[group].value[0] for item in groups if item.get(group)), {})
        if name in told:
            one.add(copy(told[name]))
    return one


@contextmanager
def lenient() -> Iterator[None]:
    """Headers are taken as they are: what is odd about a patient's data is neither refused nor said, which would tell
    it. What has to be right is checked here.
    """
    from pydicom.config import disable_value_validation

    with catch_warnings(), disable_value_validation():
        simplefilter("ignore")
        yield


def adopt(made: Any, origin: References, about: Description) -> None:
    """Give an object the patient and the study of its slices, and no time of its own: a repeat gives the same."""
    first = origin.first
    if not "".join(about.names.values()).isascii():
        made.SpecificCharacterSet = "ISO_IR 192"  # UTF-8, to which the patient's name is converted
    elif first.get("SpecificCharacterSet") and not about.anonymous:
        made.SpecificCharacterSet = first.SpecificCharacterSet
    for name in (*PATIENT, *STUDY):
        value = None if about.anonymous else first.get(name)
        setattr(made, name, "" if value is None else value)
    made.StudyInstanceUID = first.StudyInstanceUID
    made.FrameOfReferenceUID = first.FrameOfReferenceUID
    made.PositionReferenceIndicator = ""
    # highdicom's clock, and the scanner with it
    for name in ("InstanceCreationDate", "InstanceCreationTime", "ContributingEquipmentSequence"):
        if name in made:
            delattr(made, name)


def date_and_time(origin: References, about: Description) -> tuple[str, str]:
    """The date and time that an object gives as its own: those of its study, since a clock would make every repeat
    another object; where these are unknown or not to be told, one that nobody takes for true.
    """
    from pydicom.valuerep import DA, TM

    try:
        date, time = origin.first.get("StudyDate"), origin.first.get("StudyTime")
        if not about.anonymous and DA(date) is not None:
            TM(time)
            return str(date), str(time or NO_TIME)
    except (ValueError, TypeError):
        pass
    return NO_DATE, NO_TIME


def series_description(origin: References, what: str) -> str:
    """SeriesDescription: up to 64 characters, without a word of the series' own."""
    number = str(origin.first.get("SeriesNumber") or "")
    return f"{MAKER} {what}" + (f" of series {number}" if number.isascii() and number.isdigit() else "")


def equipment(about: Description) -> dict[str, str]:
    """What made an object, as highdicom calls it; the serial number stands for the networks."""
    networks = "".join(f"{name}\0{digest}\n" for name, digest in sorted(about.weights.items()))
    return {
        "manufacturer": MAKER,
        "manufacturer_model_name": "Viscera, research use only",
        "device_serial_number": hashlib.sha256(networks.encode()).hexdigest()[:16],
        "software_versions": __version__,
    }


def values_in_planes(labels: np.ndarray) -> np.ndarray:
    """(z, 256) bool: which values each plane of labels (z, y, x) uint8 holds."""
    return np.array([np.bincount(plane.reshape(-1), minlength=256) > 0 for plane in labels])


def found_in(values: np.ndarray, about: Description) -> tuple[Structure, ...]:
    """What labels hold, in rising order of values, which are as of `values_in_planes`."""
    return tuple(one for one in structures(about.names) if values[:, one.value].any())


def codes(one: Structure) -> tuple[Code, Code]:
    """Category and type, which DICOM requires: those of the table, or the most general of a label that it lacks."""
    if one.category and one.type:
        return one.category, one.type
    return (ALTERED, NEOPLASM) if is_tumor(one.key) else (ANATOMY, ANATOMY)
