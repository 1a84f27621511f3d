"""What the inputs hold that may be a case, by files, series and channels; what is left out and why."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..errors import InputFolderError, NoInputError, shown
from ..names import CHANNEL, case_of, listed, without_ending
from .archive import ENDING, NO_DICOM, is_archive
from .channels import REFERENCE, case_names, name_of_file, split
from .dataset import Dataset, dataset_in
from .entries import CLOSED, SCAN, SLICE, UNKNOWN, look_at
from .opening import listing
from .pattern import scans_like
from .sources import Volume
from .tree import dicom_in

EXAMPLES = 5  # names in a sentence about many files


@dataclass(frozen=True)
class LeftOut:
    """A file or folder of the inputs that is not segmented.

    name     of it
    reason   in words that fit every file of its kind
    is_scan  it may be a scan: a run that leaves it out is not a success
    """

    name: str
    reason: str
    is_scan: bool = True


class Candidate(NamedTuple):
    """What may be a case: the name that its files give it, and as of Case what these are."""

    name: str
    files: tuple[Path, ...]
    refused: str | None = None
    volume: Volume | None = None


def of_one_channel(
    inputs: Path, outputs: Path, image: str, name_by: str | None
) -> tuple[list[Candidate], list[LeftOut], Collection[Path]]:
    """The scans by name, what is left out, and those scans that by their names are `image`, which the networks take."""
    is_folder = _is_folder(inputs)
    dataset = dataset_in(inputs, image) if is_folder else Dataset()
    volumes, left_out, known, series = _dicom(inputs, outputs, dataset.known, name_by)
    scans: dict[Path, str] = {}
    if is_folder:
        scans, more = _scans(inputs, outputs, image, known, series)
        scans |= {scan: case_of(scan.name) for scan in dataset.scans}
        left_out += more + [LeftOut(name, *why) for name, why in dataset.left_out.items()]
    elif not known:
        scans = {inputs: name_of_file(inputs)}
    found = [Candidate(name, (scan,), _no_dicom(scan)) for scan, name in scans.items()]
    found += [Candidate(name, (volume.folder,), volume=volume) for name, volume in volumes]
    return sorted(found, key=lambda one: one[:2]), left_out, set(dataset.scans)


def like(pattern: str, inputs: Path, outputs: Path, channels: Sequence[str]) -> tuple[list[Candidate], list[LeftOut]]:
    """The scans that are like a pattern, and folders that may hold some. Raises NoInputError where there are none."""
    if len(channels) > 1:
        raise NoInputError(f"--scans finds scans of one channel, and the networks take {len(channels)}")
    if not _is_folder(inputs):
        raise NoInputError(f"--scans looks into a folder, and {shown(inputs)} is a file")
    scans, closed = scans_like(pattern, inputs, outputs)
    if inputs in closed:
        raise InputFolderError(f"{shown(inputs)} cannot be opened")
    left_out = [LeftOut(str(one.relative_to(inputs)), CLOSED) for one in closed]
    if not scans:
        also = "".join(f"; {reason}" for reason in sentences(left_out))
        raise NoInputError(f"{shown(inputs)} holds no scan whose path is like {shown(pattern)}{also}")
    return [Candidate(name, (scan,)) for scan, name in scans.items()], left_out


def of_several_channels(inputs: Path, outputs: Path, channels: Sequence[str]) -> tuple[list[Candidate], list[LeftOut]]:
    """Cases with the files of their channels, refused where one is missing; and what is left out.

    A file X_0001 stands for the case X, of which all channels are looked for beside it.
    """
    folder = inputs if _is_folder(inputs) else inputs.parent
    only = None if folder == inputs else split(without_ending(inputs.name))[0]
    looks = _looks(folder, outputs)
    wanted = f"X{CHANNEL} to X_{len(channels) - 1:04d} of each case are looked for"
    left_out = [LeftOut(entry, look) for entry, look in looks.items() if look not in (SCAN, SLICE)]
    if SLICE in looks.values():
        left_out.append(LeftOut(folder.name, f"a DICOM series has one channel, the networks take {len(channels)}"))
    found: dict[str, dict[int, list[Path]]] = {}
    for entry in sorted(entry for entry, look in looks.items() if look == SCAN):
        base, number = split(without_ending(entry))
        if number is not None and number < len(channels):
            found.setdefault(base, {}).setdefault(number, []).append(folder / entry)
        else:
            left_out.append(LeftOut(entry, f"not a channel of a case: {wanted}"))
    # A file that is called as a case is holds reference labels.
    left_out = [LeftOut(one.name, REFERENCE, False) if without_ending(one.name) in found else one for one in left_out]
    cases = []
    for base, numbers in sorted(found.items()):
        files = [path for number in sorted(numbers) for path in numbers[number]]
        refused = None
        if missing := [number for number in range(len(channels)) if number not in numbers]:
            refused = f"channel {missing[0]:04d} ({channels[missing[0]]}) of {shown(base)} is missing"
        elif twice := next((paths for paths in numbers.values() if len(paths) > 1), None):
            refused = f"{shown(twice[0].name)} and {shown(twice[1].name)} are the same channel"
        if only is None or base == only:
            cases.append(Candidate(base, tuple(files), refused))
    return cases, left_out if only is None else []


def _no_dicom(scan: Path) -> str | None:
    """Why a ZIP that was given is refused: of one with DICOM the volumes are cases, not the archive."""
    return f"{shown(scan.name)} is a ZIP: {NO_DICOM}" if scan.name.lower().endswith(ENDING) else None


def _is_folder(inputs: Path) -> bool:
    """Raises InputFolderError if nothing is there. A broken link is a file, which will fail by name."""
    try:
        return stat.S_ISDIR(inputs.stat().st_mode)
    except OSError as error:
        if os.path.islink(inputs):
            return False
        if isinstance(error, FileNotFoundError):
            raise InputFolderError(f"{shown(inputs)} does not exist") from error
        raise InputFolderError(f"{shown(inputs)} cannot be opened: {error.strerror}") from error


def _dicom(
    inputs: Path, outputs: Path, known: set[Path], name_by: str | None
) -> tuple[list[tuple[str, Volume]], list[LeftOut], set[Path], bool]:
    """The volumes of DICOM and their names, what of DICOM is left out, `known` with all files and archives that hold
    some, and whether any of them could be read."""
    files = dicom_in(inputs, outputs, known)
    if not files:
        return [], [], known, False
    from .dicom.find import find  # pydicom takes a tenth of a second, and brings NumPy

    found = find(files, inputs, name_by)
    left_out = [LeftOut(name, reason, is_scan=False) for name, reason in found.left_out]
    archives = {above for folder in {file.parent for file in files} for above in (folder, *folder.parents)}
    return found.volumes, left_out, {*known, *files, *filter(is_archive, archives)}, found.series


def _scans(
    folder: Path, outputs: Path, image: str, known: Collection[Path], dicom: bool
) -> tuple[dict[Path, str], list[LeftOut]]:
    """Scan -> name of its case, and what is left out; `image` is what the networks take.

    known  what has been looked into already
    dicom  whether scans of DICOM were found in it: an export has a viewer beside them, with files of all kinds
    """
    looks = _looks(folder, outputs, known)
    left_out = [
        LeftOut(entry, look, is_scan=look != UNKNOWN or not dicom) for entry, look in looks.items() if look != SCAN
    ]
    stems = {entry: without_ending(entry) for entry, look in looks.items() if look == SCAN}
    names, reasons = case_names(set(stems.values()))
    left_out += [
        LeftOut(file, why.format(image=image, only=CHANNEL[1:]), is_scan=why != REFERENCE)
        for file, own in stems.items()
        if (why := reasons.get(own))
    ]
    return {folder / file: names[own] for file, own in stems.items() if own in names}, left_out


def _looks(folder: Path, outputs: Path, known: Collection[Path] = ()) -> dict[str, str]:
    """What the entries of a folder are, by name. Raises InputFolderError."""
    try:
        return dict(look_at(folder, listing(folder), outputs, known))
    except OSError as error:
        raise InputFolderError(f"{shown(folder)} cannot be opened: {error.strerror}") from error


def sentences(left_out: Iterable[LeftOut]) -> list[str]:
    """One for each reason."""
    names: dict[str, list[str]] = {}
    for one in left_out:
        names.setdefault(one.reason, []).append(one.name)
    return [f"{some_of(some)} {'is' if len(some) == 1 else 'are'} left out: {why}" for why, some in names.items()]


def some_of(names: Sequence[str]) -> str:
    """The first of several files, as a sentence names them."""
    more = [f"{len(names) - EXAMPLES} more"] if len(names) > EXAMPLES else []
    return listed([*map(shown, names[:EXAMPLES]), *more])
