"""Two results of the same cases, case by case: is the new one slower beyond what either varies anyway?"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass
from pathlib import Path

from benchmark.document import Run, Runs, read_runs

FIGURES = ("seconds", "memory_mb")
LEAST = 1.02  # a ratio below it is no finding, however steady both results are


@dataclass(frozen=True)
class Change:
    """Of one case and figure: the ratio new / old of the medians, and whether their ranges lie apart."""

    case: str
    figure: str
    old: float
    new: float
    apart: bool

    @property
    def ratio(self) -> float:
        return self.new / self.old if self.old else 1.0

    @property
    def verdict(self) -> str:
        if not self.apart or 1 / LEAST < self.ratio < LEAST:
            return "same"
        return "worse" if self.ratio > 1 else "better"


def changes(old: Runs, new: Runs) -> list[Change]:
    """Wall time and peak host memory of every case that both documents have runs of.

    Raises ValueError where they have no case in common, or where a case that ran before fails now.
    """
    before, after = (
        {case: [run for run in runs if run.ended_well] for case, runs in one.by_case().items()} for one in (old, new)
    )
    broken = [case for case, runs in after.items() if before.get(case) and not runs]
    if broken:
        raise ValueError(f"{', '.join(broken)} ran before and fails now")
    common = [case for case in before if before[case] and after.get(case)]
    if not common:
        raise ValueError("the two results have no case in common")
    found = []
    for case in common:
        for figure in FIGURES:
            a, b = ([_figure(run, figure) for run in runs[case]] for runs in (before, after))
            apart = min(b) > max(a) or max(b) < min(a)
            found.append(Change(case, figure, statistics.median(a), statistics.median(b), apart))
    return found


def _figure(run: Run, figure: str) -> float:
    return run.wall_s if figure == "seconds" else run.host_memory["max_mb"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)


def run(options: argparse.Namespace) -> None:
    """Print how the new runs differ from the old ones. Raises ValueError where a case is slower or takes more."""
    found = changes(read_runs(options.old), read_runs(options.new))
    for one in found:
        print(f"{one.case}: {one.figure} {one.old:.2f} -> {one.new:.2f}, {one.ratio:.3f} times: {one.verdict}")
    worse = [f"{one.case} ({one.figure} {one.ratio:.2f} times)" for one in found if one.verdict == "worse"]
    if worse:
        raise ValueError(f"worse beyond the spread of both: {', '.join(worse)}")
