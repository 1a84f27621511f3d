"""What is measured, as types and as the JSON that schema.json describes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar

from inference.formats.atomic import write_atomically
from inference.formats.outputs import in_the_way

FORMAT, VERSION = "viscera-benchmark", 1


class OfCase(Protocol):
    @property
    def case(self) -> str: ...


T = TypeVar("T", bound=OfCase)


@dataclass(frozen=True)
class Host:
    """What numbers were measured on: a date in UTC, processor and memory (MB), and versions."""

    time: str
    processor: str
    cores: int
    memory_mb: int
    system: str
    python: str
    viscera: str
    commit: str | None
    libraries: dict[str, str]

    def same_but_time(self, other: Host) -> list[str]:
        """The names of fields that differ."""
        ours, theirs = asdict(self), asdict(other)
        return [name for name in ours if name != "time" and ours[name] != theirs[name]]


@dataclass(frozen=True)
class Run:
    """One case in a separate process.

    round        of all cases, from 0
    error        its last words, if exit_code is not 0
    wall_s       from the start of the command to its end
    cpu_s        of all its processes; None in a container
    samples      the sampler's curves
    host_memory  efficiency.figures of the run's own memory
    flare24      efficiency.flare24
    gpu_memory   efficiency.figures of the GPU's, None without one
    record       of `--json`, None if there is none
    """

    case: str
    round: int
    exit_code: int
    error: str | None
    wall_s: float
    cpu_s: float | None
    samples: dict[str, Any]
    host_memory: dict[str, float]
    flare24: dict[str, float]
    gpu_memory: dict[str, float] | None
    record: dict[str, Any] | None

    @property
    def ended_well(self) -> bool:
        return self.exit_code == 0


@dataclass(frozen=True)
class Runs:
    """What `run` and `scaling` write. `image` is that of the runner docker, `growth` that of scaling."""

    host: Host
    runner: str
    flags: list[str]
    runs: list[Run]
    image: dict[str, Any] | None = None
    growth: dict[str, list[float]] | None = None

    def by_case(self) -> dict[str, list[Run]]:
        return by_case(self.runs)

    def to_json(self) -> dict[str, Any]:
        document = {"format": FORMAT, "version": VERSION, **asdict(self)}
        return {name: value for name, value in document.items() if name not in ("image", "growth") or value is not None}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Runs:
        """Raises KeyError or TypeError where `document` is not what to_json made."""
        runs = [Run(**{field.name: one[field.name] for field in fields(Run)}) for one in document["runs"]]
        rest = {name: document.get(name) for name in ("image", "growth")}
        return cls(Host(**document["host"]), document["runner"], document["flags"], runs, **rest)


def by_case(found: Iterable[T]) -> dict[str, list[T]]:
    """What was measured of each case, in the order in which cases first come."""
    cases: dict[str, list[T]] = {}
    for one in found:
        cases.setdefault(one.case, []).append(one)
    return cases


def read(path: Path, kind: str) -> dict[str, Any]:
    """A JSON file of this program that has the field `kind`. Raises ValueError where it is another file."""
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if document.get("format") != FORMAT or document.get("version") != VERSION or kind not in document:
        raise ValueError(f"{path} holds no {kind} of {FORMAT} version {VERSION}")
    return document


def read_runs(path: Path) -> Runs:
    """Raises ValueError where a file is not what `run` or `scaling` wrote."""
    try:
        return Runs.from_json(read(path, "runs"))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is not complete: {type(error).__name__} {error}") from error


def output(text: str) -> Path:
    """An argument: a file for `write`, which replaces none but those."""
    if why := in_the_way(Path(text), lambda found: isinstance(found, dict) and found.get("format") == FORMAT):
        raise argparse.ArgumentTypeError(f"{text} {why}")
    return Path(text)


def write(document: dict[str, Any], out: Path) -> None:
    """Write JSON so that a kill leaves the file as it was before."""
    write_atomically(out, (json.dumps(document, indent=1) + "\n").encode())


def markdown(table: list[list[str]]) -> str:
    """Rows of which the first is the head; all columns but the first are numbers."""
    head, *rows = table
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)
