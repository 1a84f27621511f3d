"""Measure this program on a machine with a GPU, without questions: `python -m benchmark gpu KIT OUT`

KIT is what `make gpu-kit` made. On the other machine, which needs Python 3.12 and PyTorch, from the root of this
project:

    pip install --no-index --no-deps --target /tmp/site KIT/wheels/*.whl; \\
    PYTHONPATH=/tmp/site python3 -m benchmark gpu KIT OUT

For engine onnxruntime all KIT-onnxruntime/part_* are brought there one after another, and before these commands

    cat part_* > KIT/wheels/$(cat KIT-onnxruntime/name); \\
    mkdir -p /tmp/site; ln -sfn "$(python3 -c 'import nvidia; print(*nvidia.__path__)')" /tmp/site/nvidia

whose link is where ONNX Runtime looks for CUDA and cuDNN: PyTorch's.

Stages, each in a process with a time limit, most important first; what it finds is in OUT at once, so that whatever
ends it costs little:

    labels    labels.json     label maps beside the CPU's, in float32 as well; the very first process, all cold
    runs      runs.json       time, stages, memory, FLARE's area: sizes of the paper's Table 5, fresh processes
    process   process.json    scans in one process, profile.txt: where the time of a warm one goes
    start     start.json      what a start costs, part by part, each in a fresh process; most costly imports
    memory    memory.json     the same scan with ever less of the card free, and how that ends

A stage that fails is in errors.json, and the next goes on. About 100 s with an H100, without the last.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from benchmark.document import write
from benchmark.gpu import labels, memory, process, runs, start
from benchmark.gpu.job import Job
from benchmark.process import ROOT
from inference.options import ENGINES

LIMITS = {"labels": 50, "runs": 50, "process": 40, "start": 70, "memory": 60}  # seconds, with a GPU
CPU_LIMIT = 300  # without one
STAGES: dict[str, Callable[[Job], None]] = {
    "labels": labels.run, "runs": runs.run, "process": process.run, "start": start.run, "memory": memory.run
}  # fmt: skip


@contextmanager
def _group(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process with all that it starts, killed together at the end."""
    running = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        yield running
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def _stage(command: list[str], seconds: float) -> str | None:
    """Run a stage to its end or its time limit; why it failed, or None."""
    with _group(command) as running:
        try:
            _, said = running.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return f"timed out after {seconds:.1f} s"
    return said.strip()[-1500:] or f"exit code {running.returncode}" if running.returncode else None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kit", type=Path, metavar="KIT")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--engine", choices=("auto", *ENGINES), default="auto", help="of the device (default: auto)")
    parser.add_argument("--stages", default=",".join(STAGES), help="some of them (default: all)")
    parser.add_argument("--scans", type=int, default=10, help="that one process segments (default: 10)")
    parser.add_argument("--seconds", type=float, default=200, help="for everything (default: 200)")
    parser.add_argument("--inside", nargs=2, metavar=("STAGE", "FOLDER"), help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> None:
    """Run the stages; exit code 1 if one failed."""
    kit, out = options.kit.absolute(), options.out.absolute()
    if options.inside:
        stage, folder = options.inside
        (STAGES | {"sizes": runs.sizes})[stage](
            Job(kit, out, Path(folder), options.device, options.engine, options.scans)
        )
        return
    wanted = options.stages.split(",")
    if unknown := set(wanted) - set(STAGES):
        raise ValueError(f"no stages {', '.join(sorted(unknown))}")
    out.mkdir(parents=True, exist_ok=True)
    begin, errors = time.monotonic(), {}
    with tempfile.TemporaryDirectory(prefix="viscera-gpu-") as work:
        command = [sys.executable, "-u", "-m", "benchmark", "gpu", str(kit), str(out), "--device", options.device]
        command += ["--engine", options.engine, "--scans", str(options.scans), "--inside"]

        def stage(name: str, limit: float) -> None:
            since = time.monotonic()
            error = _stage([*command, name, work], max(min(limit, options.seconds - since + begin), 0.1))
            print(f"-- {name}: {error or 'done'}, {time.monotonic() - since:.1f} s", flush=True)
            if error:
                errors[name] = error
                write(errors, out / "errors.json")

        with _group([*command, "sizes", work]) if "runs" in wanted else nullcontext() as making:
            for name in (one for one in STAGES if one in wanted):
                if making and name != "labels":  # nothing else runs while times are taken
                    making.wait()
                stage(name, LIMITS[name] if options.device == "cuda" else CPU_LIMIT)
    sys.exit(1 if errors else 0)
