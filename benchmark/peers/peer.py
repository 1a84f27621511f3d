"""What a peer is, and what all of them need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform


@dataclass(frozen=True)
class Networks:
    """The same networks in both forms, in rising priority, and where they run."""

    exported: list[Path]  # folders with model.onnx and card.json
    models: list[Path]  # nnU-Net v2 result folders
    device: str  # cpu or cuda


@dataclass(frozen=True)
class Peer:
    """How another program segments one scan: `commands` one after the other, then `labels` reads what it found."""

    settings: str
    commands: list[list[str]]
    labels: Callable[[], np.ndarray]


def turned(scan: Path, orientation: str | None, out: Path) -> None:
    """Write a scan turned to `orientation`, letters as nibabel's, which reads NIfTI only; a link where it lies so
    already, or for None, whatever its format is."""
    if orientation is None:
        out.symlink_to(scan.resolve())
        return
    image = nib.load(scan)
    turn = ornt_transform(io_orientation(image.affine), axcodes2ornt(tuple(orientation)))
    if np.array_equal(turn, [[0, 1], [1, 1], [2, 1]]):
        out.symlink_to(scan.resolve())
    else:
        nib.save(image.as_reoriented(turn), out)


def merged(outputs: list[Path], scan: Path) -> np.ndarray:
    """The label maps of a peer as one, on the axes of the scan's file: a later one wins where it is not 0."""
    own = nib.load(scan)
    labels: np.ndarray | None = None
    for path in outputs:
        image = nib.load(path)
        turn = ornt_transform(io_orientation(image.affine), io_orientation(own.affine))
        found = np.asarray(image.as_reoriented(turn).dataobj).astype(np.uint8)
        labels = found if labels is None else np.where(found > 0, found, labels)
    assert labels is not None
    return labels
