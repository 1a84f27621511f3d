"""Files that are either whole or not there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

MOST_NAME = 200  # bytes of the final name in a part's name: file systems allow 255, and the rest of it takes 20


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` under a hidden name in the same folder, then rename it to `path`. Raises OSError.

    Killed at any moment, this leaves the old file or the new one, and at worst a hidden part of this
    process, which `remove_parts` takes away.
    """
    part = path.with_name(f"{_prefix(path)}{os.getpid()}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with open(descriptor, "wb", buffering=0) as file:
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(descriptor)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)  # or a power cut could undo the rename
    finally:
        os.close(folder)


def remove_parts(paths: Iterable[Path]) -> None:
    """Remove the parts of `paths` that killed processes left. Others in the folder stay: they may be alive."""
    by_folder: dict[Path, set[str]] = {}
    for path in paths:
        by_folder.setdefault(path.parent, set()).add(_prefix(path))
    for folder, prefixes in by_folder.items():
        for entry in os.listdir(folder):
            found = re.fullmatch(r"(\..*\.)\d+\.part", entry, re.DOTALL)
            if found and found[1] in prefixes:
                (folder / entry).unlink(missing_ok=True)


def _prefix(path: Path) -> str:
    return f".{os.fsdecode(os.fsencode(path.name)[:MOST_NAME])}."
