"""OpenVINO: the fastest engine on a CPU."""

from __future__ import annotations

import sys

# OpenVINO reports its import to Google Analytics where this package is installed, as it is with the wheel.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
import openvino as ov

from inference.arrays import Array, Network
from inference.card import Card


def load(card: Card, *, precision: str, device: str, threads: int) -> Network:
    """Compile model.onnx for windows of the card's patch; other shapes are not accepted."""
    core = ov.Core()
    model = core.read_model(card.file("model.onnx"))
    model.reshape([1, 1, *card.patch])  # a fixed shape lets the plugin plan its memory and blocking
    compiled = core.compile_model(
        model,
        device.upper(),
        {
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
        },
    )
    request = compiled.create_infer_request()

    def run(batch: Array) -> Array:
        request.infer({0: batch}, share_inputs=True)
        return request.get_output_tensor(0).data

    return run
