"""Memory of a run over time, seen from outside: `python -m benchmark.sampler OUT.json --pid PID`.

A separate process, so that it costs the run nothing but the processor time it takes, which it reports. It samples at a
fixed interval until its standard input closes, then writes what it saw:

    t_s           seconds since its start
    host_mb       resident memory of the process and all that it started, or of the container's cgroup
    ram_mb        memory in use on the machine by anybody (total - available), FLARE 2024's figure
    cpu_percent   of all processors, busy for anybody since the sample before, FLARE 2024's figure
    gpu_mb        memory in use on the GPU by anybody (NVML: total - free), FLARE's figure; absent without a GPU
    gpu_own_mb    of these, what the run's own processes hold; 0 where NVML does not tell
"""

from __future__ import annotations

import argparse
import json
import os
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MB = 10**6
PAGE = os.sysconf("SC_PAGE_SIZE")
COLUMNS = ("t_s", "host_mb", "ram_mb", "cpu_percent", "gpu_mb", "gpu_own_mb")
INTERVAL = 0.1  # seconds, FLARE's
CGROUPS = (  # of a container, by cgroup version and driver
    "/sys/fs/cgroup/system.slice/docker-{id}.scope/memory.current",
    "/sys/fs/cgroup/docker/{id}/memory.current",
    "/sys/fs/cgroup/memory/docker/{id}/memory.usage_in_bytes",
    "/sys/fs/cgroup/memory/system.slice/docker-{id}.scope/memory.usage_in_bytes",
)


def tree(pid: int) -> list[int]:
    """The process and all its descendants that are alive."""
    found = [pid]
    for parent in found:
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                found += [int(child) for child in Path(f"/proc/{parent}/task/{task}/children").read_text().split()]
        except OSError:  # it has ended meanwhile
            continue
    return found


def resident_mb(pids: list[int]) -> float:
    """Resident memory of processes; pages that two of them share count twice."""
    total = 0
    for pid in pids:
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            continue
    return total * PAGE / MB


def container_mb(cidfile: Path) -> float:
    """Memory of the container's cgroup but for file cache that can be dropped; 0 while there is none."""
    try:
        container = cidfile.read_text().strip()
    except OSError:
        return 0.0
    for pattern in CGROUPS:
        path = Path(pattern.format(id=container))
        try:
            used = int(path.read_text())
            stat = dict(line.split() for line in path.with_name("memory.stat").read_text().splitlines())
        except OSError:
            continue
        return (used - int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))) / MB
    return 0.0


def machine_ram_mb() -> float:
    """Memory in use on the whole machine."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    kib = {line[0]: int(line[1]) for line in lines}
    return (kib["MemTotal:"] - kib["MemAvailable:"]) * 1024 / MB


def machine_ticks() -> tuple[int, int]:
    """(idle, all) clock ticks of all processors since the machine's start; waiting for a disk is no idleness."""
    ticks = [int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return ticks[3], sum(ticks)


def open_gpu() -> tuple[Callable[[list[int]], tuple[float, float]] | None, str]:
    """A function of pids -> (memory in use on the GPU, what these processes hold), MB, and the GPU's name or why none.

    It is the one that CUDA uses: the first of CUDA_VISIBLE_DEVICES, which NVML knows nothing of.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if not visible:
        return None, "no GPU: CUDA_VISIBLE_DEVICES is empty"
    try:
        import pynvml

        pynvml.nvmlInit()
        by_number = visible.isdecimal()  # else "GPU-..." or "MIG-..."
        of = pynvml.nvmlDeviceGetHandleByIndex if by_number else pynvml.nvmlDeviceGetHandleByUUID
        device = of(int(visible) if by_number else visible)
        name = pynvml.nvmlDeviceGetName(device)
    except ImportError:
        return None, "nvidia-ml-py is not installed"
    except Exception as error:  # NVML has a type for each of its codes
        return None, f"no GPU: {error}"

    def read(pids: list[int]) -> tuple[float, float]:
        memory = pynvml.nvmlDeviceGetMemoryInfo(device)
        own = [p.usedGpuMemory or 0 for p in pynvml.nvmlDeviceGetComputeRunningProcesses(device) if p.pid in pids]
        return (memory.total - memory.free) / MB, sum(own) / MB

    return read, str(name)


def sample(pid: int, cidfile: Path | None, interval: float) -> dict[str, Any]:
    """Sample until standard input closes."""
    gpu, gpu_name = open_gpu()
    result: dict[str, Any] = {"interval_s": interval, "gpu": gpu_name if gpu else None, "gpu_absent": gpu_name}
    if gpu:
        del result["gpu_absent"]
    rows: list[tuple[float, ...]] = []
    idle, ticks = machine_ticks()
    busy = 0.0
    start = time.monotonic()
    while True:
        now = time.monotonic() - start
        pids = tree(pid)
        host = container_mb(cidfile) if cidfile else resident_mb(pids)
        idle_now, ticks_now = machine_ticks()
        if ticks_now > ticks:
            busy = 100 * (1 - (idle_now - idle) / (ticks_now - ticks))
            idle, ticks = idle_now, ticks_now
        rows.append((now, host, machine_ram_mb(), busy, *(gpu(pids) if gpu else ())))
        late = time.monotonic() - start
        # Samples lie on a grid of their own, so that a late one does not move those behind it.
        if select.select([sys.stdin], [], [], max((int(late / interval) + 1) * interval - late, 0))[0]:
            break
    for name, column in zip(COLUMNS, zip(*rows, strict=True), strict=False):
        result[name] = [round(value, 3) for value in column]
    used = os.times()
    result["sampler_cpu_share"] = round((used.user + used.system) / max(time.monotonic() - start, 1e-9), 4)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pid", type=int, required=True, help="of the process whose tree is measured")
    parser.add_argument("--cidfile", type=Path, help="measure this container's cgroup (docker run --cidfile)")
    parser.add_argument("--interval", type=float, default=INTERVAL)
    arguments = parser.parse_args()
    arguments.out.write_text(json.dumps(sample(arguments.pid, arguments.cidfile, arguments.interval)))


if __name__ == "__main__":
    main()
