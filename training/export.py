"""nnU-Net v2 result folder, or a student's parameters -> model.onnx, model_f16.onnx and card.json.

    python -m training.export MODEL_FOLDER weights/organ [--fold 0] [--orientation LPS] [--value tumor=14]
    python -m training.export PARAMETERS.pt weights/unified --student near_isotropic

Takes any 3D PlainConvUNet or ResidualEncoderUNet of one CT channel with nnU-Net's default
preprocessing. Every installed engine then runs one patch; a mismatch leaves nothing behind.
If float16 holds every weight exactly, as in the students of training.train, both graphs share
one file of float16 weights.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper

from inference.card import FILE_NAME, FORMAT, FORMS, WEIGHTS_FILE
from inference.errors import OutputError, VisceraError, WeightsError
from inference.options import ENGINES
from training.architecture import assign, network_of
from training.checkpoint import USUAL, read_json, read_result_folder, refuse_no_parameters
from training.configuration import card_fields, configuration_of, labels_of, orientation_of, window_multiple
from training.labels import outputs_named
from training.network import count_outputs, read_state
from training.plain import need, text
from training.plans import STUDENTS
from training.result_folder import write_result_folder

LARGEST_DIFFERENCE = 1e-3  # of the largest logit: f32 engines differ by the order of their sums, about 1e-5
OPSET = 18
# Operators whose meaning does not depend on the size of a batch or window: all that both architectures become.
SIZE_FREE = {"Conv", "ConvTranspose", "InstanceNormalization", "LeakyRelu", "Relu", "Concat", "Add", "AveragePool"}


def export(
    model_folder: Path,
    out: Path,
    *,
    fold: str | None = None,
    checkpoint: str = USUAL,
    orientation: str | None = None,
    values: Mapping[str, int] | None = None,
    trained_on: str = "not stated",
) -> None:
    """Export one fold of an nnU-Net v2 result folder to the folder `out`, replacing what it held.

    orientation  of the training scans, such as "LPS"; default: what dataset.json or the reader
                 says, else scans are taken as their files store them, as nnU-Net does
    values       label name -> value in the label map, where it differs from nnU-Net's
    Nothing in these files is run or imported. Raises WeightsError if the folder is something else, or its network is
    not one that inference can run as nnU-Net does, and OutputError if `out` cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is not a folder")
    stored = read_result_folder(model_folder, fold, checkpoint)
    plans, dataset = stored.plans, stored.dataset
    with _naming(model_folder / "dataset.json"):
        labels = labels_of(dataset, values or {})
    with _naming(model_folder / "plans.json"):
        names = {key: text(plans.get(key, "not stated"), key) for key in ("dataset_name", "plans_name")}
        configuration = configuration_of(plans, stored.configuration)
        fields = card_fields(plans, configuration)
        network: Any = network_of(need(configuration, "architecture"), len(labels))
        normed = any(isinstance(module, torch.nn.InstanceNorm3d) for module in network.modules())
        multiple = window_multiple(fields["patch"], network.encoder.strides, normed)
    with _naming(model_folder):
        oriented = orientation_of(plans, dataset, orientation)
    with _naming(stored.file):
        assign(network, stored.state)
    card = {
        "format": FORMAT,
        "orientation": oriented,
        **fields,
        "window_multiple": multiple,
        "labels": labels,
        "trained_on": trained_on,
        "source": {
            "dataset": names["dataset_name"],
            "plans": names["plans_name"],
            "configuration": stored.configuration,
            "trainer": stored.trainer,
            "fold": stored.file.parent.name,
            "checkpoint_sha256": _sha256(stored.file),
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
        },
    }
    patch = np.random.default_rng(0).normal(size=(1, 1, *fields["patch"])).astype(np.float32)
    with _naming(model_folder / "plans.json"), torch.inference_mode():
        expected = network(torch.from_numpy(patch)).numpy()
    model = to_onnx(network, fields["patch"])
    try:
        _write(model, card, out, patch, expected)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror or error}") from error


def export_student(weights: Path, out: Path, student: str, *, trained_on: str = "not stated") -> None:
    """Export the parameters of a student, a key of plans.STUDENTS, in a file of PyTorch, in any precision.

    Its labels follow from the number of its outputs. Raises WeightsError if these are not that student's parameters.
    """
    with tempfile.TemporaryDirectory(prefix="viscera-export-") as temporary:
        folder = Path(temporary) / weights.stem
        refuse_no_parameters(weights)
        try:
            state = read_state(weights, student)
            write_result_folder(state, folder, outputs_named(count_outputs(state)), student)
        except (ValueError, OSError) as error:
            raise WeightsError(f"{weights} cannot be exported: {error}") from error
        export(folder, out, trained_on=trained_on)


def to_onnx(network: torch.nn.Module, patch: list[int]) -> onnx.ModelProto:
    """The network as an ONNX graph with free batch and spatial sizes: image (b,1,z,y,x) -> logits (b,k,z,y,x)."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (torch.zeros(1, 1, *patch),),
            dynamo=True,
            input_names=["image"],
            output_names=["logits"],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    # The exporter notes stack traces, which hold paths of the exporting machine, at each node.
    for item in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer, model.graph):
        del item.metadata_props[:]
        item.doc_string = ""
    # A graph of these operators alone takes any size. (Exporting with free sizes fails for
    # ResidualEncoderUNet: its average pooling makes sizes that torch.export cannot solve for.)
    if fixed := sorted({node.op_type for node in model.graph.node} - SIZE_FREE):
        raise WeightsError(f"the exported graph has {', '.join(fixed)}, which may fix the size of its input")
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        for axis, name in ((0, "batch"), (2, "z"), (3, "y"), (4, "x")):
            value.type.tensor_type.shape.dim[axis].dim_param = name
    onnx.checker.check_model(model, full_check=True)
    return model


def _write(model: onnx.ModelProto, card: dict[str, Any], out: Path, patch: np.ndarray, expected: np.ndarray) -> None:
    """Write graphs and card to `out` once every installed engine gives `expected` for `patch`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        folder = Path(temporary)
        files = save_graphs(model, folder)
        card["files"] = {name: _sha256(folder / name) for name in files}
        (folder / FILE_NAME).write_text(json.dumps(card, indent=2) + "\n")
        _check_engines(folder, patch, expected)
        out.mkdir(exist_ok=True)
        for name in (*files, FILE_NAME):  # the card last: it vouches for the others
            (folder / name).replace(out / name)
        for name in {WEIGHTS_FILE, *(name for form in FORMS.values() for name in form)} - set(files):
            (out / name).unlink(missing_ok=True)  # of the network that was here before


def save_graphs(model: onnx.ModelProto, folder: Path) -> list[str]:
    """Write the float32 graph and the float16 one; returns the names of the files, the graphs first.

    If float16 holds the weights exactly, they lie once beside both graphs: 11 MB instead of 34.
    """
    half = with_half_weights(model)
    for value in (*half.graph.input, *half.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.checker.check_model(half, full_check=True)
    names = [FORMS["f32"][0], FORMS["f16"][0]]
    if exact := _same_weights(model, half):
        model = with_half_weights(model)
        _cast_weights(model)
        onnx.checker.check_model(model, full_check=True)
    for graph, name in ((model, names[0]), (half, names[1])):
        # Without `exact` the weights stay inside. The second graph writes the same bytes to the same file.
        (folder / WEIGHTS_FILE).unlink(missing_ok=True)
        onnx.save(graph, folder / name, save_as_external_data=exact, location=WEIGHTS_FILE, size_threshold=0)
    if exact:  # onnx lets only its owner read it
        (folder / WEIGHTS_FILE).chmod((folder / names[0]).stat().st_mode)
    return [*names, WEIGHTS_FILE] if exact else names


def with_half_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the graph with float16 weights."""
    half = onnx.ModelProto()
    half.CopyFrom(model)
    for weight in half.graph.initializer:
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), weight.name))
    return half


def _same_weights(model: onnx.ModelProto, half: onnx.ModelProto) -> bool:
    pairs: Sequence[Any] = list(zip(model.graph.initializer, half.graph.initializer, strict=True))
    return all(np.array_equal(numpy_helper.to_array(one), numpy_helper.to_array(two)) for one, two in pairs)


def _cast_weights(model: onnx.ModelProto) -> None:
    """Let a float32 graph with float16 weights cast them before use: engines do that once, when they load it."""
    names = {weight.name: f"{weight.name}_f32" for weight in model.graph.initializer}
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    casts = [onnx.helper.make_node("Cast", [name], [cast], to=TensorProto.FLOAT) for name, cast in names.items()]
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _check_engines(folder: Path, patch: np.ndarray, expected: np.ndarray) -> None:
    """Run each installed engine on `patch`; raise WeightsError where one's logits are not `expected`."""
    np.save(folder / "patch.npy", patch)
    for engine in ENGINES:
        if find_spec(engine) is None:
            print(f"{engine}: not installed, not checked")
            continue
        command: list[str | Path] = [sys.executable, "-m", "training.engine_check", folder, engine, "f32"]
        done = subprocess.run([*command, folder / "patch.npy", folder / "logits.npy"], capture_output=True, text=True)
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise WeightsError(f"engine {engine} cannot run the network: {said[-1]}")
        logits = np.load(folder / "logits.npy")
        difference = float(np.abs(logits - expected).max() / np.abs(expected).max())
        print(f"{engine}: largest difference from PyTorch's module {difference:.1e} of the largest logit")
        if not difference < LARGEST_DIFFERENCE:
            raise WeightsError(f"engine {engine} differs by {difference:.1e}, over {LARGEST_DIFFERENCE:.0e}")


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Turn what is wrong with values of a file into a WeightsError that names it."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise WeightsError(f"{file}: {str(error).strip().splitlines()[0]}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _value(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    return name, int(value)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.export", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "model", type=Path, help="folder with plans.json, dataset.json and fold_*/, or a student's file"
    )
    parser.add_argument("out", type=Path, help="folder of the exported network; its name is the network's")
    parser.add_argument("--fold", help="0..4 or all, where the folder has several")
    parser.add_argument("--checkpoint", default=USUAL, help=f"default: {USUAL}")
    parser.add_argument("--orientation", help="of all training scans, such as LPS; scans are then turned to it")
    parser.add_argument("--value", type=_value, action="append", default=[], metavar="NAME=VALUE",
                        help="value of a label in the label map, such as tumor=14")  # fmt: skip
    parser.add_argument("--student", choices=sorted(STUDENTS), default="near_isotropic",
                        help="whose parameters a file holds")  # fmt: skip
    parser.add_argument("--trained-on", default="not stated", help="a sentence for the card")
    arguments = parser.parse_args()
    model, out = arguments.model, arguments.out
    try:
        if model.is_file():
            export_student(model, out, arguments.student, trained_on=arguments.trained_on)
        else:
            export(
                model,
                out,
                fold=arguments.fold,
                checkpoint=arguments.checkpoint,
                orientation=arguments.orientation,
                values=dict(arguments.value),
                trained_on=arguments.trained_on,
            )
    except VisceraError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:  # such as a name that is too long
        sys.exit(f"error: {error}")
    card = read_json(out / FILE_NAME)
    print(f"{out}: {card['source']['parameters']:,} parameters, {len(card['labels']) - 1} labels")
    if card["orientation"] is None:
        print("The training scans' orientation is not recorded: scans are taken as their files store them, as "
              "nnU-Net does. If all were stored one way, export with --orientation (DICOM's is LPS).")  # fmt: skip


if __name__ == "__main__":
    main()
