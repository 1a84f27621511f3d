"""Which label maps a run will write, said in OUTPUTS, so that two runs never write the same ones at once.

Each run leaves a hidden file there while it lasts, with the names of its label maps, and holds a lock on it. The system
gives the lock up however the run ends, on this machine or another, so that no clock and no process number is compared:
a file without a lock is that of a run which was killed, and is removed by the next one.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
import time
from collections.abc import Collection
from contextlib import suppress
from importlib import import_module
from io import FileIO
from pathlib import Path
from typing import Any

from ..errors import OutputError, shown

try:
    fcntl: Any = import_module("fcntl")
except ImportError:  # Windows
    fcntl = None

HELD = (errno.EACCES, errno.EAGAIN)  # by another process
ASKS, HAS = b"?", b"!"  # the first byte of a claim: whether its run has begun
APART = b"\0"


class Claim:
    """The label maps of a run, from `take` to `release`.

    alone  no other run writes to the folder: True where that is known
    """

    def __init__(self, outputs: Path) -> None:
        self.alone = fcntl is None  # Windows removes no file that another run has open
        self._folder = outputs
        self._path = self._new()
        self._file: FileIO | None = None

    def take(self, names: Collection[str]) -> str | None:
        """Claim the label maps of these names.

        Returns a sentence if the file system has no locks, so that nothing is claimed. Raises OutputError if a run that
        lasts has claimed one of them, or if OUTPUTS cannot be written.
        """
        if fcntl is None or not names:
            return None
        wanted = {os.fsencode(name) for name in names}
        try:
            while True:
                if doubt := self._ask(wanted):
                    return doubt
                states = [self._state(path, wanted) for path in self._others()]
                if ASKS not in states:
                    break
                # Both began in this moment and have seen each other: one will be first now.
                self.release()
                time.sleep(secrets.randbelow(500) / 1000)
            self._begun()
            self.alone = not self._others()
        except OSError as error:
            self.release()
            raise OutputError(f"{shown(self._folder)} cannot be written: {error.strerror}") from error
        except OutputError:
            self.release()
            raise
        return None

    def release(self) -> None:
        """Does nothing if nothing is claimed."""
        if self._file:
            self._file.close()  # first: NFS renames an open file instead of removing it
            self._file = None
            with suppress(OSError):
                self._path.unlink()

    def _ask(self, wanted: set[bytes]) -> str | None:
        who = f"process {os.getpid()} on {socket.gethostname()}".encode()
        while self._file is None:
            self._path = self._new()
            self._file = open(self._path, "x+b", buffering=0)  # noqa: SIM115  # closed by `release`
            # Whole before it is locked, since whoever finds it locked reads it.
            self._file.write(APART.join([ASKS, who, *sorted(wanted)]))
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX)
            except OSError as error:
                self.release()
                why = error.strerror
                return (
                    f"whether another run writes the same label maps is not known: no file can be locked here ({why})"
                )
            if not self._path.exists():  # another run took it for that of one which was killed
                self.release()
        return None

    def _new(self) -> Path:
        """A name for each time of asking: whoever removes what was left behind must not meet what came after it."""
        return self._folder / f".viscera.{secrets.token_hex(8)}.run"

    def _begun(self) -> None:
        assert self._file
        self._file.seek(0)
        self._file.write(HAS)

    def _others(self) -> list[Path]:
        names = (name for name in os.listdir(self._folder) if name.startswith(".viscera.") and name.endswith(".run"))
        return [self._folder / name for name in sorted(names) if name != self._path.name]

    def _state(self, path: Path, wanted: set[bytes]) -> bytes | None:
        """ASKS if another run asks for some of the same label maps, None if none has or wants them. Raises OutputError
        if one has them."""
        with suppress(FileNotFoundError), open(path, "rb") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in HELD:
                    raise
                state, who, *names = file.read().split(APART)
                same = sorted(wanted.intersection(names))
                if not same or state == ASKS:
                    return state if same else None
                raise OutputError(
                    f"{shown(path.parent)} is being written by another run ({who.decode(errors='replace')}), and "
                    f"{len(same)} of its label maps are the same, such as {shown(os.fsdecode(same[0]))}: wait for it, "
                    f"or choose another OUTPUTS. If its machine is gone, remove {path.name} there"
                ) from None
            with suppress(OSError):  # another user's
                path.unlink()
        return None
