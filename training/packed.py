"""Scans with their labels, packed small for the machine that trains: made by training.pack, read by training.train."""

from __future__ import annotations

import io
import json
import lzma
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

ENDING = ".xz"
SPEC = "spec.json"
# HU are kept from LOW to HIGH in steps of STEP, as one byte: the network sees -160 to 240. At LOW all is air.
LOW, HIGH, STEP = -200.0, 300.0, 4.0
AIR = -1000.0


def no_bends() -> np.ndarray:
    return np.zeros((0, 3, 2, 2, 2), np.int8)


@dataclass(frozen=True)
class Packed:
    """A scan and its labels, LPS."""

    name: str
    codes: np.ndarray  # (z, y, x) uint8, HU in steps of STEP above LOW
    label: np.ndarray  # (z, y, x) uint8, FLARE codes; labels.IGNORE where nobody can tell
    spacing: tuple[float, float, float]  # mm (z, y, x)
    # (n, 3, z, y, x) int8, mm: ways to n other patients' shapes, see training.shapes
    bends: np.ndarray = field(default_factory=no_bends)


@dataclass(frozen=True)
class Spec:
    """Which packed scans are trained on and how often, by name."""

    shares: dict[str, float]  # until the norms are frozen, relative to the others
    late: dict[str, float]  # after that
    validation: list[str]  # scored and never trained on


def write_packed(
    path: Path,
    hu: np.ndarray,
    label: np.ndarray,
    spacing: Sequence[float],
    coarse: int = 1,
    bends: np.ndarray | None = None,
) -> None:
    """Pack `hu` and `label` (z, y, x), LPS, and Packed.bends; `coarse` times the STEP makes a smaller file."""
    codes = np.round((hu - LOW) / (STEP * coarse)) * coarse
    content = io.BytesIO()
    np.savez(
        content,
        codes=np.clip(codes, 0, (HIGH - LOW) / STEP).astype(np.uint8),
        label=label.astype(np.uint8),
        spacing=np.array(spacing, np.float64),
        bends=no_bends() if bends is None else bends,
    )
    path.write_bytes(lzma.compress(content.getvalue(), preset=6))


def read_packed(path: Path) -> Packed:
    """A packed scan, named as its file. Raises ValueError, naming it, if it is none."""
    try:
        with np.load(io.BytesIO(lzma.decompress(path.read_bytes()))) as content:
            z, y, x = content["spacing"].tolist()
            return Packed(
                path.name.removesuffix(ENDING), content["codes"], content["label"], (z, y, x), content["bends"]
            )
    except (OSError, lzma.LZMAError, ValueError, KeyError, BadZipFile) as error:
        raise ValueError(f"{path} cannot be read as a packed scan: {error}") from error


def write_spec(folder: Path, spec: Spec) -> None:
    (folder / SPEC).write_text(json.dumps(asdict(spec), indent=1) + "\n")


def read_spec(path: Path) -> Spec:
    """Raises ValueError, naming the file, if it is not such a list or would train on what it validates on."""
    try:
        spec = Spec(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path} cannot be read as a list of packed scans: {error}") from error
    if spec.shares.keys() != spec.late.keys():
        raise ValueError(f"{path} has a share for some scans before the freeze or after it only")
    if both := spec.shares.keys() & set(spec.validation):
        raise ValueError(f"{path} has {sorted(both)[0]} among the scans to train on and among those to validate on")
    return spec
