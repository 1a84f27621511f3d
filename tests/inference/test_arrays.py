"""What is ours of array arithmetic."""

from __future__ import annotations

import numpy as np

from inference.arrays import round_to_half


def test_rounded_to_half_as_numpy_converts() -> None:
    """Every float16, what lies between two of them, and a little beside."""
    with np.errstate(invalid="ignore"):
        half = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    half = np.sort(half[np.isfinite(half)])
    between = (half[1:] + half[:-1]) / 2
    values = np.concatenate([half, between, np.nextafter(between, np.float32(1e5)), np.nextafter(between, half[:-1])])
    values = np.resize(values, (3, 7, len(values) // 21 + 1))
    expected = values.astype(np.float16).astype(np.float32)
    for given in (values.copy(), np.moveaxis(values, 0, 2).copy().transpose(2, 0, 1)):
        round_to_half(given, np)
        assert np.array_equal(given, expected)


def test_what_is_beyond_float16_is_infinite() -> None:
    values = np.array([[1e30, -7e5, np.inf, 65519.99, 65520, np.nan]], np.float32)
    round_to_half(values, np)
    assert values.tolist() == [[np.inf, -np.inf, np.inf, 65504, np.inf, np.inf]]
