"""Which engine runs a network. Each module beside this one is an engine, with one function, imported only if chosen.

    load(card, precision=..., device=..., threads=...) -> Network

so that a process never imports a framework that it does not use. A network's answer may live in
memory that its next call overwrites.
"""

from __future__ import annotations

import ctypes
import platform
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from ..arrays import Array, Network, are_numbers
from ..card import Card
from ..errors import DeviceError, EngineError, VisceraError, one_line
from ..machine import CPU_FLAGS, computes, isa_limit, ran_out
from ..options import ENGINES

# What each engine can compute in, on each device, best first: "auto" takes the first that the machine has. Behind f32,
# which every machine has, stands what changes labels enough to be asked for by name.
PRECISIONS = {
    ("openvino", "cpu"): ("bf16", "f32", "f16", "int8"),
    ("onnxruntime", "cpu"): ("f32",),
    ("onnxruntime", "cuda"): ("f16", "f32"),
    ("torch", "cpu"): ("f32", "bf16"),
    ("torch", "cuda"): ("f16", "f32", "bf16"),
}

# The file of an engine's package that names the CUDA it was built for, and a line that does so. The library for CUDA
# says less: it stays where onnxruntime was installed over onnxruntime-gpu, and conda puts it elsewhere.
BUILDS = {"onnxruntime": "capi/build_and_package_info.py", "torch": "version.py"}
FOR_CUDA = re.compile(r"^cuda(_version)?\b.*=\s*['\"]\d", re.MULTILINE)
ARM = ("aarch64", "arm64")  # as Linux and macOS call it
CUDA_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
NO_THREAD = re.compile("resource temporarily unavailable|start new thread|thread creation failed", re.IGNORECASE)


@dataclass(frozen=True)
class Choice:
    """What a run computes with, and one sentence why for each part that "auto" decided."""

    device: str
    engine: str
    precision: str
    why: tuple[str, ...]


def choose(device: str, engine: str, precision: str, cards: Sequence[Card] = ()) -> Choice:
    """Resolve "auto" in any of the three. What was asked for by name is given or refused, never replaced.

    int8 can be had where all `cards` have files for it, and "auto" takes it where all were tuned to it.
    Raises DeviceError, naming what is missing.
    """
    why = []
    if device == "auto":
        device, reason = _auto_device(engine)
        why.append(reason)
    elif device == "cuda" and (missing := _missing_for_cuda(engine)):
        raise DeviceError(f"device cuda was asked for, but {missing}")
    able = [name for name in ENGINES if (name, device) in PRECISIONS]
    if platform.machine() in ARM:
        # OpenVINO 2026.4 has no convolution of three axes for any ARM processor but its reference implementation.
        able.sort(key="openvino".__eq__)
    if engine == "auto":
        installed = [name for name in able if (find_spec(name) if device == "cpu" else _runs_on_cuda(name))]
        if not installed:
            raise DeviceError(f"no engine for device {device} is installed; any of {', '.join(able)} would do")
        engine = installed[0]
        why.append(f"engine {engine}: the first choice on {device} of those installed ({', '.join(installed)})")
    elif engine not in able:
        raise DeviceError(f"engine {engine} does not run on device {device}; {', '.join(able)} do")
    elif find_spec(engine) is None:
        raise DeviceError(f"engine {engine} was asked for, but the package {engine} is not installed")
    possible = [p for p in PRECISIONS[engine, device] if device == "cuda" or computes(p)]
    without = next((card.name for card in cards if "int8" not in card.forms), None)
    if "int8" in possible and (without or not cards):
        possible.remove("int8")
    if precision == "auto":
        tuned = {card.precision for card in cards} == {"int8"} and "int8" in possible
        precision = "int8" if tuned else possible[0]
        reason = "as the networks were tuned" if tuned else f"the first choice of {engine} on this {device}"
        why.append(f"precision {precision}: {reason}")
    elif precision not in PRECISIONS[engine, device]:
        raise DeviceError(f"precision {precision} is not one of engine {engine} on {device}: {', '.join(possible)}")
    elif precision == "int8" and without and computes(precision):
        raise DeviceError(f"precision int8 was asked for, but network {without} has none: "
                          f"python -m {__package__.partition('.')[0]}.export.quantize makes it")  # fmt: skip
    elif precision not in possible:
        flags = ", ".join(CPU_FLAGS[precision])
        limit = isa_limit()
        within = f" within ONEDNN_MAX_CPU_ISA={limit}" if limit else ""
        raise DeviceError(f"precision {precision} was asked for, but this CPU has none of {flags}{within}")
    return Choice(device, engine, precision, tuple(why))


def load(choice: Choice, card: Card, threads: int) -> Network:
    """The network of `card`, ready to be called with one patch after another.

    Raises DeviceError where the engine cannot be loaded, WeightsError; the network raises EngineError. Each raises
    MemoryError where memory, the machine's or the GPU's, is too small.
    """
    with _translated(choice.engine, DeviceError, "cannot be loaded"):
        module = import_module(f".{choice.engine}", __package__)
        network: Network = module.load(card, precision=choice.precision, device=choice.device, threads=threads)

    def run(batch: Array) -> Array:
        with _translated(choice.engine, EngineError, "failed"):
            answer = network(batch)
            if not are_numbers(answer):
                raise EngineError(
                    f"network {card.name} gave no numbers (NaN or infinity) in {choice.precision} with engine "
                    f"{choice.engine}" + ("" if choice.precision == "f32" else ": try --precision f32")
                )
            return answer

    return run


@contextmanager
def _translated(engine: str, kind: type[VisceraError], what: str) -> Iterator[None]:
    """Raise an engine's own errors, each of which has types and texts of its own, as ours."""
    try:
        yield
    except VisceraError:
        raise
    except Exception as error:
        if ran_out(error):
            raise MemoryError(one_line(error)) from error
        cause = "a limit on processes or memory allows no more threads" if NO_THREAD.search(str(error)) else None
        raise kind(f"engine {engine} {what}: {cause or one_line(error)}") from error


def _auto_device(engine: str) -> tuple[str, str]:
    if engine == "openvino":
        return "cpu", "device cpu: engine openvino runs there"
    missing = _missing_for_cuda(engine)
    return ("cpu", f"device cpu: {missing}") if missing else ("cuda", "device cuda: a GPU and its libraries were found")


def _missing_for_cuda(engine: str) -> str | None:
    """Why CUDA cannot be used, or None. Asks the driver itself; imports no framework."""
    try:
        driver = ctypes.CDLL(CUDA_DRIVER)
    except OSError:
        return f"no NVIDIA driver ({CUDA_DRIVER}) was found"
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return "the NVIDIA driver shows no usable GPU"
    engines = [name for name in BUILDS if engine in ("auto", name)]
    if engines and not any(map(_runs_on_cuda, engines)):
        return f"no {' or '.join(engines)} for CUDA is installed"
    return None


def _runs_on_cuda(engine: str) -> bool:
    """Whether an engine's package is installed, built for CUDA."""
    found = find_spec(engine)
    folders = (found and found.submodule_search_locations) or ()
    for folder in folders:
        with suppress(OSError):
            if FOR_CUDA.search((Path(folder) / BUILDS[engine]).read_text()):
                return True
    return False
