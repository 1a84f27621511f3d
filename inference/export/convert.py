"""A result folder of nnU-Net -> model.onnx, model_f16.onnx and card.json. Several folds become one network, whose
logits are the mean of theirs.

Takes any 3D PlainConvUNet or ResidualEncoderUNet with nnU-Net's default preprocessing. Every installed engine then
runs one window; a mismatch leaves nothing behind. If float16 holds every weight exactly, both graphs share one file of
float16 weights. plans.json and dataset.json stay beside the card, for the way back.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..card import HEAD_FILE
from ..card_file import FILE_NAME, FORMAT
from ..errors import OutputError, WeightsError
from ..machine import ran_out
from ..options import given_path
from . import v1
from .architecture import assign, network_of, strides_of
from .check import check_engines
from .checkpoint import Checkpoint, read_result_folder
from .dataset import has_regions, labels_of, stacked_values, way_of
from .graph import Mean, activations, save_graphs, to_onnx, without_head
from .notes import note
from .plain import need, read_json, shown, text
from .plan import (
    after_of,
    card_fields,
    channels_of,
    configuration_of,
    mirror_axes,
    orientation_of,
    planar,
    previous_stage,
    window_multiple,
)
from .program import or_exit
from .v1_pieces import largest
from .write import (
    DATASET,
    FINAL,
    PLANS,
    move,
    refuse_nnunets,
    remove_others,
    save_card,
    save_sources,
    sha256,
    workshop,
)

DEFAULT_TRAINER = "nnUNetTrainer"
# Voxels of a window in which engines are compared with PyTorch's module. As many have shown an engine that was wrong by
# 2e-3; a residual encoder of nnU-Net's largest preset takes 6 GB in a whole patch.
LARGEST_WINDOW = 64 * 192 * 192
# Words in the names of trainers whose networks have the parameters of the usual ones, but compute something else.
OTHER_LAYERS = re.compile(r"(?<!leaky)relu|gelu|mish|swish|silu|(?<![a-z])elu|_gn(?![a-z])", re.IGNORECASE)


def export(
    model_folder: Path,
    out: Path,
    *,
    fold: str | None = None,
    checkpoint: str = FINAL,
    orientation: str | None = None,
    values: Mapping[str, int] | None = None,
    trained_on: str = "not stated",
    previous: Path | None = None,
) -> None:
    """Export an nnU-Net result folder, of version 1 or 2, to the folder `out`, replacing what it held.

    fold         "0", or several as "0,1,2", whose logits are averaged; "all": fold_all, and where that is not there
                 every fold; default: the only one
    orientation  of the training scans, such as "LPS"; default: what dataset.json or the reader says, else scans are
                 taken as their files store them, as nnU-Net does
    values       label name -> value in the label map, where it differs from nnU-Net's
    previous     the result folder of the earlier stage, where the network is the later stage of a cascade. It is
                 exported as well, in the same way, to a folder beside `out`: `earlier_folder`
    Nothing in these files is run or imported. Raises WeightsError if the folder is something else, or its network is
    not one that inference can run as nnU-Net does, and OutputError if `out` cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is not a folder")
    refuse_nnunets(out)
    folds = _read(model_folder, fold, checkpoint)
    stored = folds[0]
    if other := [one for one in folds if one.configuration != stored.configuration]:
        raise WeightsError(f"{other[0].file} has the configuration {shown(other[0].configuration)}, "
                           f"{stored.file} {shown(stored.configuration)}")  # fmt: skip
    stage = _stage_before(stored, previous)
    network, card = _network(folds, orientation, values or {})
    if stage and previous:
        how: dict[str, Any] = {"fold": fold, "checkpoint": checkpoint, "orientation": orientation, "values": values}
        beside = earlier_folder(out, stage)
        card["after"] = _export_earlier(stored, card, beside, stage, previous, **how, trained_on=trained_on)
    if v1.is_v1(model_folder) and (rules := largest(model_folder, card["labels"])):
        card["largest"] = rules
    card["trained_on"] = trained_on
    if len(folds) > 1:
        card["folds"] = len(folds)
    card["source"] |= {
        "fold": ",".join(one.file.parent.name for one in folds),
        "checkpoint_sha256": ",".join(sha256(one.file) for one in folds),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }
    window, expected = _answered(network, card, stored.plans_file)
    plans, dataset = stored.plans, stored.dataset
    del folds, stored  # with the weights, of which `_save` lets go as well
    with workshop(out) as made:
        _save(network, card, made)
        save_sources(plans, dataset, made)
        check_engines(made, window, expected)
        move(made, out)
        remove_others(out, card["files"])


def _read(folder: Path, fold: str | None, checkpoint: str) -> list[Checkpoint]:
    return (v1.read_result_folder if v1.is_v1(folder) else read_result_folder)(folder, fold, checkpoint)


def _network(
    folds: Sequence[Checkpoint], orientation: str | None, values: Mapping[str, int]
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The network of all folds with its parameters, and its card but for digests."""
    networks, (card, *_) = zip(*(planned(one, orientation, values) for one in folds), strict=True)
    for one, network in zip(folds, networks, strict=True):
        with _naming(one.file, one.trainer):
            assign(network, one.state)
    return networks[0] if len(networks) == 1 else Mean(networks), card


def _answered(network: torch.nn.Module, card: Mapping[str, Any], plans: Path) -> tuple[np.ndarray, np.ndarray]:
    """One window of noise (1, c, z, y, x), and the logits (1, k, z, y, x) that PyTorch's module gives for it."""
    size = window_of(network, card["patch"])
    window = np.random.default_rng(0).normal(size=(1, _inputs(card), *size)).astype(np.float32)
    print(f"PyTorch's module: one window of {' x '.join(map(str, size))} voxels", flush=True)
    with _naming(plans), torch.inference_mode():
        return window, network(torch.from_numpy(window)).numpy()


def window_of(network: Any, patch: Sequence[int]) -> list[int]:
    """A patch, or with more than LARGEST_WINDOW voxels a part of it that the network takes: its longest axes halved."""
    units = np.prod(strides_of(network.networks[0] if isinstance(network, Mean) else network), axis=0)
    window = list(patch)
    while np.prod(window) > LARGEST_WINDOW:
        halves = [axis for axis in range(3) if window[axis] % (2 * units[axis]) == 0 and window[axis] > 2 * units[axis]]
        if not halves:
            break
        window[max(halves, key=lambda axis: window[axis])] //= 2
    return window


def _inputs(card: Mapping[str, Any]) -> int:
    return len(card["channels"]) + len(card["after"]["values"] if "after" in card else [])


def _save(network: torch.nn.Module, card: dict[str, Any], made: Path) -> None:
    """Write the graphs, and with them the card, to a workshop. The network has no weights any more then."""
    print("ONNX: the graphs in float32 and float16", flush=True)
    model = to_onnx(network, card["patch"], _inputs(card))
    for parameter in network.parameters():  # onnxscript keeps the last graph that it saw, and these with it
        parameter.data = torch.empty(0)
    # A spline of an order above 1 is clipped to the range of each logit, which the last layer's inputs do not know.
    linear = max(card["resample"].get(f"logit_{name}", 0) for name in ("order", "order_z")) <= 1
    head = without_head(model) if linear and not card["window_multiple"] else None
    card["activations"] = activations(model, card["patch"])
    forms = save_graphs(model, made)
    if head is not None:
        np.save(made / HEAD_FILE, head)
        card |= {"head": HEAD_FILE, "files": {HEAD_FILE: sha256(made / HEAD_FILE)}}
    save_card(card, made, forms)


def earlier_folder(out: Path, stage: str) -> Path:
    """Where the earlier stage of a network in `out` goes."""
    return out.with_name(f"{out.name}_{stage}")


def _stage_before(later: Checkpoint, previous: Path | None) -> str | None:
    """The configuration of a cascade's earlier stage; None where the network needs none.

    Raises WeightsError where `previous`, the folder of it, is missing or given for nothing.
    """
    folder = later.file.parent.parent
    with _naming(folder / PLANS):
        stage = previous_stage(configuration_of(later.plans, later.configuration))
    if stage and previous is None:
        raise WeightsError(f"{folder} is the later stage of a cascade: give the folder of the earlier one, "
                           f"configuration {stage}, with --previous")  # fmt: skip
    if previous and stage is None:
        raise WeightsError(f"{folder} is not a later stage of a cascade, and --previous gives an earlier one")
    return stage


def _export_earlier(
    later: Checkpoint, card: Mapping[str, Any], beside: Path, stage: str, previous: Path, **how: Any
) -> dict[str, Any]:
    """Export the earlier stage of a cascade to `beside`; returns the field `after` of the later one's card.

    Raises WeightsError where it is another network.
    """
    folder = later.file.parent.parent
    first = _read(previous, how["fold"], how["checkpoint"])[0]
    if first.configuration != stage:
        raise WeightsError(f"{previous} has the configuration {shown(first.configuration)}, "
                           f"the cascade in {folder} comes after {shown(stage)}")  # fmt: skip
    if planned(first, how["orientation"], how["values"] or {})[1]["labels"] != card["labels"]:
        raise WeightsError(f"{previous} has other labels than {folder}")
    with _naming(folder / PLANS):
        values = stacked_values(later.dataset, card["labels"])
        after = after_of(configuration_of(later.plans, later.configuration), beside.name, values)
    export(previous, beside, **how)
    return after


def planned(
    stored: Checkpoint, orientation: str | None, values: Mapping[str, int]
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The network that a checkpoint's plan describes, without parameters, and its card but for digests.

    Raises WeightsError, naming the file and the first thing in it that inference would do otherwise than nnU-Net.
    """
    folder, plans, dataset = stored.file.parent.parent, stored.plans, stored.dataset
    if other := OTHER_LAYERS.search(stored.trainer) if stored.plans_file.name == PLANS else None:
        raise WeightsError(f"{stored.file}: trainer {shown(stored.trainer)} is not supported: by its name its network "
                           f"has other layers ({other[0].strip('_')}) than its plan says")  # fmt: skip
    with _naming(stored.dataset_file):
        labels = labels_of(dataset, values)
        way = way_of(dataset)
    with _naming(stored.plans_file):
        names = {key: text(plans.get(key, "not stated"), key) for key in ("dataset_name", "plans_name")}
        configuration = configuration_of(plans, stored.configuration)
        fields = card_fields(plans, configuration)
        channels = channels_of(plans, configuration, dataset)
        flat = planar(configuration)
        # In a cascade the labels of the earlier stage are inputs as well.
        inputs = len(channels) + (len(stacked_values(dataset, labels)) if previous_stage(configuration) else 0)
        network: Any = network_of(need(configuration, "architecture"), len(labels), inputs, stored.state, flat)
        normed = any(isinstance(module, torch.nn.InstanceNorm3d) for module in network.modules())
        mirror = mirror_axes(stored.mirror_axes, flat)
        # Planes one by one are patches: windows with several of them would be another network's.
        multiple = window_multiple(fields["patch"], strides_of(network), normed or flat)
    with _naming(folder):
        oriented = orientation_of(plans, dataset, orientation)
    return network, {
        "format": FORMAT,
        "orientation": oriented,
        **fields,
        "channels": channels,
        "window_multiple": multiple,
        "decode": "regions" if has_regions(dataset) else "argmax",
        "mirror_axes": mirror,
        **way,
        "labels": labels,
        "trained_on": "not stated",
        "source": {
            "dataset": names["dataset_name"],
            "plans": names["plans_name"],
            "configuration": stored.configuration,
            "trainer": stored.trainer,
        },
    }


@contextmanager
def _naming(file: Path, trainer: str = DEFAULT_TRAINER) -> Iterator[None]:
    """Turn what is wrong with values of a file into a WeightsError that names it, and a trainer of others."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        if ran_out(error):
            raise MemoryError from error
        builder = "" if trainer == DEFAULT_TRAINER else f"; its trainer {shown(trainer)} may build another network"
        raise WeightsError(f"{file}: {str(error).strip().splitlines()[0]}{builder}") from error


def _value(text: str) -> tuple[str, int]:
    found = re.fullmatch(r"(.+)=(\d+)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE, such as tumor=14")
    return found[1], int(found[2])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", type=given_path, help="folder with plans.json, dataset.json and fold_*/, or of nnU-Net v1"
    )
    parser.add_argument("out", type=given_path, help="folder of the exported network; its name is the network's")
    parser.add_argument("--fold", help="if the folder has several: one, such as 0; several, such as 0,1,2,3,4, for "
                        "the mean of their logits; all: fold_all or, without that, every fold")  # fmt: skip
    parser.add_argument("--checkpoint", default=FINAL, help=f"default: {FINAL}, of nnU-Net v1 {v1.FINAL}")
    parser.add_argument("--orientation", help="that of all training scans, such as LPS; scans are then turned to it")
    parser.add_argument("--value", type=_value, action="append", default=[], metavar="NAME=VALUE",
                        help="value of a label in the label map, such as tumor=14")  # fmt: skip
    parser.add_argument("--previous", type=given_path, metavar="MODEL",
                        help="for a cascade: folder of the earlier stage, which is exported as well")  # fmt: skip
    parser.add_argument("--trained-on", default="not stated", help="a sentence for the card")


def run(options: argparse.Namespace) -> None:
    """Export as `add_arguments` says, and print what came out."""
    export(
        options.model,
        options.out,
        fold=options.fold,
        checkpoint=options.checkpoint,
        orientation=options.orientation,
        values=dict(options.value),
        trained_on=options.trained_on,
        previous=options.previous,
    )
    print_card(options.out)
    if said := note(options.model):
        print(said)


def print_card(out: Path) -> None:
    """Print how large a network that was exported is, and what a user should know of it."""
    card = read_json(out / FILE_NAME)
    labels = sum(label["value"] > 0 for label in card["labels"])
    print(f"{out}: {card['source']['parameters']:,} parameters, {labels} labels")
    said = {name: str(value) for name, value in read_json(out / DATASET)["labels"].items()}
    if moved := [f"{one['name']} {one['value']}" for one in card["labels"] if str(one["value"]) != said[one["name"]]]:
        print(f"Values in the label map that are not those of {DATASET}: {', '.join(moved)}")
    if card["orientation"] is None:
        print("The training scans' orientation is not recorded: scans are taken as their files store them, as "
              "nnU-Net does. If all were stored one way, export with --orientation (DICOM's is LPS).")  # fmt: skip


def main(prog: str) -> None:
    parser = argparse.ArgumentParser(prog=prog, description=__doc__.split("\n\n")[0])
    add_arguments(parser)
    or_exit(run, parser.parse_args())
