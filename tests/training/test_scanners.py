"""Scanners and protocols: what they leave, and that each makes a difference."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from training.chance import Chance  # noqa: E402
from training.scanners import _coarse, scanned  # noqa: E402

CPU = torch.device("cpu")


def test_the_shape_stays_and_every_protocol_is_finite() -> None:
    hu = torch.randn((1, 1, 12, 21, 35)) * 100
    results = [scanned(Chance.seeded(CPU, 7, number), hu) for number in range(60)]
    assert all(result.shape == hu.shape and torch.isfinite(result).all() for result in results)
    assert sum(torch.equal(result, hu) for result in results) < 6
    assert torch.equal(results[5], scanned(Chance.seeded(CPU, 7, 5), hu))


def test_coarse_planes_keep_means_and_lose_detail() -> None:
    hu = torch.randn((1, 1, 6, 24, 36)) * 50 + 40
    for number in range(6):
        coarse = _coarse(Chance.seeded(CPU, number).rng, hu)
        assert coarse.shape == hu.shape
        assert float(coarse.mean()) == pytest.approx(float(hu.mean()), abs=3)
        assert float(coarse.std()) < 0.7 * float(hu.std())
    flat = torch.full((1, 1, 6, 23, 31), 40.0)
    assert torch.allclose(_coarse(Chance.seeded(CPU, 1).rng, flat), flat)
