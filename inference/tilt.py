"""Scans of a tilted gantry: each slice lies further along its own plane than the one before.

Networks know upright patients. So slices are moved within their planes, by whole voxels: the patient stands upright to
half a voxel, no value is interpolated, and labels go back to the very voxels that they were found in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .scan import Grid, Scan


@dataclass(frozen=True, eq=False)
class Tilt:
    """How slices are moved.

    shape   (y, x) of a slice
    starts  (z, 2) where each has its first voxel (y, x) on the upright grid
    grid    which is upright, and wide enough for all slices
    """

    shape: tuple[int, int]
    starts: np.ndarray
    grid: Grid

    @classmethod
    def of(cls, grid: Grid) -> Tilt:
        """Of a grid whose x and y axes are at right angles."""
        along = grid.affine[:3, :2]  # a voxel of x, of y
        step = grid.affine[:3, 2]
        shares = step @ along / (along**2).sum(axis=0)  # voxels (x, y) from slice to slice
        moved = np.rint(np.arange(grid.shape[0])[:, None] * shares[::-1]).astype(int)
        first = moved.min(axis=0)
        z, y, x = grid.shape
        rows, columns = (int(most) for most in moved.max(axis=0) - first)
        affine = grid.affine.copy()
        affine[:3, 2] = step - along @ shares
        affine[:3, 3] += along @ first[::-1]
        return cls((y, x), moved - first, Grid((z, y + rows, x + columns), affine))

    def upright(self, scan: Scan) -> Scan:
        """The scan on the upright grid; what no slice covers gets the lowest value."""
        channels = []
        for voxels in scan.channels:
            moved = np.full(self.grid.shape, voxels.min(), voxels.dtype)
            for z, plane in enumerate(voxels):
                self._part(moved, z)[...] = plane
            channels.append(moved)
        return replace(scan, channels=tuple(channels), grid=self.grid, tilted=False)

    def back(self, upright: np.ndarray) -> np.ndarray:
        """An array (z, y, x) on the upright grid, such as labels, on that of the slices."""
        return np.stack([self._part(upright, z) for z in range(len(upright))])

    def _part(self, upright: np.ndarray, z: int) -> np.ndarray:
        (y, x), (rows, columns) = self.starts[z], self.shape
        return upright[z, y : y + rows, x : x + columns]
