"""Blending against nnU-Net's formula written out densely, and the slabs that come of it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from inference.windows.layout import Plan, dense_plan, gaussian, grid, starts
from inference.windows.sliding import Progress, padding, slabs, wide_slabs

PATCH = (6, 8, 10)
SHAPE = (17, 19, 26)


def network(batch: np.ndarray) -> np.ndarray:
    """Three channels that depend on the voxel and on the whole window, as a U-Net's do."""
    return np.concatenate([batch, batch**2, batch * 0 + batch.mean()], axis=1).astype(np.float32)


def dense(volume: np.ndarray) -> np.ndarray:
    """(3, z, y, x): nnU-Net's predicted logits, by its definition."""
    weights = gaussian(PATCH)
    total, summed = np.zeros(SHAPE), np.zeros((3, *SHAPE))
    for corner in product(*grid(SHAPE, PATCH, 0.5)):
        window = tuple(slice(c, c + n) for c, n in zip(corner, PATCH, strict=True))
        summed[(slice(None), *window)] += network(volume[window][None, None])[0] * weights
        total[window] += weights
    return summed / total


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def test_slabs_together_are_the_dense_blend(volume: np.ndarray) -> None:
    calls = []
    progress = Progress(step=lambda: calls.append(1))
    parts = list(slabs(volume, network, dense_plan(SHAPE, PATCH, 0.5), PATCH, np, progress))
    assert [start for start, _ in parts] == list(np.cumsum([0] + [part.shape[1] for _, part in parts])[:-1])
    blended = np.concatenate([part for _, part in parts], axis=1)
    np.testing.assert_allclose(blended, dense(volume), atol=1e-5)
    assert progress.windows == len(calls) == len(list(product(*grid(SHAPE, PATCH, 0.5))))


def test_where_no_window_ran_every_channel_is_zero(volume: np.ndarray) -> None:
    def two_windows() -> Plan:
        yield [(0, 0, 0)]
        yield [(11, 11, 16)]

    blended = np.concatenate([part for _, part in slabs(volume, network, two_windows(), PATCH, np, Progress())], axis=1)
    assert blended.shape == (3, *SHAPE)
    assert not blended[:, 6:11].any()
    np.testing.assert_allclose(blended[0, :6, :8, :10], volume[:6, :8, :10], atol=1e-5)
    np.testing.assert_allclose(blended[0, 11:, 11:, 16:], volume[11:, 11:, 16:], atol=1e-5)


@pytest.mark.parametrize("start", [0, 4, 11])
def test_planes_that_lie_beyond_the_last_window_are_zero(volume: np.ndarray, start: int) -> None:
    def one_window() -> Plan:
        yield [(start, 0, 0)]

    parts = list(slabs(volume, network, one_window(), PATCH, np, Progress()))
    assert [low for low, _ in parts] == list(np.cumsum([0] + [part.shape[1] for _, part in parts])[:-1])
    assert max(part.shape[1] for _, part in parts) <= PATCH[0]  # no more planes at a time than a window has
    blended = np.concatenate([part for _, part in parts], axis=1)
    expected = np.zeros((3, *SHAPE), np.float32)
    window = (slice(start, start + PATCH[0]), slice(PATCH[1]), slice(PATCH[2]))
    expected[(slice(None), *window)] = network(volume[window][None, None])[0]
    np.testing.assert_allclose(blended, expected, atol=1e-5)


def test_the_plan_is_sent_the_winners_of_its_windows(volume: np.ndarray) -> None:
    seen = []

    def plan() -> Plan:
        seen.append((yield [(0, 0, 0), (0, 4, 4)]))

    list(slabs(volume, network, plan(), PATCH, np, Progress()))
    assert len(seen[0]) == 2
    window = volume[:6, 4:12, 4:14]
    expected = network(window[None, None])[0].argmax(0)[::2, ::4, ::4]
    assert np.array_equal(seen[0][1], expected)


WIDE = (8, 12, 16)


def voxelwise(batch: np.ndarray) -> np.ndarray:
    """Foreground where a voxel is above 1: what a network says that looks no farther than the voxel."""
    return np.concatenate([batch * 0 + 1, batch], axis=1)


@pytest.mark.parametrize("shape", [(8, 12, 16), (9, 12, 16), (23, 12, 16), (41, 30, 29)])
def test_wide_windows_together_are_the_volume(shape: tuple[int, int, int]) -> None:
    volume = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    inside = np.random.default_rng(2).random(shape) < 0.9
    parts = [(low, part.copy()) for low, part in wide_slabs(volume, voxelwise, WIDE, 0.5, np, Progress(), inside)]
    assert [low for low, _ in parts] == list(np.cumsum([0] + [part.shape[1] for _, part in parts])[:-1])
    found = np.concatenate([part for _, part in parts], axis=1)
    np.testing.assert_allclose(found, voxelwise(volume[None, None])[0] * inside, rtol=1e-5)


@pytest.mark.parametrize("depth", [68, 80, 95])
def test_wide_windows_are_blended_as_gaussian_weights_along_z_do(depth: int) -> None:
    window = (32, 4, 4)

    def plane_of_window(batch: np.ndarray) -> np.ndarray:
        planes = np.arange(window[0], dtype=np.float32)[:, None, None]
        return np.concatenate([batch * 0, batch * 0 + planes], axis=1)  # the second channel wins: all is found

    volume = np.zeros((depth, 4, 4), np.float32)
    inside = np.ones(volume.shape, bool)
    parts = [part.copy() for _, part in wide_slabs(volume, plane_of_window, window, 0.5, np, Progress(), inside)]
    found = np.concatenate(parts, axis=1)[1, :, 0, 0]
    weights = gaussian((32, 1, 1))[:, 0, 0]
    total, summed = np.zeros(depth), np.zeros(depth)
    for start in starts(depth, window[0], 0.5):
        summed[start : start + window[0]] += weights * np.arange(window[0])
        total[start : start + window[0]] += weights
    # Neighbours differ by 12 to 16; 3 % of that is what is left out.
    np.testing.assert_allclose(found, summed / total, atol=0.5)
    assert np.abs(found - summed / total).max() > 0


def test_padding_is_nnunets() -> None:
    padder = pytest.importorskip("acvl_utils.cropping_and_padding.padding")
    for shape in [(5, 8, 3), (6, 9, 11), (1, 1, 1)]:
        _, crop = padder.pad_nd_image(np.zeros(shape), PATCH, "constant", {}, True)
        pads = padding(shape, PATCH)
        assert [before for before, _ in pads] == [part.start for part in crop]
        assert [b + n + a for (b, a), n in zip(pads, shape, strict=True)] == [
            max(n, p) for n, p in zip(shape, PATCH, strict=True)
        ]
