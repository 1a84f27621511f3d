"""What must not be written over: files of the inputs, and whatever this program did not write."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import OutputError, UnwrittenError, shown
from ..measurements import is_table
from ..names import FOLDERS, format_of, record_file, siblings
from .atomic import remove, remove_parts, write_atomically
from .recorded import are_records, describes, digest, read_head, read_json, read_record, wrote

Identity = tuple[int, int]  # device and inode: the same however a path is spelled, linked or mounted
PROBES = 100  # runs that may begin in one folder within a few milliseconds


def identities(path: Path) -> set[Identity]:
    """Of a file, and of the link to it where `path` is one; none where nothing is there."""
    found = set()
    with suppress(OSError):
        status = os.lstat(path)
        found.add((status.st_dev, status.st_ino))
        if stat.S_ISLNK(status.st_mode):
            status = os.stat(path)
            found.add((status.st_dev, status.st_ino))
    return found


def input_files(inputs: Path, weights: Path, folders: Iterable[Path] = ()) -> set[Identity]:
    """Every file of the inputs folder, or of the folder of the scan, of other folders of scans, and of the networks."""
    found = identities(inputs)
    for folder in (inputs if os.path.isdir(inputs) else inputs.parent, *folders, *weights.glob("*")):
        with suppress(OSError):  # no folder, or one that may not be listed
            for entry in os.listdir(folder):
                found |= identities(folder / entry)
    return found


def check_labels(labels: Path, inputs: Callable[[], set[Identity]]) -> None:
    """Raises OutputError if labels would take the place of a file of the inputs; those of an earlier run may go.

    inputs  gives the input_files, which take a question to the file system each: asked for if there are labels at all
    """
    if (found := identities(labels)) and found & inputs() and not wrote(labels):
        raise OutputError(
            f"{shown(labels)} is a file of the inputs, and a label map would take its place: choose another OUTPUTS"
        )


def check_records(path: Path, others: Iterable[Path], inputs: set[Identity]) -> None:
    """Raises OutputError if the file of --json would take the place of one that is not such a file.

    others  what else the run will write
    """
    if _place(path) in [_place(one) for one in others if one.parent.exists()]:
        why: str | None = "has the name of another output of this run"
    elif os.path.islink(path):
        why = "is a link, and a file would take its place"  # of /dev/stdout, too
    elif _is_empty(path) and not identities(path) & inputs:
        why = None  # as mktemp leaves it
    else:
        why = in_the_way(path, are_records)
    if why:
        raise OutputError(f"{shown(path)} {why}: choose another file for --json")


def in_the_way(path: Path, is_ours: Callable[[Any], bool]) -> str | None:
    """Why JSON must not be written to `path`; None if nothing is there, or JSON that this program wrote."""
    return _in_the_way(path, lambda: is_ours(read_json(path)))


def table_in_the_way(path: Path) -> str | None:
    """Why measurements must not be written to `path`; None if nothing is there, or a table of such."""
    return _in_the_way(path, lambda: is_table(read_head(path)))


def page_in_the_way(path: Path, head: bytes) -> str | None:
    """Why a page that begins with `head` must not be written to `path`; None if nothing is there, or such a page."""
    return _in_the_way(path, lambda: read_head(path).startswith(head))


def _in_the_way(path: Path, is_ours: Callable[[], bool]) -> str | None:
    if not os.path.lexists(path):
        return None
    try:
        ours = is_ours()
    except OSError as error:
        return error.strerror
    except (ValueError, RecursionError):  # not JSON, or brackets nested too deeply
        ours = False
    return None if ours else "exists already and was not written by this program"


def make_writable(folder: Path) -> str | None:
    """Create the folder if need be and prove that a file can be made in it. Raises OutputError.

    Returns what the file system will not promise about files there, as `write_atomically` does.
    """
    try:
        with suppress(FileExistsError):  # a file, or a link to nothing
            folder.mkdir(parents=True, exist_ok=True)
        if not os.path.isdir(folder):
            raise OutputError(f"{shown(folder)} exists already and is not a folder")
        return _probe(folder / ".viscera.probe")
    except OSError as error:
        hint = '; with docker, --user "$(id -u):$(id -g)" runs as you' if isinstance(error, PermissionError) else ""
        user = f" by user {os.getuid()}" if hasattr(os, "getuid") else ""
        raise OutputError(f"{shown(folder)} cannot be written{user}: {error.strerror}{hint}") from error


def _probe(path: Path) -> str | None:
    """Write a file and remove it, with whatever a killed run left of its own. Raises OSError.

    All runs use one name, so that the next one tidies up; one that begins in the same moment may take this one's part
    away, which is then written again.
    """
    remove_parts([path])
    for again in reversed(range(PROBES)):
        try:
            doubt = write_atomically(path, b"")
            break
        except FileNotFoundError:
            if not again:
                raise
    path.unlink(missing_ok=True)
    return doubt


def make_room(outputs: Sequence[Path]) -> dict[Path, Path]:
    """Make the folder of the labels of one case, and take away what lies where they will be written, so that a failed
    case leaves none of an earlier run.

    A label map that is just as this program wrote it is removed, in whatever format, with its probabilities and its
    preview: its labels are the earlier run's.
    Anything else may be somebody's work: it is renamed. Returns the new paths of what was renamed, by their old ones.
    Raises UnwrittenError.
    """
    renamed: dict[Path, Path] = {}
    file = outputs[0]
    try:
        for file in outputs:
            if os.path.isdir(file) and not os.path.islink(file) and format_of(file) not in FOLDERS:
                raise UnwrittenError(f"{shown(file.name)} cannot be written: a folder has that name")
        outputs[0].parent.mkdir(parents=True, exist_ok=True)
        record = read_record(record_file(outputs[0]))
        if record is not None:
            ours = [file for file in siblings(outputs[0]) if describes(record, file)]
            record_file(outputs[0]).unlink()  # it describes labels that go
            for file in ours:
                remove(file)
        for file in outputs:
            if os.path.lexists(file):
                renamed[file] = file.rename(_free(file))
    except OSError as error:
        raise UnwrittenError(f"{shown(file.name)} cannot be written: {error.strerror}") from error
    return renamed


def forget_copy(before: Path, sha256: str) -> bool:
    """Remove what `make_room` renamed if it holds the very bytes that were written again; whether it stays."""
    with suppress(OSError):
        if digest(before) == sha256:
            remove(before)
            return False
    return True


def _free(labels: Path) -> Path:
    number = 1
    while True:
        path = labels.with_name(labels.name + (f".{number}" if number > 1 else "") + ".before")
        if not os.path.lexists(path):
            return path
        number += 1


def _place(path: Path) -> tuple[Identity, str]:
    """The same for every spelling of a path, whether a file is there or not."""
    status = os.stat(path.parent)
    return (status.st_dev, status.st_ino), path.name


def _is_empty(path: Path) -> bool:
    return os.path.isfile(path) and os.path.getsize(path) == 0
