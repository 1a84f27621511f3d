"""What the program says to its user, on streams that may be closed, full, unread or too narrow for a name."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO, cast


def say(text: str) -> None:
    print(text, flush=True)


def say_warning(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)


def say_error(text: str) -> None:
    print(f"error: {text}", file=sys.stderr, flush=True)


class Forgiving:
    """A text stream in front of another, or of none, that never fails: what cannot be written is dropped."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        with suppress(AttributeError, OSError, ValueError):  # there is none; it is broken; it is closed
            cast(TextIO, self._stream).write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        with suppress(AttributeError, OSError, ValueError):
            cast(TextIO, self._stream).flush()

    def isatty(self) -> bool:
        with suppress(AttributeError, OSError, ValueError):
            return cast(TextIO, self._stream).isatty()
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def forgiving_streams() -> Iterator[None]:
    """Let nothing that is printed fail, here and in forks: a log that is lost must not cost a case."""
    _open_missing()
    out, err = cast(TextIO, Forgiving(sys.stdout)), cast(TextIO, Forgiving(sys.stderr))
    with redirect_stdout(out), redirect_stderr(err):
        yield


def _open_missing() -> None:
    """Put /dev/null where descriptor 0, 1 or 2 is closed, as after `>&-`.

    The next file opened would take that number, and whatever a library writes to stderr would end up in a label map.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def drop_unsaid() -> None:
    """Flush what can be flushed. Python would try the rest again as it ends, complain, and turn exit code 0 to 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, ValueError):  # there is none, or it is closed
            pass
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
