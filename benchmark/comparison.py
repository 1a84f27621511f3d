"""Two results of the same cases, case by case: is the new one slower beyond what either varies by itself?"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

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


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """Wall time and peak host memory of every case that both documents have runs of.

    Raises ValueError where they have no case in common, or where a case that ran before fails now.
    """
    before, after = _by_case(old), _by_case(new)
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


def _figure(run: dict[str, Any], figure: str) -> float:
    return float(run["wall_s"] if figure == "seconds" else run["host_memory"]["max_mb"])


def _by_case(document: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    cases: dict[str, list[dict[str, Any]]] = {}
    for run in document["runs"]:
        runs = cases.setdefault(run["case"], [])
        if run["exit_code"] == 0:
            runs.append(run)
    return cases
