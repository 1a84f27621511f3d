"""Sparse restoring against nnU-Net's dense one: every voxel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from inference.boxes import whole
from inference.card import Card, Resample, Resize
from inference.grids.decode import Decode, last_region, winning_channel
from inference.grids.resize import resampled_shape
from inference.grids.restore import restore as restore_parts
from inference.grids.view import View
from inference.scan import Grid, Scan, Spacing
from tests.inference.cards import make_card
from tests.inference.grids.test_prepare import SPACINGS

STORED = (21, 47, 52)
BOX = (slice(1, 20), slice(0, 45), slice(3, 52))


def restore(parts: Any, view: View, card: Card, xp: Any) -> np.ndarray:
    return restore_parts(parts, view, card, Decode.of(card), xp)


def view_of(spacing: Spacing, at: Spacing) -> View:
    """BOX of a scan of STORED, seen at another spacing on the same axes."""
    shape = resampled_shape([part.stop - part.start for part in BOX], spacing, at)
    return View(Grid.of(STORED, spacing, "LPS"), (0, 1, 2), (False, False, False), BOX, at, shape)


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
    view = view_of(spacing, at)
    size = tuple(part.stop - part.start for part in BOX)
    assert view.shape == tuple(resampling.compute_new_shape(size, spacing, at))
    logits = logits_of(view.shape)
    dense = resampling.resample_data_or_seg_to_shape(logits, size, at, spacing, False, 1, 0, None).argmax(0)
    expected = np.zeros(STORED, np.uint8)
    expected[BOX] = dense
    labels = restore([(whole(view.shape), in_slabs(logits, planes))], view, make_card(at, channels=6), np)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, expected)


@pytest.mark.usefixtures("nnunet")
@pytest.mark.parametrize(("order", "order_z"), [(0, 0), (0, 1), (1, 1), (1, 2), (2, 0), (3, 0), (3, 3)])
@pytest.mark.parametrize(("spacing", "at"), [((2.5, 0.78, 0.78), (4.0, 1.2, 1.2)), ((0.8, 0.8, 5.0), (2.5, 0.9, 0.9))])
def test_splines_of_any_order_equal_nnunets(spacing: Spacing, at: Spacing, order: int, order_z: int) -> None:
    resampling = pytest.importorskip("nnunetv2.preprocessing.resampling.default_resampling")
    card = make_card(at, channels=6)
    size = tuple(part.stop - part.start for part in BOX)
    for force in (None, False):
        card = replace(card, resample=Resample(image=Resize(3), logits=Resize(order, order_z, force)))
        view = view_of(spacing, at)
        logits = logits_of(view.shape)
        args = (size, at, spacing, False, order, order_z, force)
        expected = resampling.resample_data_or_seg_to_shape(logits, *args).argmax(0)
        labels = restore([(whole(view.shape), in_slabs(logits, 5))], view, card, np)
        assert (labels[BOX] == expected).mean() > 0.9999  # float32 against float64
        assert labels.any()


def test_a_network_that_saw_nothing_leaves_background() -> None:
    card = replace(make_card(), resample=Resample(image=Resize(3), logits=Resize(3)))
    assert not restore([], view_of((2.0, 1.0, 0.9), (4.0, 1.2, 1.2)), card, np).any()


@pytest.mark.parametrize(("spacing", "at"), [((2.0, 1.0, 0.9), (1.5, 1.4, 1.3)), ((3.0, 0.8, 0.8), (4.0, 1.2, 1.2))])
def test_a_part_of_the_volume_is_restored_as_in_the_whole(
    spacing: tuple[float, float, float], at: tuple[float, float, float]
) -> None:
    view, card = view_of(spacing, at), make_card(at, channels=6)
    shape = view.shape
    box = (slice(2, shape[0] - 1), slice(5, shape[1]), slice(4, shape[2] - 7))
    logits = np.zeros((6, *shape), np.float32)
    logits[0] = 50  # background everywhere but well inside the box
    inner = tuple(slice(part.start + 1, part.stop - 1) for part in box)
    logits[(slice(None), *inner)] = logits_of(tuple(part.stop - part.start for part in inner))
    expected = restore([(whole(shape), in_slabs(logits, 4))], view, card, np)
    part = restore([(box, in_slabs(logits[(slice(None), *box)], 4))], view, card, np)
    assert expected.any()
    assert np.array_equal(part, expected)


@pytest.mark.parametrize(("spacing", "at"), [((2.0, 1.0, 0.9), (1.5, 1.4, 1.3)), ((3.0, 0.8, 0.8), (4.0, 1.2, 1.2))])
def test_parts_that_share_a_voxel_are_restored_as_the_whole(spacing: Spacing, at: Spacing) -> None:
    view, card = view_of(spacing, at), make_card(at, channels=6)
    logits = logits_of(view.shape)
    z, y, x = view.shape
    parts = [
        (slice(0, z), rows, columns)
        for rows in (slice(0, 8), slice(7, 20), slice(19, y))
        for columns in (slice(0, 13), slice(12, x))
    ]
    expected = restore([(whole(view.shape), in_slabs(logits, 4))], view, card, np)
    found = restore([(box, in_slabs(logits[(slice(None), *box)], 3)) for box in parts], view, card, np)
    assert np.array_equal(found, expected)


def test_labels_take_the_values_of_the_card_and_the_axes_of_the_file() -> None:
    logits = np.zeros((2, 2, 3, 4), np.float32)
    logits[1, 0, 0, 0] = 1  # in LPS: most right, most anterior, most inferior
    scan = Scan.of(np.ones((2, 3, 4), np.int16), (1.0, 1.0, 1.0), "RAS")
    card = make_card((1.0, 1.0, 1.0), orientation="LPS", values=(0, 14))
    labels = restore([(whole((2, 3, 4)), iter([(0, logits)]))], View.of(scan, card), card, np)
    assert labels[0, 2, 3] == 14  # stored the other way round in x and y
    assert labels.sum() == 14


def test_the_first_of_equal_channels_wins() -> None:
    logits = np.array([1.0, 3.0, 3.0, 2.0], np.float32).reshape(4, 1, 1, 1)
    assert winning_channel(logits, np).item() == 1


@pytest.mark.parametrize(("spacing", "at"), SPACINGS)
def test_regions_equal_nnunets(spacing: Spacing, at: Spacing) -> None:
    """Three regions, later over earlier, two of which write one value."""
    resampling = pytest.importorskip("nnunetv2.preprocessing.resampling.default_resampling")
    view = view_of(spacing, at)
    size = tuple(part.stop - part.start for part in BOX)
    logits = logits_of(view.shape, 3)
    dense = resampling.resample_data_or_seg_to_shape(logits, size, at, spacing, False, 1, 0, None)
    expected = np.zeros(STORED, np.uint8)
    for region, value in zip(dense, (5, 2, 5), strict=True):
        expected[BOX][region > 0] = value
    card = make_card(at, values=(5, 2, 5), decode="regions")
    assert np.array_equal(restore([(whole(view.shape), in_slabs(logits, 3))], view, card, np), expected)


@pytest.mark.parametrize("codes", [winning_channel, last_region])
def test_equal_codes_at_all_corners_are_the_code_between_them(codes: Any) -> None:
    rng = np.random.default_rng(3)
    shape = (4, 8, 20000)  # channels, corners, cells
    corners = (rng.normal(size=(4, 1, 20000)) + 0.3 * rng.normal(size=shape)).astype(np.float32)
    at = codes(corners, np)
    same = (at == at[0]).all(axis=0)
    weights = rng.dirichlet(np.ones(8), 20000).T.astype(np.float32)
    between = codes((corners * weights).sum(axis=1), np)
    assert same.sum() > 100
    assert np.array_equal(between[same], at[0][same])
