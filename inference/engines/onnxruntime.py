"""ONNX Runtime: on a CPU, or on a GPU with inputs and outputs in the machine's memory."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

# ONNX Runtime reports its use to Microsoft unless this is set before its import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime as ort

from ..arrays import Array, Network
from ..card import Card
from ..errors import DeviceError
from .ends import with_float32_ends
from .folds import side_by_side
from .norms import with_norms_by_rows

Provider = tuple[str, dict[str, str]]
OF_CPU: list[Provider] = [("CPUExecutionProvider", {})]


def load(card: Card, *, precision: str, device: str, threads: int) -> Network:
    """Open the network for windows of any shape that its strides divide."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised as well
    if device == "cpu":
        return run_by(session_of(card, precision, options, OF_CPU))
    # By default the second window of a shape takes all of its memory in one piece, beside the pieces of the first.
    options.enable_mem_pattern = False
    return run_by(session_of(card, precision, options, _of_cuda(precision)))


def session_of(card: Card, precision: str, options: Any, providers: list[Provider]) -> Any:
    """The graph of a precision, with float32 at its ends, opened for these providers. Raises DeviceError where one of
    them is not given."""
    path = card.form(precision)
    graph = _changed(path, precision, card.apart(precision), providers == OF_CPU)
    if graph is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
    # By default ONNX Runtime goes on with the CPU where a provider fails, then and later, and prints that on stdout.
    session = ort.InferenceSession(graph or str(path), options, providers=providers, enable_fallback=0)
    given = session.get_providers()  # without one whose libraries are not there
    for provider, _ in providers:
        if provider not in given:
            raise DeviceError(f"ONNX Runtime did not give {provider} that was asked for, only {', '.join(given)}")
    return session


def _changed(path: Path, precision: str, apart: bool, on_cpu: bool) -> bytes | None:
    """The graph in a file as ONNX Runtime gets it; None where it is the file's, which is not held then."""
    graph = None
    if precision == "f16":
        graph = with_float32_ends(path.read_bytes(), path.name)
    if apart:
        graph = side_by_side(path.read_bytes(), path.name)
    if precision == "f32" and on_cpu:
        graph = with_norms_by_rows(graph or path.read_bytes(), path.name) or graph
    return graph


def run_by(session: Any) -> Network:
    """The network of a session."""
    name = session.get_inputs()[0].name

    def run(batch: Array) -> Array:
        return session.run(None, {name: batch})[0]

    return run


def _of_cuda(precision: str) -> list[Provider]:
    with redirect_stdout(sys.stderr):  # where it prints what it does not find
        ort.preload_dlls(directory="")  # CUDA and cuDNN from their wheels, where no system-wide ones are
    cuda = {
        "cudnn_conv_algo_search": "HEURISTIC",  # the exhaustive search costs more than a case takes
        "arena_extend_strategy": "kSameAsRequested",  # the default doubles, which counts in the memory-time area
    }
    if precision == "f32":
        cuda["use_tf32"] = "0"  # by default convolutions round to 10 bits; for float16 it would rule out tensor cores
    return [("CUDAExecutionProvider", cuda)]
