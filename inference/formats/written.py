"""What writers of label maps of all formats do: look at the labels, pack them, put the file in its place."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import UnwrittenError, shown
from ..scan import Scan
from .atomic import write_atomically

LEVEL = 1  # of gzip: label maps shrink a hundredfold at any level
# Runs of one label are what there is to find: who looks for nothing else needs 3/4 of the time and 3/5 of the bytes.
STRATEGY = zlib.Z_RLE
GZIP_WINDOW = 31  # zlib.h: 15 bits of window, and 16 for a gzip header, which then holds neither time nor name


@dataclass(frozen=True)
class Description:
    """What is said of a label map beside its voxels, by formats that have a place for it.

    names      value in the label map -> name, background left out
    weights    network -> sha256 of its card
    anonymous  no data of the patient and the study, but for the UIDs that the labels refer to
    """

    names: Mapping[int, str]
    weights: Mapping[str, str] = field(default_factory=dict)
    anonymous: bool = False


class Written(NamedTuple):
    """A label map that is in place: the file's digest, and what the file system could not promise about it."""

    sha256: str
    doubt: str | None


def write(path: Path, plain: bytes, packed: bytes, labels: np.ndarray, scan: Scan) -> Written:
    """Write a file that is the same for the same arguments, whole or not at all.

    zlib's answer depends on nothing else. isal takes 20 ms instead of 120 for 60 million voxels, but looks at the
    processor.

    plain   bytes that begin the file, packed: bytes of the gzip stream after them, which the labels follow
    labels  (z, y, x) uint8 on the scan's grid, else ValueError
    Raises UnwrittenError if the file cannot be written.
    """
    if labels.dtype != np.uint8 or labels.shape != scan.grid.shape:
        raise ValueError(f"labels {labels.dtype} {labels.shape} are not uint8 {scan.grid.shape}")
    try:
        content = b"".join([plain, *_packed(packed, labels)])
        doubt = write_atomically(path, content)
    except OSError as error:
        raise UnwrittenError(f"{shown(path.name)} cannot be written: {error.strerror or error}") from error
    except MemoryError as error:
        raise UnwrittenError(f"{shown(path.name)} cannot be written: not enough memory") from error
    return Written(hashlib.sha256(content).hexdigest(), doubt)


def _packed(head: bytes, labels: np.ndarray) -> Iterable[bytes]:
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, GZIP_WINDOW, strategy=STRATEGY)
    yield packer.compress(head)
    for plane in labels:
        yield packer.compress(np.ascontiguousarray(plane).data)
    yield packer.flush()
