"""Starts the programs of benchmark, and makes documents of runs by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

from benchmark.document import Host, Run, Runs
from tests.conftest import ROOT

SCHEMA = json.loads((ROOT / "benchmark" / "schema.json").read_text())

HOST = Host("2026-11-27T00:00:00Z", "a processor", 2, 8000, "Linux", "3.11", "0.2.0", None, {})


def benchmark(*arguments: Any) -> subprocess.CompletedProcess[str]:
    """`python -m benchmark ARGUMENTS`, ended, with what it printed."""
    command = [sys.executable, "-m", "benchmark", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def run_of(case: str, wall_s: float, memory_mb: float = 100.0, **fields: Any) -> Run:
    """A run that ended well, unless `exit_code` says otherwise."""
    figures = {"max_mb": memory_mb, "flare_area_mb_s": 0.0, "trapezoid_mb_s": 0.0}
    usual: dict[str, Any] = {"round": 0, "exit_code": 0, "error": None, "cpu_s": None, "samples": {}, "flare24": {}}
    usual |= {"gpu_memory": None, "record": None, "host_memory": figures}
    return Run(case=case, wall_s=wall_s, **usual | fields)


def runs_of(runs: Iterable[Run]) -> Runs:
    return Runs(HOST, "process", [], list(runs))
