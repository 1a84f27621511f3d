"""Files in a ZIP, named as if it were a folder: export.zip/series/IM0001. Nothing is unpacked to disk."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import IO

from ..errors import ScanError
from .opening import open_file

ENDING = ".zip"
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith(ENDING) and os.path.isfile(path) and zipfile.is_zipfile(path)


def files_in(archive: Path) -> list[Path]:
    """The files of a ZIP, by name. Raises ScanError, whose text goes on from the archive's name."""
    try:
        return sorted(archive / name for name in _members(archive))
    except (OSError, *BROKEN):
        raise ScanError("is damaged: its list of files cannot be read") from None


@contextmanager
def open_anywhere(path: Path) -> Iterator[IO[bytes]]:
    """A regular file, or a file in a ZIP, for reading. Raises ScanError as `open_file`, or where a checksum differs."""
    inside = _split(path)
    if inside is None:
        with open_file(path) as plain:
            file = BufferedReader(plain)
            try:
                yield file
            finally:
                file.detach()
        return
    archive, name = inside
    try:
        member = _members(archive)[name]
        if member.flag_bits & 1:
            raise ScanError("is encrypted")
        if member.file_size == 0:
            raise ScanError("is empty (0 bytes)")
        with _opened(*_state(archive)).open(member) as packed:
            yield packed
    except KeyError:
        raise ScanError("is not in the archive any more") from None
    except (OSError, *BROKEN) as error:
        if isinstance(error, ScanError):
            raise
        raise ScanError("is damaged in the archive: it does not unpack as it should") from None


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
def _opened(archive: Path, changed: int, size: int) -> zipfile.ZipFile:
    """Kept open: the list of files is at an archive's end, and reading it for each of them takes the square of it."""
    return zipfile.ZipFile(archive)


def _members(archive: Path) -> dict[str, zipfile.ZipInfo]:
    return _named(*_state(archive))


@lru_cache(maxsize=2)
def _named(archive: Path, changed: int, size: int) -> dict[str, zipfile.ZipInfo]:
    found = {}
    for member in _opened(archive, changed, size).infolist():
        name = PurePosixPath(member.filename)
        if not (member.is_dir() or name.is_absolute() or ".." in name.parts):
            found[name.as_posix()] = member
    return found
