"""What is left out of interpolation: no label changes by it, whatever the logits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from inference.arrays import round_to_half
from inference.grids import sparse
from inference.grids.decode import Codes, Decode, after, last_region, rounded_winning_channel, winning_channel
from inference.grids.resize import Taps, taps
from inference.grids.sparse import Candidates, PlaneRestorer
from tests.inference.cards import make_card

SHAPE = (2, 11, 13)
SIZES = [(40, 31), (17, 13), (11, 50), (5, 7), (11, 13)]
WEIGHTS = [np.float32(0), np.float32(0.3)]


def logits_of(kind: str, channels: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    noise = np.random.default_rng(2).normal(size=(channels, *shape))
    if kind == "smooth":
        noise = 5 * ndimage.gaussian_filter(noise, (0, 1, 2, 2))
    return (np.round(noise) if kind == "ties" else noise).astype(np.float32)


def dense(logits: np.ndarray, y: Taps, x: Taps, weight: np.float32, codes: Codes) -> np.ndarray:
    plane = logits[:, 0] + weight * (logits[:, 1] - logits[:, 0]) if weight > 0 else logits[:, 0]
    value = np.zeros((len(plane), len(y.lower), len(x.lower)), np.float32)
    for rows, part_y in ((y.lower, 1 - y.weight), (y.upper, y.weight)):
        for columns, part_x in ((x.lower, 1 - x.weight), (x.upper, x.weight)):
            value += plane[:, rows][:, :, columns] * (part_y[:, None] * part_x)
    return codes(value, np)


def axes(size: tuple[int, int]) -> tuple[Taps, Taps]:
    return taps(SHAPE[1], size[0], 1), taps(SHAPE[2], size[1], 1)


def restored(decode: Decode, held: np.ndarray, y: Taps, x: Taps, weight: np.float32) -> np.ndarray:
    return PlaneRestorer(y, x, decode).restore(held, decode.codes(held, np), 0, 1, weight)


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [2, 15, 118])
@pytest.mark.parametrize("kind", ["smooth", "noise", "ties"])
def test_the_channels_left_out_win_nowhere(
    kind: str, channels: int, size: tuple[int, int], weight: np.float32, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit as if every channel were interpolated at every voxel, with a few cells at a time."""
    monkeypatch.setattr(sparse, "NUMBERS", 30 * channels)
    logits, (y, x) = logits_of(kind, channels), axes(size)
    found = restored(Decode.of(make_card(channels=channels)), logits, y, x, weight)
    assert np.array_equal(found, dense(logits, y, x, weight, winning_channel))


@pytest.mark.parametrize("channels", [2, 15])
@pytest.mark.parametrize("kind", ["smooth", "noise"])
def test_logits_in_half_are_rounded_once_more(kind: str, channels: int) -> None:
    """Of channels that are equal then the first wins, though it may be below another at a corner."""
    logits, (y, x) = logits_of(kind, channels), axes(SIZES[0])
    logits[1] = logits[0] * (1 + np.random.default_rng(5).choice([-1, 1], SHAPE) * np.float32(2**-10))
    round_to_half(logits, np)
    decode = Decode.in_half(make_card(channels=channels))
    assert decode
    found, rounded, exact = (
        restored(decode, logits, y, x, WEIGHTS[1]),
        dense(logits, y, x, WEIGHTS[1], rounded_winning_channel),
        dense(logits, y, x, WEIGHTS[1], winning_channel),
    )
    # Where one is above at all corners it is taken without a look at what rounding makes of it.
    wrong, without = ((labels != rounded).sum() for labels in (found, exact))
    assert wrong <= without / 10 and without, (wrong, without)


def test_what_is_rounded_by_nnunet() -> None:
    card = make_card(channels=15)
    regions = make_card(values=(1, 2, 3), decode="regions")
    first = replace(card, resample=replace(card.resample, version=1))
    assert Decode.in_half(card) and not any(map(Decode.in_half, (first, replace(card, folds=43))))
    summed = Decode.in_half(regions)
    assert summed and summed.of_logits is last_region  # rounding changes no sign, but in sums
    by_torch = replace(card, resample=replace(card.resample, logits=replace(card.resample.logits, method="torch")))
    rounded = Decode.in_half(by_torch)
    assert rounded and rounded.of_logits is winning_channel  # whose resampling gives float32


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("regions", [1, 3, 7])
def test_regions_are_all_interpolated(regions: int, size: tuple[int, int], weight: np.float32) -> None:
    logits, (y, x) = logits_of("smooth", regions), axes(size)
    decode = Decode.of(make_card(values=tuple(range(1, regions + 1)), decode="regions"))
    assert np.array_equal(restored(decode, logits, y, x, weight), dense(logits, y, x, weight, last_region))


@pytest.mark.parametrize("kind", ["smooth", "noise"])
def test_a_head_after_interpolation_and_before_gives_the_same_labels(kind: str) -> None:
    features = np.concatenate([logits_of(kind, 6), np.ones((1, *SHAPE), np.float32)])
    head = np.random.default_rng(3).normal(size=(50, 7)).astype(np.float32)
    plain = Decode.of(make_card(channels=50))
    decode = replace(plain, head=head, codes=after(head, plain.of_logits))
    y, x = axes(SIZES[0])
    expected = dense(np.einsum("kc,czyx->kzyx", head, features), y, x, WEIGHTS[1], winning_channel)
    found = restored(decode, features, y, x, WEIGHTS[1])
    assert len(np.unique(expected)) > 10
    assert (found == expected).mean() > 0.999  # sums in another order: ties may fall otherwise


def test_what_wins_at_no_corner_may_win_between_them() -> None:
    """Two channels with a border between them, a third that is second at all corners, and one far below."""
    table = np.array([[9, -9, 5, -1], [-9, 9, 5, -1]], np.float32)
    among = Candidates.of(table, np.array([[0], [1], [0], [1]]))
    assert among
    assert among.counts.tolist() == [3]
    assert among.channel.tolist() == [0, 1, 2]
    assert among.values[2].tolist() == [5, 5, 5, 5]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_changes_nothing_beside_it(value: float) -> None:
    logits, (y, x) = logits_of("smooth", 5), axes(SIZES[0])
    logits[3, 0, 2:4, 3] = value
    with np.errstate(all="ignore"):
        found = restored(Decode.of(make_card(channels=5)), logits, y, x, WEIGHTS[1])
        known = np.isfinite(dense(logits, y, x, WEIGHTS[1], lambda logits, xp: logits)).all(axis=0)
        expected = dense(logits, y, x, WEIGHTS[1], winning_channel)
    assert 0 < (~known).sum() < known.size / 5
    assert np.array_equal(found[known], expected[known])
    assert found.max() < 5


def test_logits_next_to_0() -> None:
    """Where sums are rounded by more than a share of the largest logit."""
    logits, (y, x) = logits_of("noise", 2) * np.float32(1e-41), axes(SIZES[0])
    found = restored(Decode.of(make_card(channels=2)), logits, y, x, WEIGHTS[1])
    assert np.array_equal(found, dense(logits, y, x, WEIGHTS[1], winning_channel))


def test_in_noise_no_candidates_are_looked_for() -> None:
    """There it takes three times as long as to interpolate all channels."""
    corners = np.arange(400).reshape(4, 100)
    noise = np.random.default_rng(4).normal(size=(400, 15)).astype(np.float32)
    assert Candidates.of(noise, corners) is None
    noise[:200, 0] = noise[200:, 1] = 9
    assert Candidates.of(noise, corners)
