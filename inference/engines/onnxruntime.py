"""ONNX Runtime: on a CPU, or on a GPU with inputs and outputs bound to CuPy's memory."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

# ONNX Runtime reports its use to Microsoft unless this is set before its import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime as ort

from ..arrays import Array, Network, array_library
from ..card import Card
from ..errors import DeviceError

TENSORRT_CACHE = "VISCERA_TENSORRT_CACHE"  # a folder for built engines: naming one opts in to TensorRT


def load(card: Card, *, precision: str, device: str, threads: int) -> Network:
    """Open the network for windows of any shape that its strides divide."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised as well
    path = str(card.form("f32" if precision == "f32" else "f16"))
    if device == "cpu":
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda batch: session.run(None, {name: batch})[0]
    return _on_cuda(path, options, np.float32 if precision == "f32" else np.float16, len(card.labels))


def _on_cuda(path: str, options: Any, dtype: Any, channels: int) -> Network:
    cupy = array_library("cuda", "onnxruntime")
    ort.preload_dlls(directory="")  # CUDA and cuDNN from their wheels, where no system-wide ones are
    stream = cupy.cuda.get_current_stream()
    cuda = {
        "user_compute_stream": str(stream.ptr),  # CuPy's stream, so that neither has to wait for the other
        "cudnn_conv_algo_search": "HEURISTIC",  # the exhaustive search costs more than a case takes
        "arena_extend_strategy": "kSameAsRequested",  # the default doubles, which counts in the memory-time area
    }
    providers: list[tuple[str, dict[str, str]]] = [("CUDAExecutionProvider", cuda)]
    if cache := os.environ.get(TENSORRT_CACHE):
        tensorrt = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": cache}
        tensorrt |= {
            "user_compute_stream": cuda["user_compute_stream"],
            "trt_fp16_enable": str(int(dtype == np.float16)),
        }
        providers.insert(0, ("TensorrtExecutionProvider", tensorrt))
    session = ort.InferenceSession(path, options, providers=providers)
    given = session.get_providers()  # ONNX Runtime falls back to the CPU without an error
    for provider, _ in providers:
        if provider not in given:
            raise DeviceError(f"ONNX Runtime did not give {provider} that was asked for, only {', '.join(given)}")
    binding = session.io_binding()
    source, target = session.get_inputs()[0].name, session.get_outputs()[0].name

    def run(batch: Array) -> Array:
        batch = cupy.ascontiguousarray(batch, dtype)
        logits = cupy.empty((batch.shape[0], channels, *batch.shape[2:]), dtype)
        binding.bind_input(source, "cuda", 0, dtype, batch.shape, batch.data.ptr)
        binding.bind_output(target, "cuda", 0, dtype, logits.shape, logits.data.ptr)
        session.run_with_iobinding(binding)
        return logits.astype(cupy.float32, copy=False)

    return run
