"""A synthetic torso in portal-venous phase for tests, the same bytes at every call.

    python -m benchmark torso torso_0000.nii.gz

Organs are ellipsoids with typical sizes, places and HU of an adult's upper abdomen (lengths and
HU as in radiology textbooks), warped a little, blurred by the slice thickness, with noise. It
exercises the whole program; it says nothing about accuracy on patients.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np

SPACING = (3.0, 1.5, 1.5)  # mm (z, y, x)
SHAPE = (92, 200, 260)  # z 276 mm, y 300 mm, x 390 mm
SEED = 2023
NOISE_HU = 14.0
BLUR = (1.0, 0.7, 0.7)  # voxels (z, y, x), standard deviation

AIR, LUNG, FAT, MUSCLE, BOWEL, BONE = -1000, -840, -105, 58, 35, 330

# Painted in this order, later over earlier. Centre and radii in mm: x to the patient's left, y to
# the back, z to the head, from the middle of the torso at the level of the pancreas.
Ellipsoid = tuple[str, float, tuple[float, float, float], tuple[float, float, float]]
ORGANS: tuple[Ellipsoid, ...] = (
    ("transverse colon", BOWEL, (5, -72, -62), (105, 17, 16)),
    ("ascending colon", BOWEL, (-98, -8, -95), (22, 22, 55)),
    ("descending colon", BOWEL, (102, 22, -80), (19, 19, 70)),
    ("small bowel", BOWEL, (25, -32, -112), (62, 34, 42)),
    ("bowel gas", -880, (-12, -78, -60), (30, 8, 7)),
    ("bowel gas", -880, (-98, -20, -78), (11, 8, 18)),
    ("liver", 112, (-72, -6, 38), (68, 74, 78)),
    ("liver", 112, (-8, -46, 58), (66, 34, 40)),
    ("gallbladder", 8, (-48, -50, -18), (14, 15, 24)),
    ("spleen", 122, (98, 42, 48), (26, 40, 52)),
    ("stomach", 66, (52, -26, 40), (40, 36, 52)),
    ("stomach", 66, (22, -48, -6), (44, 20, 22)),
    ("stomach fluid", 18, (52, -24, 40), (35, 31, 46)),
    ("stomach fluid", 18, (22, -47, -6), (38, 15, 17)),
    ("stomach gas", -900, (46, -46, 44), (24, 10, 26)),
    ("pancreas", 96, (4, -22, -8), (20, 13, 17)),
    ("pancreas", 96, (38, -4, 6), (38, 10, 11)),
    ("pancreas", 96, (-18, -20, -20), (16, 14, 22)),
    ("duodenum", 48, (-40, -18, -26), (12, 13, 34)),
    ("duodenum", 48, (-8, 4, -54), (36, 10, 11)),
    ("right kidney", 186, (-60, 42, -36), (27, 25, 54)),
    ("left kidney", 186, (62, 44, -22), (27, 25, 55)),
    ("right renal sinus", -60, (-50, 38, -36), (11, 8, 25)),
    ("left renal sinus", -60, (52, 40, -22), (11, 8, 25)),
    ("right adrenal gland", 82, (-32, 36, 28), (5, 13, 12)),
    ("left adrenal gland", 82, (34, 36, 24), (10, 11, 12)),
    ("right psoas", MUSCLE, (-36, 50, -112), (19, 22, 70)),
    ("left psoas", MUSCLE, (36, 50, -112), (19, 22, 70)),
)
TUBES: tuple[tuple[str, float, tuple[float, float], float, tuple[float, float]], ...] = (
    # name, HU, centre (x, y), radius, z from..to; mm
    ("vertebrae", BONE, (0, 64), 22, (-150, 150)),
    ("spinal canal", 25, (0, 88), 9, (-150, 150)),
    ("aorta", 168, (10, 34), 10.5, (-150, 150)),
    ("inferior vena cava", 142, (-20, 26), 12, (-150, 92)),
    ("portal vein", 165, (-14, -2), 7, (-12, 30)),
    ("esophagus", 52, (14, 16), 8.5, (66, 150)),
)


def torso() -> np.ndarray:
    """CT (z, y, x) int16 HU of SHAPE at SPACING, axes towards head, back and the patient's left."""
    rng = np.random.default_rng(SEED)
    z, y, x = np.meshgrid(*((np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(SHAPE, SPACING, strict=True)),
                          indexing="ij", sparse=True)  # fmt: skip
    y = y + 8  # the trunk's middle lies a little in front of the vertebrae
    warp = _waves(rng, x, y, z)

    def ellipsoid(centre: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
        squares = (((v - c) / r) ** 2 for v, c, r in zip((x, y, z), centre, radii, strict=True))
        return sum(squares, start=np.zeros(SHAPE)) < 1 + warp

    def trunk(half_width: float, half_depth: float) -> np.ndarray:
        # A superellipse of exponent 2.6: flatter in front and behind than an ellipse.
        return np.abs(x / half_width) ** 2.6 + np.abs(y / half_depth) ** 2.6 + 0 * z < 1

    hu = np.full(SHAPE, float(AIR))
    hu[trunk(172, 118)] = FAT
    hu[trunk(156, 102)] = MUSCLE
    hu[trunk(144, 90) & ~ellipsoid((0, 84, 0), (52, 34, 900))] = FAT
    # Lungs above two domes of the diaphragm.
    dome = 84 - ((np.abs(x) - 72) / 62) ** 2 * 58 - ((y - 8) / 82) ** 2 * 46 - 8 * (x > 0)
    chest = trunk(140, 88) & ~ellipsoid((0, 70, 0), (40, 42, 900))
    lungs = chest & (z > dome + 8)
    for _, value, centre, radii in ORGANS:
        hu[ellipsoid(centre, radii) & trunk(142, 96) & ~lungs] = value
    hu[lungs] = LUNG
    hu[ellipsoid((14, -14, 128), (46, 46, 52)) & chest] = 120  # the heart
    ribs = (trunk(154, 100) & ~trunk(146, 92)) & (np.mod(z + 0.35 * np.abs(y) + 400, 32) < 10) & (z > -60)
    hu[ribs] = BONE
    for _, value, (cx, cy), radius, (low, high) in TUBES:
        hu[((x - cx) ** 2 + (y - cy) ** 2 < radius**2) & (z > low) & (z < high)] = value
    hu[(np.abs(y - 136) < 5) & (np.abs(x) < 185) & (z > -999)] = -250  # the table's foam

    noisy = _blurred(hu + rng.normal(0, NOISE_HU * 3, SHAPE))  # the blur takes about two thirds of the noise
    return np.clip(np.rint(noisy), -1024, 3071).astype(np.int16)


def _waves(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """A smooth field of about -0.2..0.2 that makes each ellipsoid's surface uneven."""
    field = np.zeros(SHAPE)
    for _ in range(6):
        kx, ky, kz = rng.normal(0, 1 / 22, 3)
        field += 0.07 * np.sin(kx * x + ky * y + kz * z + rng.uniform(0, 2 * np.pi))
    return field


def _blurred(volume: np.ndarray) -> np.ndarray:
    for axis, sigma in enumerate(BLUR):
        taps = np.exp(-0.5 * (np.arange(-3, 4) / sigma) ** 2)
        padded = np.pad(volume, [(3, 3) if a == axis else (0, 0) for a in range(3)], mode="edge")
        n = volume.shape[axis]
        volume = sum(t * np.take(padded, range(i, i + n), axis) for i, t in enumerate(taps / taps.sum()))
    return volume


def save_torso(path: Path) -> None:
    """Write the torso as X_0000.nii.gz in DICOM's orientation, LPS."""
    dz, dy, dx = SPACING
    affine = np.diag([-dx, -dy, dz, 1])  # NIfTI's world axes are RAS
    affine[:3, 3] = (dx * (SHAPE[2] - 1) / 2, dy * (SHAPE[1] - 1) / 2, -dz * (SHAPE[0] - 1) / 2)
    image = nib.Nifti1Image(torso().transpose(2, 1, 0), affine)
    image.header.set_xyzt_units("mm", "sec")
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, metavar="X_0000.nii.gz")


def run(options: argparse.Namespace) -> None:
    save_torso(options.out)


if __name__ == "__main__":
    from benchmark.__main__ import old_name

    old_name("torso")
