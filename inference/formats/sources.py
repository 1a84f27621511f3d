"""Which files a scan is read from: all that its reader opens, and so all that its digest has to cover."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..errors import ScanError, shown
from ..names import DICOM_FORMATS, METAIMAGE, NRRD
from .archive import open_anywhere
from .opening import is_folder, listing
from .recorded import digest
from .storage import storage_of

SLICES = (".dcm", ".dicom", ".ima")  # endings of DICOM files, if they have one
TEXT = bytes(range(32, 256)) + b"\t\n\f\r\b\x1b"
DICM = (128, b"DICM")  # where every DICOM file says what it is
NO_IMAGES = (  # how names end that no slice of DICOM has
    *("dicomdir", ".json", ".nii", ".nii.gz", *METAIMAGE, *NRRD),
    *(f".{kind}" for kind in DICOM_FORMATS),
)


class Picture(NamedTuple):
    """One slice of a DICOM series: a file, or one frame of it."""

    file: Path
    frame: int = 0


@dataclass(frozen=True)
class Volume:
    """The slices of a DICOM series that make up one scan, in no order.

    folder  in which they lie, or the ZIP: what the scan is called after in messages
    series  SeriesInstanceUID; None if it is not known
    """

    folder: Path
    pictures: tuple[Picture, ...]
    series: str | None = None

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def files(self) -> list[Path]:
        return list(dict.fromkeys(picture.file for picture in self.pictures))


def files_of(scan: Path | Volume) -> list[Path]:
    """Every file that is read for a scan. Raises ScanError."""
    if isinstance(scan, Volume):
        return scan.files
    if os.path.isdir(scan):
        return dicom_files(scan)
    if scan.name.lower().endswith(METAIMAGE + NRRD):
        return list(dict.fromkeys((scan, *storage_of(scan).files)))
    return [scan]


def scan_digest(scan: Path | Volume) -> str:
    """sha256 of a scan's file, or of names and digests of all files that it is read from.

    Raises OSError, and ScanError if it cannot be told which these are.
    """
    files = files_of(scan)
    if isinstance(scan, Path) and files == [scan]:
        return digest(scan)
    parts = "".join(f"{file.name}\0{_digest(file)}\n" for file in files)
    if isinstance(scan, Volume) and any(picture.frame for picture in scan.pictures):
        parts += repr([picture.frame for picture in scan.pictures])
    return hashlib.sha256(os.fsencode(parts)).hexdigest()


def _digest(file: Path) -> str:
    try:
        with open_anywhere(file) as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()  # type: ignore[arg-type]  # it has readinto
    except ScanError as error:
        raise ScanError(f"{shown(file.name)} {error}") from error


def case_digest(files: Sequence[Path | Volume]) -> str:
    """`scan_digest` of the only channel, or sha256 of those of all channels in their order. Raises as that."""
    digests = [scan_digest(file) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode("ascii")).hexdigest()


def dicom_files(folder: Path) -> list[Path]:
    """The DICOM files of a folder in the order of their names, none if it holds no DICOM.

    Raises ScanError if it cannot be listed.
    """
    try:
        entries = listing(folder)
    except OSError as error:
        raise ScanError(f"cannot be opened: {error.strerror}") from error
    return dicom_among(folder / entry.name for entry in entries if not is_folder(entry))


def dicom_among(files: Iterable[Path]) -> list[Path]:
    """Which of the files of one folder, among which are no folders, are DICOM, in the order of their names.

    Files are DICOM by content, whatever they are called. One that is not, but is called .dcm or as DICOM files beside
    it are, counts among them: it is damaged, and a series without it would be another scan.
    """
    found, others, texts = [], [], []
    for path in files:
        if path.name.startswith(".") or path.name.lower().endswith(NO_IMAGES):
            continue
        head = _head(path)
        if is_dicom(head):
            found.append(path)
        elif not is_text(head) or _ending(path.name) in SLICES:
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


def is_dicom(head: bytes) -> bool:
    """Whether the first bytes of a file are those of DICOM: with its preamble, or beginning at once with a tag of group
    2 or 8 and a length, as old archives have it."""
    if head[DICM[0] :][: len(DICM[1])] == DICM[1]:
        return True
    return re.match(rb"[\x02\x08]\0.\0(?:[A-Z]{2}..|.\0\0\0)", head, re.DOTALL) is not None


def is_dicom_file(path: Path) -> bool:
    return is_dicom(_head(path))


def _head(path: Path) -> bytes:
    """The bytes that tell DICOM from others; none where the file cannot be read."""
    try:
        with open_anywhere(path) as file:
            return file.read(DICM[0] + len(DICM[1])) or b""
    except ScanError:
        return b""


def is_text(head: bytes) -> bool:
    """Whether the first bytes of a file are text: a README without an ending is no damaged slice, and no scan."""
    return bool(head) and not head.translate(None, TEXT)


def _pattern(name: str) -> str:
    """The same for names that differ in their numbers alone, as those of slices do."""
    return re.sub(r"\d+", "#", name)


def _ending(name: str) -> str:
    """Of letters: the last part of 1.2.840.113619 is none."""
    found = re.search(r"\.[a-z]\w*$", name.lower())
    return found[0] if found else ""
