"""A random way from a patch's voxels back to a source volume: affine, elastic, and organs that grow or shrink."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from training.settings import Shape

# How far a warp may go; standard deviations unless said otherwise.
DEGREES = (7.0, 3.0, 3.0)
ZOOM = (0.8, 1.25)  # smallest and largest, of the patient
STRETCH = 0.06  # of each axis alone
ELASTIC = ((60.0, 5.0), (25.0, 1.5))  # length and amplitude, mm
MOST_BULGES = 3  # organs that change their size
KNOTS = 24.0  # mm between the points at which training.shapes gives how one patient differs from another


def smooth_field(rng: np.random.Generator, shape: Shape, spacing: np.ndarray, scale: float) -> np.ndarray:
    """(z, y, x) float32 noise of about unit variance that changes over `scale` mm."""
    extent = np.array(shape) * spacing
    knots = np.maximum(np.ceil(extent / scale).astype(int) + 3, 4)
    coarse = torch.from_numpy(rng.standard_normal((1, 1, *knots), dtype=np.float32))
    # Linear interpolation between knots loses about half of the variance.
    return F.interpolate(coarse, size=shape, mode="trilinear", align_corners=False)[0, 0].numpy() * 1.5


def rotation(rng: np.random.Generator, degrees: tuple[float, float, float]) -> np.ndarray:
    """(3, 3) rotation about z, y and x, each by a normal angle of the given standard deviation."""
    total = np.eye(3)
    for axis, spread in enumerate(degrees):
        angle = np.deg2rad(rng.normal(0, spread))
        a, b = [i for i in range(3) if i != axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        total = total @ turn
    return total


def source_coordinates(
    rng: np.random.Generator,
    shape: Shape,
    spacing: np.ndarray,
    centre: np.ndarray,
    bulge_centres: np.ndarray,
    snap: float = 0.0,
) -> np.ndarray:
    """(3, z, y, x) float32, mm in the source, for a patch of `shape` and `spacing` (mm) about `centre` (mm).

    `bulge_centres` (n, 3) mm are the middles of organs in the source that may grow or shrink. `snap` is the slice
    spacing of an imagined scan in mm: nnU-Net takes the nearest slice where spacing is anisotropic, so several of
    the patch's slices can show the same one.
    """
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)]
    if snap > 0:
        axes[0] = np.round(axes[0] / snap) * snap
    zoom = np.exp(rng.uniform(*np.log(ZOOM))) * np.exp(rng.normal(0, STRETCH, 3))
    matrix = rotation(rng, DEGREES) / zoom
    planes = [matrix[:, 0, None, None, None] * axes[0][:, None, None]]
    planes.append(matrix[:, 1, None, None, None] * axes[1][:, None])
    planes.append(matrix[:, 2, None, None, None] * axes[2])
    where = (planes[0] + planes[1] + planes[2] + centre[:, None, None, None]).astype(np.float32)
    for length, amplitude in ELASTIC:
        size = rng.uniform(0.3, 1.3) * amplitude
        for axis in range(3):
            where[axis] += size * smooth_field(rng, shape, spacing, length)
    for middle in rng.permutation(bulge_centres)[: rng.integers(0, MOST_BULGES + 1)]:
        radius = rng.uniform(20, 60)
        offset = where - middle[:, None, None, None].astype(np.float32)
        near = np.exp(-(offset**2).sum(0) / (2 * radius**2))
        where += np.float32(rng.uniform(-0.35, 0.35)) * near * offset
    return where


def take_nearest(
    volume: np.ndarray, where: np.ndarray, spacing: tuple[float, float, float], outside: int
) -> np.ndarray:
    """`volume` (z, y, x) at `where` (3, z, y, x) mm, nearest voxel; `outside` beyond its edges."""
    index = [np.rint(where[i] / spacing[i]).astype(np.int32) for i in range(3)]
    inside = np.ones(where.shape[1:], bool)
    for i, n in enumerate(volume.shape):
        inside &= (index[i] >= 0) & (index[i] < n)
        np.clip(index[i], 0, n - 1, out=index[i])
    flat = (index[0] * volume.shape[1] + index[1]) * volume.shape[2] + index[2]
    return np.where(inside, volume.reshape(-1)[flat], volume.dtype.type(outside))


def bent(where: torch.Tensor, field: torch.Tensor, strength: float) -> torch.Tensor:
    """Points `where` (z, y, x, 3) mm moved by `strength` times a displacement (3, z, y, x), points KNOTS apart."""
    return where + strength * sampled(field[None], where, KNOTS)[0].permute(1, 2, 3, 0)


def sampled(volume: torch.Tensor, where: torch.Tensor, step: float) -> torch.Tensor:
    """`volume` (1, c, z, y, x), whose voxels are `step` mm apart, at points (z, y, x, 3) mm; its edges reach on."""
    size = torch.tensor(volume.shape[2:], dtype=torch.float32, device=where.device)
    grid = (2 * where / step / (size - 1) - 1).flip(-1)[None]
    return F.grid_sample(volume, grid, mode="bilinear", padding_mode="border", align_corners=True)
