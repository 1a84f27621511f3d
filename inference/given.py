"""What the Python API is given, as a scan: arguments of the right kind, and voxels that can be CT."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from typing import Any

import numpy as np

from .errors import ScanError
from .formats.hounsfield import as_they_are, checked, real_numbers
from .scan import Grid, Scan, Spacing, check_axes, check_extent

MATRIX = 256  # pixels that a scanner's planes have along a side at least


def scan_of(voxels: Any, spacing: Any = None, orientation: Any = None, affine: Any = None, channels: int = 1) -> Scan:
    """A scan of an array (z, y, x), or (c, z, y, x) of several channels; nothing is checked but the kind of the
    arguments.

    spacing, orientation  three lengths (z, y, x) in mm, and three letters; or instead
    affine                (4, 4) from voxel index (x, y, z) to mm, RAS
    Raises ValueError.
    """
    array = _array(voxels, channels)
    each = (array,) if channels == 1 else tuple(array)
    if affine is None:
        if spacing is None and orientation is None:
            raise ValueError("spacing (z, y, x) in mm and orientation are missing, or affine instead")
        if not isinstance(orientation, str):
            raise ValueError(f'orientation {orientation!r} is not a string of three letters, such as "LPS"')
        return Scan(each, Grid.of(array.shape[-3:], _three_lengths(spacing), orientation))
    if spacing is not None or orientation is not None:
        raise ValueError("an affine holds the spacing and the orientation: give either it or these two")
    z, y, x = array.shape[-3:]
    return Scan(each, Grid((z, y, x), _affine(affine)))


def checked_scan(scan: Scan, accept: bool, ct: Sequence[bool], abdominal: bool = True) -> Scan:
    """A scan that can be segmented, with what is odd about it. Raises ScanError where it is no CT in HU.

    accept  voxels that cannot be HU are a warning, not an error
    ct      for each channel whether its voxels are HU; others are taken as they are
    abdominal  whether what is no volume of an abdomen is refused, as of `Predictor.abdominal`
    """
    if len(scan.channels) != len(ct):
        raise ScanError(f"the scan has {len(scan.channels)} channels, and the networks take {len(ct)}")
    grid = scan.grid
    try:
        warnings = [*check_extent(grid.shape, grid.spacing, abdominal), *check_axes(grid)]
    except ScanError as error:
        raise ScanError(f"the array {error}; spacing is (z, y, x) in mm") from error
    if looks_turned(grid.shape, grid.spacing, grid.orientation):
        z, y, x = grid.spacing
        warnings.append(
            f"array {grid.shape} or spacing ({z:g}, {y:g}, {x:g}) seems to be (x, y, z) instead of (z, y, x)"
        )
    channels = []
    for number, (voxels, hu) in enumerate(zip(scan.channels, ct, strict=True)):
        name = "" if len(ct) == 1 else f"channel {number}: "
        try:
            array = real_numbers(voxels)
            array, odd = checked(array, accept) if hu else as_they_are(array)
        except ScanError as error:
            raise ScanError(f"{name}the array {error}") from error
        channels.append(array)
        warnings += [f"{name}{text}" for text in odd]
    return replace(scan, channels=tuple(channels), warnings=(*scan.warnings, *warnings), checked=True)


def looks_turned(shape: Sequence[int], spacing: Sequence[float], orientation: str) -> bool:
    """Whether a scanner's planes, which are square and so are their pixels, do not lie across the patient's length."""
    along = [axis for axis in range(3) if shape[axis - 2] == shape[axis - 1] >= MATRIX]
    apart = [axis for axis in range(3) if spacing[axis - 2] == spacing[axis - 1]]
    if len(along) != 1 or len(apart) != 1:
        return False
    return along != apart or orientation[2 - along[0]] not in "SI"  # letters are for x, y, z


def _array(voxels: Any, channels: int) -> np.ndarray:
    """What the Python API is given as an array of numbers, without a copy where it is one: 3-D, and 4-D of several
    channels."""
    expected = "expected a 3-D array (z, y, x) of HU"
    if channels > 1:
        expected = f"expected a 4-D array (c, z, y, x) of {channels} channels"
    module = type(voxels).__module__.partition(".")[0]
    if module == "nibabel":
        raise ValueError(
            f"{expected}, not a nibabel {type(voxels).__name__}, whose axes are (x, y, z): "
            "use np.asarray(image.dataobj).T and affine=image.affine"
        )
    if module == "SimpleITK":
        raise ValueError(f"{expected}, not a SimpleITK {type(voxels).__name__}: SimpleITK.GetArrayFromImage gives one")
    if isinstance(voxels, str | bytes | os.PathLike):
        raise ValueError(f"{expected}, not a path: read_scan reads files")
    if isinstance(voxels, np.ma.MaskedArray) and np.ma.is_masked(voxels):
        raise ValueError(f"{expected}, not a masked array: array.filled(-1024) turns masked voxels into air")
    try:
        array = np.asarray(voxels)
    except Exception as error:  # each library has its own reasons: a ragged list, memory of a GPU, a gradient
        raise ValueError(f"{expected}, and NumPy cannot make one from this {type(voxels).__name__}: {error}") from error
    if array.ndim != (3 if channels == 1 else 4) or (channels > 1 and len(array) != channels):
        given = "one of shape" if array.ndim else f"a {type(voxels).__name__}, which has the shape"
        raise ValueError(f"{expected}, not {given} {array.shape}")
    return array


def _affine(given: Any) -> np.ndarray:
    try:
        affine = np.asarray(given)
    except Exception:
        affine = np.empty(0)
    if affine.shape != (4, 4) or affine.dtype.kind not in "iuf":
        raise ValueError("affine is not a matrix of 4 x 4 numbers, from voxel index (x, y, z) to mm")
    affine = affine.astype(np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) == 0 or affine[3].tolist() != [0, 0, 0, 1]:
        raise ValueError(f"affine {affine.tolist()} maps no volume: its last row is 0, 0, 0, 1, its axes span one")
    return affine


def _three_lengths(spacing: Any) -> Spacing:
    try:
        lengths = np.asarray(spacing)
    except Exception:
        lengths = np.empty(0)
    if lengths.shape != (3,) or lengths.dtype.kind not in "iuf" or not all(isfinite(mm) and mm > 0 for mm in lengths):
        raise ValueError(f"spacing {spacing!r} is not three numbers above 0: (z, y, x) in mm")
    z, y, x = (float(mm) for mm in lengths)
    return z, y, x
