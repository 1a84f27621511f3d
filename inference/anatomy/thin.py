"""A CT and its labels, coarse enough that questions about a whole abdomen take no time, and answers from its voxels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..boxes import Box, bounding
from ..labels import known
from ..scan import Grid, turn, turned
from .body import body_mask
from .look import BODY_HU

CELL = 5.0  # mm: one voxel in so many is looked at
SOLID = ("liver", "spleen", "right_kidney", "left_kidney")
LUNG_HU, BONE_HU = -400, 200
SOFT_HU = (10, 250)  # organs, with contrast agent or without
DEEP = 3  # cells: what is left of the soft parts when so much is taken off all around is liver, mostly
OPEN = 0.15  # of a plane of the body filled with air: lungs, and with them the heart, which lies on the left


def thinned(array: np.ndarray, grid: Grid) -> np.ndarray:
    """One voxel in every CELL or so of an array (z, y, x) on a grid: a copy, which does not hold the whole."""
    within = (slice(min(step, n) // 2, None, step) for step, n in zip(_steps(grid), grid.shape, strict=True))
    return array[tuple(within)].copy()


def _steps(grid: Grid) -> list[int]:
    return [max(1, int(CELL / mm)) for mm in grid.spacing]


@dataclass(frozen=True, eq=False)
class Thin:
    """One voxel in every CELL or so of a CT and its labels; axes (z, y, x) grow towards head, front and right.

    hu       (z, y, x)
    labels   (z, y, x)
    spacing  mm
    values   key of an organ of the table -> its value; those that the networks know
    """

    hu: np.ndarray
    labels: np.ndarray
    spacing: tuple[float, float, float]
    values: Mapping[str, int]

    @classmethod
    def of(cls, hu: np.ndarray, labels: np.ndarray, grid: Grid, names: Mapping[int, str]) -> Thin:
        """Of a thinned CT and its labels.

        hu      (z, y, x), as of `thinned`
        labels  (z, y, x) on the grid
        names   value -> name on the networks' cards
        """
        axes, flips = turn(grid.orientation, "RAS")
        z, y, x = (grid.spacing[axis] * _steps(grid)[axis] for axis in axes)
        values = {one.key: value for value, name in names.items() if (one := known(name))}
        return cls(turned(hu, axes, flips), turned(thinned(labels, grid), axes, flips), (z, y, x), values)

    @property
    def voxel_ml(self) -> float:
        return float(np.prod(self.spacing)) / 1000

    def mask(self, key: str) -> np.ndarray:
        """Where an organ is; nowhere where no network knows it."""
        value = self.values.get(key)
        return np.zeros(self.labels.shape, bool) if value is None else self.labels == value

    @cached_property
    def ml(self) -> dict[str, float]:
        """Organ -> ml, of those that were found."""
        counts = np.bincount(self.labels.reshape(-1), minlength=256)
        return {key: float(counts[value]) * self.voxel_ml for key, value in self.values.items() if counts[value]}

    @cached_property
    def centre(self) -> dict[str, tuple[float, float, float]]:
        """Organ -> mm (z, y, x) of its centre, of those that were found."""
        return {key: _centre(self.mask(key), self.spacing) for key in self.ml}

    @cached_property
    def solid(self) -> np.ndarray:
        """Where the large organs of the abdomen are."""
        return np.isin(self.labels, [self.values[key] for key in SOLID if key in self.values])

    @cached_property
    def inside(self) -> np.ndarray:
        """The body, with its lungs."""
        return body_mask(self.hu, BODY_HU, self.spacing, np)

    @cached_property
    def air(self) -> np.ndarray:
        """The share of air in the body, of each plane from feet to head."""
        area = self.inside.sum(axis=(1, 2))
        return (self.inside & (self.hu < LUNG_HU)).sum(axis=(1, 2)) / np.maximum(area, 1)

    @cached_property
    def box(self) -> Box:
        """That of the body."""
        box = bounding(self.inside)
        assert box is not None, "a body mask is never empty"
        return box

    @cached_property
    def bone(self) -> np.ndarray:
        """Bright voxels in the body's box: bone, and what is full of contrast agent."""
        return (self.inside & (self.hu > BONE_HU))[self.box]

    @cached_property
    def spine(self) -> float:
        """Where bone goes on along the planes, in the middle third of the body: 0 at its back, 1 at its front.

        0.5 where there is none.
        """
        column = self.bone.mean(axis=0)
        rows, columns = column.shape
        band = column[:, columns // 3 : columns - columns // 3]
        most = np.where(band >= 0.6 * band.max(), band, 0).sum(axis=1)
        return float(np.average(np.arange(rows), weights=most)) / max(rows - 1, 1) if most.any() else 0.5

    @cached_property
    def sideways(self) -> float:
        """The share of bone that goes on along the planes, which lies nearer to a side of the body than to its back or
        front."""
        column = self.bone.mean(axis=0) ** 2
        y, x = (np.abs(np.linspace(-1, 1, n)) for n in column.shape)
        return float(column[x[None] > y[:, None]].sum() / max(float(column.sum()), 1e-9))

    @cached_property
    def runs(self) -> tuple[float, float, float]:
        """How far bone goes on along each axis (z, y, x): its share of the line on which it is most."""
        bone = self.bone
        for axis in range(3):  # vertebrae do not lie on one line
            bone = bone | _moved(bone, axis, 1) | _moved(bone, axis, -1)
        z, y, x = (float(bone.mean(axis=axis).max()) for axis in range(3))
        return z, y, x

    @cached_property
    def deep_ml(self) -> tuple[float, float]:
        """Soft parts deep in others, below the lungs, to the right and to the left of the body's middle: ml."""
        smooth = self.hu.astype(np.float32)
        for axis in range(3):  # noise of single voxels would be holes
            smooth = (smooth + _moved(smooth, axis, 1)) / 2
        deep = self.inside & (smooth > SOFT_HU[0]) & (smooth < SOFT_HU[1])
        for _ in range(DEEP):
            for axis in range(3):
                deep = deep & _moved(deep, axis, 1) & _moved(deep, axis, -1)
        middle = (self.box[2].start + self.box[2].stop) // 2
        deep = deep[self.air < OPEN]
        return float(deep[:, :, middle + 1 :].sum()) * self.voxel_ml, float(deep[:, :, :middle].sum()) * self.voxel_ml


def _moved(array: np.ndarray, axis: int, by: int) -> np.ndarray:
    """An array moved by one voxel along an axis; what is on the edge stays there as well."""
    index = np.clip(np.arange(array.shape[axis]) - by, 0, array.shape[axis] - 1)
    return array.take(index, axis)


def _centre(mask: np.ndarray, spacing: tuple[float, float, float]) -> tuple[float, float, float]:
    z, y, x = (
        float(np.average(np.arange(n), weights=mask.sum(axis=tuple({0, 1, 2} - {axis}))) * mm)
        for axis, (n, mm) in enumerate(zip(mask.shape, spacing, strict=True))
    )
    return z, y, x
