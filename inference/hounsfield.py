"""Whether an array can be CT in Hounsfield units, and what replaces values that are none."""

from __future__ import annotations

import numpy as np

from inference.errors import ScanError

AIR, METAL = -1024, 3071  # HU: what 12 bits can hold
LEAST_RANGE = 100  # HU from the darkest to the brightest voxel: air to fat alone is 900
NO_AIR = -200  # HU: below fat, above lung
ALL_AIR = -500


def checked(voxels: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The voxels, finite, and what was odd about them. NaN becomes air; infinities the ends of the CT scale.

    Raises ScanError where this can be no CT: more NaN than values, constant, nothing but air, or normalised.
    """
    warnings: list[str] = []
    low, high = float(voxels.min()), float(voxels.max())
    if not np.isfinite([low, high]).all():
        voxels, warnings = _finite(voxels)
        low, high = float(voxels.min()), float(voxels.max())
    if low == high:
        raise ScanError(f"is a constant image: every voxel is {low:g}")
    if high < ALL_AIR:
        raise ScanError(f"shows nothing but air: no voxel is above {high:g} HU")
    if high - low < LEAST_RANGE:
        raise ScanError(f"is not CT in HU: its voxels run only from {low:g} to {high:g}")
    if low > NO_AIR:
        warnings.append(
            f"no voxel is below {low:g} HU, as air and lung would be: labels are wrong if this is "
            "CT stored with an offset (often +1024), windowed CT, or MR"
        )
    return voxels, warnings


def _finite(voxels: np.ndarray) -> tuple[np.ndarray, list[str]]:
    warnings = []
    missing = int(np.isnan(voxels).sum())
    if missing * 2 > voxels.size:
        raise ScanError(f"has no value (NaN) in {missing / voxels.size:.0%} of its voxels")
    if missing:
        warnings.append(f"{missing} voxels have no value (NaN): taken as air, {AIR} HU")
    infinite = int(np.isinf(voxels).sum())
    if infinite:
        warnings.append(f"{infinite} voxels are infinite: taken as {AIR} or {METAL} HU")
    return np.nan_to_num(voxels, nan=AIR, neginf=AIR, posinf=METAL), warnings
