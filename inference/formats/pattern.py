"""Scans in folders of their own, which a pattern finds, and what they are called."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePath

from ..names import case_of, stem
from ..options import given_path
from .entries import NO_SCANS, is_ours
from .opening import is_folder, is_same, listing
from .recorded import wrote

WILD = "*?["
DEEP = "**"  # folders of any depth, none included


def given_pattern(text: str) -> str:
    """A pattern of a command line, for argparse."""
    path = given_path(text)
    parts = path.parts
    if not parts or path.anchor or ".." in parts or any(DEEP in part and part != DEEP for part in parts):
        from argparse import ArgumentTypeError  # whoever calls this has imported it

        raise ArgumentTypeError(f"{text!r} is not the pattern of a path below the scans' folder, such as '*/ct.nii.gz'")
    return text


def scans_like(pattern: str, folder: Path, outputs: Path) -> tuple[dict[Path, str], list[Path]]:
    """Scan -> name of its case, of all scans below a folder whose paths from there are like a pattern of shells; and
    the folders on the way that cannot be opened.

    Called after those parts of the path that the pattern does not name: of "*/ct.nii.gz" each is called after its
    folder. What is hidden, what lies in OUTPUTS and what this program wrote is passed over.
    """
    parts = PurePath(pattern).parts
    named = {part for part in parts if not any(sign in part for sign in WILD)}
    scans: dict[Path, str] = {}
    closed: set[Path] = set()
    for path in sorted(set(_like(parts, folder, outputs, closed))):
        if not stem(path.name) or path.name.lower().endswith(NO_SCANS) or wrote(path):
            continue
        below = path.relative_to(folder).parts
        called = [*below[:-1], case_of(path.name)]
        scans[path] = "_".join(one for one, part in zip(called, below, strict=True) if part not in named) or called[-1]
    return scans, sorted(closed)


def _like(parts: Sequence[str], folder: Path, outputs: Path, closed: set[Path]) -> Iterator[Path]:
    """Files, broken links too, of which some may come twice. pathlib's own glob passes over folders that it cannot
    open and, in Python 3.11, broken links."""
    first, *rest = parts
    try:
        entries = [one for one in listing(folder) if not one.name.startswith(".")]
    except OSError:
        closed.add(folder)
        return
    if first == DEEP and rest:
        yield from _like(rest, folder, outputs, closed)
    for one in entries:
        path = folder / one.name
        if not is_folder(one):
            if not rest and fnmatchcase(one.name, first):
                yield path
        elif is_ours(path) or is_same(outputs, path):
            continue
        elif first == DEEP and not one.is_symlink():
            yield from _like(parts, path, outputs, closed)
        elif first != DEEP and rest and fnmatchcase(one.name, first):
            yield from _like(rest, path, outputs, closed)
