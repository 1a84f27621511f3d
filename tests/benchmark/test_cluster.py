"""The simulation of many workers, with few."""

from __future__ import annotations

import pytest

from benchmark.cluster import SECONDS, seconds_of, simulate

pytest.importorskip("distributed")


def test_a_scan_takes_as_long_in_every_process() -> None:
    assert {seconds_of(str(number), 1) for number in range(100)} == set(SECONDS)
    assert seconds_of("a", 10) == seconds_of("a", 1) / 10


@pytest.mark.slow
def test_workers_that_sleep_do_every_scan() -> None:
    found = simulate(workers=3, scans=15, speed=20)
    asleep = sum(seconds_of(f"{number:06d}", 20) for number in range(15))
    assert found["seconds"] >= asleep / 3
    assert found["efficiency"] == pytest.approx(asleep / 3 / found["seconds"])
    assert 10 < found["scheduler_peak_mb"] < 1000
