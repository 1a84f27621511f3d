"""OpenVINO: the fastest engine on a CPU."""

from __future__ import annotations

import sys

# OpenVINO reports its import to Google Analytics where this package is installed, as it is with the wheel.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
import openvino as ov

from ..arrays import Array, Network
from ..card import Card
from ..machine import computes


def load(card: Card, *, precision: str, device: str, threads: int) -> Network:
    """Read the float32 graph, or for int8 what export.quantize made of it.

    It is compiled for the shape of the first window, and again when that changes: a fixed shape lets the plugin plan
    its memory and blocking.
    """
    core = ov.Core()
    if precision == "int8":
        model = core.read_model(card.form("int8"))
        precision = "bf16" if computes("bf16") else "f32"  # of what is not int8: the first and last layers
    else:
        model = core.read_model(card.form("f32"))
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,  # each process would pin to the first processors, and all wait for these
    }
    compiled: dict[tuple[int, ...], ov.InferRequest] = {}

    def run(batch: Array) -> Array:
        if batch.shape not in compiled:
            compiled.clear()  # one at a time: each holds the memory of its windows
            model.reshape(batch.shape)
            compiled[batch.shape] = core.compile_model(model, device.upper(), settings).create_infer_request()
        request = compiled[batch.shape]
        request.infer({0: batch}, share_inputs=True)
        return request.get_output_tensor(0).data

    return run
