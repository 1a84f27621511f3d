"""A scan and its labels as radiologists look at them, wherever its file begins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..scan import Grid, Spacing, turn, turned

TOWARDS = "LPI"  # letters of x, y and z: the patient's right, front and head come first


@dataclass(frozen=True)
class Lying:
    """A view of voxels, axes from head to foot, from front to back and from the patient's right to the left.

    hu, labels  in these axes
    spacing     mm along them
    """

    hu: np.ndarray
    labels: np.ndarray
    spacing: Spacing


def lie(hu: np.ndarray, labels: np.ndarray, grid: Grid) -> Lying:
    """Turn a scan and its labels (z, y, x) on a grid by the axes that run nearest to the patient's; no copy is made."""
    axes, flips = turn(grid.orientation, TOWARDS)
    first, second, third = (grid.spacing[axis] for axis in axes)
    return Lying(turned(hu, axes, flips), turned(labels, axes, flips), (first, second, third))


def richest(labels: np.ndarray) -> list[int]:
    """The plane along each axis of (n, m, k) uint8 that shows most of the labels best: of each the share of its largest
    area. The middle where there is none.
    """
    planes = []
    for axis, count in enumerate(labels.shape):
        thin = tuple(slice(None) if other == axis else slice(None, None, 2) for other in range(3))
        stack = np.moveaxis(labels[thin], axis, 0)
        areas = np.stack([np.bincount(plane.reshape(-1), minlength=256)[1:] for plane in stack])
        shares = (areas / np.maximum(areas.max(axis=0), 1)).sum(axis=1)
        planes.append(int(shares.argmax()) if shares.any() else count // 2)
    return planes
