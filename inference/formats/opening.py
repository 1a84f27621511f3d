"""Opens regular files, and nothing else; lists folders."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from ..errors import ScanError

# How regular files are opened. O_NONBLOCK, which Windows lacks: a FIFO that took the file's place must not hold the run
# up for ever. O_BINARY, which only Windows has: else it translates line ends.
READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
KINDS = {
    stat.S_IFDIR: "folder",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


@contextmanager
def open_file(path: Path) -> Iterator[FileIO]:
    """A regular file, open for reading. Raises ScanError if it is none, is empty, unreadable, or changes meanwhile."""
    try:
        _check_regular(os.stat(path))  # before it is opened: opening a device can have effects
        descriptor = os.open(path, READ)
        with FileIO(descriptor) as file:
            before = os.fstat(descriptor)
            _check_regular(before)
            if before.st_size == 0:
                raise ScanError("is empty (0 bytes)")
            yield file
            after = os.fstat(descriptor)
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                raise ScanError("changed while it was read")
    except OSError as error:
        raise ScanError(f"cannot be read: {error.strerror or error}") from error


def _check_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ScanError(f"is a {KINDS.get(stat.S_IFMT(status.st_mode), 'special file')}, not a file")


def listing(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder by name. They know whether they are folders: to ask for each takes minutes where a
    question to the file system takes a millisecond. Raises OSError.
    """
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda one: one.name)


def is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link into a folder that may not be entered
        return False
