"""Sparse restoring against nnU-Net's dense one: every voxel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy import ndimage

from inference.prepare import Trace
from inference.resize import resampled_shape
from inference.restore import restore, winning_channel
from tests.inference.cards import make_card
from tests.inference.test_prepare import SPACINGS

STORED = (21, 47, 52)
BOX = (slice(1, 20), slice(0, 45), slice(3, 52))


def logits_of(shape: tuple[int, ...], channels: int = 6) -> np.ndarray:
    noise = np.random.default_rng(1).normal(size=(channels, *shape))
    return np.stack([ndimage.gaussian_filter(channel, 1.5) for channel in noise]).astype(np.float32)


def in_slabs(logits: np.ndarray, planes: int) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, logits.shape[1], planes):
        yield start, logits[:, start : start + planes]


@pytest.mark.usefixtures("nnunet")
@pytest.mark.parametrize("planes", [1, 3, 100])
@pytest.mark.parametrize(("spacing", "at"), SPACINGS)
def test_equal_to_nnunets_dense_restoring(
    spacing: tuple[float, float, float], at: tuple[float, float, float], planes: int
) -> None:
    resampling = pytest.importorskip("nnunetv2.preprocessing.resampling.default_resampling")
    trace = Trace(STORED, "LPS", BOX, spacing)
    z, y, x = (int(n) for n in resampling.compute_new_shape(trace.shape, spacing, at))
    shape = (z, y, x)
    logits = logits_of(shape)
    dense = resampling.resample_data_or_seg_to_shape(logits, trace.shape, at, spacing, False, 1, 0, None).argmax(0)
    expected = np.zeros(STORED, np.uint8)
    expected[BOX] = dense
    labels = restore(in_slabs(logits, planes), shape, trace, make_card(at, channels=6), np)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, expected)


@pytest.mark.parametrize(("spacing", "at"), [((2.0, 1.0, 0.9), (1.5, 1.4, 1.3)), ((3.0, 0.8, 0.8), (4.0, 1.2, 1.2))])
def test_a_part_of_the_volume_is_restored_as_in_the_whole(
    spacing: tuple[float, float, float], at: tuple[float, float, float]
) -> None:
    trace, card = Trace(STORED, "LPS", BOX, spacing), make_card(at, channels=6)
    shape = resampled_shape(trace.shape, spacing, at)
    box = (slice(2, shape[0] - 1), slice(5, shape[1]), slice(4, shape[2] - 7))
    logits = np.zeros((6, *shape), np.float32)
    logits[0] = 50  # background everywhere but well inside the box
    inner = tuple(slice(part.start + 1, part.stop - 1) for part in box)
    logits[(slice(None), *inner)] = logits_of(tuple(part.stop - part.start for part in inner))
    whole = restore(in_slabs(logits, 4), shape, trace, card, np)
    part = restore(in_slabs(logits[(slice(None), *box)], 4), shape, trace, card, np, box)
    assert whole.any()
    assert np.array_equal(part, whole)


def test_labels_take_the_values_of_the_card_and_the_axes_of_the_file() -> None:
    logits = np.zeros((2, 2, 3, 4), np.float32)
    logits[1, 0, 0, 0] = 1  # in LPS: most right, most anterior, most inferior
    trace = Trace((2, 3, 4), "RAS", (slice(0, 2), slice(0, 3), slice(0, 4)), (1.0, 1.0, 1.0))
    card = make_card((1.0, 1.0, 1.0), orientation="LPS", values=(0, 14))
    labels = restore(iter([(0, logits)]), (2, 3, 4), trace, card, np)
    assert labels[0, 2, 3] == 14  # stored the other way round in x and y
    assert labels.sum() == 14


def test_the_first_of_equal_channels_wins() -> None:
    logits = np.array([1.0, 3.0, 3.0, 2.0], np.float32).reshape(4, 1, 1, 1)
    assert winning_channel(logits, np).item() == 1
