"""Which scans a heap of DICOM files holds: by the UIDs of their series, not by folders or names.

A series is left out if it is no axial CT volume: that is no fault. What may be one, but does not fit together, stays
whole, and its reader will say what is wrong with it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from ...errors import ScanError
from ..channels import name_of_path
from ..opening import with_name
from ..sources import Picture, Volume
from .copies import without_copies
from .headers import CT_CLASSES, quiet, read_header
from .naming import names_of, title
from .slices import PHASES, Slice, code, tag
from .stack import differing, directions, stack

FEWEST = 8  # slices
AXIAL = 0.7  # least cosine between the normal of slices and the patient's axis: obliques and tilted gantries are axial
NEAR = 0.01  # mm between slices that lie at one place
PROJECTIONS = ("MIP", "MINIP", "MNIP", "VRT")
GEOMETRY = {"Rows", "Columns", "PixelSpacing", "ImageOrientationPatient"}


@dataclass(frozen=True)
class Findings:
    """What a heap of files holds.

    volumes   name of the case -> its slices
    left_out  name and reason of each series that is no axial CT volume
    series    whether there is one at all: a file that could be read
    """

    volumes: list[tuple[str, Volume]]
    left_out: list[tuple[str, str]]
    series: bool


def find(files: Sequence[Path], inputs: Path, name_by: str | None) -> Findings:
    """The volumes of files. Those that cannot be read and belong to no readable series are one volume per folder, which
    will fail.

    inputs   after which a volume is named if it is the only one
    name_by  a tag by whose value volumes are named
    Raises NoInputError if there is no such tag.
    """
    series, numbers, unread = _by_series(files)
    lost = _series_beside(unread, files, numbers)
    damaged = [file for file in unread if not lost[file]]
    groups: list[tuple[list[Slice], list[Picture]]] = []
    left_out: list[tuple[str, str]] = []
    for number, slices in enumerate(series):
        own, others = _pictures(slices)
        left_out += [(title(one), reason) for reason, one in others.items()]
        broken = [Picture(file) for file, where in lost.items() if number in where]
        if not own:
            damaged += [picture.file for picture in broken]
            continue
        volumes, rest = _volumes(own, len(broken))
        groups += [(volume, broken) for volume in volumes]
        left_out += [(title(some[0]), reason) for reason, some in rest]
    names = names_of([volume for volume, _ in groups], inputs, name_by)
    found = [
        (
            name,
            Volume(
                _folder(volume), (*(one.picture for one in volume), *broken), volume[0].tags.get("SeriesInstanceUID")
            ),
        )
        for name, (volume, broken) in zip(names, groups, strict=True)
    ]
    folders: dict[Path, list[Picture]] = {}
    for file in damaged:
        folders.setdefault(file.parent, []).append(Picture(file))
    for folder, pictures in folders.items():
        alone = not found and len(folders) == 1
        found.append((name_of_path(inputs if alone else folder), Volume(with_name(folder), tuple(pictures))))
    return Findings(found, left_out, bool(series))


def _by_series(files: Sequence[Path]) -> tuple[list[list[Slice]], dict[Path, int], list[Path]]:
    """The slices of each series; file -> the number of its series among these; and the files that cannot be read."""
    series: dict[tuple[str, ...], list[Slice]] = {}
    places: dict[tuple[str, ...], int] = {}  # of each series among them
    numbers: dict[Path, int] = {}
    unread = []
    with quiet():
        for file in files:
            try:
                slices = read_header(file)
            except ScanError:
                unread.append(file)
                continue
            key = _series_of(slices[0])
            series.setdefault(key, []).extend(slices)
            numbers[file] = places.setdefault(key, len(places))
    return list(series.values()), numbers, unread


def _series_beside(unread: Sequence[Path], files: Iterable[Path], numbers: Mapping[Path, int]) -> dict[Path, set[int]]:
    """Unread file -> the numbers of the series to which it may belong: those of the nearest files before and after it
    in its folder that can be read."""
    beside: dict[Path, set[int]] = {}
    folders: dict[Path, list[Path]] = {file.parent: [] for file in unread}
    for file in files if unread else ():
        if file.parent in folders:
            folders[file.parent].append(file)
    for entries in folders.values():
        entries.sort(key=lambda one: _natural(one.name))
    for file in unread:
        entries = folders[file.parent]
        at = entries.index(file)
        around = (reversed(entries[:at]), entries[at:])
        nearest = (next((numbers[one] for one in some if one in numbers), None) for some in around)
        beside[file] = {number for number in nearest if number is not None}
    return beside


def _series_of(one: Slice) -> tuple[str, ...]:
    if uid := one.tags.get("SeriesInstanceUID"):
        return (uid,)
    return (str(one.file.parent), *(one.tags.get(name, "") for name in ("Modality", "SeriesNumber")))


def _natural(text: str) -> list[tuple[int, str]]:
    """IM9 comes before IM10."""
    return [(int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", text)]


def _pictures(slices: Sequence[Slice]) -> tuple[list[Slice], dict[str, Slice]]:
    """The slices of a series that may be of a CT volume, and reason -> one of the others that are not for it."""
    any_ct = any(one.tags.get("Modality") == "CT" and one.tags["SOPClassUID"] in CT_CLASSES for one in slices)
    own: list[Slice] = []
    others: dict[str, Slice] = {}
    for one in slices:
        if reason := _no_slice(one, any_ct):
            others.setdefault(reason, one)
        else:
            own.append(one)
    return own, others


def _no_slice(one: Slice, any_ct: bool) -> str | None:
    """Why a picture is no slice of a CT volume; any_ct: others of its series are."""
    modality, kind = one.tags.get("Modality", "CT"), one.tags["SOPClassUID"]
    if modality != "CT" and not (any_ct and kind in CT_CLASSES):
        return f"not CT: its {tag('Modality')} is {code(modality)}"
    if kind and kind not in CT_CLASSES:
        return "not a CT image by its SOPClassUID (0008,0016), but a secondary capture, a report or the like"
    types = set(one.tags.get("ImageType", "").split("\\"))
    if "LOCALIZER" in types:
        return f"a localizer by its {tag('ImageType')}"
    if any(set(re.split(r"[ _]", part)) & set(PROJECTIONS) for part in types):
        return f"a projection by its {tag('ImageType')}"
    if (meaning := one.tags.get("RescaleType", "HU").upper()) not in ("HU", "US"):
        return f"not in HU: its {tag('RescaleType')} is {code(meaning)}"
    if one.tags.get("SamplesPerPixel", "1") != "1":
        return "a picture in colour"
    return None


def _volumes(slices: list[Slice], broken: int) -> tuple[list[list[Slice]], list[tuple[str, list[Slice]]]]:
    """The volumes of a series, and parts of it that are none, each with the reason.

    broken  slices that cannot be read
    """
    try:
        parts = _by_geometry(slices)
    except ScanError:  # a tag is missing: the reader says which
        return [slices], []
    volumes, rest = [], []
    for part in parts:
        if abs(directions(part[0])[2][2]) < AXIAL:
            rest.append((f"not axial by its {tag('ImageOrientationPatient')}", part))
        else:
            volumes.append(part)
    if len(volumes) > 1 and any(_places(part) < FEWEST for part in volumes):
        volumes = [[one for part in volumes for one in part]]  # no two volumes, but one that contradicts itself
    found = []
    for part in volumes:
        for phase in _by_phase(part):
            if _places(phase) + broken < FEWEST:
                rest.append((f"fewer than {FEWEST} slices: no volume", phase))
            else:
                found.append(phase)
    return found, rest


def _by_geometry(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Slices of one size, spacing and direction each. Raises ScanError."""
    parts: list[list[Slice]] = []
    for one in slices:
        directions(one)
        one.numbers("ImagePositionPatient", 3)
        part = next((part for part in parts if not GEOMETRY & set(differing(part[0], one))), None)
        if part is None:
            parts.append([one])
        else:
            part.append(one)
    return parts


def _by_phase(slices: list[Slice]) -> list[list[Slice]]:
    """Slices that make up one stack each, if there is a tag by which they do; else all of them."""
    if _is_stack(slices) or _places(slices) < FEWEST:
        return [slices]
    uneven = None
    for keys in (*((name,) for name in PHASES), *combinations(PHASES, 2)):
        parts = _by_tags(slices, keys)
        large = [part for part in parts if _places(part) >= FEWEST]
        if len(parts) < 2 or 2 * sum(map(len, large)) < len(slices):
            continue
        if all(map(_is_stack, large)):
            return parts
        if len(large) == len(parts) and all(_places(part) == len(part) for part in parts):
            uneven = uneven or parts  # phases, of which one lacks a slice
    return uneven or [slices]


def _by_tags(slices: Iterable[Slice], names: Sequence[str]) -> list[list[Slice]]:
    parts: dict[tuple[str, ...], list[Slice]] = {}
    for one in slices:
        parts.setdefault(tuple(one.tags.get(name, "") for name in names), []).append(one)
    return [parts[key] for key in sorted(parts, key=lambda key: [_natural(value) for value in key])]


def _is_stack(slices: Sequence[Slice]) -> bool:
    try:
        stack(without_copies(slices)[0])
    except ScanError:
        return False
    return True


def _places(slices: Sequence[Slice]) -> int:
    """How many places along their normal slices have."""
    along = np.sort([directions(slices[0])[2] @ one.numbers("ImagePositionPatient", 3) for one in slices])
    return 1 + int((np.diff(along) > NEAR).sum())


def _folder(slices: Sequence[Slice]) -> Path:
    """The folder that holds all of them, or the one file that does."""
    files = {one.file for one in slices}
    folder = files.pop() if len(files) == 1 else Path(os.path.commonpath([file.parent for file in files]))
    return with_name(folder)
