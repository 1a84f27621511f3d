"""Which files are cases, what they are called, where their labels go, and what is left out and why."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..errors import InputFolderError, NoInputError, shown
from ..names import BIDS, CHANNEL, FOLDERS, FORMATS, LAYOUTS, bids_case, case_of, format_of, labels_file, stem
from .archive import ENDING, NO_DICOM, is_archive
from .channels import REFERENCE, case_names, name_of_file, split
from .dataset import Dataset, dataset_in
from .entries import CLOSED, SCAN, SLICE, UNKNOWN, look_at
from .opening import listing
from .pattern import scans_like
from .recorded import wrote
from .sources import Volume, is_dicom_file
from .tree import dicom_in

EXAMPLES = 5  # names in a warning about many files


@dataclass(frozen=True)
class Case:
    """One scan to segment.

    name     of the case: the file's name without channel and format
    files    the file of each channel
    outputs  the files to write, with the same labels in one format each, the label map first; after them the folders
             of probabilities and of the preview, if they are asked for
    volume   where the scan is of DICOM, its slices; files then has the folder in which they lie
    refused  why it is not segmented but fails, a sentence, such as that another scan has this name already
    """

    name: str
    files: tuple[Path, ...]
    outputs: tuple[Path, ...]
    refused: str | None = None
    volume: Volume | None = None

    @property
    def sources(self) -> tuple[Path | Volume, ...]:
        """What is read: each channel."""
        return (self.volume,) if self.volume else self.files

    @property
    def scan(self) -> Path:
        """The first channel, after which the case is called."""
        return self.files[0]

    @property
    def labels(self) -> Path:
        """The first of the outputs, beside which the record lies."""
        return self.outputs[0]

    @property
    def label_maps(self) -> tuple[Path, ...]:
        """The outputs but for the folders."""
        return tuple(path for path in self.outputs if format_of(path) not in FOLDERS)

    def folder(self, kind: str) -> Path | None:
        """That of FOLDERS among the outputs, if it is asked for."""
        return next((path for path in self.outputs if format_of(path) == kind), None)


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


@dataclass(frozen=True)
class Found:
    """What the inputs hold: the cases by name, what is left out, and sentences about both."""

    cases: list[Case]
    left_out: list[LeftOut]
    warnings: list[str]


def find_cases(
    inputs: Path,
    outputs: Path,
    names: Sequence[str] = (),
    formats: Sequence[str] = FORMATS[:1],
    channels: Sequence[str] = ("CT",),
    name_by: str | None = None,
    layout: str = LAYOUTS[0],
    pattern: str | None = None,
) -> Found:
    """The cases of a file, or of a folder of scans, with all DICOM below it and in ZIPs, or of a dataset of BIDS.

    names     keeps only these; each must be there, and other files are passed over silently
    formats   of the outputs: of the label maps, and FOLDERS
    channels  names of those that a case has; of several, a file is one channel and stands for its case
    name_by   the tag by whose value scans of DICOM are named
    layout    of the outputs, of names.LAYOUTS
    pattern   of the paths of scans below the folder, in place of what it holds itself; of the rest only folders that
              cannot be opened are told
    Raises InputFolderError if `inputs` cannot be opened, NoInputError if it holds no case.
    """
    left_out: list[LeftOut] = []
    certain: Collection[Path] = ()
    if pattern:
        candidates, left_out = _like(pattern, inputs, outputs, channels)
        certain = {one.files[0] for one in candidates}
    elif len(channels) > 1:
        candidates, left_out = _several(inputs, outputs, channels)
    else:
        candidates, left_out, certain = _of_one_channel(inputs, outputs, channels[0], name_by)
    cases = _named(candidates, outputs, formats, layout)
    if names:
        left_out = []
        names = [(bids_case(name) if layout == BIDS else None) or name for name in names]
        for name in names:
            if name not in cases:
                raise NoInputError(f"case {shown(name)} is not in {shown(inputs)}")
    reasons = _sentences(left_out)
    if not cases:
        also = "".join(f"; {reason}" for reason in [*reasons, *_mistaken(inputs)])
        raise NoInputError(f"{shown(inputs)} holds no case: X{CHANNEL}.nii.gz was looked for{also}")
    chosen = [case for name in dict.fromkeys(names or cases) for case in cases[name]]
    doubts = _doubts(inputs, chosen, certain, channels[0]) if len(channels) == 1 else []
    return Found(chosen, left_out, [*reasons, *doubts])


class _Candidate(NamedTuple):
    """What may be a case: the name that its files give it, and as of Case what these are."""

    name: str
    files: tuple[Path, ...]
    refused: str | None = None
    volume: Volume | None = None


def _named(
    candidates: Iterable[_Candidate], outputs: Path, formats: Sequence[str], layout: str
) -> dict[str, list[Case]]:
    """The cases of each name: of several all but the first are refused, since they would write over each other."""
    cases: dict[str, list[Case]] = {}
    for name, files, refused, volume in candidates:
        if layout == BIDS:
            if (as_bids := bids_case(name)) is None:
                refused = f"{shown(files[0].name)} has no letter or digit in its name that BIDS allows: rename it"
            name = as_bids or name
        if same := cases.get(name):
            this, other = _apart(files[0], same[0].scan)
            refused = f"{shown(this)} is left out: {shown(other)} has the same case name"
            refused += f", {shown(name)}" if layout == BIDS else ""
        into = tuple(labels_file(outputs, name, kind, layout) for kind in formats)
        cases.setdefault(name, []).append(Case(name, files, into, refused, volume))
    return cases


def _of_one_channel(
    inputs: Path, outputs: Path, image: str, name_by: str | None
) -> tuple[list[_Candidate], list[LeftOut], Collection[Path]]:
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
    found = [_Candidate(name, (scan,), _no_dicom(scan)) for scan, name in scans.items()]
    found += [_Candidate(name, (volume.folder,), volume=volume) for name, volume in volumes]
    return sorted(found, key=lambda one: one[:2]), left_out, set(dataset.scans)


def _like(pattern: str, inputs: Path, outputs: Path, channels: Sequence[str]) -> tuple[list[_Candidate], list[LeftOut]]:
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
        also = "".join(f"; {reason}" for reason in _sentences(left_out))
        raise NoInputError(f"{shown(inputs)} holds no scan whose path is like {shown(pattern)}{also}")
    return [_Candidate(name, (scan,)) for scan, name in scans.items()], left_out


def _no_dicom(scan: Path) -> str | None:
    """Why a ZIP that was given is refused: of one with DICOM the volumes are cases, not the archive."""
    return f"{shown(scan.name)} is a ZIP: {NO_DICOM}" if scan.name.lower().endswith(ENDING) else None


def _doubts(inputs: Path, cases: Sequence[Case], certain: Collection[Path], image: str) -> list[str]:
    """What may have been meant otherwise; `image` is what the networks take, and `certain` by their names are such."""
    uncertain = [case for case in cases if case.scan not in certain and not case.volume]
    plain = [case.scan.name for case in uncertain if case.name == _stem(case.scan.name)]
    stems = {_stem(name) for name in plain}
    numbered: list[str] = []
    others: list[str] = []
    for name in plain:
        (numbered if split(_stem(name))[0] + CHANNEL in stems else others).append(name)
    doubts = []
    if len({bool(case.volume) for case in cases}) == 2:
        doubts.append(f"{shown(inputs.name or inputs)} holds a DICOM series and other scans: each is a case")
    if numbered:
        one = "is a numbered scan, not a channel: a case of its own"
        more = "are numbered scans, not channels of one: each is a case of its own"
        doubts.append(f"{_listed(numbered)} {one if len(numbered) == 1 else more}")
    if others and len(plain) < len(uncertain):  # the rest has it, so these may be label maps
        has, ct = ("has", f"a {image}") if len(others) == 1 else ("have", f"{image}s")
        doubts.append(f"{_listed(others)} {has} no {CHANNEL} in the name: taken as {ct} all the same")
    return doubts


def _mistaken(inputs: Path) -> list[str]:
    """A sentence where inputs without a case are one slice, or hold label maps of this program's, which are passed
    over."""
    if not inputs.is_dir():
        return ["a series of several files is given by its folder"] if is_dicom_file(inputs) else []
    ours = (one.name for one in listing(inputs) if stem(one.name) and wrote(inputs / one.name))
    if (name := next(ours, None)) is None:
        return []
    return [f"{shown(name)} is a label map that this program wrote: are the two folders the wrong way round?"]


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
    files = [entry for entry, look in looks.items() if look == SCAN]
    names, reasons = case_names({_stem(file) for file in files})
    left_out += [
        LeftOut(
            file, reasons[_stem(file)].format(image=image, only=CHANNEL[1:]), is_scan=reasons[_stem(file)] != REFERENCE
        )
        for file in files
        if _stem(file) in reasons
    ]
    scans = {folder / file: names[_stem(file)] for file in files if _stem(file) in names}
    return scans, left_out


def _several(inputs: Path, outputs: Path, channels: Sequence[str]) -> tuple[list[_Candidate], list[LeftOut]]:
    """Cases with the files of their channels, refused where one is missing; and what is left out.

    A file X_0001 stands for the case X, of which all channels are looked for beside it.
    """
    folder = inputs if _is_folder(inputs) else inputs.parent
    only = None if folder == inputs else split(_stem(inputs.name))[0]
    looks = _looks(folder, outputs)
    wanted = f"X{CHANNEL} to X_{len(channels) - 1:04d} of each case are looked for"
    left_out = [LeftOut(entry, look) for entry, look in looks.items() if look not in (SCAN, SLICE)]
    if SLICE in looks.values():
        left_out.append(LeftOut(folder.name, f"a DICOM series has one channel, the networks take {len(channels)}"))
    found: dict[str, dict[int, list[Path]]] = {}
    for entry in sorted(entry for entry, look in looks.items() if look == SCAN):
        base, number = split(_stem(entry))
        if number is not None and number < len(channels):
            found.setdefault(base, {}).setdefault(number, []).append(folder / entry)
        else:
            left_out.append(LeftOut(entry, f"not a channel of a case: {wanted}"))
    # A file that is called as a case is holds reference labels.
    left_out = [LeftOut(one.name, REFERENCE, False) if _stem(one.name) in found else one for one in left_out]
    cases = []
    for base, numbers in sorted(found.items()):
        files = [path for number in sorted(numbers) for path in numbers[number]]
        refused = None
        if missing := [number for number in range(len(channels)) if number not in numbers]:
            refused = f"channel {missing[0]:04d} ({channels[missing[0]]}) of {shown(base)} is missing"
        elif twice := next((paths for paths in numbers.values() if len(paths) > 1), None):
            refused = f"{shown(twice[0].name)} and {shown(twice[1].name)} are the same channel"
        if only is None or base == only:
            cases.append(_Candidate(base, tuple(files), refused))
    return cases, left_out if only is None else []


def _looks(folder: Path, outputs: Path, known: Collection[Path] = ()) -> dict[str, str]:
    """What the entries of a folder are, by name. Raises InputFolderError."""
    try:
        return dict(look_at(folder, listing(folder), outputs, known))
    except OSError as error:
        raise InputFolderError(f"{shown(folder)} cannot be opened: {error.strerror}") from error


def _apart(one: Path, other: Path) -> tuple[str, str]:
    """Names of two files, with their folders if they are the same."""
    if one.name != other.name:
        return one.name, other.name
    return f"{one.parent.name}/{one.name}", f"{other.parent.name}/{other.name}"


def _stem(file: str) -> str:
    return stem(file) or file


def _sentences(left_out: Iterable[LeftOut]) -> list[str]:
    """One for each reason."""
    names: dict[str, list[str]] = {}
    for one in left_out:
        names.setdefault(one.reason, []).append(one.name)
    return [f"{_listed(some)} {'is' if len(some) == 1 else 'are'} left out: {why}" for why, some in names.items()]


def _listed(names: Sequence[str]) -> str:
    some = [shown(name) for name in names[:EXAMPLES]]
    more = [f"{len(names) - EXAMPLES} more"] if len(names) > EXAMPLES else []
    *first, last = some + more
    return f"{', '.join(first)} and {last}" if first else last
