"""What libraries in C print about a file that they read."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import IO

IN_MEMORY = hasattr(os, "memfd_create")  # as on Linux, which also has names for open files


@contextmanager
def complaints() -> Iterator[IO[bytes]]:
    """Meanwhile this process's error stream is a file without a name: libraries in C complain there, some only there.

    Their texts are never passed on: they name no file, or hold its whole path.
    """
    try:
        kept = os.dup(2)
    except OSError:  # the process was started without an error stream
        kept = os.open(os.devnull, os.O_WRONLY)
    try:
        with scratch() as file:
            os.dup2(file.fileno(), 2)
            yield file
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def scratch() -> IO[bytes]:
    """A file without a name, open for writing and reading."""
    if sys.platform == "linux" and IN_MEMORY:
        return open(os.memfd_create("scratch"), "w+b", buffering=0)
    return TemporaryFile(buffering=0)
