"""What writers of label maps of all formats do: look at the labels, pack them, put the file in its place."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import UnwrittenError, shown
from ..scan import Scan
from .atomic import write_atomically, writing

LEVEL = 1  # of gzip: label maps shrink a hundredfold at any level
# Runs of one label are what there is to find: who looks for nothing else needs 3/4 of the time and 3/5 of the bytes.
STRATEGY = zlib.Z_RLE
ZLIB_WINDOW = 15  # zlib.h: bits of window
GZIP_WINDOW = 31  # and 16 for a gzip header, which then holds neither time nor name


@dataclass(frozen=True)
class Description:
    """What is said of a label map beside its voxels, by formats that have a place for it.

    names      value in the label map -> name, background left out
    weights    network -> sha256 of its card
    anonymous  no data of the patient and the study, but for the UIDs that the labels refer to
    measured   value -> what was measured of the label, as `quantities` has it
    """

    names: Mapping[int, str]
    weights: Mapping[str, str] = field(default_factory=dict)
    anonymous: bool = False
    measured: Mapping[str, dict[str, Any]] = field(default_factory=dict)


class Written(NamedTuple):
    """A label map that is in place: the file's digest, and what the file system could not promise about it."""

    sha256: str
    doubt: str | None


def write(
    path: Path,
    plain: bytes | Callable[[int], bytes],
    packed: bytes,
    labels: np.ndarray,
    scan: Scan,
    window: int = GZIP_WINDOW,
) -> Written:
    """Write a file that is the same for the same arguments, whole or not at all.

    zlib's answer depends on nothing else. isal takes 20 ms instead of 120 for 60 million voxels, but looks at the
    processor.

    plain   bytes that begin the file, or what makes them from the number of packed bytes that follow
    packed  bytes of the packed stream after them, which the labels follow
    labels  (z, y, x) uint8 on the scan's grid, else ValueError
    window  of the packed stream: GZIP_WINDOW or ZLIB_WINDOW
    Raises UnwrittenError if the file cannot be written.
    """
    if not isinstance(labels, np.ndarray):
        raise ValueError(f"labels are not an array but a {type(labels).__name__}")
    if labels.dtype != np.uint8 or labels.shape != scan.grid.shape:
        raise ValueError(f"labels {labels.dtype} {labels.shape} are not uint8 {scan.grid.shape}")
    with writing(shown(path.name), UnwrittenError):
        parts = list(_packed(packed, labels, window))
        head = plain if isinstance(plain, bytes) else plain(sum(map(len, parts)))
        content = b"".join([head, *parts])
        doubt = write_atomically(path, content)
    return Written(hashlib.sha256(content).hexdigest(), doubt)


def _packed(head: bytes, labels: np.ndarray, window: int) -> Iterable[bytes]:
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, window, strategy=STRATEGY)
    yield packer.compress(head)
    for plane in labels:
        yield packer.compress(np.ascontiguousarray(plane).data)
    yield packer.flush()


def digits(value: float) -> str:
    """The shortest text that reads back as the same number."""
    return repr(float(value)).removesuffix(".0")
