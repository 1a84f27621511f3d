"""Which files a scan is read from: all that its reader opens, and so all that its digest has to cover."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import ScanError
from ..names import DICOM_FORMATS, METAIMAGE, NRRD
from .layout import layout
from .opening import open_file
from .outputs import digest

SLICES = (".dcm", ".dicom", ".ima")  # endings of DICOM files, if they have one
DICM = (128, b"DICM")  # where every DICOM file says what it is
NO_IMAGES = (  # how names end that no slice of DICOM has
    *("dicomdir", ".json", ".nii", ".nii.gz", *METAIMAGE, *NRRD),
    *(f".{kind}" for kind in DICOM_FORMATS),
)


def files_of(scan: Path) -> list[Path]:
    """Every file that is read for a scan. Raises ScanError."""
    if os.path.isdir(scan):
        return dicom_files(scan)
    if scan.name.lower().endswith(METAIMAGE + NRRD):
        return list(dict.fromkeys((scan, *layout(scan).files)))
    return [scan]


def scan_digest(scan: Path) -> str:
    """sha256 of a scan's file, or of names and digests of all files that it is read from.

    Raises OSError, and ScanError if it cannot be told which these are.
    """
    files = files_of(scan)
    if files == [scan]:
        return digest(scan)
    parts = "".join(f"{file.name}\0{digest(file)}\n" for file in files)
    return hashlib.sha256(os.fsencode(parts)).hexdigest()


def case_digest(files: Sequence[Path]) -> str:
    """`scan_digest` of the only channel, or sha256 of those of all channels in their order. Raises as that."""
    digests = [scan_digest(file) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode("ascii")).hexdigest()


def dicom_files(folder: Path) -> list[Path]:
    """The files of a DICOM series in the order of their names, none if the folder holds no DICOM.

    Raises ScanError if it cannot be listed.

    Files are DICOM by content, whatever they are called. One that is not, but is called .dcm or as DICOM files beside
    it are, counts among them: it is damaged, and a series without it would be another scan.
    """
    try:
        entries = sorted(os.listdir(folder))
    except OSError as error:
        raise ScanError(f"cannot be opened: {error.strerror}") from error
    found, others, texts = [], [], []
    for entry in entries:
        path = folder / entry
        if entry.startswith(".") or entry.lower().endswith(NO_IMAGES) or os.path.isdir(path):
            continue
        head = _head(path)
        if head[DICM[0] :] == DICM[1]:
            found.append(path)
        elif not _is_text(head) or _ending(entry) in SLICES:
            others.append(path)
        else:
            texts.append(path)
    endings = {*SLICES, *(_ending(path.name) for path in found)}
    numbered = {_pattern(path.name) for path in found if _pattern(path.name) != path.name}
    return sorted(
        [
            *found,
            *(path for path in others if _ending(path.name) in endings),
            *(path for path in texts if _pattern(path.name) in numbered),
        ]
    )


def _head(path: Path) -> bytes:
    """The bytes that tell DICOM from others; none where the file cannot be read."""
    try:
        with open_file(path) as file:
            return file.read(DICM[0] + len(DICM[1])) or b""
    except ScanError:
        return b""


def _is_text(head: bytes) -> bool:
    """A README without an ending is no damaged slice."""
    return re.fullmatch(rb"[\t\r\n -~\x80-\xff]+", head) is not None


def _pattern(name: str) -> str:
    """The same for names that differ in their numbers alone, as those of slices do."""
    return re.sub(r"\d+", "#", name)


def _ending(name: str) -> str:
    """Of letters: the last part of 1.2.840.113619 is none."""
    found = re.search(r"\.[a-z]\w*$", name.lower())
    return found[0] if found else ""
