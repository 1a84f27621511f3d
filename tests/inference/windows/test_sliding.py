"""Blending against nnU-Net's formula written out densely, and the slabs that come of it."""

from __future__ import annotations

import tracemalloc
from itertools import product
from typing import Any

import numpy as np
import pytest

from inference.arrays import Network
from inference.boxes import Box, Shape, shape_of, whole
from inference.errors import EngineError
from inference.grids.decode import winning_channel
from inference.windows import blend, patches
from inference.windows.blend import Half, HalfSums, last_layer
from inference.windows.layout import cut, grid, padding, starts
from inference.windows.patches import Boxed, Patches, Plan, dense_plan, gaussian, slabs
from inference.windows.planes import Planes

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

    def counted(batch: np.ndarray) -> np.ndarray:
        calls.append(1)
        return network(batch)

    parts = list(slabs(volume[None], counted, dense_plan(SHAPE, PATCH, 0.5), PATCH, np))
    assert [start for start, _ in parts] == list(np.cumsum([0] + [part.shape[1] for _, part in parts])[:-1])
    blended = np.concatenate([part for _, part in parts], axis=1)
    np.testing.assert_allclose(blended, dense(volume), atol=1e-5)
    assert len(calls) == len(list(product(*grid(SHAPE, PATCH, 0.5))))


def in_half(volume: np.ndarray, one: Network) -> Any:
    """(k, z, y, x), PyTorch's float16: what nnU-Net's predict_sliding_window_return_logits has of one fold."""
    torch = pytest.importorskip("torch")
    weights = torch.from_numpy(gaussian(PATCH)).half()
    total, summed = torch.zeros(SHAPE).half(), torch.zeros((len(one(volume[None, None])[0]), *SHAPE)).half()
    for corner in product(*grid(SHAPE, PATCH, 0.5)):
        window = tuple(slice(c, c + n) for c, n in zip(corner, PATCH, strict=True))
        summed[(slice(None), *window)] += torch.from_numpy(one(volume[window][None, None])[0]) * weights
        total[window] += weights
    return summed / total


def blended_in_half(volume: np.ndarray, answer: Network, half: Half) -> np.ndarray:
    plan = dense_plan(SHAPE, PATCH, 0.5)
    return np.concatenate([part for _, part in slabs(volume[None], answer, plan, PATCH, np, half=half)], axis=1)


@pytest.mark.parametrize("block", [1, 100, 1 << 14])
def test_in_half_sums_are_rounded_with_every_window_as_nnunets_are(
    volume: np.ndarray, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blend, "BLOCK", block)
    blended = blended_in_half(volume, network, Half())
    assert blended.dtype == np.float32 and np.array_equal(blended, in_half(volume, network).float().numpy())
    assert not np.array_equal(blended, dense(volume).astype(np.float32))


def test_in_half_every_fold_is_added_up_by_itself_and_then_their_mean(volume: np.ndarray) -> None:
    folds: list[Network] = [network, lambda batch: 3 * network(batch), lambda batch: network(batch)[:, ::-1].copy()]

    def all_folds(batch: np.ndarray) -> np.ndarray:
        return np.concatenate([of(batch) for of in folds], axis=1)

    blended = blended_in_half(volume, all_folds, Half(folds=3))
    expected = in_half(volume, folds[0])
    for of in folds[1:]:
        expected += in_half(volume, of)
    expected /= 3
    assert np.array_equal(blended, expected.float().numpy())
    assert len(blended) == 3


def test_in_half_features_become_logits_before_they_are_added_up(volume: np.ndarray) -> None:
    """With numbers whose products and sums float32 holds exactly, in any order."""
    head = np.random.default_rng(1).integers(-32, 32, (7, 4)).astype(np.float32) / 8
    volume = np.round(volume * 8) / 8

    def features(batch: np.ndarray) -> np.ndarray:
        return np.concatenate([batch, batch**2, -batch], axis=1)

    blended = blended_in_half(volume, features, Half(head))
    expected = in_half(volume, lambda batch: last_layer(head, np)(features(batch)[0])[None])
    assert blended.shape == (7, *SHAPE) and np.array_equal(blended, expected.float().numpy())


def test_in_half_little_is_held_beside_the_logits_that_are_handed_on() -> None:
    """The bound of memory (inference.estimate) leaves room for three slabs."""
    planes = (32, 64, 64)
    sums = HalfSums(np.zeros((1, 1, 1, 1), np.float32), planes, np.ones(planes, np.float32), Half(), np)
    sums.add(np.ones((1, *planes), np.float32), whole(planes), slice(64), slice(64))
    tracemalloc.start()
    logits = sums.handed_on(slice(0, 32), None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (logits == 1).all() and peak < 2.5 * logits.nbytes


def test_in_half_what_is_too_large_is_told(volume: np.ndarray) -> None:
    assert np.abs(volume).max() > 3
    with pytest.raises(EngineError, match="beyond the range of float16"):
        blended_in_half(volume, lambda batch: 1e4 * network(batch), Half())


def test_where_no_window_ran_every_channel_is_zero(volume: np.ndarray) -> None:
    def two_windows() -> Plan:
        yield [(0, 0, 0)]
        yield [(11, 11, 16)]

    blended = np.concatenate([part for _, part in slabs(volume[None], network, two_windows(), PATCH, np)], axis=1)
    assert blended.shape == (3, *SHAPE)
    assert not blended[:, 6:11].any()
    np.testing.assert_allclose(blended[0, :6, :8, :10], volume[:6, :8, :10], atol=1e-5)
    np.testing.assert_allclose(blended[0, 11:, 11:, 16:], volume[11:, 11:, 16:], atol=1e-5)


@pytest.mark.parametrize("start", [0, 4, 11])
def test_planes_that_lie_beyond_the_last_window_are_zero(
    volume: np.ndarray, start: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patches, "AT_ONCE", 2 * 3 * SHAPE[1] * SHAPE[2])

    def one_window() -> Plan:
        yield [(start, 0, 0)]

    parts = list(slabs(volume[None], network, one_window(), PATCH, np))
    assert [low for low, _ in parts] == list(np.cumsum([0] + [part.shape[1] for _, part in parts])[:-1])
    assert max(part.shape[1] for _, part in parts) == 2
    blended = np.concatenate([part for _, part in parts], axis=1)
    expected = np.zeros((3, *SHAPE), np.float32)
    window = (slice(start, start + PATCH[0]), slice(PATCH[1]), slice(PATCH[2]))
    expected[(slice(None), *window)] = network(volume[window][None, None])[0]
    np.testing.assert_allclose(blended, expected, atol=1e-5)


def test_the_plan_is_sent_the_winners_of_its_windows(volume: np.ndarray) -> None:
    seen = []

    def plan() -> Plan:
        seen.append((yield [(0, 0, 0), (0, 4, 4)]))

    list(slabs(volume[None], network, plan(), PATCH, np, codes=winning_channel))
    assert len(seen[0]) == 2
    window = volume[:6, 4:12, 4:14]
    expected = network(window[None, None])[0].argmax(0)[::2, ::4, ::4]
    assert np.array_equal(seen[0][1], expected)


def test_a_channel_of_ones_shows_where_the_network_looked(volume: np.ndarray) -> None:
    inside = np.random.default_rng(4).random(SHAPE) < 0.9
    seen = []

    def codes(handed_on: np.ndarray, xp: object) -> np.ndarray:
        seen.append(handed_on)
        return handed_on[0] > 0

    def plan() -> Plan:
        yield [(0, 0, 0)]

    parts = slabs(volume[None], network, plan(), PATCH, np, inside, codes, ones=True)
    blended = np.concatenate([part for _, part in parts], axis=1)
    looked = np.zeros(SHAPE, bool)
    looked[:6, :8, :10] = inside[:6, :8, :10]
    assert np.array_equal(blended[-1], looked)
    assert blended.shape == (4, *SHAPE)
    assert seen[0].shape == (4, 3, 2, 3) and (seen[0][-1] == 1).all()


WIDE = (8, 12, 16)


def voxelwise(batch: np.ndarray) -> np.ndarray:
    """Foreground where a voxel is above 1: what a network says that looks no farther than the voxel."""
    return np.concatenate([batch * 0 + 1, batch], axis=1)


@pytest.mark.parametrize("step", [0.5, 0.8, 1.0])
@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ((8, 12, 16), None),
        ((9, 12, 16), None),
        ((23, 12, 16), None),
        ((41, 30, 29), None),
        ((5, 30, 9), None),
        ((41, 60, 64), (slice(3, 30), slice(10, 50), slice(0, 60))),
        ((41, 48, 64), (slice(3, 5), slice(40, 48), slice(20, 22))),
    ],
)
def test_columns_of_wide_windows_together_are_the_box(shape: Shape, box: Box | None, step: float) -> None:
    volume = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    inside = np.random.default_rng(2).random(shape) < 0.9
    layout = Planes.over(box or whole(shape), shape, WIDE, step)
    expected = voxelwise(volume[None, None])[0] * inside
    seen = np.zeros(shape, int)
    between = {1: np.zeros(shape, int), 2: np.zeros(shape, int)}  # of a voxel and the next
    for covers, column in layout.parts(volume[None], voxelwise, inside, np):
        parts = [(low, part.copy()) for low, part in column]
        assert [low for low, _ in parts] == list(np.cumsum([0] + [part.shape[1] for _, part in parts])[:-1])
        found = np.concatenate([part for _, part in parts], axis=1)
        np.testing.assert_allclose(found, expected[(slice(None), *covers)], rtol=1e-5)
        seen[covers] += 1
        for axis, pairs in between.items():
            inner = list(covers)
            inner[axis] = slice(covers[axis].start, covers[axis].stop - 1)
            pairs[tuple(inner)] += 1
    assert (seen[layout.box] > 0).all() and seen.sum() == seen[layout.box].sum()
    for axis, pairs in between.items():
        inner = list(layout.box)
        inner[axis] = slice(layout.box[axis].start, layout.box[axis].stop - 1)
        assert (pairs[tuple(inner)] > 0).all()


def test_over_a_box_windows_lie_as_if_that_were_all(volume: np.ndarray) -> None:
    box = (slice(2, 11), slice(3, 19), slice(0, 14))
    inside = np.random.default_rng(5).random(SHAPE) < 0.9
    layout = Boxed(box, Patches(shape_of(box), PATCH, 0.5))
    ((covers, found),) = layout.parts(volume[None], network, inside, np)
    assert covers == box and layout.window == PATCH
    ((_, expected),) = Patches(shape_of(box), PATCH, 0.5).parts(
        volume[None][(slice(None), *box)], network, inside[box], np
    )
    for (start, slab), (own, other) in zip(found, expected, strict=True):
        assert start == own and np.array_equal(slab, other)


@pytest.mark.parametrize("shape", [(3, 30, 9), (17, 5, 26), (2, 3, 4)])
def test_what_is_smaller_than_a_patch_is_padded_as_by_nnunet(shape: Shape) -> None:
    volume = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    pad = padding(shape, PATCH)
    larger = np.pad(volume, pad)
    parts = slabs(larger[None], network, dense_plan(larger.shape, PATCH, 0.5), PATCH, np)
    expected = np.concatenate([part for _, part in parts], axis=1)
    ((covers, found),) = Patches(shape, PATCH, 0.5).parts(volume[None], network, None, np)
    assert covers == whole(shape)
    inner = tuple(slice(before, before + n) for (before, _), n in zip(pad, shape, strict=True))
    assert np.array_equal(np.concatenate([part for _, part in found], axis=1), expected[(slice(None), *inner)])


def test_a_window_that_lies_beyond_the_volume_is_zero_there() -> None:
    volume = np.arange(1, 9).reshape(2, 2, 2)
    assert cut(volume, (-1, 0, 1), (2, 2, 3), np).tolist() == [[[0] * 3] * 2, [[2, 0, 0], [4, 0, 0]]]
    assert np.array_equal(cut(volume, (0, 0, 0), (2, 2, 2), np), volume)


@pytest.mark.parametrize("depth", [68, 80, 95])
def test_wide_windows_are_blended_as_gaussian_weights_along_z_do(depth: int) -> None:
    window = (32, 4, 4)

    def plane_of_window(batch: np.ndarray) -> np.ndarray:
        planes = np.arange(window[0], dtype=np.float32)[:, None, None]
        return np.concatenate([batch * 0, batch * 0 + planes], axis=1)  # the second channel wins: all is found

    volume = np.zeros((depth, 4, 4), np.float32)
    inside = np.ones(volume.shape, bool)
    layout = Planes.over(whole(volume.shape), volume.shape, window, 0.5)
    ((_, column),) = layout.parts(volume[None], plane_of_window, inside, np)
    parts = [part.copy() for _, part in column]
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
