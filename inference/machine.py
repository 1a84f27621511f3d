"""What this process may use of the machine: processors and memory, as its container sees them."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any

from . import cgroups
from .cgroups import number_in
from .errors import first_cause

try:
    resource: Any = import_module("resource")
except ImportError:  # Windows
    resource = None

PEAK_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes, of getrusage's ru_maxrss
USUAL_MB = 300.0  # of a process with its networks loaded: the largest of our engines, PyTorch
MOST_THREADS = 16  # more gain little on one patch, and a container with a pids limit of 64 must hold four pools
GIVEN = ("SLURM_CPUS_PER_TASK", "NSLOTS")  # processors of a job of Slurm or Grid Engine, which may not hold it to them
TASKS = 4  # that a worker with one thread is at most, as control groups count: three were seen with OpenVINO

# The thread pools of the libraries under us; read by each when it is first imported.
THREADS_VARIABLE = "OMP_NUM_THREADS"
# NumPy's matrix products are small, and OpenBLAS's threads wait for each other by spinning: with another process on
# the same processors two of them took 16.6 s for what one did in 0.13 s (512 x 512 x 554, 2 cores, 2026-11-24).
ONE_THREAD = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

# Linux's names of the instructions without which a narrow type is slower than f32 or not there at all.
CPU_FLAGS = {
    "int8": ("amx_int8", "avx512_vnni", "avx_vnni"),
    "bf16": ("amx_bf16", "avx512_bf16"),
    "f16": ("amx_fp16", "avx512_fp16"),
}
# Python's MemoryError is one of many: what C++, OpenVINO, ONNX Runtime, PyTorch, CUDA and the loader of libraries say.
OUT_OF_MEMORY = re.compile(
    r"bad.?alloc|(fail\w*|can't|cannot|could not|unable) (to )?alloc|alloc\w*.fail|out.of.memory|not enough memory"
    "|failed to map segment",
    re.IGNORECASE,
)
# What oneDNN, under OpenVINO and PyTorch, may be held to by ONEDNN_MAX_CPU_ISA, by parts of its names that have them:
# OpenVINO looks at the processor alone and then fails to compile for instructions that oneDNN may not use.
ISA_NAMES = {
    "int8": ("VNNI", "BF16", "FP16", "AMX", "AVX10"),
    "bf16": ("BF16", "FP16", "AMX", "AVX10"),
    "f16": ("FP16", "AMX", "AVX10"),
}


def isa_limit() -> str | None:
    """What oneDNN is held to, as it was given; None where it may use all instructions."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", "ALL"))
    return None if limit.upper() in ("ALL", "DEFAULT") else limit


def computes(precision: str) -> bool:
    """Whether the processor has instructions for a precision, and oneDNN may use them; f32 it has always."""
    if precision == "f32":
        return True
    limit = isa_limit()
    if limit and not any(name in limit.upper() for name in ISA_NAMES[precision]):
        return False
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    return any(flag in flags for flag in CPU_FLAGS[precision])


def usable_cpus() -> int:
    """Processors that one process makes use of: at most MOST_THREADS of those that it may."""
    return min(processors(), MOST_THREADS)


def processors() -> int:
    """Processors by the affinity mask, the quotas of cgroups and what a job was given, whichever is least, and no more
    than can have a worker each where cgroups limit processes."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    granted = cgroups.processors()
    if granted is not None:
        count = min(count, max(int(granted), 1))
    for job in map(os.environ.get, GIVEN):
        if job and job.isdecimal():
            count = min(count, max(int(job), 1))
    left = cgroups.tasks_left()
    if left is not None:
        count = min(count, max(left // TASKS, 1))
    return count


def own_program(module: str) -> list[str]:
    """The command that runs `main` of one of our modules as a process, which imports from where this one does, whatever
    the `__main__` of this one is: nothing has to guard that. No word of the user's is in it."""
    return [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!a}; from {module} import main; main()"]


def limit_threads(threads: int) -> None:
    """Tell the numeric libraries, before they are imported, how many threads to start."""
    os.environ |= {THREADS_VARIABLE: str(threads)} | dict.fromkeys(ONE_THREAD, "1")


class OneThread:
    """NumPy's matrix products run on one thread while a thread is within, also where somebody else has loaded NumPy."""

    def __init__(self) -> None:
        self._within, self._turn = 0, Lock()
        self._limits: Any = None

    def __enter__(self) -> None:
        from threadpoolctl import threadpool_limits

        with self._turn:
            if not self._within:
                self._limits = threadpool_limits(1, "blas")
            self._within += 1

    def __exit__(self, *_: object) -> None:
        with self._turn:
            self._within -= 1
            if not self._within:
                self._limits.restore_original_limits()


one_thread = OneThread()  # of the process, as is what it limits


def peak_memory_mb() -> float | None:
    """The most memory this process has held at once since `reset_peak_memory`, MB (10^6 bytes).

    Since its start where that does nothing; None where the system does not say.
    """
    if peak := number_in("/proc/self/status", "VmHWM:"):
        return peak * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_UNIT / 1e6 if resource else None


def reset_peak_memory() -> None:
    """Let the peak start from what is held now; does nothing where the kernel does not allow it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # man 5 proc: resets the "high water mark"


def memory_left() -> int:
    """Bytes that processes of this container can still take together: what the machine has free, and what its cgroups
    leave. Where the system does not say, all that the machine has, or more than any has.
    """
    return max(min(number_in("/proc/meminfo", "MemAvailable:") * 1024 or _all_memory(), container_budget()), 0)


def memory_budget() -> int:
    """Bytes that this process can still take: of `memory_left`, what its own limits leave."""
    budgets = [memory_left()]
    for name, taken_as in (("RLIMIT_AS", "VmSize:"), ("RLIMIT_DATA", "VmData:")) if resource else ():  # ulimit -v, -d
        soft, _ = resource.getrlimit(getattr(resource, name))
        if soft != resource.RLIM_INFINITY:
            budgets.append(soft - number_in("/proc/self/status", taken_as) * 1024)
    return max(min(budgets), 0)


def container_budget() -> int:
    """Bytes that the cgroups leave; more than any machine has where none sets a limit. Who takes more is killed."""
    left = cgroups.memory_left()
    return sys.maxsize if left is None else left


def private_memory(pid: int) -> int:
    """Bytes that a process holds now and shares with no other; where the system does not say, what is usual."""
    return number_in(f"/proc/{pid}/status", "RssAnon:") * 1024 or round(USUAL_MB * 1e6)


def held_memory() -> int:
    """Bytes that this process holds now; where the system does not say, the most that it held, or what is usual."""
    return number_in("/proc/self/status", "VmRSS:") * 1024 or round((peak_memory_mb() or USUAL_MB) * 1e6)


def _all_memory() -> int:
    ask: Any = getattr(os, "sysconf", None)  # not on Windows
    try:
        return int(ask("SC_PHYS_PAGES") * ask("SC_PAGE_SIZE")) if ask else sys.maxsize
    except (OSError, ValueError):
        return sys.maxsize


def ran_out(error: BaseException) -> bool:
    """Whether an error, of ours or of a library's, says that memory ran out."""
    return isinstance(error, MemoryError) or bool(OUT_OF_MEMORY.search(str(first_cause(error))))
