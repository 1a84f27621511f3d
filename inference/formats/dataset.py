"""The images of a dataset of BIDS: what its folders sub-X hold, and which of it are scans, by name.

BIDS 1.11 knows no CT. Its proposal 024 (bids.neuroimaging.io/bep024) has the folder `ct` and the suffix `_ct`; what is
published has `_CT` as well, and folders `anat` and `pet`. So the suffix decides, in whatever folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from ..names import NIFTI, stem
from .entries import CLOSED, is_ours
from .opening import is_folder, listing
from .recorded import wrote

LEVELS = 2  # of folders below sub-X: sessions, and in them one folder for each kind of image
NO_IMAGES = ("derivatives", "sourcedata")  # beside the sub-X: what was made of the images, and what they were made of
IMAGE = re.compile(r"sub-[0-9a-zA-Z+]+(?:_[a-z]+-[0-9a-zA-Z+]+)*_([0-9a-zA-Z]+)")  # a name of BIDS, with its suffix

ANOTHER = "no {image} by name, which in BIDS ends in _{suffix}"
UNNAMED = "in a data set of BIDS, but not named like sub-01_{suffix}.nii.gz: rename it if it is a scan"


@dataclass
class Dataset:
    """What a folder is as a dataset of BIDS; empty if it is none.

    scans     in the order of their paths
    left_out  image or folder, by name -> why, and whether it may be a scan all the same
    known     entries of the folder that were looked through, or that hold no images
    """

    scans: list[Path] = field(default_factory=list)
    left_out: dict[str, tuple[str, bool]] = field(default_factory=dict)
    known: set[Path] = field(default_factory=set)


def dataset_in(folder: Path, image: str) -> Dataset:
    """The images below each sub-X of a folder in which some are named as in BIDS; what this program wrote is passed
    over.

    image  what the networks take: the suffix of its images, in lower or upper case
    """
    found, words = Dataset(), {"image": image, "suffix": image.lower()}
    for subject in _subjects(folder):
        files, closed = _nifti(subject)
        suffixes = {file: name[1].lower() for file in files if (name := IMAGE.fullmatch(stem(file.name) or ""))}
        if not suffixes:
            continue
        found.known.add(subject)
        found.left_out |= {str(one.relative_to(folder)): (CLOSED, True) for one in closed}
        for file in files:
            if wrote(file):
                continue
            if file not in suffixes:
                found.left_out[str(file.relative_to(folder))] = (UNNAMED.format(**words), True)
            elif suffixes[file] == words["suffix"]:
                found.scans.append(file)
            else:
                found.left_out[file.name] = (ANOTHER.format(**words), False)
    if not found.scans and not found.left_out:
        return Dataset()
    found.known |= {folder / name for name in NO_IMAGES}
    return found


def _nifti(folder: Path, levels: int = LEVELS) -> tuple[list[Path], list[Path]]:
    """The NIfTI files of a folder and of those below it, and the folders that cannot be opened."""
    try:
        entries = [entry for entry in listing(folder) if not entry.name.startswith(".")]
    except OSError:
        return [], [folder]
    files = [folder / one.name for one in entries if one.name.lower().endswith(NIFTI) and not is_folder(one)]
    closed: list[Path] = []
    for below in (folder / one.name for one in entries if levels and is_folder(one)):
        if is_ours(below):
            continue
        more, shut = _nifti(below, levels - 1)
        files, closed = files + more, closed + shut
    return files, closed


def _subjects(folder: Path) -> list[Path]:
    try:
        return [folder / one.name for one in listing(folder) if one.name.startswith("sub-") and is_folder(one)]
    except OSError:
        return []  # whoever looks for other scans in it says so
