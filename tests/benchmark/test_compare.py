"""Verdicts on pairs of results that are written by hand."""

from __future__ import annotations

import pytest

from benchmark.compare import changes
from benchmark.document import Runs
from tests.benchmark.runs import run_of, runs_of


def result(**walls: list[float]) -> Runs:
    """Runs of cases by name; a wall time below 0 stands for a run that failed."""
    return runs_of(run_of(case, wall, exit_code=int(wall < 0)) for case, times in walls.items() for wall in times)


def verdict(old: list[float], new: list[float]) -> str:
    seconds, memory = changes(result(a=old), result(a=new))
    assert memory.verdict == "same"
    return seconds.verdict


def test_slower_beyond_both_spreads_is_worse_and_within_them_the_same() -> None:
    assert verdict([1.0, 1.1, 1.2], [1.3, 1.4, 1.5]) == "worse"
    assert verdict([1.0, 1.1, 1.4], [1.3, 1.4, 1.5]) == "same"
    assert verdict([1.3, 1.4, 1.5], [1.0, 1.1, 1.2]) == "better"
    assert verdict([1.000, 1.001], [1.002, 1.003]) == "same"  # apart, but by nothing that matters


def test_the_ratio_is_that_of_the_medians() -> None:
    seconds, _ = changes(result(a=[2.0, 1.0, 9.0]), result(a=[3.0, 3.0, 3.0]))
    assert seconds.ratio == 1.5


def test_a_failed_run_does_not_count_and_a_case_that_fails_now_is_named() -> None:
    seconds, _ = changes(result(a=[1.0, -1.0]), result(a=[1.0, 1.0]))
    assert (seconds.old, seconds.new) == (1.0, 1.0)
    with pytest.raises(ValueError, match="a ran before and fails now"):
        changes(result(a=[1.0], b=[1.0]), result(a=[-1.0], b=[1.0]))
    with pytest.raises(ValueError, match="no case in common"):
        changes(result(a=[1.0]), result(b=[1.0]))
