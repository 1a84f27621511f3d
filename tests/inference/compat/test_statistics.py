"""The numbers of statistics.json."""

from __future__ import annotations

from typing import Any

import numpy as np

from inference.compat.statistics import statistics

NAMES = {1: "spleen", 5: "liver", 7: "pancreas", 52: "aorta"}
SPACING = (2.5, 0.8, 0.7)  # z, y, x


def volume() -> tuple[np.ndarray, np.ndarray]:
    """A spleen inside, a liver that comes within two voxels of the last column, an aorta three voxels from the top."""
    labels = np.zeros((12, 14, 16), np.uint8)
    labels[4:7, 5:8, 6:9] = 1
    labels[5:7, 5:9, 11:14] = 5
    labels[3:9, 4, 4] = 52
    voxels = np.random.default_rng(0).normal(60, 30, labels.shape).astype(np.float32)
    return labels, voxels


def by_hand(labels: np.ndarray, voxels: np.ndarray, value: int) -> dict[str, Any]:
    """As TotalSegmentator's documents say it, on its axes (x, y, z)."""
    mask, hu = np.isin(labels.T, [value]), np.trunc(voxels.T)
    places = np.argwhere(mask)
    return {
        "volume": mask.sum() * 0.7 * 0.8 * 2.5,
        "intensity": hu[mask].mean(),
        "n_voxels": mask.sum(),
        "intensity_std": hu[mask].std(),
        "intensity_min": hu[mask].min(),
        "intensity_max": hu[mask].max(),
        "centroid_vox": places.mean(axis=0),
        "bbox_vox": np.stack([places.min(axis=0), places.max(axis=0)], axis=1),
    }


def test_volume_and_mean_of_what_is_whole_and_0_of_what_is_not() -> None:
    labels, voxels = volume()
    found = statistics(labels, voxels, SPACING, NAMES)
    assert list(found) == ["spleen", "liver", "pancreas", "aorta"]
    for name, value in (("spleen", 1), ("aorta", 52)):
        expected = by_hand(labels, voxels, value)
        assert set(found[name]) == {"volume", "intensity"}
        np.testing.assert_allclose(found[name]["volume"], expected["volume"])
        np.testing.assert_allclose(found[name]["intensity"], expected["intensity"], atol=1e-5)
    assert found["liver"] == found["pancreas"] == {"volume": 0.0, "intensity": 0.0}


def test_all_numbers_of_all_structures() -> None:
    labels, voxels = volume()
    found = statistics(labels, voxels, SPACING, NAMES, cut_too=True, extra=True)
    for name, value in (("spleen", 1), ("liver", 5), ("aorta", 52)):
        expected = by_hand(labels, voxels, value)
        assert list(found[name]) == list(expected)
        for quantity, number in expected.items():
            np.testing.assert_allclose(found[name][quantity], number, atol=5e-3 if "centroid" in quantity else 1e-5)
    assert found["pancreas"]["n_voxels"] == 0 and found["pancreas"]["bbox_vox"] is None


def test_the_median() -> None:
    labels, voxels = volume()
    found = statistics(labels, voxels, SPACING, NAMES, median=True)
    assert found["spleen"]["intensity"] == np.median(np.trunc(voxels[labels == 1]))
