"""Processes that are measured, and what they run on."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmark.document import Host
from benchmark.efficiency import figures, flare24
from inference import __version__
from inference.machine import usable_cpus

LIBRARIES = ("numpy", "openvino", "onnxruntime", "onnxruntime-gpu", "torch", "nibabel", "isal")
ROOT = Path(__file__).resolve().parent.parent


def start(*arguments: str | Path) -> None:
    """Run `python -m inference` to its end; what it prints goes to stderr. Raises CalledProcessError if it fails."""
    subprocess.run([sys.executable, "-m", "inference", *arguments], check=True, stdout=sys.stderr)


def watch(command: list[str], cidfile: Path | None = None) -> dict[str, Any]:
    """Run a command to its end; its wall time, processor time, exit code, last words and memory over time."""
    with tempfile.TemporaryDirectory(prefix="viscera-benchmark-") as temporary:
        curve = Path(temporary) / "samples.json"
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        sampler = _sampler(curve, process.pid, cidfile)
        assert process.stderr
        said = process.stderr.read().decode(errors="replace")
        code = process.wait()
        wall = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)  # the sampler has not been waited for: it is not in it
        sampler.communicate(b"stop")
        samples = json.loads(curve.read_text())
    return {
        "exit_code": code,
        "error": said.strip().splitlines()[-1] if code and said.strip() else None,
        "wall_s": round(wall, 4),
        "cpu_s": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 3),
        "samples": samples,
        "host_memory": figures(samples["t_s"], samples["host_mb"]),
        "flare24": flare24(samples["ram_mb"], samples["cpu_percent"]),
        "gpu_memory": figures(samples["t_s"], samples["gpu_mb"]) if "gpu_mb" in samples else None,
    }


def _sampler(out: Path, pid: int, cidfile: Path | None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmark.sampler", str(out), "--pid", str(pid)]
    if cidfile:
        command += ["--cidfile", str(cidfile)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE)


def host() -> Host:
    """What the numbers were measured on."""
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return Host(
        time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        processor=names[0] if names else platform.machine(),
        cores=usable_cpus(),
        memory_mb=round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6),
        system=platform.platform(),
        python=platform.python_version(),
        viscera=__version__,
        commit=commit.stdout.strip() or None,
        libraries={name: found for name in LIBRARIES if (found := _version(name))},
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
