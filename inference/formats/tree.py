"""Finds the DICOM files below a folder and in ZIPs: by what is in them, whatever they and their folders are called."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from ..errors import ScanError
from ..names import PROBABILITIES, format_of
from .archive import files_in, is_archive
from .opening import is_folder, is_same, listing
from .sources import dicom_among, is_dicom_file

DICOMDIR = "dicomdir"


def dicom_in(inputs: Path, outputs: Path, known: Collection[Path]) -> list[Path]:
    """The DICOM files of a folder and of all below it, hidden ones, OUTPUTS and folders that are known left out; of a
    ZIP; or the file itself.

    DICOMDIR stands for its folder. Those of one folder are in the order of their names.
    """
    if inputs.name.lower() == DICOMDIR and not os.path.isdir(inputs):
        inputs = inputs.parent
    if os.path.isdir(inputs):
        return [file for entries in _folders(inputs, outputs, known, set()) for file in _among(entries)]
    return _in_archive(inputs) if is_archive(inputs) else [inputs] if is_dicom_file(inputs) else []


def _folders(folder: Path, outputs: Path, known: Collection[Path], seen: set[tuple[int, int]]) -> Iterator[list[Path]]:
    """The entries of a folder that are no folders, then those of each folder below it; links are followed, once."""
    try:
        status = os.stat(folder)
        entries = [entry for entry in listing(folder) if not entry.name.startswith(".")]
    except OSError:
        return  # look_at names a folder that cannot be opened
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    below = [one for entry in entries if is_folder(entry) and (one := folder / entry.name) not in known]
    yield [folder / entry.name for entry in entries if not is_folder(entry)]
    for one in sorted(below, key=os.path.islink):  # what a link shows as well is found under its own name
        if format_of(one) == PROBABILITIES or is_same(outputs, one):
            continue
        yield from _folders(one, outputs, known, seen)


def _among(entries: list[Path]) -> Iterator[Path]:
    archives = list(filter(is_archive, entries))
    yield from dicom_among(entry for entry in entries if entry not in archives)
    for archive in archives:
        yield from _in_archive(archive)


def _in_archive(archive: Path) -> list[Path]:
    folders: dict[Path, list[Path]] = {}
    with suppress(ScanError):  # one that cannot be read is left out by name
        for file in files_in(archive):
            folders.setdefault(file.parent, []).append(file)
    return [file for entries in folders.values() for file in dicom_among(entries)]
