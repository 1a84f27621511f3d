"""What the entries of an input folder are, by name and first bytes: scans, slices, or what is left out and why."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from ..names import CHANNEL, DICOM_FORMATS, FOLDERS, SEGMENTATION, format_of, stem
from .archive import ENDING, NO_DICOM
from .opening import READ, is_folder, is_same, listing
from .recorded import wrote
from .sources import SLICES, is_dicom, is_text
from .storage import detached

HEAD = 1024  # bytes of a file that tell whether it is text

PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
# What lies beside scans and is none, by ending. Files of other endings are looked into: text is no scan either.
PLAIN = (
    *PICTURES, ".before", ".bib", ".bval", ".bvec", ".cfg", ".conf", ".csv", ".ctbl", ".db", ".doc", ".docx", ".htm",
    ".html", ".ini", ".ipynb", ".json", ".jsonl", ".label", ".lnk", ".log", ".m", ".md", ".md5", ".odt", ".pdf", ".ppt",
    ".pptx", ".py", ".r", ".rst", ".sh", ".sha256", ".svg", ".toml", ".tsv", ".txt", ".xls", ".xlsx", ".xml", ".yaml",
    ".yml",
)  # fmt: skip
# Formats of scans that are not read; a file may be empty or text and still be meant as one.
FOREIGN = (
    ".nii.bz2", ".nii.xz", ".nii.zst", ".nii.z", ".nii.zip", ".hdr", ".img", ".hdr.gz", ".img.gz", ".mgz", ".mgh",
    ".mnc", ".mif", ".mif.gz", ".gipl", ".par", ".rec", ".raw", ".zraw", ".vti", ".vtk", ".npy", ".npz", ".h5",
    ".hdf5", ".tif", ".tiff", ".zip", ".tar", ".tar.gz", ".tgz", ".7z",
)  # fmt: skip
COMPANION = {".img": (".hdr",), ".img.gz": (".hdr.gz",), ".rec": (".par",)}  # one scan in two files is named once

UNKNOWN = f"perhaps a scan, but with no known ending: rename or convert to X{CHANNEL}.nii.gz"
SUBFOLDER = (
    "there are scans inside, but subfolders are searched only for what --scans says, such as --scans '*/ct.nii.gz'"
)
CLOSED = "a folder that cannot be opened, and may hold scans"
NO_SCANS = (SEGMENTATION, *(f".{kind}" for kind in DICOM_FORMATS))
SCAN, SLICE = "a scan that is read", "a DICOM file"  # what `look_at` says beside reasons


def look_at(
    folder: Path, entries: Sequence[os.DirEntry[str]], outputs: Path, known: Collection[Path]
) -> Iterator[tuple[str, str]]:
    """Each entry that is a scan or may be one, and what it is: SCAN, SLICE, or why it is not read.

    Hidden files, files that are plainly no scans, what this program wrote and what is `known` are passed over.
    """
    beside = {one.name for one in entries}
    voxels = detached(folder, beside)
    for one in entries:
        entry, name = one.name, one.name.lower()
        if name.startswith(".") or (known and folder / entry in known):
            continue
        if one.is_symlink() and not os.path.exists(one):
            look: str | None = SCAN if stem(entry) else None  # a broken link: a case that will fail by name
        elif is_folder(one):
            path = folder / entry
            look = None if is_ours(path) or _leads_back(path, folder) else _look_into(path, outputs, known)
        elif name.endswith(NO_SCANS):
            look = None
        elif whole := stem(entry):
            look = None if f"{whole}.json" in beside and wrote(folder / entry) else SCAN
        elif name.endswith(SLICES):
            look = SLICE
        elif entry in voxels:
            look = None
        elif ending := next((ending for ending in FOREIGN if name.endswith(ending)), None):
            reason = NO_DICOM if ending == ENDING else f"{ending} is not read: convert to X{CHANNEL}.nii.gz"
            look = None if _companion(entry, ending, beside) else reason
        elif name.endswith(PLAIN) or name == "dicomdir":
            look = None
        else:
            look = _look_inside(folder / entry)
        if look:
            yield entry, look


def _look_into(folder: Path, outputs: Path, known: Collection[Path]) -> str | None:
    """Why a subfolder is left out; None if neither it nor what is below it may be a scan, or if it is OUTPUTS."""
    if stem(folder.name):
        return "a folder, although it is named like a scan"
    closed, below = False, [folder]
    while below:
        root = below.pop()
        try:
            entries = listing(root)
        except OSError:
            closed = True
            continue
        if is_same(outputs, root):
            continue
        files = [one for one in entries if not is_folder(one)]
        folders = [one for one in entries if is_folder(one) and not one.name.startswith(".")]
        looks = [look for _, look in look_at(root, files, outputs, known)]
        if any(stem(one.name) for one in folders) or any(look != UNKNOWN or not known for look in looks):
            return SUBFOLDER
        below += [root / one.name for one in folders if not one.is_symlink() and not is_ours(root / one.name)]
    return CLOSED if closed else None


def _leads_back(path: Path, folder: Path) -> bool:
    """Whether a subfolder is a link to the folder or into it, where all that it shows has a name of its own."""
    if not os.path.islink(path):
        return False
    real, whole = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    return real.is_relative_to(whole) and not any(part.startswith(".") for part in real.relative_to(whole).parts)


def is_ours(folder: Path) -> bool:
    """Whether a folder is that of the probabilities or the preview of a case, as this program wrote it."""
    return format_of(folder) in FOLDERS and wrote(folder)


def _look_inside(file: Path) -> str | None:
    """What a file of an unknown ending, or of none, may be by its first bytes."""
    try:
        descriptor = os.open(file, READ)
        with open(descriptor, "rb", buffering=0) as stream:
            head = stream.read(HEAD) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    except OSError:
        return "perhaps a scan, but it cannot be opened"
    if is_dicom(head):
        return SLICE
    return None if not head or is_text(head) else UNKNOWN


def _companion(entry: str, ending: str, beside: Collection[str]) -> bool:
    """Whether a file holds the voxels of another, which is named in its place."""
    whole = entry[: -len(ending)]
    return any(whole + other in beside or whole + other.upper() in beside for other in COMPANION.get(ending, ()))
