"""What this process may use of the machine: processors and memory, as its container sees them."""

from __future__ import annotations

import os
from pathlib import Path

MOST_THREADS = 16  # more gain little on one patch, and a container with a pids limit of 64 must hold four pools

# The thread pools of the libraries under us; read by each when it is first imported.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)


def usable_cpus() -> int:
    """Processors by the affinity mask and the cgroup's quota, whichever is less; at most MOST_THREADS."""
    count = len(os.sched_getaffinity(0))
    quota = _cpu_quota()
    if quota is not None:
        count = min(count, max(int(quota), 1))
    return min(count, MOST_THREADS)


def limit_threads(threads: int) -> None:
    """Tell the numeric libraries, before they are imported, how many threads to start."""
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(threads)


def peak_memory_mb() -> float:
    """The most memory this process has held at once since `reset_peak_memory`, MB (10^6 bytes)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return float("nan")


def reset_peak_memory() -> None:
    """Let the peak start from what is held now; does nothing where the kernel does not allow it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # man 5 proc: resets the "high water mark"
    except OSError:
        pass


def _cpu_quota() -> float | None:
    """Processors that the cgroup (v2, then v1) grants, or None where it sets no limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text()
            period = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text()
        except OSError:
            return None
    try:
        return int(quota) / int(period) if int(quota) > 0 else None
    except ValueError:  # "max"
        return None
