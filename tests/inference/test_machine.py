"""What a process may use of the machine, and what libraries say when that is not enough."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from inference import machine


@pytest.mark.parametrize("variable", ["SLURM_CPUS_PER_TASK", "NSLOTS"])
def test_a_job_uses_the_processors_that_it_was_given(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in machine.GIVEN:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(8))
    most = machine.processors()
    for text, count in (("1", 1), ("9000", most), ("0", 1), ("many", most), ("", most)):
        monkeypatch.setenv(variable, text)
        assert machine.processors() == count


@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_a_limit_of_the_process(limit: str) -> None:
    program = f"""
import resource
from inference import machine
kilobytes = machine.number_in("/proc/self/status", "{"VmSize:" if limit == "RLIMIT_AS" else "VmData:"}")
resource.setrlimit(resource.{limit}, (kilobytes * 1024 + 10**8, -1))
print(machine.memory_budget())
resource.setrlimit(resource.{limit}, (kilobytes * 1024, -1))
print(machine.memory_budget())
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    some, none = map(int, ran.stdout.split())
    assert 0.9e8 < some <= 1e8 and none == 0


@pytest.mark.parametrize(
    "text",
    [
        "std::bad_alloc",
        "Exception from src/core.cpp:117:\nCheck 'ptr' failed:\nFailed to allocate 9 bytes of memory\n",
        "can't alloc",
        "[ONNXRuntimeError] : 1 : FAIL : void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool) "
        "Failed to allocate memory for requested buffer of size 74973184",
        "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte.",
        "DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes.",
        "CUDA out of memory. Tried to allocate 20.00 MiB",
        "cudaErrorMemoryAllocation: out of memory",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "CUDA failure 2: out of memory ; GPU=0 ; hostname=x ; file=cuda_allocator.cc",
        "CUDA_ERROR_OUT_OF_MEMORY",
        "libopenvino.so: failed to map segment from shared object: Cannot allocate memory",
    ],
)
def test_what_libraries_say_when_memory_runs_out(text: str) -> None:
    assert machine.ran_out(RuntimeError(text))
    wrapped = ImportError("20 lines of advice")
    wrapped.__cause__ = ImportError(text)
    assert machine.ran_out(wrapped)


def test_other_errors_are_not_of_memory() -> None:
    assert machine.ran_out(MemoryError())
    for text in ("", "Illegal instruction", "allocator", "shape mismatch", "No such file or directory"):
        assert not machine.ran_out(RuntimeError(text))


def test_the_peak_of_memory_is_seen() -> None:
    # In a process of its own: where the kernel resets no peak, that of the tests before would hide this one's.
    program = """
from inference import machine
machine.reset_peak_memory()
before = machine.peak_memory_mb()
block = bytearray(200 * 10**6)
block[::4096] = b"x" * len(block[::4096])
del block
print(machine.peak_memory_mb() - before)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 190 < float(ran.stdout) < 250


@pytest.mark.parametrize(
    ("limit", "within"),
    [
        ("AVX2", set()),
        ("avx2", set()),
        ("AVX512_CORE", set()),
        ("AVX2_VNNI", {"int8"}),
        ("AVX512_CORE_BF16", {"int8", "bf16"}),
        ("AVX512_CORE_FP16", {"int8", "bf16", "f16"}),
        ("AVX512_CORE_AMX", {"int8", "bf16", "f16"}),
        ("AVX10_1_512_AMX", {"int8", "bf16", "f16"}),
        ("ALL", {"int8", "bf16", "f16"}),
    ],
)
@pytest.mark.parametrize("variable", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
def test_a_limit_of_instructions_is_heeded(
    variable: str, limit: str, within: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    free = {precision for precision in machine.CPU_FLAGS if machine.computes(precision)}
    monkeypatch.setenv(variable, limit)
    assert {precision for precision in machine.CPU_FLAGS if machine.computes(precision)} == free & within
    assert machine.computes("f32")
