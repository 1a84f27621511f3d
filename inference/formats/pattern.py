"""Scans in folders of their own, which a pattern finds, and what they are called."""

from __future__ import annotations

import os
from pathlib import Path, PurePath

from ..names import case_of, stem
from .opening import listing

WILD = "*?["


def scans_like(pattern: str, folder: Path, outputs: Path) -> dict[Path, str]:
    """Scan -> name of its case, of all scans below a folder whose paths from there are like a pattern of shells.

    Called after those parts of the path that the pattern does not name: of "*/ct.nii.gz" each is called after its
    folder. What is hidden, and what lies in OUTPUTS, is passed over.
    """
    named = {part for part in PurePath(pattern).parts if not any(sign in part for sign in WILD)}
    inside = os.path.relpath(os.path.realpath(outputs), os.path.realpath(folder))
    scans = {}
    for path in sorted(folder.glob(pattern)):
        below = path.relative_to(folder)
        ours = inside != os.curdir and below.is_relative_to(inside)
        if not stem(path.name) or ours or any(part.startswith(".") for part in below.parts) or path.is_dir():
            continue
        parts = [*below.parts[:-1], case_of(path.name)]
        scans[path] = "_".join(part for part, whole in zip(parts, below.parts, strict=True) if whole not in named)
        scans[path] = scans[path] or parts[-1]
    return scans


def closed_folders(pattern: str, folder: Path) -> list[Path]:
    """Those that a pattern leads into and that cannot be opened, which `glob` passes over in silence."""
    parts = PurePath(pattern).parts
    found = {one for depth in range(1, len(parts)) for one in folder.glob(os.path.join(*parts[:depth]))}
    closed = []
    for one in sorted(found):
        try:
            if one.is_dir():
                listing(one)
        except OSError:
            closed.append(one)
    return closed
