"""A CT scan in memory: its voxels, where they lie in the patient, and which of both is plausible."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from .boxes import Shape
from .errors import JOIN, ScanError

FEWEST = 3  # voxels along an axis
SPACING = (0.05, 30.0)  # mm
FINEST = 1e-3  # mm, of networks for other images than CT of abdomens
THICK = 10.0  # mm
EXTENT = (30.0, 3000.0)  # mm
SHEAR = 1e-2  # cosine between two axes
FLAT = 0.1  # of the volume that axes of these lengths span at right angles: less is no volume
OPPOSITE = {"L": "R", "R": "L", "P": "A", "A": "P", "S": "I", "I": "S"}

Spacing = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Grid:
    """Where voxels lie in the patient.

    shape   (z, y, x), x being the fastest axis of the file
    affine  (4, 4) from voxel index (x, y, z) to mm, RAS
    said    (z, y, x) mm, the spacing to the last digit where the file tells it beside the affine, whose columns have it
            to a rounding error, in NIfTI to 0.1 %: where that decides, a network sees one voxel more
    """

    shape: Shape
    affine: np.ndarray
    said: Spacing | None = None

    @classmethod
    def of(cls, shape: Sequence[int], spacing: Sequence[float], orientation: str) -> Grid:
        """The grid of voxels so many mm (z, y, x) apart, the first at the origin.

        orientation  three letters for the axes x, y, z: the side of the patient towards which the index grows; "LPS"
                     is what DICOM stores. Raises ValueError if it is not one letter out of each of LR, AP and SI
        """
        check_orientation(orientation)
        affine = np.diag([0.0, 0.0, 0.0, 1.0])
        for axis, letter in enumerate(orientation):
            world = next(at for at, pair in enumerate(("RL", "AP", "SI")) if letter in pair)
            affine[world, axis] = spacing[2 - axis] * (1 if letter in "RAS" else -1)
        z, y, x = (int(n) for n in shape)
        return cls((z, y, x), affine)

    @cached_property
    def spacing(self) -> Spacing:
        """(z, y, x) mm."""
        return self.said or self.steps

    @cached_property
    def steps(self) -> Spacing:
        """(z, y, x) mm: the lengths of the affine's columns, whatever the file says."""
        x, y, z = (float(mm) for mm in np.linalg.norm(self.affine[:3, :3], axis=0))
        return z, y, x

    @cached_property
    def orientation(self) -> str:
        """As in `of`, of the axes that run nearest to those of the patient."""
        from nibabel.orientations import aff2axcodes

        return "".join(aff2axcodes(self.affine))

    def turned(self, orientation: str) -> Grid:
        """That of the same voxels after `reorient` to an orientation."""
        axes, flips = turn(self.orientation, orientation)
        affine = self.affine.copy()
        for at, (axis, flip) in enumerate(zip(axes, flips, strict=True)):
            step = self.affine[:3, 2 - axis]
            affine[:3, 2 - at] = -step if flip else step
            affine[:3, 3] += step * (self.shape[axis] - 1) * flip
        z, y, x = (self.shape[axis] for axis in axes)
        return Grid((z, y, x), affine)

    @property
    def voxel_ml(self) -> float:
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000  # axes need not be at right angles


@dataclass(frozen=True, eq=False)
class Scan:
    """A CT volume, or another image, as its files store it.

    channels  (z, y, x) int16 or float32 each, finite, all on one grid, CT in HU; none where only a header was read
    grid      where they lie
    origin    what the writer of this scan's format needs to write beside it, such as a NIfTI header
    warnings  one sentence each for what was odd but could be read
    tilted    whether its slices are to be moved until they stand upright for networks, and their labels back
    resampled  whether its planes lie between the slices of its files
    checked   whether hounsfield.checked has seen the voxels
    once      whether its voxels are needed once only, so that `free` lets go of them
    voxel_bytes  of a scan whose header alone was read: bytes that a voxel of a channel will take, and at most while
                 it is read
    """

    channels: tuple[np.ndarray, ...]
    grid: Grid
    origin: Any = None
    warnings: tuple[str, ...] = field(default=())
    tilted: bool = False
    resampled: bool = False
    checked: bool = False
    once: bool = False
    voxel_bytes: tuple[int, int] = (4, 9)

    @classmethod
    def of(cls, voxels: np.ndarray, spacing: Sequence[float], orientation: str) -> Scan:
        """One channel (z, y, x) on a grid as of `Grid.of`."""
        return cls((voxels,), Grid.of(voxels.shape, spacing, orientation))

    def free(self) -> None:
        """Let go of the voxels if nobody needs them again: those of a long scan are a fifth of what it takes."""
        if self.once:
            object.__setattr__(self, "channels", ())

    @property
    def voxels(self) -> np.ndarray:
        """The first channel."""
        return self.channels[0]


def check_grid(grid: Grid, treatment: str = "segmented as stored") -> list[str]:
    """What is odd about where the voxels of a file lie, but for their extent: `check_extent`. Raises ScanError if no
    scan lies so.

    treatment  of a scan whose axes are not at right angles
    """
    odd = check_axes(grid, treatment)
    if (np.abs(grid.affine) == np.eye(4)).all():
        odd.append(
            "voxels are 1 x 1 x 1 mm and begin at 0, 0, 0, as where a program knew no spacing: then labels are wrong"
        )
    return odd


def check_axes(grid: Grid, treatment: str = "segmented as stored") -> list[str]:
    """What is odd about the directions of a grid's axes. Raises ScanError if they span no volume."""
    if not np.isfinite(grid.affine).all() or abs(np.linalg.det(_axes(grid))) <= FLAT:
        raise ScanError("has a broken orientation: its axes do not span a volume")
    cosine = shear(grid)
    return [f"axes are not at right angles (cosine {cosine:.3f}, gantry tilt?): {treatment}"] * (cosine > SHEAR)


def shear(grid: Grid) -> float:
    """The largest cosine between two axes of a grid."""
    axes = _axes(grid)
    return float(np.abs(axes.T @ axes - np.eye(3)).max())


def _axes(grid: Grid) -> np.ndarray:
    return grid.affine[:3, :3] / [mm if mm > 0 else 1 for mm in grid.steps[::-1]]


def check_extent(shape: Sequence[int], spacing: Sequence[float], abdominal: bool = True) -> list[str]:
    """What is odd about a scan of so many voxels, so many mm apart; both in the order in which they are to be named.

    abdominal  whether it is for networks of abdomens; others may take single planes, and crops of any size
    Raises ScanError where that is no CT of an abdomen, or no scan at all.
    """
    extent = [n * mm for n, mm in zip(shape, spacing, strict=True)]
    if not abdominal:
        return _odd_extent(shape, spacing, extent)
    if min(shape) < FEWEST:
        raise ScanError(f"has only {times(shape)} voxels: no volume" + (f"; {JOIN}" if 1 in shape else ""))
    if min(spacing) < SPACING[0] or max(spacing) > SPACING[1]:
        raise ScanError(f"has the spacing {times(spacing)} mm: not plausible for CT")
    if min(extent) < EXTENT[0] or max(extent) > EXTENT[1]:
        raise ScanError(f"covers {times(extent)} mm: not plausible for abdominal CT")
    return [f"spacing {times(spacing)} mm is coarse: small organs will be missed"] if max(spacing) > THICK else []


def _odd_extent(shape: Sequence[int], spacing: Sequence[float], extent: Sequence[float]) -> list[str]:
    """What is odd about a scan of any size: lengths that are none in mm. Of a single plane its thickness says nothing.

    Raises ScanError where no body is so long, which at the spacing of a network would have no end of voxels, or no
    image so fine.
    """
    if min(spacing) < FINEST:
        raise ScanError(f"has the spacing {times(spacing)} mm: not plausible")
    if max(extent) > EXTENT[1]:
        raise ScanError(f"covers {times(extent)} mm: no body is so long")
    along = [axis for axis, n in enumerate(shape) if n > 1]
    if any(not SPACING[0] <= spacing[axis] <= SPACING[1] or extent[axis] < EXTENT[0] for axis in along):
        return [f"covers {times(extent)} mm in {times(shape)} voxels: labels are wrong if its spacing is not in mm"]
    return []


def times(sizes: Iterable[float]) -> str:
    """Sizes as they are named in messages."""
    return " x ".join(f"{float(size):g}" for size in sizes)


def check_orientation(orientation: str) -> None:
    """Raises ValueError where it is not one letter out of each of LR, AP and SI."""
    if sorted(min(letter, OPPOSITE.get(letter, "?")) for letter in orientation) != ["A", "I", "L"]:
        raise ValueError(f"orientation {orientation!r} is not one letter out of each of LR, AP and SI")


def turn(source: str, target: str) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """How axes (z, y, x) of orientation `source` become those of `target`: for each the axis that it was, and whether
    it runs the other way.

    Raises ValueError where either is not one letter out of each of LR, AP and SI.
    """
    for orientation in (source, target):
        check_orientation(orientation)
    axes, flips = [], []
    for letter in reversed(target):  # target axes in array order: z, y, x
        at = next(i for i, own in enumerate(source) if own in (letter, OPPOSITE[letter]))
        axes.append(2 - at)
        flips.append(source[at] != letter)
    return (axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2])


def turned(array: np.ndarray, axes: Sequence[int], flips: Sequence[bool]) -> np.ndarray:
    """The last three axes of an array as `turn` says, as a view."""
    lead = array.ndim - 3
    view = array.transpose(*range(lead), *(lead + axis for axis in axes))
    z, y, x = (slice(None, None, -1 if flip else 1) for flip in flips)
    return view[..., z, y, x]


def reorient(array: np.ndarray, source: str, target: str) -> np.ndarray:
    """Turn the last three axes (z, y, x) from orientation `source` to `target`, as a view.

    The inverse is the same call with the two orientations exchanged. Raises ValueError as `turn`.
    """
    return turned(array, *turn(source, target))
