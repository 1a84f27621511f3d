"""Result folders of strangers: nothing in them is run, and what is not one is called what it is."""

from __future__ import annotations

import json
import os
import pickle
import pydoc
import resource
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("nnunetv2")

from inference.card_file import read_card  # noqa: E402
from inference.errors import WeightsError  # noqa: E402
from inference.export import architecture, plan  # noqa: E402
from inference.export.checkpoint import read_result_folder, read_torch  # noqa: E402
from inference.export.convert import export, main, planned  # noqa: E402
from inference.export.dataset import labels_of, stacked_values  # noqa: E402
from inference.export.generic_unet import GenericUNet  # noqa: E402
from tests.inference.export.conftest import refusal  # noqa: E402
from tests.made.networks import old_plans  # noqa: E402

CHECKPOINT = "fold_0/checkpoint_final.pth"
TINY = ("configurations", "tiny")
INTENSITY = "foreground_intensity_properties_per_channel"
ARGUMENTS = (*TINY, "architecture", "arch_kwargs")


def change(file: Path, *keys: str, to: Any) -> None:
    """Set the value at `keys` of a JSON file."""
    fields = json.loads(file.read_text())
    inner = fields
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = to
    file.write_text(json.dumps(fields))


class Call:
    """Pickles as a call of a function: what a file does that runs code when it is read."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def as_numpy_1(checkpoint: Path) -> None:
    """Rename NumPy's modules in a checkpoint to what NumPy 1 called them, as if it had been saved there."""
    with zipfile.ZipFile(checkpoint) as packed:
        members = {name: packed.read(name) for name in packed.namelist()}
    (pickled,) = (name for name in members if name.endswith("data.pkl"))
    assert b"cnumpy._core.multiarray\n" in members[pickled]
    members[pickled] = members[pickled].replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    with zipfile.ZipFile(checkpoint, "w") as packed:
        for name, content in members.items():
            packed.writestr(name, content)


# Nothing is run.


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that appears when the module `trap`, with classes of all the right names, is imported."""
    (tmp_path / "trap.py").write_text(
        f"open({str(tmp_path / 'sprung')!r}, 'w')\n"
        "from torch.nn import *\n"
        "from dynamic_network_architectures.architectures.unet import *\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "sprung"


@pytest.mark.parametrize("module", ["trap", "os", "subprocess", "torch.nn.modules.trap", "torch.hub", "builtins"])
@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("PlainConvUNet", (*TINY, "architecture", "network_class_name")),
        ("Conv3d", (*ARGUMENTS, "conv_op")),
        ("InstanceNorm3d", (*ARGUMENTS, "norm_op")),
        ("Dropout3d", (*ARGUMENTS, "dropout_op")),
        ("LeakyReLU", (*ARGUMENTS, "nonlin")),
        ("system", (*ARGUMENTS, "nonlin")),
        ("Popen", (*ARGUMENTS, "norm_op")),
        ("DefaultPreprocessor", (*TINY, "preprocessor_name")),
        ("resample_data_or_seg_to_shape", (*TINY, "resampling_fn_data")),
        ("resample_data_or_seg_to_shape", (*TINY, "resampling_fn_probabilities")),
        ("LabelManager", ("label_manager",)),
        ("SimpleITKIO", ("image_reader_writer",)),
    ],
)
def test_nothing_is_imported_by_a_name_in_a_plan(
    name: str, keys: tuple[str, ...], module: str, model: Path, trap: Path
) -> None:
    change(model / "plans.json", *keys, to=f"{module}.{name}")
    assert f"{module}.{name}" in refusal(model)
    assert not trap.exists() and "trap" not in sys.modules


def test_a_name_that_nothing_needs_is_not_looked_at(model: Path, trap: Path) -> None:
    change(model / "plans.json", "experiment_planner_used", to="trap.ExperimentPlanner")
    change(model / "plans.json", *TINY, "resampling_fn_seg", to="trap.resample")
    change(model / "plans.json", *TINY, "architecture", "_kw_requires_import", to=["n_stages", "conv_op"])
    (stored,) = read_result_folder(model)
    network, _ = planned(stored, None, {})
    architecture.assign(network, stored.state)
    assert not trap.exists()


def test_the_lists_hold_what_nnu_net_would_find_under_the_same_names() -> None:
    tables: list[dict[str | None, Any]] = [architecture.NETWORKS, *architecture.CLASSES.values()]
    every = [(name, kind) for table in tables for name, kind in table.items() if name and kind is not GenericUNet]
    for name, kind in every:
        # nnU-Net itself looks elsewhere for a module that has moved.
        assert pydoc.locate(name.replace(".residual_unet.", ".unet.")) is kind


@pytest.mark.parametrize("numpy", [1, 2])
@pytest.mark.parametrize(
    "kind",
    ["a scalar of dtype object", "an array of objects", "a function of the system", "eval", "torch.load", "a record"],
)
def test_a_checkpoint_runs_nothing(kind: str, numpy: int, model: Path, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    touch = Call(os.system, f"touch {sprung}")
    scalar: Any = np.float64(0).__reduce__()[0]
    inside: dict[str, Any] = {
        # NumPy unpickles the bytes of such a scalar, whoever made them.
        "a scalar of dtype object": Call(scalar, np.dtype("O"), pickle.dumps(touch)),
        "an array of objects": np.array([touch], object),
        "a function of the system": touch,
        "eval": Call(eval, f"open({str(sprung)!r}, 'w')"),
        "torch.load": Call(torch.load, "other.pth"),
        "a record": np.zeros(1, [("a", "O")]),
    }
    stored = torch.load(model / CHECKPOINT, weights_only=False)
    torch.save(stored | {"logging": [np.float32(1), inside[kind]]}, model / CHECKPOINT)
    if numpy == 1:
        as_numpy_1(model / CHECKPOINT)
    assert "cannot be read as a checkpoint: it holds" in refusal(model)
    assert not sprung.exists()


def test_what_other_libraries_allow_is_not_allowed_here(model: Path) -> None:
    stored = torch.load(model / CHECKPOINT, weights_only=False)
    torch.save(stored | {"logging": Path("x")}, model / CHECKPOINT)
    with torch.serialization.safe_globals([Path, type(Path())]):
        assert "PosixPath" in refusal(model)
        assert Path in torch.serialization.get_safe_globals()


# Nothing takes gigabytes.


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("n_stages", 10_000),
        ("n_stages", 1),
        ("n_stages", True),
        ("n_stages", "3"),
        ("features_per_stage", 1_000_000),
        ("features_per_stage", [4, 8, 10**30]),
        ("features_per_stage", [4, 8, -1]),
        ("features_per_stage", [4, 8]),
        ("features_per_stage", [[4], 8, 12]),
        ("features_per_stage", [4, 8, float("nan")]),
        ("kernel_sizes", 1001),
        ("kernel_sizes", [[1, 3, 3], [3, 3, 3], [3, 3, 1001]]),
        ("kernel_sizes", [[2, 2, 2]] * 3),
        ("strides", [[1, 1, 1], [1, 2, 2], [2, 2, 10**6]]),
        ("strides", [[1, 1, 1], [1, 2, 2], [2, 2, -2]]),
        ("strides", [[2, 2, 2], [1, 2, 2], [2, 2, 2]]),
        ("n_conv_per_stage", 10**9),
        ("n_conv_per_stage_decoder", [1, 10**9]),
        ("conv_bias", "yes"),
        ("norm_op_kwargs", {"num_features": 10**9}),
        ("norm_op_kwargs", {"eps": "tiny"}),
        ("norm_op_kwargs", [1]),
        ("nonlin_kwargs", {"negative_slope": float("inf")}),
        ("nonlin", "torch.nn.GELU"),
        ("conv_op", "torch.nn.Conv2d"),
        ("input_channels", 10**9),
    ],
)
def test_arguments_are_plain_and_bounded(argument: str, value: Any, model: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    change(model / "plans.json", *ARGUMENTS, argument, to=value)
    assert argument in refusal(model)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 200_000  # kB


def test_a_network_too_large_for_its_file_takes_no_memory(model: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    change(model / "plans.json", *ARGUMENTS, "features_per_stage", to=[256, 512, 1024])
    assert "has shape [4, 1, 1, 3, 3], in the plan [256, 1, 1, 3, 3]" in refusal(model)
    change(model / "plans.json", *ARGUMENTS, "features_per_stage", to=2048)
    assert "parameters, more than 500,000,000" in refusal(model)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 200_000  # kB


def packed_zeros(file: Path) -> None:
    """A checkpoint of 0.7 MB that unpacks to 720 MB; PyTorch's own are not compressed."""
    whole = file.with_name("whole")
    with torch.serialization.skip_data():
        torch.save({"a": torch.zeros(180_000_000)}, whole)
    with zipfile.ZipFile(whole) as stored, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for entry in stored.infolist():
            with packed.open(entry.filename, "w") as target:
                for start in range(0, entry.file_size, 10**7) if entry.filename.endswith("/0") else ():
                    target.write(bytes(min(10**7, entry.file_size - start)))
                if not entry.filename.endswith("/0"):
                    target.write(stored.read(entry))
    whole.unlink()


@pytest.mark.parametrize("claim", ["packed zeros", "bytearray", "tensor"])
def test_a_small_file_takes_no_gigabytes(claim: str, tmp_path: Path) -> None:
    file = tmp_path / "x.pth"
    if claim == "packed zeros":
        packed_zeros(file)
    else:
        torch.save(Call({"bytearray": bytearray, "tensor": torch.Tensor}[claim], 10**10), file)
    assert file.stat().st_size < 5_000_000
    before, limit = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(WeightsError, match="far more memory than its own size"):
        read_torch(file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 200_000  # kB
    assert resource.getrlimit(resource.RLIMIT_AS) == limit


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("NaN", "holds infinite numbers or NaN"),
        ("whole numbers", "is of type torch.int32"),
        ("one number for all", "claims numbers that the file does not hold"),
        ("sparse", "claims numbers that the file does not hold"),
        ("NumPy", "is not the name of a plain tensor"),
        ("without one", "does not fit the architecture"),
    ],
)
def test_weights_that_are_none(kind: str, cause: str, model: Path) -> None:
    turned: dict[str, Callable[[Any], Any]] = {
        "NaN": lambda tensor: tensor * float("nan"),
        "whole numbers": lambda tensor: tensor.int(),
        "one number for all": lambda tensor: torch.zeros(1).expand(tensor.shape),
        "sparse": lambda tensor: tensor.to_sparse(),
        "NumPy": lambda tensor: tensor.numpy(),
        "without one": lambda tensor: tensor,
    }
    stored = torch.load(model / CHECKPOINT, weights_only=False)
    state = {name: turned[kind](tensor) for name, tensor in stored["network_weights"].items()}
    if kind == "without one":
        state.popitem()
    torch.save(stored | {"network_weights": state}, model / CHECKPOINT)
    assert cause in refusal(model)


def test_a_flipped_bit_is_found(model: Path) -> None:
    file = model / CHECKPOINT
    with zipfile.ZipFile(file) as packed:
        weights = packed.read(next(name for name in packed.namelist() if name.endswith("data/0")))
    content = bytearray(file.read_bytes())
    content[content.index(weights) + 5] ^= 1
    file.write_bytes(content)
    assert "CRC" in refusal(model)


# What nearly all published checkpoints are is taken.


def test_numbers_of_numpy_are_plain_values_under_both_its_names(model: Path) -> None:
    stored = torch.load(model / CHECKPOINT, weights_only=False)
    kinds = [np.float64, np.float32, np.float16, np.int64, np.int32, np.uint8, np.bool_, np.str_]
    log = [*(kind(1) for kind in kinds), np.arange(6.0).reshape(2, 3), np.array(["a", "bc"]), np.array([True])]
    torch.save(stored | {"logging": log}, model / CHECKPOINT)
    for rename in (lambda file: None, as_numpy_1):
        rename(model / CHECKPOINT)
        state = read_torch(model / CHECKPOINT)["network_weights"]
        assert all(torch.equal(state[name], tensor) for name, tensor in stored["network_weights"].items())


@pytest.mark.filterwarnings("ignore:Detected old nnU-Net plans")
@pytest.mark.parametrize("name", ["PlainConvUNet", "ResidualEncoderUNet"])
def test_an_old_plan_is_converted_as_nnu_net_does(name: str, model: Path) -> None:
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = old_plans(model)
    plans["configurations"]["tiny"]["UNet_class_name"] = name
    ours = plan.configuration_of(plans, "tiny")
    theirs = PlansManager(plans).get_configuration("tiny")
    same = theirs.configuration.keys() - {"architecture"}
    assert {key: ours[key] for key in same} == {key: theirs.configuration[key] for key in same}
    reference = get_network_from_plans(
        theirs.network_arch_class_name.replace(".residual_unet.", ".unet."),  # where it lies today
        theirs.network_arch_init_kwargs,
        theirs.network_arch_init_kwargs_req_import,
        1,
        5,
        deep_supervision=False,
    ).eval()
    network = architecture.network_of(ours["architecture"], 5)
    architecture.assign(network, reference.state_dict())
    image = torch.randn(1, 1, 8, 16, 24)
    with torch.inference_mode():
        assert torch.equal(network(image), reference(image))


@pytest.mark.slow
def test_an_old_checkpoint_is_exported_by_the_command(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Old plans, channels under their old name, an ignored label, NumPy 1, PyTorch's compiled names, another name."""
    stored = torch.load(model / CHECKPOINT, weights_only=False)
    state = {f"_orig_mod.{name}": tensor for name, tensor in stored["network_weights"].items()}
    torch.save(stored | {"network_weights": state}, model / CHECKPOINT)
    as_numpy_1(model / CHECKPOINT)
    (model / CHECKPOINT).rename(model / "fold_0" / "checkpoint_best.pth")
    (model / "plans.json").write_text(json.dumps(old_plans(model)))
    put(model, "best.model")  # an ending of version 1, of which this is none
    dataset = json.loads((model / "dataset.json").read_text())
    dataset["modality"] = dataset.pop("channel_names")
    dataset["labels"] = {"ignore": 5, **dataset["labels"]}
    (model / "dataset.json").write_text(json.dumps(dataset))
    arguments = ["export", str(model), str(tmp_path / "net"), "--checkpoint", "checkpoint_best.pth"]
    monkeypatch.setattr(sys, "argv", arguments)
    main("export")
    card = read_card(tmp_path / "net")
    assert card.spacing == (4.0, 3.0, 3.0) and card.channels[0].clip == (-160.0, 240.0)
    assert [label.value for label in card.labels] == [0, 1, 2, 3, 4]
    assert "4 labels" in capsys.readouterr().out


def test_classes_by_the_other_names_that_python_knows_them_by(model: Path) -> None:
    (stored,) = read_result_folder(model)
    expected = str(planned(stored, None, {})[0])
    for key, name in (("conv_op", "Conv3d"), ("norm_op", "InstanceNorm3d"), ("nonlin", "LeakyReLU")):
        change(model / "plans.json", *ARGUMENTS, key, to=f"torch.nn.modules.{name}")
    change(model / "plans.json", *ARGUMENTS, "deep_supervision", to=True)
    (stored,) = read_result_folder(model)
    network: Any = planned(stored, None, {})[0]
    assert str(network) == expected and not network.decoder.deep_supervision
    change(model / "plans.json", *ARGUMENTS, "nonlin", to="torch.nn.ReLU")
    change(model / "plans.json", *ARGUMENTS, "nonlin_kwargs", to={"negative_slope": 0.1})
    assert "arch_kwargs do not fit each other: ReLU.__init__()" in refusal(model)


@pytest.mark.slow
def test_a_relu_is_run_by_every_engine(model: Path, tmp_path: Path) -> None:
    change(model / "plans.json", *ARGUMENTS, "nonlin", to="torch.nn.modules.activation.ReLU")
    export(model, tmp_path / "net")  # compares every engine's logits with the module's
    assert b"LeakyRelu" not in (tmp_path / "net" / "model.onnx").read_bytes()


# What inference would do otherwise is refused.


@pytest.mark.parametrize(
    ("keys", "value", "cause"),
    [
        ((*TINY, "preprocessor_name"), "MyPreprocessor", "MyPreprocessor"),
        ((*TINY, "resampling_fn_data"), "resample_torch_simple", "resampling_fn_data 'resample_torch_simple'"),
        ((*TINY, "resampling_fn_data"), "resample_data_or_seg_to_spacing", "resample_data_or_seg_to_spacing"),
        ((*TINY, "resampling_fn_data"), "resample_torch_fornnunet", "resampling_fn_data_kwargs has 'order'"),
        ((*TINY, "resampling_fn_probabilities"), "no_resampling_hack", "no_resampling_hack"),
        ((*TINY, "resampling_fn_data_kwargs", "is_seg"), True, "resampling_fn_data_kwargs"),
        ((*TINY, "resampling_fn_data_kwargs", "order"), 4, "resampling_fn_data_kwargs: order is 4"),
        ((*TINY, "resampling_fn_data_kwargs", "order_z"), 4, "resampling_fn_data_kwargs: order_z is 4"),
        ((*TINY, "resampling_fn_data_kwargs", "force_separate_z"), "no", "neither true nor false"),
        ((*TINY, "resampling_fn_data_kwargs", "separate_z_anisotropy_threshold"), 9, "separate_z_anisotropy_threshold"),
        ((*TINY, "resampling_fn_probabilities_kwargs"), [], "resampling_fn_probabilities_kwargs is []"),
        ((*TINY, "normalization_schemes"), ["CTNormalization", "CTNormalization"], "not a list of 1"),
        ((*TINY, "normalization_schemes"), ["LogNormalization"], "'LogNormalization' is not one of"),
        ((*TINY, "use_mask_for_norm"), ["no"], "use_mask_for_norm is 'no'"),
        ((*TINY, "previous_stage"), "3d_lowres", "cascade"),
        ((*TINY, "patch_size"), [16, 24], "spacing is [4.0, 3.0, 3.0], not a list of 2"),
        ((*TINY, "patch_size"), [8, 16, 22], "not a multiple of [2, 4, 4]"),
        ((*TINY, "patch_size"), [800, 800, 800], "64,000,000 voxels"),
        ((*TINY, "spacing"), [0, 3, 3], "spacing is 0"),
        ((*TINY, "spacing"), [float("nan"), 3, 3], "spacing is nan"),
        ((*TINY, "spacing"), "3 mm", "spacing is '3 mm'"),
        ((*TINY, "inherits_from"), "tiny", "inherits from itself"),
        ((*TINY, "inherits_from"), "nothing", "configuration 'nothing' is missing"),
        ((*TINY, "architecture"), None, "architecture is None"),
        ((*TINY, "architecture"), {}, "network_class_name is missing"),
        (("configurations",), {"3d_fullres": {}}, "configuration 'tiny' is missing, the plan has ['3d_fullres']"),
        (("configurations",), [], "configurations is []"),
        (("transpose_forward",), [0, 0, 1], "transpose_forward"),
        (("transpose_backward",), [2, 1, 0], "does not undo"),
        (("label_manager",), "Other", "label_manager 'Other'"),
        (("image_reader_writer",), "NaturalImage2DIO", "NaturalImage2DIO"),
        (("image_reader_writer",), "Tiff3DIO", "Tiff3DIO"),
        ((INTENSITY,), {}, INTENSITY),
        ((INTENSITY, "0", "std"), 0, "std is 0"),
        ((INTENSITY, "0", "mean"), None, "mean is None"),
        ((INTENSITY, "0", "percentile_00_5"), 300, "the first must be less"),
        ((INTENSITY, "0", "percentile_99_5"), float("nan"), "percentile_99_5 is nan"),
    ],
)  # fmt: skip
def test_a_plan_that_inference_would_not_follow(keys: tuple[str, ...], value: Any, cause: str, model: Path) -> None:
    change(model / "plans.json", *keys, to=value)
    assert cause in refusal(model)


@pytest.mark.parametrize(
    "key",
    ["patch_size", "spacing", "architecture", "preprocessor_name", "normalization_schemes", "resampling_fn_data",
     "resampling_fn_data_kwargs", "resampling_fn_probabilities", "resampling_fn_probabilities_kwargs"],
)  # fmt: skip
def test_a_key_that_is_missing_is_named(key: str, model: Path) -> None:
    plans = json.loads((model / "plans.json").read_text())
    del plans["configurations"]["tiny"][key]
    (model / "plans.json").write_text(json.dumps(plans))
    assert f"plans.json: {key} is missing" in refusal(model)


@pytest.mark.parametrize(
    ("key", "value", "cause"),
    [
        ("labels", {"0": "background", "1": "liver"}, "label '0' is 'background'"),
        ("labels", {"background": 1, "a": 0}, "no background 0"),
        ("labels", {"a": 0, "b": 1}, "no background 0"),
        ("labels", {"background": [0, 1], "a": 1}, "no background 0"),
        ("labels", {"background": 0, "a": 1, "ignore": 3}, "nnU-Net takes only 2"),
        ("labels", {"background": 0, "a": 1, "ignore": [2]}, "'ignore' is [2]"),
        ("labels", {"background": 0, **{f"x{value}": value for value in range(1, 257)}}, "'x256' has value 256"),
        ("labels", {"background": 0, "a": "one"}, "label 'a' is 'one'"),
        ("labels", {"background": 0, "a": True}, "label 'a' is True"),
        ("labels", {"background": 0, "a": [1, 2], "b": 2}, "regions_class_order is missing"),
        ("labels", None, "labels is None"),
        ("channel_names", {"0": "CT", "1": "PET"}, "normalization_schemes is ['CTNormalization'], not a list of 2"),
        ("channel_names", {}, "channel_names is empty"),
        ("channel_names", ["CT"], "channel_names is ['CT']"),
        ("one_piece", "organ_1", "one_piece is 'organ_1'"),
        ("hosts", ["organ_1"], "hosts is ['organ_1']"),
        ("hosts", {"organ_1": ["nowhere"]}, "not lists of other labels by label"),
        ("hosts", {"organ_1": "organ_2"}, "not lists of other labels by label"),
        ("orientation", "XYZ", "orientation 'XYZ'"),
        ("orientation", 5, "orientation is 5"),
        ("way", "thorax", "way 'thorax' is not one of abdomen, body, dense"),
        ("way", ["dense"], "way ['dense'] is not one of"),
        ("way", "organs", "way 'organs' is not one of abdomen, body, dense"),  # it has no guide
    ],
)
def test_a_dataset_that_inference_would_not_follow(key: str, value: Any, cause: str, model: Path) -> None:
    change(model / "dataset.json", key, to=value)
    assert cause in refusal(model)


def test_the_keys_of_channels_are_not_their_numbers(model: Path) -> None:
    change(model / "dataset.json", "channel_names", to={"1": "portal venous"})
    (stored,) = read_result_folder(model)
    (channel,) = planned(stored, None, {})[1]["channels"]
    assert channel["name"] == "portal venous"


def test_values_of_labels_may_be_text(model: Path) -> None:
    values = json.loads((model / "dataset.json").read_text())["labels"]
    expected = labels_of({"labels": values}, {})
    assert labels_of({"labels": {name: str(value) for name, value in values.items()}}, {}) == expected


@pytest.mark.parametrize("spelt", [lambda value: [str(value)], float, lambda value: [float(value)]])
def test_values_of_labels_may_be_spelt_otherwise(spelt: Callable[[int], Any]) -> None:
    plain = {"background": 0, "liver": 1, "tumour": 3}
    told = {name: spelt(value) if value else value for name, value in plain.items()}
    assert labels_of({"labels": told}, {}) == labels_of({"labels": plain}, {})


def test_regions_may_be_of_text() -> None:
    """As nnU-Net's LabelManager, to which a background of text is one more region."""
    plain: dict[str, Any] = {"labels": {"background": 0, "whole": [1, 2, 3], "rest": 3}, "regions_class_order": [1, 3]}
    told: dict[str, Any] = {**plain, "labels": {"background": 0, "whole": ["1", "2", 3.0], "rest": "3"}}
    labels = labels_of(plain, {})
    assert labels_of(told, {}) == labels and stacked_values(told, labels) == [1, 256 + 2, 3]
    with pytest.raises(ValueError, match="label 'background' is '0'"):
        labels_of(told | {"labels": told["labels"] | {"background": "0"}}, {})


@pytest.mark.parametrize("kind", ["data", "probabilities"])
def test_a_plan_may_leave_resampling_to_nnu_nets_own_defaults(kind: str, model: Path) -> None:
    import inspect

    from nnunetv2.preprocessing.resampling import default_resampling, resample_torch

    for function in (default_resampling.resample_data_or_seg_to_shape, resample_torch.resample_torch_fornnunet):
        usual = {name: one.default for name, one in inspect.signature(function).parameters.items()
                 if one.default is not inspect.Parameter.empty and name != "device"}  # fmt: skip
        change(model / "plans.json", *TINY, f"resampling_fn_{kind}", to=function.__name__)
        said = []
        for told in ({}, usual):
            change(model / "plans.json", *TINY, f"resampling_fn_{kind}_kwargs", to=told)
            (stored,) = read_result_folder(model)
            said.append(planned(stored, None, {})[1]["resample"])
        assert said[0] == said[1]


def test_the_inputs_of_a_cascade_are_the_labels_that_regions_are_made_of() -> None:
    regions = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "rest": 3, "ignore": 4}
    dataset = {"labels": regions, "regions_class_order": [3, 1, 2]}
    assert stacked_values(dataset, labels_of(dataset, {})) == [1, 2, 3]
    assert stacked_values(dataset, labels_of(dataset, {"core": 9})) == [9, 2, 3]
    dataset["regions_class_order"] = [1, 2, 2]  # no region writes 3
    assert stacked_values(dataset, labels_of(dataset, {})) == [1, 2, 256 + 3]
    with pytest.raises(ValueError, match="two regions that write one label were given two values"):
        stacked_values(dataset, labels_of(dataset, {"core": 9}))
    with pytest.raises(ValueError, match="two labels have one value"):
        stacked_values(dataset, labels_of(dataset, {"whole": 2}))


def test_labels_with_gaps_are_looked_for_in_a_cascade_as_by_nnu_net() -> None:
    """It stacks the values of dataset.json, and its label map of the earlier stage counts labels."""
    dataset = {"labels": {"background": 0, "a": 2, "b": 7, "c": 5}}
    assert [label["value"] for label in labels_of(dataset, {})] == [0, 1, 2, 3]
    assert stacked_values(dataset, labels_of(dataset, {})) == [2, 256 + 5, 256 + 7]
    assert stacked_values(dataset, labels_of(dataset, {"c": 9})) == [9, 256 + 5, 256 + 7]


def test_a_background_that_is_not_zero(model: Path) -> None:
    assert "background has value 3" in refusal(model, values={"background": 3})


# What is not a result folder is called what it is.


def put(place: Path, *names: str) -> Path:
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b"x")
    return place


def said_by_the_command(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "argv", ["export", str(path), str(path.parent / "net")])
    with pytest.raises(SystemExit) as caught:
        main("export")
    assert caught.value.code == 9
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    return said


def test_other_folders_and_files_get_a_sentence(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    v1 = put(tmp_path / "v1", "plans.pkl", "fold_0/model_best.model.pkl")
    fold = put(tmp_path / "v1_fold" / "fold_0", "model_final_checkpoint.model")
    results = tmp_path / "results" / "Dataset001_X"
    for trainer in ("A", "B"):
        shutil.copytree(tiny_model, results / f"{trainer}__nnUNetPlans__tiny")
    (tmp_path / "z").mkdir()
    archive = tmp_path / "z" / "model.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.write(tiny_model / "plans.json", "Dataset001_X/A__nnUNetPlans__tiny/plans.json")
    with zipfile.ZipFile(tmp_path / "v1.zip", "w") as packed:
        packed.writestr("3d_fullres/Task001_X/T/plans.pkl", b"")
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as tar:
        tar.add(tiny_model / "plans.json", "m/plans.json")
    shutil.copy(tiny_model / CHECKPOINT, tmp_path / "alone.pth")
    torch.save({"a": torch.ones(2)}, tmp_path / "other.pt")
    said = {
        tmp_path / "nothing": "does not exist",
        put(tmp_path / "empty", "notes.txt"): "is not a result folder of nnU-Net",
        v1: "a model of nnU-Net v1 without checkpoints",
        v1 / "plans.pkl": f"one file of a model of nnU-Net v1: give {v1}",
        fold: f"one fold of a model of nnU-Net v1: give {fold.parent} with --fold 0",
        fold / "model_final_checkpoint.model": f"one file of a model of nnU-Net v1: give {fold.parent}",
        put(tmp_path / "nnUNet", "3d_fullres/Task001_X/T/plans.pkl"): "give " + str(tmp_path / "nnUNet/3d_fullres"),
        tmp_path / "v1.zip": "nnU-Net v1",
        archive: "unpack it and give its folder 'Dataset001_X/A__nnUNetPlans__tiny'",
        Path(shutil.copy(archive, tmp_path / "without_ending")): "unpack it and give its folder",
        archive.parent: "the archive model.zip: unpack that first",
        tmp_path / "model.tar.gz": "is an archive: unpack it",
        results: f"give {results}/A__nnUNetPlans__tiny or {results}/B__nnUNetPlans__tiny",
        results.parent: f"give {results}/A__nnUNetPlans__tiny or",
        tiny_model / "fold_0": f"is one fold: give {tiny_model} with --fold 0",
        tiny_model / CHECKPOINT: f"give {tiny_model} --fold 0 --checkpoint checkpoint_final.pth",
        put(tmp_path / "x" / "fold_1", "checkpoint_best.pth"): "one fold of a model, without the plans.json",
        tmp_path / "alone.pth": "is a checkpoint of nnU-Net: give the folder of its model",
        tiny_model / "plans.json": "give the folder that holds it",
        put(tmp_path / "o", "net.onnx") / "net.onnx": "is an ONNX graph",
        put(tmp_path / "exported", "card.json", "model.onnx"): "exported already",
        put(tmp_path / "kept" / "organ", "card.json", "model.onnx", "plans.json", "dataset.json"): "exported already",
        tmp_path / "kept": "is not a result folder of nnU-Net",
        put(tmp_path / "pre", "nnUNetPlans.json", "dataset.json"): "preprocessed data",
        put(tmp_path / "raw", "dataset.json", "imagesTr/a_0000.nii.gz"): "training data",
        tmp_path / "other.pt": "is a file, and not a result folder",
        put(tmp_path / "t", "a.txt") / "a.txt": "is a file, and not a result folder",
    }
    for path, cause in said.items():
        assert cause in said_by_the_command(path, monkeypatch, capsys), path


def test_a_checkpoint_of_another_name_is_named(model: Path) -> None:
    (model / CHECKPOINT).rename(model / "fold_0" / "checkpoint_best.pth")
    assert (
        "checkpoint_final.pth is missing, its folder holds checkpoint_best.pth: --checkpoint checkpoint_best.pth"
        in (refusal(model))
    )
    shutil.copy(model / "fold_0" / "checkpoint_best.pth", model / "fold_0" / "checkpoint_latest.pth")
    assert "checkpoint_best.pth, checkpoint_latest.pth: --checkpoint checkpoint_best.pth takes it" in refusal(model)


def test_a_fold_that_is_not_there(model: Path) -> None:
    assert "has no fold_3, only fold_0" in refusal(model, fold="3")
    (model / "fold_1").mkdir()
    assert "fold_0, fold_1: choose one with --fold" in refusal(model)
    (model / "fold_1").rmdir()
    shutil.rmtree(model / "fold_0")
    assert "has no fold_*" in refusal(model)


@pytest.mark.parametrize("content", [b"{", b"[]", b"[" * 100_000, b'{"a": "\xff"}', b"1" * 5000, b"", None])
def test_plans_that_are_no_table(content: bytes | None, model: Path) -> None:
    (model / "plans.json").unlink()
    if content is not None:
        (model / "plans.json").write_bytes(content)
    assert "plans.json cannot be read" in refusal(model)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", bytes(1000), b"version https://git-lfs.github.com/spec/v1\n"])
def test_checkpoints_that_are_none(content: bytes, model: Path) -> None:
    (model / CHECKPOINT).write_bytes(content)
    said = refusal(model)
    assert "cannot be read as a checkpoint: it is damaged or not a PyTorch file" in said
    assert "weights_only=False" not in said.replace("`", "")  # no advice to run what the file holds


def test_tensors_that_are_no_checkpoint(model: Path) -> None:
    torch.save({"some": "thing"}, model / CHECKPOINT)
    assert "is not a checkpoint of nnU-Net v2: init_args is missing" in refusal(model)
