"""What the volumes of DICOM are called: by number and description of their series, or by a tag that is asked for."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset

from ...errors import NoInputError
from ..archive import open_anywhere
from ..channels import name_of_path
from .headers import LONGEST_HEADER, quiet, read
from .slices import Slice

DESCRIPTION = 0x0008103E
LONGEST = 60  # characters
# Tags other than those of group 0010 whose words are no part of a name: of people, places, requests and devices.
PRIVATE = (
    "AccessionNumber", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "StudyID", "InstitutionName",
    "InstitutionAddress", "InstitutionalDepartmentName", "ReferringPhysicianName", "PhysiciansOfRecord",
    "PerformingPhysicianName", "NameOfPhysiciansReadingStudy", "OperatorsName", "StationName", "DeviceSerialNumber",
    "RequestingPhysician", "RequestedProcedureID", "ScheduledProcedureStepID", "PerformedProcedureStepID",
)  # fmt: skip


def names_of(volumes: Sequence[Sequence[Slice]], inputs: Path, name_by: str | None) -> list[str]:
    """Of each volume, all different. One volume alone is called as the inputs are, unless a tag is asked for.

    Raises NoInputError if there is no tag `name_by`.
    """
    if name_by is None and len(volumes) == 1:
        return [name_of_path(inputs)]
    number = None if name_by is None else tag_number(name_by)
    bases = [_base(one, number) for one in volumes]
    series = [_uid(one) for one in volumes]
    keys = [(base.casefold(), uid) for base, uid in zip(bases, series, strict=True)]
    several = Counter(keys)  # volumes of one series
    numbered = [f"_{1 + keys[:at].count(key)}" if several[key] > 1 else "" for at, key in enumerate(keys)]
    owners: dict[str, set[str]] = {}  # series that would have one name, or one that numbers give to another
    for base, uid, ending in zip(bases, series, numbered, strict=True):
        for name in {base, base + ending}:
            owners.setdefault(name.casefold(), set()).add(uid)
    names = []
    for base, uid, ending in zip(bases, series, numbered, strict=True):
        alone = len(owners[base.casefold()]) == 1
        names.append((base if alone else f"{base}_{hashlib.sha256(uid.encode()).hexdigest()[:8]}") + ending)
    return names


def tag_number(text: str) -> int:
    """Of a tag by keyword or as 0010,0020. Raises NoInputError."""
    match = re.fullmatch(r"\(?([0-9a-fA-F]{4}),?([0-9a-fA-F]{4})\)?", text.strip())
    number = int(match[1] + match[2], 16) if match else tag_for_keyword(text.strip())
    if number is None:
        raise NoInputError(f"--name-by {text} is not a DICOM tag: a keyword, such as AccessionNumber, or 0008,0050")
    return number


def title(one: Slice) -> str:
    """A series as it is named where it is left out."""
    return f"series {_series_name(one)}"


def _base(volume: Sequence[Slice], number: int | None) -> str:
    if number is None:
        return _series_name(volume[0])
    return _plain(_value(_header(volume[0]), number)) or _series_name(volume[0])


def _series_name(one: Slice) -> str:
    """Number and description of a series, without words that other tags have of the patient, people or places."""
    number = one.tags.get("SeriesNumber", "")
    parts = [number] if re.fullmatch(r"-?\d{1,9}", number) else []
    return "_".join([*parts, *_words(one)])[:LONGEST].rstrip("_.-") or "series"


def _words(one: Slice) -> Iterator[str]:
    if "SeriesDescription" not in one.tags:
        return
    header = _header(one)  # dates and identifiers have many digits
    hidden = _private_words(header)
    for word in re.findall(r"[a-z0-9.]+", _letters(_value(header, DESCRIPTION))):
        word = word.strip(".")
        if word and not any(_alike(word, other) for other in hidden) and not re.search(r"\d{5}", word):
            yield word


def _alike(one: str, other: str) -> bool:
    return one == other or (min(len(one), len(other)) > 2 and (one in other or other in one))


def _private_words(header: Dataset) -> set[str]:
    words: set[str] = set()
    for number in header.keys():  # noqa: SIM118  # iterating it reads all values
        if number >> 16 == 0x0010 or keyword_for_tag(number) in PRIVATE:
            words |= {word for word in re.findall(r"[a-z0-9]+", _letters(_value(header, number))) if len(word) > 1}
    return words


def _letters(text: str) -> str:
    """In small letters without accents."""
    return _bare(text).encode("ascii", "ignore").decode().lower()


def _bare(text: str) -> str:
    """Without accents."""
    return "".join(one for one in unicodedata.normalize("NFKD", text) if not unicodedata.combining(one))


def _value(header: Dataset, number: int) -> str:
    """Of a tag; empty where it is absent or is no text."""
    try:
        with quiet():
            return "" if number not in header or header[number].value is None else str(header[number].value)
    except Exception:  # whatever an odd value is to pydicom
        return ""


def _header(one: Slice) -> Dataset:
    with quiet(), open_anywhere(one.file) as file:
        try:
            return read(file, LONGEST_HEADER, stop=True)
        except Exception:  # whatever a damaged file is, to us or to pydicom: such a name has no description
            return Dataset()


def _uid(volume: Sequence[Slice]) -> str:
    one = volume[0]
    return one.tags.get("SeriesInstanceUID") or str(one.file.parent)


def _plain(text: str) -> str:
    """A value as the name of a file."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", _bare(text))[:LONGEST].strip("_.-")
