"""Which label maps of a folder belong to which cases, in whatever layout and formats they are; masks of one scan."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ..errors import InputFolderError, NoInputError, shown
from ..labels import known
from ..names import BIDS, DSEG, METAIMAGE, NIFTI, NRRD, SEGMENTATION, bids_case, labels_file, stem, without_ending
from .cases import Case, Found
from .opening import is_same
from .recorded import label_folders

Pair = tuple[Case, list[Path]]  # a case, and the file of its label map or those of its masks


def pairs_of(found: Found, scans: Path, labels: Path) -> list[Pair]:
    """Each case, called as its label map is, and the file of that or those of masks; none where there is none.

    Raises InputFolderError and NoInputError.
    """
    if not labels.exists():
        raise InputFolderError(f"{shown(labels)} does not exist")
    if not labels.is_dir():
        if len(found.cases) > 1:
            raise NoInputError(f"{shown(labels)} is one label map, and {shown(scans)} holds {len(found.cases)} cases")
        return [(found.cases[0], [labels])]
    pairs: list[Pair] = []
    used: set[Path | None] = set()  # of two cases that BIDS calls alike a run labels the first
    for case in found.cases:
        name, path = _labels_of(case, labels)
        if path in used:
            name, path = case.name, None
        pairs.append((replace(case, name=name), [path] if path else []))
        used.add(path)
    if len(pairs) == 1 and not pairs[0][1]:
        return [(pairs[0][0], _masks(pairs[0][0], labels))]
    return pairs


def _masks(case: Case, folder: Path) -> list[Path]:
    """Label maps in a folder that is no folder of label maps, since one is called as an organ is. Raises
    InputFolderError."""
    files = [folder / entry for entry in _label_maps(folder)]
    files = [path for path in files if not is_same(path, case.scan)]
    return files if any(known(stem(path.name) or "") for path in files) else []


def _label_maps(folder: Path) -> list[str]:
    """Names of the files in a folder that have the endings of label maps. Raises InputFolderError."""
    try:
        entries = sorted(os.listdir(folder))
    except OSError as error:
        raise InputFolderError(f"{shown(folder)} cannot be opened: {error.strerror}") from error
    return [one for one in entries if not one.startswith(".") and not one.endswith(SEGMENTATION) and stem(one)]


def _labels_of(case: Case, folder: Path) -> tuple[str, Path | None]:
    """In a folder of label maps, in whatever layout, and what the case is called there."""
    as_bids = bids_case(case.name) or case.name
    paths = {folder / f"{case.name}{ending}": case.name for ending in NIFTI + METAIMAGE + NRRD}
    for path, name in (paths | {labels_file(folder, as_bids, layout=BIDS): as_bids}).items():
        if os.path.lexists(path) and not is_same(path, case.scan):
            return name, path
    return case.name, None


def without_scan(pairs: list[Pair], scans: Path, folder: Path) -> list[str]:
    """Names of label maps in a folder that belong to no scan of another folder. Raises InputFolderError."""
    if not folder.is_dir() or pairs[0][0].scan == scans or folder.samefile(scans):
        return []
    used = {stem(path.name) for _, paths in pairs for path in paths}  # in whatever formats
    lost = []
    for one in label_folders(folder):
        for entry in _label_maps(one):
            name = without_ending(entry)
            if name not in used and (one == folder or name.endswith(DSEG)):
                lost.append(entry)
    return lost
