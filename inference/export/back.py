"""An exported network -> an nnU-Net v2 result folder, so that nnU-Net's own predictor runs the same network.

    %(prog)s weights/organ OUT_FOLDER

writes OUT_FOLDER/{plans.json, dataset.json, fold_0/checkpoint_final.pth}, and fold_1 and so on where the network is
the mean of several folds. The network's folder keeps the plans and the dataset that it was exported with. If
`orientation` is in dataset.json, the array must lie so, and nnU-Net's SimpleITK reader does not reorient: give it scans
stored that way.
"""

from __future__ import annotations

from . import needs  # noqa: F401  # isort: skip

import argparse
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from ..card_file import FILE_NAME, read_card
from ..errors import OutputError, WeightsError
from ..formats.atomic import write_atomically, writing
from ..grids.decode import read_head
from ..options import given_path
from .architecture import assign, network_of
from .checkpoint import State
from .plain import mapping, need, read_json, text
from .plan import card_fields, configuration_of, planar
from .program import or_exit
from .write import DATASET, FINAL, PLANS, refuse_nnunets, save_sources

# What has parameters, as a layer of PyTorch and as an operator of ONNX.
LAYERS = (nn.Conv3d, nn.ConvTranspose3d, nn.InstanceNorm3d)
NORM = "InstanceNormalization"
OPERATORS = ("Conv", "ConvTranspose", NORM)


def result_folder(network: Path, out: Path) -> None:
    """Write the result folder of an exported network, with its very weights, to `out`.

    Raises WeightsError if it was exported without its plans or they are another's, or a file is missing or damaged,
    OutputError if nothing can be written, or `out` holds a model already.
    """
    refuse_nnunets(out)
    if (out / FILE_NAME).exists():
        raise OutputError(f"{out} holds an exported network: choose another folder")
    card = read_card(network)
    if not (network / PLANS).exists():
        raise WeightsError(f"{network} was exported without {PLANS}: export it again")
    fields, plans, dataset = (read_json(network / name) for name in (FILE_NAME, PLANS, DATASET))
    try:
        if card.resample.version == 1:
            raise ValueError("nnU-Net v1 trained it, and its steps are not those of nnU-Net v2")
        configuration = text(need(mapping(need(fields, "source"), "source"), "configuration"), "configuration")
        planned = configuration_of(plans, configuration)
        said, expected = card_fields(plans, planned), {"axes": card.axes, "spacing": card.spacing, "patch": card.patch}
        if other := [name for name, value in expected.items() if said[name] != list(value)]:
            raise ValueError(f"{PLANS} is of another network: {other[0]} is {said[other[0]]} there")
        graph = onnx.load(card.form("f32")).graph
        if any(node.op_type == "BatchNormalization" for node in graph.node):
            raise ValueError("its batch norms follow nonlinearities, and parameters of such are not read back")
        arguments = mapping(need(need(planned, "architecture"), "arch_kwargs"), "arch_kwargs")
        if arguments.get("norm_op") and not any(node.op_type == NORM for node in graph.node):  # batch norms were folded
            arguments |= {"norm_op": None, "norm_op_kwargs": None, "conv_bias": True}
            plans["configurations"][configuration] = planned
        flat = planar(planned)
        module = network_of(need(planned, "architecture"), len(card.labels), card.inputs, planar=flat)
        states = _states(module, (card.inputs, *card.patch), graph, read_head(card))
        for state in states:
            assign(module, state)
        if flat:
            states = [{name: value.squeeze(2) if value.dim() == 5 else value for name, value in state.items()}
                      for state in states]  # fmt: skip
    except ValueError as error:
        raise WeightsError(f"{network} cannot become a result folder: {error}") from error
    write_result_folder(out, plans, dataset, configuration, *states,
                        mirror_axes=card.mirror_axes and tuple(axis - flat for axis in card.mirror_axes))  # fmt: skip


def write_result_folder(
    out: Path,
    plans: Mapping[str, Any],
    dataset: Mapping[str, Any],
    configuration: str,
    *states: State,
    mirror_axes: tuple[int, ...] | None = None,
) -> None:
    """Write what nnU-Net's trainer leaves of its folds, as far as its predictor and the exporter read it.

    Raises OutputError.
    """
    with writing(str(out)):
        save_sources(plans, dataset, out)
        for fold, state in enumerate(states):
            checkpoint = {
                "network_weights": state,
                "trainer_name": "nnUNetTrainer",
                "init_args": {"configuration": configuration, "fold": fold},
                "inference_allowed_mirroring_axes": mirror_axes,
            }
            (out / f"fold_{fold}").mkdir(exist_ok=True)
            whole = io.BytesIO()  # PyTorch leaves part of a file on a full disk, and an error that does not say so
            torch.save(checkpoint, whole)
            write_atomically(out / f"fold_{fold}" / FINAL, whole.getvalue())


def _states(network: nn.Module, window: Sequence[int], graph: onnx.GraphProto, head: np.ndarray | None) -> list[State]:
    """The parameters of a network of `network_of` out of its graph, under all the names that the network has for them;
    of each fold where it is the mean of several.

    The graph has the layers in the order in which they run, but not all of their parameters: a bias that is 0 is left
    out, parameters with the same values are one, and layers that only deep supervision uses are missing. The latter
    become 0. Raises ValueError if the graph is of another architecture.
    """
    ran: list[nn.Module] = []
    for layer in network.modules():
        if isinstance(layer, LAYERS):
            layer.register_forward_hook(lambda layer, *_: ran.append(layer))
    network(torch.empty(1, *window, device="meta"))
    casts = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Cast"}
    values = {weight.name: numpy_helper.to_array(weight).astype(np.float32) for weight in graph.initializer}
    nodes = [node for node in graph.node if node.op_type in OPERATORS]
    own = dict(network.named_parameters(remove_duplicate=False))
    ahead: dict[int, torch.Tensor] = {}
    if head is not None:  # which no mean of several has
        last: Any = ran.pop()
        ahead[id(last.weight)] = torch.from_numpy(head[:, :-1, None, None, None].copy())
        ahead[id(last.bias)] = torch.from_numpy(head[:, -1].copy())
    if not nodes or len(nodes) % len(ran):
        raise ValueError(f"the graph has {len(nodes)} layers, the network in {PLANS} {len(ran)}")
    states = []
    for first in range(0, len(nodes), len(ran)):  # folds follow each other
        found = dict(ahead)
        for layer, node in zip(ran, nodes[first : first + len(ran)], strict=True):
            names = [casts.get(name, name) for name in node.input[1:]]
            plain = names[0].removeprefix(f"networks.{first // len(ran)}.")
            if node.op_type != NORM and own.get(plain) is not layer.weight:
                raise ValueError(f"{names[0]} is another layer in {PLANS}")
            if len(names) > 1 and layer.bias is None:  # as of a residual encoder's skips
                raise ValueError(f"nnU-Net has no place for {names[1]}, into which a batch norm was folded")
            for parameter, name in zip((layer.weight, layer.bias), (*names, None), strict=False):
                if isinstance(parameter, nn.Parameter):
                    value = values[name] if name else np.zeros(parameter.shape, np.float32)
                    found[id(parameter)] = torch.from_numpy(value)
        states.append({name: found.get(id(value), torch.zeros(value.shape)) for name, value in own.items()})
    return states


def main() -> None:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.back", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", type=given_path, help="folder of an exported network")
    parser.add_argument("out", type=given_path)
    or_exit(lambda options: result_folder(options.network, options.out), parser.parse_args())


if __name__ == "__main__":
    main()
