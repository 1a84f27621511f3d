"""Probabilities on the scan's grid beside those of logits that are resampled densely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inference.boxes import Box, whole
from inference.card import Card, Resample, Resize
from inference.grids import probabilities
from inference.grids.decode import Decode
from inference.grids.resize import axis_matrix, separate_axis
from inference.grids.restore import restore
from inference.grids.view import View
from inference.scan import Spacing
from inference.windows.layout import Part
from tests.inference.cards import make_card
from tests.inference.grids.test_decode import digest
from tests.inference.grids.test_restore import BOX, STORED, in_slabs, logits_of, view_of

NEAR = 0.502 / 255  # half of what a byte tells apart
SPACINGS: list[tuple[Spacing, Spacing]] = [
    ((2.5, 0.78, 0.78), (4.0, 1.2, 1.2)),
    ((5.0, 0.9, 0.9), (1.5, 1.3, 1.3)),
    ((0.8, 0.8, 5.0), (2.5, 0.9, 0.9)),
]


def restored(parts: Sequence[Part], view: View, card: Card) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and probabilities (k, z, y, x) of all but the background, both on the stored grid."""
    decode = Decode.of(card)
    kept = np.zeros((len(decode.foreground), *STORED), np.uint8)

    def keep(box: Box, values: np.ndarray) -> None:
        kept[(slice(None), *BOX)][(slice(None), *box)] = values

    return restore(parts, view, card, decode, np, keep), kept / 255


def dense(logits: np.ndarray, view: View, card: Card) -> np.ndarray:
    """Logits (k, z, y, x) on the grid of BOX."""
    resize = card.resample.logits
    separate = separate_axis(card.spacing_for(view.own_spacing), view.own_spacing, resize.force_separate_z)
    for axis, part in enumerate(BOX):
        order = resize.order_z if axis == separate else resize.order
        matrix = axis_matrix(logits.shape[axis + 1], part.stop - part.start, order)
        logits = np.moveaxis(np.tensordot(matrix, logits, (1, axis + 1)), 0, axis + 1)
    return logits


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits.astype(np.float64))
    return np.asarray(shares / shares.sum(axis=0))


@pytest.mark.parametrize("planes", [1, 4])
@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize(("spacing", "at"), SPACINGS)
def test_logits_are_resampled_and_then_become_probabilities(
    spacing: Spacing, at: Spacing, order: int, planes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probabilities, "NUMBERS", 5000)
    view = view_of(spacing, at)
    card = replace(make_card(at, channels=6), resample=Resample(image=Resize(3), logits=Resize(order)))
    logits = logits_of(view.shape) * 30
    labels, found = restored([(whole(view.shape), in_slabs(logits, planes))], view, card)
    expected = softmax(np.clip(dense(logits, view, card), logits.min(), logits.max()))
    assert np.abs(found[(slice(None), *BOX)] - expected[1:]).max() < (NEAR if order < 2 else 0.3)
    assert np.abs(found[(slice(None), *BOX)] - expected[1:]).mean() < NEAR
    assert np.array_equal(labels, restore([(whole(view.shape), in_slabs(logits, 3))], view, card, Decode.of(card), np))
    best = np.concatenate([1 - found.sum(axis=0)[None], found]).argmax(axis=0)
    assert (best == labels)[BOX].mean() > 0.97  # bytes have ties
    found[(slice(None), *BOX)] = 0
    assert not found.any()  # beyond what is not 0 of the scan


def test_regions_have_probabilities_each_by_itself() -> None:
    view, card = view_of(*SPACINGS[0]), make_card(SPACINGS[0][1], values=(1, 2, 3), decode="regions")
    logits = logits_of(view.shape, 3) * 300  # exp of these has no float32
    _, found = restored([(whole(view.shape), in_slabs(logits, 4))], view, card)
    expected = 1 / (1 + np.exp(-dense(logits, view, card).astype(np.float64)))
    assert found.shape[0] == 3
    assert np.abs(found[(slice(None), *BOX)] - expected).max() < NEAR


def test_those_of_version_1_are_resampled_as_they_are() -> None:
    view, card = view_of(*SPACINGS[0]), make_card(SPACINGS[0][1], channels=6)
    card = replace(card, resample=replace(card.resample, version=1))
    shares = softmax(logits_of(view.shape) * 30).astype(np.float32)
    _, found = restored([(whole(view.shape), in_slabs(shares, 4))], view, card)
    assert np.abs(found[(slice(None), *BOX)] - dense(shares, view, card)[1:]).max() < NEAR


def test_features_become_logits_before_they_become_probabilities(tmp_path: Path) -> None:
    head = np.random.default_rng(0).normal(size=(40, 7)).astype(np.float32)
    np.save(tmp_path / "head.npy", head)
    files = {"head.npy": digest(tmp_path / "head.npy")}
    view = view_of(*SPACINGS[0])
    plain = make_card(SPACINGS[0][1], channels=40)
    features = logits_of(view.shape) * 10
    features[:, :, :, :9] = 0
    ones = np.ones_like(features[:1])
    ones[:, :, :, :9] = 0  # no window was there
    features = np.concatenate([features, ones])
    logits = np.einsum("kc,c...->k...", head, features)
    _, expected = restored([(whole(view.shape), in_slabs(logits, 4))], view, plain)
    with_head = replace(plain, folder=tmp_path, head="head.npy", files=files)
    _, found = restored([(whole(view.shape), in_slabs(features, 4))], view, with_head)
    assert expected.max() > 0.9
    assert np.abs(found - expected).max() <= 1.01 / 255  # of two roundings


@pytest.mark.parametrize("order", [1, 3])
def test_where_no_window_was_nothing_has_a_probability(order: int) -> None:
    """Nor beside it, although logits are interpolated towards 0 there."""
    view, card = view_of(*SPACINGS[0]), make_card(SPACINGS[0][1], channels=6)
    card = replace(card, resample=Resample(image=Resize(3), logits=Resize(order)))
    logits = np.full((6, *view.shape), -9, np.float32)
    logits[0] = 9
    logits[:, :, :10] = 0
    logits[:, 5:] = 0
    _, found = restored([(whole(view.shape), in_slabs(logits, 4))], view, card)
    assert not found.any()


def test_parts_have_those_of_the_whole() -> None:
    view, card = view_of(*SPACINGS[0]), make_card(SPACINGS[0][1], channels=6)
    logits = logits_of(view.shape) * 30
    z, y, x = view.shape
    parts = [
        (slice(0, z), rows, columns)
        for rows in (slice(0, 8), slice(7, 20), slice(19, y))
        for columns in (slice(0, 13), slice(12, x))
    ]
    _, expected = restored([(whole(view.shape), in_slabs(logits, 4))], view, card)
    _, found = restored([(box, in_slabs(logits[(slice(None), *box)], 3)) for box in parts], view, card)
    assert np.abs(found - expected).max() <= 1.01 / 255
