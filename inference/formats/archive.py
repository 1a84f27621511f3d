"""Files in a ZIP, named as if it were a folder: export.zip/series/IM0001. Nothing is unpacked to disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from ..errors import ScanError
from .opening import open_file

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo  # imported where there is an archive: it takes 10 ms

ENDING = ".zip"
NO_DICOM = "no DICOM can be read inside (damaged, encrypted, or other files)"
TOO_LONG = "unpacks to far more bytes than its rows and columns need"


def is_archive(path: Path) -> bool:
    if not path.name.lower().endswith(ENDING) or not os.path.isfile(path):
        return False
    from zipfile import is_zipfile

    return is_zipfile(path)


def files_in(archive: Path) -> list[Path]:
    """The files of a ZIP, by name. Raises ScanError, whose text goes on from the archive's name."""
    try:
        return sorted(archive / name for name in _members(archive))
    except Exception:  # whatever a damaged archive is to zipfile
        raise ScanError("is damaged: its list of files cannot be read") from None


@contextmanager
def open_anywhere(path: Path, most: int | None = None) -> Iterator[IO[bytes]]:
    """A regular file, or a file in a ZIP, for reading. Raises ScanError as `open_file`, where a checksum differs, or
    where a file in a ZIP unpacks to more than `most` bytes."""
    inside = _split(path)
    if inside is None:
        with open_file(path) as plain:
            file = BufferedReader(plain)
            try:
                yield file
            finally:
                file.detach()
        return
    from zipfile import BadZipFile
    from zlib import error as DamagedError

    archive, name = inside
    try:
        member = _members(archive).get(name)
        if member is None:
            raise ScanError("is not in the archive any more")
        if member.flag_bits & 1:
            raise ScanError("is encrypted")
        if member.file_size == 0:
            raise ScanError("is empty (0 bytes)")
        if most is not None and member.file_size > most:
            raise ScanError(TOO_LONG)
        with _opened(*_state(archive)).open(member) as packed:
            yield packed
    except (OSError, BadZipFile, DamagedError, EOFError, NotImplementedError):
        raise ScanError("is damaged in the archive: it does not unpack as it should") from None


def state_of(path: Path) -> tuple[int, int] | None:
    """What tells that a file, or the archive that it is in, was written again; None where it is gone."""
    inside = _split(path)
    try:
        return _state(inside[0] if inside else path)[1:]
    except OSError:
        return None


def _split(path: Path) -> tuple[Path, str] | None:
    """The archive and the name in it of a path that leads into one."""
    for parent in path.parents:
        if os.path.lexists(parent):
            return (parent, path.relative_to(parent).as_posix()) if os.path.isfile(parent) else None
    return None


def _state(archive: Path) -> tuple[Path, int, int]:
    status = os.stat(archive)
    return archive, status.st_mtime_ns, status.st_size


@lru_cache(maxsize=2)
def _opened(archive: Path, changed: int, size: int) -> ZipFile:
    """Kept open: the list of files is at an archive's end, and reading it for each of them takes the square of it."""
    from zipfile import ZipFile

    return ZipFile(archive)


def _members(archive: Path) -> dict[str, ZipInfo]:
    return _named(*_state(archive))


@lru_cache(maxsize=2)
def _named(archive: Path, changed: int, size: int) -> dict[str, ZipInfo]:
    found = {}
    for member in _opened(archive, changed, size).infolist():
        name = PurePosixPath(member.filename)
        if not (member.is_dir() or name.is_absolute() or ".." in name.parts):
            found[name.as_posix()] = member
    return found
