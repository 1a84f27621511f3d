"""Result folders of nnU-Net v1: read without running anything in them, and given nnU-Net v1's own labels.

Its steps are written down here once more, from its description: nnU-Net v1 is not among what development installs.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import resource
import shutil
import struct
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batchgenerators.augmentations.utils import resize_segmentation
from scipy import ndimage

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("nnunetv2")

from inference.card import Largest, Resample, Resize  # noqa: E402
from inference.card_file import read_card  # noqa: E402
from inference.errors import WeightsError  # noqa: E402
from inference.export import v1  # noqa: E402
from inference.export.architecture import assign  # noqa: E402
from inference.export.back import result_folder  # noqa: E402
from inference.export.convert import export, main, planned  # noqa: E402
from inference.export.v1_pickles import read_pickle  # noqa: E402
from inference.export.v1_pieces import largest  # noqa: E402
from inference.model import Model, Quiet  # noqa: E402
from inference.options import DENSE, Options, Way  # noqa: E402
from inference.predictor import Predictor  # noqa: E402
from inference.record import Record  # noqa: E402
from inference.scan import Scan  # noqa: E402
from inference.segment import segment  # noqa: E402
from tests.inference.export.conftest import refusal  # noqa: E402
from tests.made.v1 import PATCH, POOLS, POOLS_2D, write_v1_model  # noqa: E402

Spacing = tuple[float, float, float]
CHECKPOINT = "fold_0/model_final_checkpoint.model"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_v1_model(tmp_path / "m")


def change(model: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Edit what lies beside the checkpoint."""
    file = model / f"{CHECKPOINT}.pkl"
    told = pickle.loads(file.read_bytes())
    edit(told)
    file.write_bytes(pickle.dumps(told))


# Nothing in a pickle is run.


class Call:
    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None) -> None:
        self.call = function, arguments, state

    def __reduce__(self) -> Any:
        return self.call


SCALAR: Any = np.float64(0).__reduce__()[0]


class Named:
    pass


def names(module: str, name: str) -> bytes:
    return b"\x80\x04" + pickle.SHORT_BINUNICODE + bytes([len(module)]) + module.encode() + \
        pickle.SHORT_BINUNICODE + bytes([len(name)]) + name.encode() + pickle.STACK_GLOBAL  # fmt: skip


def read(content: bytes, folder: Path) -> Any:
    (folder / "x.pkl").write_bytes(content)
    return read_pickle(folder / "x.pkl")


def read_refusal(content: bytes, folder: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        read(content, folder)
    assert str(folder / "x.pkl") in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("protocol", [3, 4])
def test_plain_values_and_numpys_are_read(protocol: int, tmp_path: Path) -> None:
    plain: Any = {"a": [1, 2.5, "x", None, True, (1, 2)], "b": OrderedDict([(0, {"c": {1, 2}})])}
    assert read(pickle.dumps(plain, protocol), tmp_path) == plain
    numbers = [kind(1) for kind in (np.float64, np.float32, np.float16, np.int64, np.int16, np.uint8, np.bool_)]
    told = OrderedDict(
        numbers=numbers, text=np.str_("a"), same=[numbers, numbers], empty=np.array([]),
        array=np.arange(6.0).reshape(2, 3), columns=np.asfortranarray(np.arange(6).reshape(2, 3)),
        big_endian=np.arange(3, dtype=">i4"), texts=np.array(["a", "bc"]),
    )  # fmt: skip
    found = read(pickle.dumps(told, protocol), tmp_path)
    assert found["numbers"] == [1, 1, 1, 1, 1, 1, True] and found["text"] == "a" and found["same"][0] == [1] * 7
    assert [type(number) for number in found["numbers"]] == [float] * 3 + [int] * 3 + [bool]
    assert found["array"] == [[0, 1, 2], [3, 4, 5]] == found["columns"] and found["big_endian"] == [0, 1, 2]
    assert found["texts"] == ["a", "bc"] and found["empty"] == []
    old = pickle.dumps(told, 3).replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    assert b"cnumpy.core.multiarray" in old and read(old, tmp_path) == found


@pytest.mark.parametrize(
    ("held", "what"),
    [
        (Call(os.system, "touch SPRUNG"), "posix.system"),
        (Call(eval, "open('SPRUNG', 'w')"), "builtins.eval"),
        (Call(getattr, "x", "__class__"), "builtins.getattr"),
        (Call(subprocess.Popen, ["touch", "SPRUNG"]), "subprocess.Popen"),
        (np.array([Call(os.system, "touch SPRUNG")], object), "type 'O8'"),
        (np.array([None, 1], object), "type 'O8'"),
        (Call(SCALAR, np.dtype("O"), pickle.dumps(Call(os.system, "touch SPRUNG"))), "'O8'"),
        (np.zeros(1, [("a", "<f8")]), "type 'V8'"),
        (Call(np.frombuffer, b"12345678"), "frombuffer"),
        (Path("x"), "PosixPath"),
        (torch.ones(1), "torch"),
        (Named(), "Named"),
    ],
)
def test_a_pickle_runs_nothing(
    held: Any, what: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    change(model, lambda told: told["plans"].update(more=[np.float32(1), held]))
    said = refusal(model)
    assert what in said and "model_final_checkpoint.model.pkl cannot be read: it holds" in said
    assert not (tmp_path / "SPRUNG").exists()


def test_names_are_not_followed(tmp_path: Path) -> None:
    for module, name in (("collections", "OrderedDict.__class__"), ("builtins", "set.__subclasses__"), ("os", "system"),
                         ("numpy", "dtype.__class__"), ("inference.export.v1_pickles", "CALLS")):  # fmt: skip
        assert f"it holds '{module}.{name}'" in read_refusal(names(module, name) + b".", tmp_path)


def test_a_pickle_changes_none_of_our_functions(tmp_path: Path) -> None:
    """BUILD sets attributes of whatever lies on the stack."""
    for name in ("numpy.dtype", "numpy.ndarray", "numpy._core.multiarray.scalar", "collections.OrderedDict"):
        found = names(*name.rsplit(".", 1))
        for state in ({"function": 1, "a": 1}, (None, {"function": 1, "__call__": 1})):
            assert "it holds changes to functions" in read_refusal(
                found + pickle.dumps(state, 4)[2:-1] + b"b.", tmp_path
            )
    assert read(pickle.dumps([OrderedDict(a=np.float32(1)), np.ones(1)]), tmp_path) == [{"a": 1.0}, [1.0]]


def array_of(shape: tuple[int, ...], content: bytes) -> Any:
    reduced: Any = np.ones(1).__reduce__()
    make, arguments, (version, _, dtype, order, _) = reduced
    return Call(make, *arguments, state=(version, shape, dtype, order, content))


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(array_of((10**9, 0), b"")),
        pickle.dumps(array_of((10**12,), b"12345678")),
        pickle.dumps(array_of((-1,), b"12345678")),
        pickle.dumps(array_of((1,) * 1000, b"12345678")),
        pickle.dumps(array_of((True,), b"12345678")),
        b"\x80\x04" + pickle.BINBYTES8 + struct.pack("<Q", 10**11) + b"a.",
        b"\x80\x04" + pickle.BYTEARRAY8 + struct.pack("<Q", 10**11) + b"a.",
        b"\x80\x04" + pickle.NONE + pickle.LONG_BINPUT + struct.pack("<I", 2**32 - 1) + b".",
        b"\x80\x04" + pickle.FRAME + struct.pack("<Q", 10**11) + b".",
        b"\x80\x04" + pickle.NONE + pickle.BINPERSID + b".",
        b"\x80\x04" + pickle.EXT1 + b"\x01.",
        b"\x80\x04" + pickle.MARK * 3,
        pickle.dumps({"a": 1})[:-3],
        b"",
        b"version https://git-lfs.github.com/spec/v1\n",
    ],
)
def test_a_damaged_pickle_takes_no_gigabytes(content: bytes, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "cannot be read" in read_refusal(content, tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 200_000  # kB


def copied(model: Path, name: str) -> Path:
    shutil.copytree(model, model.parent / name)
    return model.parent / name


def test_lists_in_lists_of_the_same_are_not_written_out(model: Path) -> None:
    bomb: list[Any] = [0]
    for _ in range(100):
        bomb = [bomb] * 10
    for key in ("conv_per_stage", "preprocessed_data_folder", "data_identifier", "modalities", "num_classes",
                "normalization_schemes", "plans_per_stage", "transpose_forward", "base_num_features",
                "preprocessor_name", "segmentation_export_params", "dataset_properties"):  # fmt: skip
        change(copied(model, key), lambda told, key=key: told["plans"].update({"unused": bomb, key: bomb}))  # type: ignore[misc]
        assert "is [[[" in refusal(model.parent / key)
    for key in ("conv_kernel_sizes", "pool_op_kernel_sizes", "patch_size", "current_spacing"):
        change(copied(model, key), lambda told, key=key: told["plans"]["plans_per_stage"][1].update({key: bomb}))  # type: ignore[misc]
        refusal(model.parent / key)
    change(model, lambda told: told.update(init=5))
    assert "init is 5, not a list" in refusal(model)


# What its plans say.


def card_of(model: Path, **options: Any) -> Any:
    (stored,) = v1.read_result_folder(model, options.pop("fold", None), options.pop("checkpoint", v1.FINAL))
    return planned(stored, None, options.get("values", {}))[1]


def test_what_the_card_says(model: Path) -> None:
    card = card_of(model, values={"label_2": 9})
    assert card["patch"] == list(PATCH) and card["spacing"] == [4.0, 3.0, 3.0] and card["axes"] == [0, 1, 2]
    assert card["channels"] == [{"name": "CT", "normalise": "ct", "clip": [-160.0, 240.0], "mean": 80.0, "std": 70.0}]
    assert card["resample"] == {"image_order": 3, "logit_order": 1, "force_separate_z": None, "version": 1}
    assert [(label["value"], label["name"]) for label in card["labels"]] == [
        (0, "background"), (1, "label_1"), (9, "label_2"), (3, "label_3"), (4, "label_4")
    ]  # fmt: skip
    assert card["window_multiple"] is None and card["orientation"] is None
    assert card["source"]["trainer"] == "nnUNetTrainerV2" and card["source"]["dataset"] == "Task999_Tiny"
    assert "somebody" not in json.dumps(card)


def test_names_of_labels_are_those_of_a_dataset_that_lies_there(model: Path) -> None:
    labels = {"0": "bg", "1": "liver", "2": "spleen", "3": "aorta", "4": "tumour"}
    (model / "dataset.json").write_text(json.dumps({"labels": labels, "training": ["./patient_1.nii.gz"]}))
    assert [label["name"] for label in card_of(model)["labels"]] == ["background", "liver", "spleen", "aorta", "tumour"]
    (model / "dataset.json").write_text(json.dumps({"labels": {**labels, "5": "vein"}}))
    assert "dataset.json has the labels" in refusal(model)
    (model / "dataset.json").write_text(json.dumps({"labels": {**labels, "2": "liver"}}))
    assert "dataset.json gives one name to several labels" in refusal(model)


def test_the_stage_is_the_trainers(model: Path) -> None:
    def init(*arguments: Any) -> None:
        change(model, lambda told: told.update(init=arguments))

    usual = ("plans.pkl", 0, "out", "data", True)
    init(*usual, 0, True)
    assert card_of(model)["spacing"] == [8.0, 6.0, 6.0]
    init("plans.pkl", 0, 0, "out", "data", True, 1, True)  # of a distributed trainer, which has its rank before
    assert card_of(model)["spacing"] == [4.0, 3.0, 3.0]
    init(*usual, None)
    assert "stage None is not one of [0, 1]" in refusal(model)
    change(model, lambda told: told["plans"]["plans_per_stage"].pop(0))
    assert card_of(model)["spacing"] == [4.0, 3.0, 3.0]
    init(*usual, 2)
    assert "stage 2 is not one of [1]" in refusal(model)


def test_folds_and_checkpoints_of_other_names(tmp_path: Path) -> None:
    model = write_v1_model(tmp_path / "m", folds=("fold_0", "fold_1"))
    assert "choose one with --fold" in refusal(model)
    first, second = (v1.read_result_folder(model, fold)[0].state for fold in ("0", "1"))  # zip, and before
    assert first.keys() == second.keys() and not torch.equal(first["tu.0.weight"], second["tu.0.weight"])
    for name in ("model_final_checkpoint.model", "model_final_checkpoint.model.pkl"):
        (model / "fold_1" / name).rename(model / "fold_1" / name.replace("final_checkpoint", "best"))
    assert "its folder holds model_best.model: --checkpoint model_best.model" in refusal(model, fold="1")
    assert card_of(model, fold="1", checkpoint="model_best.model")["patch"] == list(PATCH)
    shutil.rmtree(model / "fold_0")
    (model / "fold_1").rename(model / "all")
    assert v1.is_v1(model) and card_of(model, checkpoint="model_best.model")["patch"] == list(PATCH)


@pytest.mark.parametrize(
    ("edit", "cause"),
    [
        (lambda told: told.update(name="nnUNetTrainerV2_ReLU"), "trainer nnUNetTrainerV2_ReLU is not supported"),
        (lambda told: told.update(name="nnUNetTrainerV2BraTSRegions"), "its labels are regions"),
        (lambda told: told.update(name=5), "name is 5"),
        (lambda told: told.pop("plans"), "plans is missing"),
        (lambda told: told["plans"].pop("plans_per_stage"), "plans_per_stage is missing"),
        (lambda told: told["plans"].update(normalization_schemes={0: "CT2"}), "normalization_schemes has 'CT2'"),
        (lambda told: told["plans"].update(use_mask_for_norm={0: True}), "within the mask"),
        (lambda told: told["plans"].update(normalization_schemes={}), "not one value for each of 1 channels"),
        (lambda told: told["plans"].update(num_modalities=10**9), "num_modalities is 1000000000"),
        (lambda told: told["plans"].update(num_classes=10**9), "num_classes is 1000000000"),
        (lambda told: told["plans"].update(num_classes=3), "seg_outputs.0.weight has shape"),
        (lambda told: told["plans"].update(base_num_features=8), "has shape [4, 1, 1, 3, 3], in the plan [8,"),
        (lambda told: told["plans"].update(conv_per_stage=3), "is only in the plan"),
        (lambda told: told["plans"].update(conv_per_stage=10**9), "convs_per_stage"),
        (
            lambda told: told["plans"].update(preprocessor_name="PreprocessorFor2D"),
            "'PreprocessorFor2D' is not GenericPreprocessor: labels would differ",
        ),
        (lambda told: told["plans"].update(transpose_backward=[2, 1, 0]), "does not undo"),
        (
            lambda told: told["plans"].update(segmentation_export_params={"force_separate_z": True}),
            "segmentation_export_params is",
        ),
        (
            lambda told: told["plans"].update(segmentation_export_params={"interpolation_order": 3}),
            "segmentation_export_params is",
        ),
        (lambda told: told["plans"]["dataset_properties"].update(intensityproperties=None), "per_channel"),
        (lambda told: told["plans"]["plans_per_stage"][1].update(patch_size=np.array([16, 24])), "is not Prepr"),
        (lambda told: told["plans"]["plans_per_stage"][1].update(patch_size=np.array([8, 16, 22])), "not a multiple"),
        (lambda told: told["plans"]["plans_per_stage"][1].pop("pool_op_kernel_sizes"), "pool_op_kernel_sizes"),
        (
            lambda told: told["plans"]["plans_per_stage"][1].update(conv_kernel_sizes=[[5, 5, 5]] * 3),
            "conv_kernel_sizes has [5, 5, 5]",
        ),
    ],
)
def test_plans_that_inference_would_not_follow(edit: Callable[[Any], Any], cause: str, model: Path) -> None:
    change(model, edit)
    said = refusal(model)
    assert cause in said and "/fold_0/model_final_checkpoint.model" in said


def test_files_that_are_missing(model: Path) -> None:
    (model / f"{CHECKPOINT}.pkl").unlink()
    assert "model_final_checkpoint.model.pkl cannot be read: it is missing" in refusal(model)


# Its labels.


# Spacing of the plan, on axes that it exchanges so, and of the scan.
CASES: list[tuple[Spacing, Any, Spacing]] = [
    ((4.0, 3.0, 3.0), (0, 1, 2), (3.1, 2.2, 2.4)),
    ((4.0, 3.0, 3.0), (0, 1, 2), (4.0, 3.0, 3.0)),
    ((4.0, 1.2, 1.2), (0, 1, 2), (5.0, 1.0, 1.0)),  # coarse along z
    ((5.0, 2.0, 2.0), (0, 1, 2), (1.5, 1.5, 5.0)),  # along x in the scan, not in the plan
    ((8.0, 2.0, 2.0), (0, 1, 2), (2.0, 2.0, 7.0)),  # along x in the scan, along z in the plan
    ((7.0, 2.0, 2.0), (1, 0, 2), (4.0, 2.0, 2.0)),  # in the plan along an axis that it exchanges
]


def network(state: dict[str, Any], image: Any) -> Any:
    """Probabilities, by the names that nnU-Net v1 has for parameters."""

    def layers(x: Any, *blocks: str, stride: Any = (1, 1, 1)) -> Any:
        for block in blocks:
            for number in range(len([name for name in state if name.startswith(f"{block}.blocks.")]) // 4):
                conv, norm = (f"{block}.blocks.{number}.{layer}" for layer in ("conv", "instnorm"))
                kernel = state[f"{conv}.weight"]
                x = torch.conv3d(x, kernel, state[f"{conv}.bias"], stride, [int(n == 3) for n in kernel.shape[2:]])
                spread = x.var((2, 3, 4), correction=0, keepdim=True)
                x = (x - x.mean((2, 3, 4), keepdim=True)) / (spread + 1e-5) ** 0.5
                x = x * state[f"{norm}.weight"][:, None, None, None] + state[f"{norm}.bias"][:, None, None, None]
                x, stride = torch.where(x > 0, x, x * 0.01), (1, 1, 1)
        return x

    planar = image.shape[2] == 1
    pools = [[1, *pool] for pool in POOLS_2D] if planar else POOLS
    skips = [layers(image, "conv_blocks_context.0")]
    skips.append(layers(skips[0], "conv_blocks_context.1", stride=pools[0]))
    x = layers(skips[1], "conv_blocks_context.2.0", "conv_blocks_context.2.1", stride=pools[1])
    for up in range(2):
        pool = pools[1 - up]
        x = torch.cat((torch.conv_transpose3d(x, state[f"tu.{up}.weight"], stride=pool), skips.pop()), 1)
        x = layers(x, f"conv_blocks_localization.{up}.0", f"conv_blocks_localization.{up}.1")
    return torch.softmax(torch.conv3d(x, state["seg_outputs.1.weight"]), 1)


def resized(array: np.ndarray, shape: tuple[int, ...], order: int, spacings: tuple[Any, Any], axis: Any) -> np.ndarray:
    """A volume at another shape: with a coarse axis, plane by plane and then the nearest plane."""
    from skimage.transform import resize

    if array.shape == shape:
        return array
    if axis is None:
        return np.asarray(resize(array.astype(float), shape, order, mode="edge", anti_aliasing=False))
    flat = tuple(n for other, n in enumerate(shape) if other != axis)
    planes = [resize(plane, flat, order, mode="edge", anti_aliasing=False) for plane in np.moveaxis(array, axis, 0)]
    stack = np.stack(planes, axis).astype(np.float32)
    at = [old / new * (np.arange(new) + 0.5) - 0.5 for old, new in zip(stack.shape, shape, strict=True)]
    nearest = ndimage.map_coordinates(stack, np.meshgrid(*at, indexing="ij"), order=0, mode="nearest")
    return np.asarray(nearest)


def coarse(*spacings: Any) -> int | None:
    for spacing in spacings:
        if max(spacing) / min(spacing) > 3:
            largest = np.flatnonzero(np.max(spacing) / np.array(spacing) == 1)
            return int(largest[0]) if len(largest) == 1 else None
    return None


def labels_of_v1(
    model: Path, voxels: np.ndarray, spacing: Spacing, turns: Any = ((),), before: np.ndarray | None = None
) -> np.ndarray:
    """What nnU-Net v1 makes of an array (z, y, x), each window mirrored along all of `turns`.

    before  the labels of the earlier stage of a cascade
    """
    plans = pickle.loads((model / "plans.pkl").read_bytes())
    forward, target = plans["transpose_forward"], tuple(plans["plans_per_stage"][1]["current_spacing"])
    patch = (1, 1, *plans["plans_per_stage"][1]["patch_size"])[-3:]
    state = torch.load(model / CHECKPOINT, weights_only=False)["state_dict"]
    inside = ndimage.find_objects(ndimage.binary_fill_holes(voxels != 0).astype(int))[0]
    cropped = voxels[inside].astype(np.float32)

    own = tuple(spacing[axis] for axis in forward)
    if patch[0] == 1:
        target = (own[0], *target[1:])
        state = {name: value.unsqueeze(2) if value.ndim == 4 else value for name, value in state.items()}
    seen = np.transpose(cropped, forward)
    shape = tuple(round(n * a / b) for n, a, b in zip(seen.shape, own, target, strict=True))
    axis = coarse(own, target)
    if plans["use_mask_for_norm"][0]:
        filled = np.transpose(ndimage.binary_fill_holes(cropped != 0), forward).astype(float)
        mask = resized(filled, shape, 1, (own, target), axis) >= 0.5
    else:
        mask = np.ones(shape, bool)
    seen = resized(seen, shape, 3, (own, target), axis)
    if plans["normalization_schemes"][0] == "CT":
        seen = (np.clip(seen, -160, 240) - 80) / 70
    elif plans["normalization_schemes"][0] == "nonCT":
        seen = np.where(mask, (seen - seen[mask].mean()) / (seen[mask].std() + 1e-8), 0)
    seen = seen.astype(np.float32)

    image = seen[None]
    if before is not None:
        earlier = resize_segmentation(np.transpose(before, forward), shape, order=1)
        image = np.stack([seen, *(earlier == value for value in range(1, 5))]).astype(np.float32)
    short = [max(side - n, 0) for n, side in zip(shape, patch, strict=True)]
    padded = np.pad(image, [(0, 0), *((n // 2, n - n // 2) for n in short)])
    starts = []
    for n, side in zip(padded.shape[1:], patch, strict=True):
        count = int(np.ceil((n - side) / max(side * 0.5, 1))) + 1  # planes one by one
        starts.append([int(np.round((n - side) / max(count - 1, 1) * index)) for index in range(count)])
    middle = np.zeros(patch)
    middle[tuple(n // 2 for n in patch)] = 1
    weights = ndimage.gaussian_filter(middle, [n / 8 for n in patch], mode="constant")
    weights = (weights / weights.max()).astype(np.float32)
    weights[weights == 0] = weights[weights > 0].min()
    blended, total = (np.zeros((count, *padded.shape[1:]), np.float32) for count in (5, 1))
    for z in starts[0]:
        for y in starts[1]:
            for x in starts[2]:
                window = (slice(None), slice(z, z + patch[0]), slice(y, y + patch[1]), slice(x, x + patch[2]))
                seen = torch.from_numpy(padded[window][None])
                each = [torch.flip(network(state, torch.flip(seen, turn)), turn)[0].numpy() for turn in turns]
                blended[window] += np.mean(each, axis=0) * weights
                total[window] += weights
    part = tuple(slice(n // 2, n // 2 + size) for n, size in zip(short, shape, strict=True))
    answer = np.transpose((blended / total)[(slice(None), *part)], (0, *(1 + forward.index(axis) for axis in range(3))))

    labels = np.zeros(voxels.shape, np.uint8)
    axis = coarse(spacing, target)  # the target's axes are still exchanged: so is nnU-Net v1
    channels = [resized(channel, cropped.shape, 1, (target, spacing), axis) for channel in answer]
    labels[inside] = np.argmax(channels, 0)
    return labels


def labels_of_ours(model: Path, voxels: np.ndarray, spacing: Spacing, folder: Path, way: Way = DENSE) -> np.ndarray:
    """By the card and PyTorch's module."""
    (stored,) = v1.read_result_folder(model)
    module, card = planned(stored, None, {})
    assign(module, stored.state)
    card |= {"files": {}, "forms": {}, "largest": largest(model, card["labels"])}
    (folder / "card.json").write_text(json.dumps(card))
    run = Model.of(read_card(folder), lambda batch: module(torch.from_numpy(batch)).numpy())
    with torch.inference_mode():
        return segment(Scan.of(voxels, spacing, "LPS"), [run], [way], np, Record(), Quiet())


@pytest.mark.parametrize("scheme", ["CT", "CT 2D", "nonCT", "nonCT masked", "noNorm"])
@pytest.mark.parametrize(("at", "transpose", "own"), CASES)
def test_the_labels_are_those_of_nnu_net_v1(
    at: Spacing, transpose: Any, own: Spacing, scheme: str, tmp_path: Path
) -> None:
    scheme, *more = scheme.split()
    masked, planar = "masked" in more, "2D" in more
    model = write_v1_model(tmp_path / "m", spacing=at, transpose=transpose, scheme=scheme, masked=masked, planar=planar)
    noise = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=(14, 22, 26)), 2)
    voxels = np.rint(noise / noise.std() * 200 + 60).astype(np.int16)
    voxels[:2], voxels[:, :, -3:] = 0, 0  # cropped
    if masked:
        voxels[:, :9, :7], voxels[-4:, -8:] = 0, 0
    with torch.inference_mode():
        expected = labels_of_v1(model, voxels, own)
    labels = labels_of_ours(model, voxels, own, tmp_path)
    assert len(np.unique(expected)) >= 4
    assert (labels == expected).mean() >= 0.9995


@pytest.mark.parametrize("planar", [False, True])
def test_mirroring_is_that_of_nnu_net_v1(planar: bool, tmp_path: Path) -> None:
    model = write_v1_model(tmp_path / "m", transpose=(1, 0, 2), planar=planar)
    noise = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=(10, 18, 20)), 2)
    voxels = np.rint(noise / noise.std() * 200 + 60).astype(np.int16)
    turns = [[axis + 2 for axis in range(planar, 3) if number >> axis & 1] for number in range(0, 8, 1 + planar)]
    with torch.inference_mode():
        expected = labels_of_v1(model, voxels, (3.1, 2.2, 2.4), turns)
    labels = labels_of_ours(model, voxels, (3.1, 2.2, 2.4), tmp_path, replace(DENSE, tta=True))
    assert len(np.unique(expected)) >= 3 and (labels == expected).mean() >= 0.9995
    assert (labels_of_ours(model, voxels, (3.1, 2.2, 2.4), tmp_path) == expected).mean() < 0.999
    for trainer in ("nnUNetTrainerV2_noMirroring", "nnUNetTrainerV2_noDataAugmentation", "nnUNetTrainerNoDA"):
        change(model, lambda told, trainer=trainer: told.update(name=trainer))  # type: ignore[misc]
        assert card_of(model)["mirror_axes"] is None


@pytest.mark.slow
def test_the_labels_of_a_cascade_are_those_of_nnu_net_v1(tmp_path: Path) -> None:
    """With our own labels of the earlier stage. Where the scan is cropped, version 1 stretches these over the rest."""
    low = write_v1_model(tmp_path / "low", stage=0, transpose=(1, 0, 2))
    later = write_v1_model(tmp_path / "later", cascade=True, transpose=(1, 0, 2), seed=1)
    assert "give the folder of the earlier one, configuration stage_0" in refusal(later)
    assert "has the configuration 'stage_1', the cascade in" in refusal(later, previous=later)
    assert "is not a later stage of a cascade" in refusal(low, previous=low)
    export(later, tmp_path / "w" / "net", previous=low)
    options = Options(tmp_path / "w", device="cpu", precision="f32", accept_intensities=True)
    first, second = (Predictor(replace(options, networks=(name,))) for name in ("net_stage_0", "net"))
    # Of this seed no label's weights equal another's but for rounding, which decides between them then.
    noise = ndimage.gaussian_filter(np.random.default_rng(8).normal(size=(17, 23, 29)), 3)
    voxels = np.rint(noise / noise.std() * 200 + 60).astype(np.int16)
    for border in (0, 3):
        voxels[:, :, :border] = 0
        scan = Scan.of(voxels, (3.1, 2.2, 2.4), "LPS")
        before, labels = first.segment(scan)[0], second.segment(scan)[0]
        with torch.inference_mode():
            expected, alone = (
                labels_of_v1(later, voxels, (3.1, 2.2, 2.4), before=seen) for seen in (before, np.zeros_like(before))
            )
        assert len(np.unique(before)) >= 3 and len(np.unique(expected)) >= 3
        assert (labels == expected).mean() >= 0.9995 > (alone == expected).mean()


def test_steps_of_version_2_would_give_other_labels(tmp_path: Path) -> None:
    """That the test before can fail: the order of its steps is seen in labels."""
    model = write_v1_model(tmp_path / "m")
    noise = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=(14, 22, 26)), 2)
    voxels = np.rint(noise / noise.std() * 200 + 60).astype(np.int16)
    labels = labels_of_ours(model, voxels, (3.1, 2.2, 2.4), tmp_path)
    fields = json.loads((tmp_path / "card.json").read_text())
    fields["resample"]["version"] = 2
    (tmp_path / "card.json").write_text(json.dumps(fields))
    card = read_card(tmp_path)
    assert card.resample == Resample(Resize(3), Resize(1), 2)
    (stored,) = v1.read_result_folder(model)
    module, _ = planned(stored, None, {})
    assign(module, stored.state)
    with torch.inference_mode():
        run = Model.of(card, lambda batch: module(torch.from_numpy(batch)).numpy())
        others = segment(Scan.of(voxels, (3.1, 2.2, 2.4), "LPS"), [run], [DENSE], np, Record(), Quiet())
    assert (labels == others).mean() < 0.999


LABELS = [{"value": value} for value in (0, 7, 2, 2, 0)]


@pytest.mark.parametrize(
    ("stored", "rules"),
    [
        ({"for_which_classes": []}, []),
        ({"for_which_classes": [1], "min_valid_object_sizes": "None"}, [{"values": [7]}]),
        ({"for_which_classes": [1], "min_valid_object_sizes": "{1: 10.5}"}, [{"values": [7], "below": 10.5}]),
        ({"for_which_classes": [5]}, "for_which_classes is 5, not a whole number from 1 to 4"),
        ({"for_which_classes": ["liver"]}, "for_which_classes is 'liver'"),
        ({"for_which_classes": 1}, "not iterable"),
        ({}, "for_which_classes is missing"),
        ({"for_which_classes": [1], "min_valid_object_sizes": "{2: 10.5}"}, "min_valid_object_sizes, 1 is None"),
        ({"for_which_classes": [1], "min_valid_object_sizes": "open('/tmp/x', 'w')"}, "malformed node"),
        ({"for_which_classes": [2]}, "--value makes one with others"),
        ({"for_which_classes": None}, "--value makes one with others, or background"),
    ],
)
def test_pieces_that_nnu_net_v1_keeps(stored: dict[str, Any], rules: Any, tmp_path: Path) -> None:
    assert largest(tmp_path, LABELS) == []
    (tmp_path / "postprocessing.json").write_text(json.dumps(stored))
    if isinstance(rules, list):
        assert largest(tmp_path, LABELS) == rules
    else:
        with pytest.raises(WeightsError, match=r"postprocessing\.json.*" + re.escape(rules)):
            largest(tmp_path, LABELS)


@pytest.mark.slow
def test_the_command_exports_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every installed engine runs a patch; the probabilities are in the graph."""
    import onnx

    pieces = {"for_which_classes": [[1, 2], 3], "min_valid_object_sizes": "{(1, 2): 50.5, 3: 7}"}
    (model / "postprocessing.json").write_text(json.dumps(pieces))
    monkeypatch.setattr(sys, "argv", ["export", str(model), str(tmp_path / "net"), "--value", "label_1=7"])
    main("export")
    said = capsys.readouterr().out
    assert "postprocessing" not in said and said.count("largest difference") >= 2
    card = read_card(tmp_path / "net")
    assert card.resample.version == 1 and card.names == {7: "label_1", 2: "label_2", 3: "label_3", 4: "label_4"}
    assert card.largest == (Largest((7, 2), 50.5), Largest((3,), 7.0))
    assert onnx.load(tmp_path / "net" / "model.onnx").graph.node[-1].op_type == "Softmax"
    with pytest.raises(WeightsError, match="nnU-Net v1 trained it"):
        result_folder(tmp_path / "net", tmp_path / "back")


PREDICT = """
import sys, torch
load = torch.load
torch.load = lambda *arguments, **options: load(*arguments, **options | {"weights_only": False})
from nnunet.inference.predict import predict_from_folder
model, scans, out = sys.argv[1:]
predict_from_folder(model, scans, out, [0], False, 1, 1, None, 0, 1, tta=False)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("at", "transpose", "own"), CASES)
def test_nnu_net_v1_itself_gives_these_labels(
    at: Spacing, transpose: Any, own: Spacing, tmp_path: Path, save_scan: Callable[..., Path], blob: np.ndarray
) -> None:
    if not find_spec("nnunet") or not find_spec("medpy"):
        pytest.skip("nnU-Net v1 is not installed (nnunet 1.7.1): its steps are written down above, and tested")
    import nibabel as nib

    model = write_v1_model(tmp_path / "m", spacing=at, transpose=transpose)
    (model / "postprocessing.json").write_text('{"for_which_classes": [1, [2, 3]]}')
    save_scan(tmp_path / "scans" / "a_0000.nii.gz", blob, own)
    (tmp_path / "out").mkdir()
    command: list[str | Path] = [sys.executable, "-c", PREDICT, model, tmp_path / "scans", tmp_path / "out"]
    folders = {name: str(tmp_path) for name in ("nnUNet_raw_data_base", "nnUNet_preprocessed", "RESULTS_FOLDER")}
    subprocess.run(command, env=os.environ | folders, check=True, capture_output=True)
    image: Any = nib.load(tmp_path / "out" / "a.nii.gz")
    expected = np.asarray(image.dataobj).transpose(2, 1, 0)
    labels = labels_of_ours(model, blob, own, tmp_path)
    assert (labels == expected).mean() >= 0.9995
    for value in np.unique(expected):
        one, two = labels == value, expected == value
        # A voxel of difference moves few others, unless a whole piece hangs on it.
        assert 2 * (one & two).sum() / (one.sum() + two.sum()) >= 0.995 or two.sum() < 1000
