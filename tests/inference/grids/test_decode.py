"""A head that comes after blending and resampling, beside logits that were there before."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inference.errors import WeightsError
from inference.grids import decode
from inference.grids.decode import (
    CODES,
    Decode,
    after,
    last_region,
    rounded_winning_channel,
    winning_channel,
    with_logits,
)
from inference.model import Model, Quiet
from inference.options import DENSE
from inference.record import Record
from inference.scan import Scan
from inference.segment import segment
from tests.inference.cards import make_card

LABELS, FEATURES = 9, 3


@pytest.fixture
def head() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(LABELS, FEATURES + 1)).astype(np.float32)


def logits_of(head: np.ndarray, features: np.ndarray) -> np.ndarray:
    return np.einsum("kc,c...->k...", head, features)


@pytest.mark.parametrize("codes", [winning_channel, last_region])
@pytest.mark.parametrize("voxels", [1, 7, 1 << 14])
def test_codes_after_a_head_are_those_of_its_logits(
    head: np.ndarray, codes: decode.Codes, voxels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "VOXELS", voxels)
    features = np.random.default_rng(1).normal(size=(FEATURES + 1, 3, 4, 5)).astype(np.float32)
    assert np.array_equal(after(head, codes)(features, np), codes(logits_of(head, features), np))


def test_where_no_window_was_is_background(head: np.ndarray) -> None:
    assert not after(head, CODES["argmax"])(np.zeros((FEATURES + 1, 2, 2), np.float32), np).any()


def test_tiles_whose_winner_is_sure_hold_no_other(head: np.ndarray) -> None:
    """On a grid that no tile divides, with regions of like features and noise in some."""
    rng = np.random.default_rng(4)
    coarse = rng.normal(size=(FEATURES, 2, 2, 4))
    features = coarse.repeat(8, axis=1).repeat(16, axis=2).repeat(6, axis=3)[:, :13, :29]
    features += 0.02 * rng.normal(size=features.shape)
    features[:, :4, :8] += rng.normal(size=(FEATURES, 4, 8, 24))
    features = np.concatenate([features, np.ones_like(features[:1])]).astype(np.float32)
    expected = winning_channel(logits_of(head, features), np)
    found, sure = decode._winners_of_tiles(head, features)
    assert 0.2 < sure.mean() < 0.9
    assert np.array_equal(found[sure], expected.ravel()[sure])
    assert np.array_equal(after(head, winning_channel)(features, np), expected)


@pytest.mark.parametrize("kind", ["argmax", "regions"])
def test_labels_of_a_scan_with_the_head_apart_and_in_the_network(tmp_path: Path, head: np.ndarray, kind: str) -> None:
    def features(batch: np.ndarray) -> np.ndarray:
        return np.concatenate([batch, np.sin(3 * batch), np.cos(2 * batch)], axis=1).astype(np.float32)

    np.save(tmp_path / "head.npy", head)
    values = tuple(range(LABELS)) if kind == "argmax" else tuple(range(1, LABELS + 1))
    plain = make_card((3.0, 2.0, 2.0), values=values, decode=kind)
    card = replace(plain, folder=tmp_path, head="head.npy", files={"head.npy": digest(tmp_path / "head.npy")})
    hu = np.random.default_rng(2).normal(50, 80, (20, 24, 30)).astype(np.float32)
    scan = replace(Scan.of(hu, (2.0, 1.7, 1.7), "LPS"), checked=True)
    found, expected = (
        segment(scan, [Model.of(one, network, precision="bf16")], [DENSE], np, Record(), Quiet())
        for one, network in ((card, features), (plain, with_logits(features, card, np)))
    )
    assert len(np.unique(expected)) > 4
    assert (found == expected).mean() > 0.9999  # sums in another order: ties may fall otherwise


@pytest.mark.parametrize("tta", [False, True])
def test_labels_of_features_are_rounded_as_logits_are(tmp_path: Path, head: np.ndarray, tta: bool) -> None:
    def features(batch: np.ndarray) -> np.ndarray:
        return np.concatenate([batch, np.sin(3 * batch), np.cos(2 * batch)], axis=1).astype(np.float32)

    np.save(tmp_path / "head.npy", head)
    plain = replace(make_card((3.0, 2.0, 2.0), channels=LABELS), mirror_axes=(0, 2))
    card = replace(plain, folder=tmp_path, head="head.npy", files={"head.npy": digest(tmp_path / "head.npy")})
    hu = np.random.default_rng(2).normal(50, 80, (20, 24, 30)).astype(np.float32)
    scan = replace(Scan.of(hu, (2.0, 1.7, 1.7), "LPS"), checked=True)
    found, expected, unrounded = (
        segment(scan, [Model.of(one, network, precision=of)], [replace(DENSE, tta=tta)], np, Record(), Quiet())
        for one, network, of in (
            (card, features, "f32"),
            (plain, with_logits(features, card, np), "f32"),
            (card, features, "bf16"),
        )
    )
    assert np.array_equal(found, expected)
    assert (found != unrounded).any()


def test_a_damaged_head_is_found(tmp_path: Path, head: np.ndarray) -> None:
    np.save(tmp_path / "head.npy", head)
    card = replace(make_card(), folder=tmp_path, head="head.npy", files={"head.npy": "0" * 64})
    with pytest.raises(WeightsError, match="head.npy is damaged"):
        Decode.of(card)


def digest(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_rounding_holds_little_more_than_a_copy() -> None:
    """Splines of an order above 1 hand over many planes of all channels: 250 MB of 15 channels of 512 x 512."""
    logits = np.random.default_rng(3).normal(size=(8, 16, 64, 64)).astype(np.float32)
    tracemalloc.start()
    rounded_winning_channel(logits, np)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.5 * logits.nbytes
