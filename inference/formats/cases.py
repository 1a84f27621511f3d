"""Which files are cases, what they are called, where their labels go, and what may have been meant otherwise."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..errors import NoInputError, shown
from ..names import BIDS, CHANNEL, FOLDERS, FORMATS, LAYOUTS, bids_case, format_of, labels_file, stem, without_ending
from .candidates import Candidate, LeftOut, like, of_one_channel, of_several_channels, sentences, some_of
from .channels import split
from .entries import PICTURES
from .opening import listing
from .recorded import wrote
from .sources import Volume, is_dicom_file


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

    @cached_property
    def file_names(self) -> frozenset[str]:
        """Of the outputs, without regard to case: a file system may take A.nii.gz and a.nii.gz for one."""
        return frozenset(path.name.casefold() for path in self.outputs)

    def folder(self, kind: str) -> Path | None:
        """That of FOLDERS among the outputs, if it is asked for."""
        return next((path for path in self.outputs if format_of(path) == kind), None)


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
        candidates, left_out = like(pattern, inputs, outputs, channels)
        certain = {one.files[0] for one in candidates}
    elif len(channels) > 1:
        candidates, left_out = of_several_channels(inputs, outputs, channels)
    else:
        candidates, left_out, certain = of_one_channel(inputs, outputs, channels[0], name_by)
    cases = _named(candidates, outputs, formats, layout)
    if names:
        left_out = []
        names = [(bids_case(name) if layout == BIDS else None) or name for name in names]
        for name in names:
            if name not in cases:
                raise NoInputError(f"case {shown(name)} is not in {shown(inputs)}")
    reasons = sentences(left_out)
    if not cases:
        also = "".join(f"; {reason}" for reason in [*reasons, *_mistaken(inputs)])
        raise NoInputError(f"{shown(inputs)} holds no case: X{CHANNEL}.nii.gz was looked for{also}")
    chosen = [case for name in dict.fromkeys(names or cases) for case in cases[name]]
    doubts = _doubts(inputs, chosen, certain, channels[0]) if len(channels) == 1 else []
    return Found(chosen, left_out, [*reasons, *doubts])


def _named(
    candidates: Iterable[Candidate], outputs: Path, formats: Sequence[str], layout: str
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


def _doubts(inputs: Path, cases: Sequence[Case], certain: Collection[Path], image: str) -> list[str]:
    """What may have been meant otherwise; `image` is what the networks take, and `certain` by their names are such."""
    uncertain = [case for case in cases if case.scan not in certain and not case.volume]
    plain = [case.scan.name for case in uncertain if case.name == without_ending(case.scan.name)]
    stems = {without_ending(name) for name in plain}
    numbered: list[str] = []
    others: list[str] = []
    for name in plain:
        (numbered if split(without_ending(name))[0] + CHANNEL in stems else others).append(name)
    doubts = []
    if len({bool(case.volume) for case in cases}) == 2:
        doubts.append(f"{shown(inputs.name or inputs)} holds a DICOM series and other scans: each is a case")
    if numbered:
        one = "is a numbered scan, not a channel: a case of its own"
        more = "are numbered scans, not channels of one: each is a case of its own"
        doubts.append(f"{some_of(numbered)} {one if len(numbered) == 1 else more}")
    if others and len(plain) < len(uncertain):  # the rest has it, so these may be label maps
        has, ct = ("has", f"a {image}") if len(others) == 1 else ("have", f"{image}s")
        doubts.append(f"{some_of(others)} {has} no {CHANNEL} in the name: taken as {ct} all the same")
    return doubts


def _mistaken(inputs: Path) -> list[str]:
    """A sentence where inputs without a case are one slice, or hold pictures or label maps of this program's, which are
    passed over."""
    if not inputs.is_dir():
        return ["a series of several files is given by its folder"] if is_dicom_file(inputs) else []
    names = [one.name for one in listing(inputs)]
    if name := next((one for one in names if stem(one) and wrote(inputs / one)), None):
        return [f"{shown(name)} is a label map that this program wrote: are the two folders the wrong way round?"]
    if name := next((one for one in names if one.lower().endswith(PICTURES)), None):
        return [f"{shown(name)} is a picture, which tells neither HU nor mm: export the scan as DICOM or NIfTI"]
    return []


def _apart(one: Path, other: Path) -> tuple[str, str]:
    """Names of two files, with their folders if they are the same."""
    if one.name != other.name:
        return one.name, other.name
    return f"{one.parent.name}/{one.name}", f"{other.parent.name}/{other.name}"
