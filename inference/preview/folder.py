"""The preview of a case: the folder X.preview with a picture, a thumbnail and a volume for the page's viewer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import UnwrittenError, shown
from ..formats.atomic import new_folder, write_atomically, writing
from ..formats.recorded import digest
from ..formats.written import Written
from ..labels import structures
from ..names import PICTURE, THUMBNAIL, VOLUME
from ..scan import Grid
from . import png
from .lying import lie
from .picture import picture, small_picture
from .volume import script

SOFT_TISSUE = (-160.0, 240.0)  # HU, the usual window of an abdomen
PERCENTILES = (1, 99)  # of another image


def write(
    path: Path, voxels: np.ndarray, is_ct: bool, labels: np.ndarray, grid: Grid, names: Mapping[int, str]
) -> Written:
    """Write the folder, whole or not at all; the same for the same arguments.

    voxels  (z, y, x), HU if it is CT
    labels  (z, y, x) uint8 on the grid
    names   value -> name of the labels that were found
    Raises UnwrittenError.
    """
    found = structures(names)
    colours = {one.value: one.colour for one in found}
    window = SOFT_TISSUE if is_ct else _window(voxels)
    lying = lie(voxels, labels, grid)
    files = {
        PICTURE: png.encode(picture(lying, colours, window)),
        THUMBNAIL: png.encode(small_picture(lying, colours, window)),
        VOLUME: script(voxels, labels, grid, found, window, is_ct),
    }
    with writing(shown(path.name), UnwrittenError), new_folder(path, files) as part:
        doubts = [write_atomically(part / name, content) for name, content in files.items()]
        sha256 = digest(part)
    return Written(sha256, next(filter(None, doubts), None))


def _window(voxels: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(voxels[::4, ::4, ::4], PERCENTILES)
    return float(low), float(high)
