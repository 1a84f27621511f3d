"""Files and folders that are either whole or not there."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import OutputError, VisceraError

MOST_NAME = 200  # bytes of the final name in a part's name: file systems allow 255, and the rest of it takes 24
# O_NOFOLLOW, which Windows lacks: no link that somebody has put there. O_BINARY, which only Windows has: else it
# translates line ends.
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)  # as CIFS and some of FUSE answer


@contextmanager
def writing(what: str, kind: type[VisceraError] = OutputError) -> Iterator[None]:
    """Whatever keeps a file from being written becomes one error, in a sentence that begins with `what`."""
    try:
        yield
    except OSError as error:
        raise kind(f"{what} cannot be written: {error.strerror or error}") from error
    except MemoryError as error:
        raise kind(f"{what} cannot be written: not enough memory") from error


def write_atomically(path: Path, data: bytes | Iterable[bytes | memoryview]) -> str | None:
    """Write `data`, or its parts, under a hidden name in the same folder, then rename it to `path`. Raises OSError.

    Killed at any moment, this leaves the old file or the new one, and at worst a hidden part of this
    process, which `remove_parts` takes away. Returns None, or a sentence if the file is in place but the file system
    would not promise that it survives a power cut.
    """
    doubt: OSError | None = None
    hidden = _hidden(path)
    descriptor = os.open(hidden, NEW, 0o666)
    try:
        with open(descriptor, "wb", buffering=0) as file:
            for part in [data] if isinstance(data, bytes) else data:
                rest = memoryview(part)
                while rest:
                    rest = rest[file.write(rest) :]
            doubt = _sync(descriptor)
            if doubt and doubt.errno not in CANNOT_SYNC:
                raise doubt
        hidden.replace(path)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise
    # From here on the file is there under its name: an error is worth a warning, and the data is not lost.
    if hasattr(os, "O_DIRECTORY"):  # Windows opens no folders
        try:
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:  # one may write into a folder that one may not read
            doubt = doubt or error
        else:
            doubt = _sync(folder) or doubt  # or a power cut could undo the rename
            os.close(folder)
    if doubt is None:
        return None
    return f"files are written, but may not survive a power cut: the file system cannot sync them ({doubt.strerror})"


@contextmanager
def new_folder(path: Path, files: Collection[str]) -> Iterator[Path]:
    """A folder to put files in, under a hidden name; afterwards it is `path`. Raises OSError.

    One that is there is replaced if it holds nothing but files of these names. After an error there is no new one.
    """
    hidden = _hidden(path)
    hidden.mkdir()
    try:
        yield hidden
        if os.path.isdir(path) and not os.path.islink(path) and set(os.listdir(path)) <= set(files):
            remove(path)
        hidden.rename(path)
    except BaseException:
        remove(hidden)
        raise


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if it is there. Raises OSError."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def discard(paths: Iterable[Path]) -> None:
    """Remove what is there of some files and folders, as far as that is allowed."""
    for path in paths:
        with suppress(OSError):
            remove(path)


def write_json(path: Path, document: Any) -> None:
    """Write JSON as `write_atomically` does. Raises OSError."""
    write_atomically(path, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())


def _sync(descriptor: int) -> OSError | None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        return error
    return None


def remove_parts(paths: Iterable[Path]) -> None:
    """Remove the parts of `paths` that killed processes left, as far as that is allowed.

    Parts of other files stay: their writers may be alive.
    """
    paths = list(paths)
    for folder in {os.path.dirname(path) for path in paths}:
        with suppress(OSError):
            matches = (re.fullmatch(r"(\..*\.)\d+\.part", entry, re.DOTALL) for entry in os.listdir(folder or "."))
            if found := [match for match in matches if match]:  # seldom, and paths may be very many
                prefixes = {_prefix(path) for path in paths if os.path.dirname(path) == folder}
                for match in found:
                    if match[1] in prefixes:
                        remove(Path(folder, match[0]))


def _hidden(path: Path) -> Path:
    """The name of a part, another at each call: in containers that share a folder every process may be number 1."""
    return path.with_name(f"{_prefix(path)}{os.getpid()}{int.from_bytes(os.urandom(4)):010}.part")


def _prefix(path: Path) -> str:
    name = path.name
    while len(os.fsencode(name)) > MOST_NAME:
        name = name[:-1]
    return f".{name}."
