"""Which files are cases, what they are called, and where their labels go."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inference.errors import InputFolderError, NoInputError, shown

NIFTI = (".nii.gz", ".nii")
OTHER = (".nrrd", ".mha", ".mhd")  # read through SimpleITK
CHANNEL = "_0000"  # nnU-Net's and FLARE's suffix of the first, here the only, image channel


@dataclass(frozen=True)
class Case:
    """One scan to segment.

    name    of the case: the file's name without channel and format
    scan    the file, or the folder of a DICOM series
    labels  the file to write
    twin    another scan that has this name already: this one fails, or one would overwrite the other
    """

    name: str
    scan: Path
    labels: Path
    twin: Path | None = None


def find_cases(inputs: Path, outputs: Path, names: Sequence[str] = ()) -> tuple[list[Case], list[str]]:
    """The cases of a file, of a folder of scans or of the folder of one DICOM series, by name, and warnings.

    names  keeps only these; each must be there
    Raises InputFolderError where `inputs` cannot be opened, NoInputError where it holds no case.
    """
    warnings: list[str] = []
    if inputs.is_dir():
        try:
            entries = sorted(entry for entry in os.listdir(inputs) if not entry.startswith("."))
        except OSError as error:
            raise InputFolderError(f"{shown(inputs)} cannot be opened: {error.strerror}") from error
        files = [inputs / entry for entry in entries if _stem(entry) is not None]
        # Where X.nii.gz and X_0000.nii.gz lie side by side, the first is most likely the reference of the second.
        files.sort(key=lambda file: not (_stem(file.name) or "").endswith(CHANNEL))
        if not files and any(entry.lower().endswith(".dcm") for entry in entries):
            files = [inputs]
    elif inputs.exists() or inputs.is_symlink():
        files = [inputs]
    else:
        raise InputFolderError(f"{shown(inputs)} does not exist")

    cases: list[Case] = []
    first: dict[str, Path] = {}
    for file in files:
        stem = _stem(file.name) or file.name
        if stem[-5:-4] == "_" and stem[-4:].isdigit() and not stem.endswith(CHANNEL):
            warnings.append(
                f"{shown(file.name)} is left out: it is channel {stem[-4:]}, and a CT has only {CHANNEL[1:]}"
            )
            continue
        name = stem.removesuffix(CHANNEL)
        if name == stem and file.is_file():
            warnings.append(f"{shown(file.name)} has no {CHANNEL} in its name: taken as a CT all the same")
        cases.append(Case(name, file, outputs / f"{name}.nii.gz", twin=first.get(name)))
        first.setdefault(name, file)
    if not cases:
        raise NoInputError(f"{shown(inputs)} holds no case: X{CHANNEL}.nii.gz was looked for")
    for name in names:
        if name not in first:
            raise NoInputError(f"case {shown(name)} is not in {shown(inputs)}")
    named: dict[str, list[Case]] = {}
    for case in cases:
        named.setdefault(case.name, []).append(case)
    return [case for name in list(names) or sorted(named) for case in named[name]], warnings


def _stem(name: str) -> str | None:
    """The name without the ending of a format that we read, or None."""
    for ending in NIFTI + OTHER:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return None
