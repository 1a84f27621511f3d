"""How fast the networks could be on this machine at best: `python -m benchmark floors WEIGHTS SCANS...`

Two peaks are measured: operations a second of a convolution that suits the processor (3 x 3 x 3, 64 -> 64 channels,
by OpenVINO, in each precision), and bytes a second of a copy. Beside them stands what a scan asks for: the
operations of the network over the body, once, and the bytes of its voxels, read once and labels written once.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from math import prod
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnx
import openvino as ov
from openvino import opset13 as ops

from benchmark.process import host
from inference.anatomy.look import body
from inference.boxes import shape_of
from inference.card import Card
from inference.cards import read_cards
from inference.formats.reading import read_scan
from inference.grids.prepare import prepare
from inference.grids.view import View
from inference.machine import computes, usable_cpus
from inference.scan import Scan

CHANNELS, SHAPE = 64, (16, 64, 96)  # of the convolution whose speed is the peak
DEPTH = 10  # as many one after the other, so that what comes in and goes out counts little
REPEATS = 5


def peak_operations(precision: str, threads: int) -> float:
    """Operations a second (two for each product that is added) of the convolution."""
    rng = np.random.default_rng(0)
    image = ops.parameter([1, CHANNELS, *SHAPE], np.float32)
    weights = rng.normal(size=(CHANNELS, CHANNELS, 3, 3, 3)).astype(np.float32)
    answer = image
    for _ in range(DEPTH):
        answer = ops.convolution(answer, ops.constant(weights), [1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1])
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads}
    request = ov.Core().compile_model(ov.Model([answer], [image]), "CPU", settings).create_infer_request()
    batch = rng.normal(size=(1, CHANNELS, *SHAPE)).astype(np.float32)
    operations = 2 * 27 * DEPTH * CHANNELS**2 * float(np.prod(SHAPE))
    return operations / _fastest(lambda: request.infer({0: batch}, share_inputs=True))


def peak_bytes() -> float:
    """Bytes a second of a copy of half a gigabyte, read and written."""
    source = np.ones(1 << 26)
    target = np.empty_like(source)
    return 2 * source.nbytes / _fastest(lambda: np.copyto(target, source))


def _fastest(run: Any) -> float:
    times = []
    for _ in range(REPEATS):
        start = perf_counter()
        run()
        times.append(perf_counter() - start)
    return min(times)


def operations_a_voxel(card: Card) -> float:
    """Operations of the network for each voxel of a window, from the shapes in its graph."""
    model = onnx.load(card.form("f32"))
    for value in (*model.graph.input, *model.graph.output):
        for axis, n in enumerate((1, value.type.tensor_type.shape.dim[1].dim_value, *card.patch)):
            value.type.tensor_type.shape.dim[axis].dim_value = n
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in onnx.shape_inference.infer_shapes(model).graph.value_info
    } | {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in model.graph.output}
    weights = shapes | {weight.name: list(weight.dims) for weight in model.graph.initializer}  # or cast to float32
    total = 0.0
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            _, into, *kernel = weights[node.input[1]]
            out = shapes[node.output[0]]
            # A transposed convolution, as wide as its stride, gives each output voxel one product a channel.
            products = weights[node.input[1]][0] if node.op_type == "ConvTranspose" else into * float(np.prod(kernel))
            total += 2 * products * float(np.prod(out))
    return total / float(np.prod(card.patch))


def body_voxels(scan: Scan, card: Card) -> int:
    """Voxels of the box in which organs can be, as the network of a card sees a scan."""
    view = View.of(scan, card)
    _, box = body(prepare(scan, view, card, np), card, view.spacing, np)
    return prod(shape_of(box))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("weights", type=Path)
    parser.add_argument("scans", type=Path, nargs="+", metavar="SCAN")
    parser.add_argument("--json", type=Path, metavar="FILE")


def run(options: argparse.Namespace) -> None:
    """Print what each scan asks for, and the peaks."""
    peaks = {p: peak_operations(p, usable_cpus()) for p in ("f32", "bf16") if computes(p)}
    result: dict[str, Any] = {
        "host": asdict(host()),
        "operations_a_second": peaks,
        "bytes_a_second": peak_bytes(),
        "scans": {},
    }
    for scan_path in options.scans:
        scan, cards = read_scan(scan_path), read_cards(options.weights, None)
        voxels = {card.name: body_voxels(scan, card) for card in cards}
        operations = sum(voxels[card.name] * operations_a_voxel(card) for card in cards)
        moved = scan.voxels.nbytes + scan.voxels.size
        result["scans"][scan_path.name] = {"body_voxels": voxels, "operations": operations, "bytes": moved}
        floors = ", ".join(f"{operations / peak:.2f} s in {name}" for name, peak in peaks.items())
        least = moved / result["bytes_a_second"]
        print(f"{scan_path.name}: {operations / 1e12:.2f} tera-operations, at least {floors}; {moved / 1e6:.0f} MB of "
              f"voxels and labels, at least {least:.3f} s")  # fmt: skip
    for name, peak in peaks.items():
        print(f"{name}: {peak / 1e12:.2f} tera-operations a second", file=sys.stderr)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    from benchmark.__main__ import old_name

    old_name("floors")
