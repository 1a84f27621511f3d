"""Opens regular files, and nothing else; lists folders."""

from __future__ import annotations

import errno
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
def open_regular(path: Path) -> Iterator[FileIO]:
    """A regular file, open for reading. Raises OSError, whose text goes on from the file's name."""
    try:
        kind = _kind(os.stat(path))  # before it is opened: opening a device can have effects
        if kind is None:
            with FileIO(os.open(path, READ)) as file:
                kind = _kind(os.fstat(file.fileno()))
                if kind is None:
                    yield file
    except OSError as error:
        why = error.strerror or error
        if error.errno == errno.ENOENT and os.path.islink(path):
            why = "it is a link to a file that is not there"
        raise OSError(error.errno, f"cannot be read: {why}") from error
    if kind:
        raise OSError(errno.EINVAL, f"is a {kind}, not a file")


@contextmanager
def open_file(path: Path) -> Iterator[FileIO]:
    """The same of a scan. Raises ScanError, also if it is empty, or changes meanwhile."""
    try:
        with open_regular(path) as file:
            before = os.fstat(file.fileno())
            if before.st_size == 0:
                raise ScanError("is empty (0 bytes)")
            yield file
            after = os.fstat(file.fileno())
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                raise ScanError("changed while it was read")
    except OSError as error:
        raise ScanError(error.strerror) from error


def _kind(status: os.stat_result) -> str | None:
    """What is no regular file."""
    kind = stat.S_IFMT(status.st_mode)
    return None if kind == stat.S_IFREG else KINDS.get(kind, "special file")


def with_name(path: Path) -> Path:
    """The same path, of which messages can tell a name: "." and ".." have none."""
    return path if path.name not in ("", "..") else path.resolve()


def is_same(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file or folder that is there. Raises nothing."""
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


def listing(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder by name. They know whether they are folders: to ask for each takes minutes where a
    question to the file system takes a millisecond. Raises OSError.
    """
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda one: one.name)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one that may be entered. Raises nothing."""
    try:
        return entry.is_dir()
    except OSError:  # a link into a folder that may not be entered
        return False
