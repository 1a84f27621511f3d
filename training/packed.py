"""Scans with their labels, packed small for the machine that trains: made by training.pack, read by training.train."""

from __future__ import annotations

import bz2
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from inference.formats.atomic import write_atomically

ENDING = ".bz2"  # smaller than LZMA's files, packed fourteen times as fast
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


def as_packed(name: str, hu: np.ndarray, label: np.ndarray, spacing: Sequence[float], coarse: int = 1) -> Packed:
    """`hu` and `label` (z, y, x), LPS, without bends; `coarse` times the STEP makes a smaller file."""
    codes = np.round((hu - LOW) / (STEP * coarse)) * coarse
    z, y, x = (float(step) for step in spacing)
    return Packed(name, np.clip(codes, 0, (HIGH - LOW) / STEP).astype(np.uint8), label.astype(np.uint8), (z, y, x))


def packed_file(folder: Path, name: str) -> Path:
    return folder / f"{name}{ENDING}"


def write_packed(folder: Path, packed: Packed) -> None:
    """Write it under its name, whole or not at all."""
    content = io.BytesIO()
    arrays = {key: value for key, value in vars(packed).items() if key != "name"}
    np.savez(content, **arrays)
    write_atomically(packed_file(folder, packed.name), bz2.compress(content.getvalue()))


def read_packed(path: Path) -> Packed:
    """A packed scan, named as its file. Raises ValueError, naming it, if it is none."""
    try:
        with np.load(io.BytesIO(bz2.decompress(path.read_bytes()))) as content:
            z, y, x = content["spacing"].tolist()
            return Packed(
                path.name.removesuffix(ENDING), content["codes"], content["label"], (z, y, x), content["bends"]
            )
    except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
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
