"""A part of a run, for job arrays: of the cases of a folder, those that fall to it by their names alone.

Every part sees the same folder and needs to know nothing of the others: in the order of names each takes every n-th
case. So neighbours, often scans of one patient that take as long, go to different parts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Named = TypeVar("Named")
MOST_PARTS = 100_000
# By scheduler: the variables of a job array's index, its first index, the distance of two, and how many there are or
# the last. Those that a scheduler does not have are None; Kubernetes and PBS do not say how many there are.
ARRAYS: dict[str, tuple[str, str | None, str | None, str | None, str | None]] = {
    "Slurm": ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP", "SLURM_ARRAY_TASK_COUNT", None),
    "Grid Engine": ("SGE_TASK_ID", "SGE_TASK_FIRST", "SGE_TASK_STEPSIZE", None, "SGE_TASK_LAST"),
    "AWS Batch": ("AWS_BATCH_JOB_ARRAY_INDEX", None, None, "AWS_BATCH_JOB_ARRAY_SIZE", None),
    "Kubernetes": ("JOB_COMPLETION_INDEX", None, None, None, None),
    "PBS": ("PBS_ARRAY_INDEX", None, None, None, None),
}


@dataclass(frozen=True)
class Part:
    """The `index`-th of `count` parts, counted from 1."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count <= MOST_PARTS:
            raise ValueError(f"part {self.index} of {self.count} is not one of 1 to {MOST_PARTS:,} parts")

    def of(self, cases: Sequence[Named]) -> list[Named]:
        """The cases of this part, of those of a run in the order of their names."""
        return list(cases[self.index - 1 :: self.count])

    @property
    def summary(self) -> str:
        """The name of the file that takes the place of summary.json."""
        return f"summary.{self.index}-of-{self.count}.json"


def part_of_summary(name: str) -> Part | None:
    """The part whose summary has this file name; None if it is none's."""
    match = re.fullmatch(r"summary\.([0-9]{1,6})-of-([0-9]{1,6})\.json", name)
    try:
        return Part(int(match[1]), int(match[2])) if match else None
    except ValueError:
        return None


def read_part(text: str, environment: Mapping[str, str] = os.environ) -> Part:
    """ "3/20", "auto" or "auto/20": the index, or both, from the scheduler's variables. Raises ValueError."""
    index, _, count = text.partition("/")
    if index != "auto":
        if not (index.isdecimal() and count.isdecimal()):
            raise ValueError(f"{text!r} is not I/N, such as 3/20, or auto or auto/N in a job array")
        return Part(int(index), int(count))
    if count and not count.isdecimal():
        raise ValueError(f"{text!r} is not auto/N, such as auto/20")
    for scheduler, variables in ARRAYS.items():
        own, first, step, size, last = (environment.get(name) if name else None for name in variables)
        if own is None or not own.isdecimal():
            continue
        start = int(first) if first else 1 if scheduler == "PBS" else 0
        apart = int(step) if step and step.isdecimal() else 1
        place = (int(own) - start) // apart + 1
        if count or size:
            return Part(place, int(count or size or 0))
        if last:
            return Part(place, (int(last) - start) // apart + 1)
        raise ValueError(f"{scheduler} does not say how many parts there are: give auto/N")
    names = ", ".join(variables[0] for variables in ARRAYS.values())
    raise ValueError(f"none of {names} is set: this is not a job array")
