"""Export of tiny result folders: what the card says, and what is refused."""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("nnunetv2")

from inference.card import Channel  # noqa: E402
from inference.card_file import read_card  # noqa: E402
from inference.errors import OutputError, WeightsError  # noqa: E402
from inference.export import convert  # noqa: E402
from inference.export.back import result_folder, write_result_folder  # noqa: E402
from inference.export.check import check_engines  # noqa: E402
from inference.export.checkpoint import read_result_folder  # noqa: E402
from inference.export.convert import LARGEST_WINDOW, add_arguments, export, planned, window_of  # noqa: E402
from inference.export.graph import Mean, activations  # noqa: E402
from inference.export.guide import put  # noqa: E402
from inference.machine import held_memory, peak_memory_mb, reset_peak_memory  # noqa: E402
from tests.conftest import NETWORKS, ROOT  # noqa: E402
from tests.made.networks import TINY_PATCH, export_pair, write_model  # noqa: E402


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pair of tests/networks, exported now."""
    weights = tmp_path_factory.mktemp("exported")
    export_pair(weights)
    return weights


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_of_an_export_that_was_ended(number: signal.Signals, tmp_path: Path) -> None:
    model, out = write_model(tmp_path / "model"), tmp_path / "out"
    heard = ["env", "--default-signal=INT"]  # whoever runs these tests in the background ignores it
    command = [*heard, sys.executable, "-m", "inference.export", str(model), str(out / "tiny")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as export:
        while export.poll() is None and not (out.is_dir() and any(out.iterdir())):
            time.sleep(0.01)
        export.send_signal(number)
        _, said = export.communicate(timeout=60)
    assert (export.returncode, said) == (128 + number, b"")
    assert not any(out.iterdir())


@pytest.mark.slow
def test_the_committed_networks_are_what_the_exporter_makes_of_them(exported: Path) -> None:
    """Values and not bytes: PyTorch draws random weights with other last bits on another processor."""
    for name in ("organ", "tumor"):
        card, held = (json.loads((folder / name / "card.json").read_text()) for folder in (exported, NETWORKS))
        assert sorted(card.pop("files")) == sorted(held.pop("files"))
        for one in (card, held):
            del one["source"]["checkpoint_sha256"]
        assert card == held
        for file in ("model.onnx", "model_f16.onnx"):
            made, kept = (onnx.load(folder / name / file) for folder in (exported, NETWORKS))
            weights, expected = (
                {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer} for model in (made, kept)
            )
            assert list(weights) == list(expected)
            for key, value in expected.items():
                rounding = 1e-3 if value.dtype == np.float16 else 1e-5
                np.testing.assert_allclose(weights[key], value, rtol=rounding, atol=1e-5 * np.abs(value).max())
            for model in (made, kept):
                del model.graph.initializer[:]
            assert made == kept, f"{file} has another graph: python -m tests.made.networks"


@pytest.mark.slow
def test_what_the_card_says(exported: Path) -> None:
    card = read_card(exported / "tumor")
    assert card.patch == tuple(TINY_PATCH)
    assert card.window_multiple is None  # it has instance norms
    assert card.spacing == (4.0, 3.0, 3.0)
    assert card.orientation == "LPS"
    (channel,) = card.channels
    assert channel == Channel("CT", "ct", clip=(-160.0, 240.0), mean=80.0, std=70.0)
    assert [(label.value, label.name) for label in card.labels] == [(0, "background"), (14, "organ_1")]
    assert card.activations and card.activations >= 2 * 4  # the skip connection at full size, and what it joins
    assert card.trained_on == "random weights"
    assert set(card.files) == {"model.onnx", "model_f16.onnx"}
    for name in card.files:
        assert card.file(name).is_file()


@pytest.mark.slow
def test_one_file_without_traces_of_the_machine(exported: Path) -> None:
    folder = exported / "organ"
    assert sorted(path.name for path in folder.iterdir()) == [
        "card.json", "dataset.json", "model.onnx", "model_f16.onnx", "plans.json"
    ]  # fmt: skip
    assert b"/site-packages/" not in (folder / "model.onnx").read_bytes()
    (image,) = onnx.load(folder / "model.onnx").graph.input
    assert [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim] == ["batch", 1, "z", "y", "x"]


@pytest.mark.slow
def test_any_batch_and_size_equals_the_module(tiny_model: Path, exported: Path) -> None:
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    plans = json.loads((tiny_model / "plans.json").read_text())["configurations"]["tiny"]["architecture"]
    network = get_network_from_plans(
        plans["network_class_name"], plans["arch_kwargs"], plans["_kw_requires_import"], 1, 5, deep_supervision=False
    )
    stored = torch.load(tiny_model / "fold_0" / "checkpoint_final.pth", weights_only=False)
    network.load_state_dict(stored["network_weights"])
    from onnx.reference import ReferenceEvaluator

    batch = np.random.default_rng(0).normal(size=(2, 1, 4, 24, 16)).astype(np.float32)
    (logits,) = ReferenceEvaluator(str(exported / "organ" / "model.onnx")).run(None, {"image": batch})
    with torch.inference_mode():
        expected = network.eval()(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.slow
def test_a_residual_encoder_with_turned_axes(tmp_path: Path) -> None:
    model = write_model(
        tmp_path / "m",
        architecture="ResidualEncoderUNet",
        spacing=(2.5, 2.0, 2.0),
        transpose=(1, 0, 2),
        orientation=None,
    )
    export(model, tmp_path / "net")
    card = read_card(tmp_path / "net")
    assert card.axes == (1, 0, 2)
    assert card.orientation is None  # not recorded: scans are taken as stored, as nnU-Net does


@pytest.mark.slow
def test_an_engine_that_differs_is_refused(tiny_weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = read_card(tiny_weights / "organ")
    patch = np.zeros((1, 1, *card.patch), np.float32)
    with pytest.raises(WeightsError, match="engine openvino differs by"):
        check_engines(card.folder, patch, np.ones((1, len(card.labels), *card.patch), np.float32))
    assert capsys.readouterr().out.startswith("openvino: the same window\n")  # which may take minutes


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v is of Linux")
@pytest.mark.parametrize("where", ["module", "engine"])
def test_memory_that_ran_out_is_called_that(where: str, tmp_path: Path, tiny_weights: Path) -> None:
    if where == "module":
        model = write_model(tmp_path / "m", arch_kwargs={"features_per_stage": [128, 8, 12]})
        configurations = json.loads((model / "plans.json").read_text())["configurations"]
        configurations["tiny"]["patch_size"] = [64, 512, 512]
        change(model / "plans.json", configurations=configurations)
        program: list[Any] = ["-m", "inference.export", model, tmp_path / "out" / "net"]
    else:
        check = (
            "import sys, numpy as np; from pathlib import Path; from inference.export.check import check_engines\n"
            "check_engines(Path(sys.argv[1]), np.zeros((1, 1, 128, 512, 512), np.float32), np.zeros(1))"
        )
        program = ["-c", check, tiny_weights / "organ"]
    limited = ["bash", "-c", 'ulimit -v 1500000; exec "$@"', "bash", sys.executable, *program]
    done = subprocess.run(limited, capture_output=True, text=True, check=False, cwd=ROOT)
    said = {"module": "error: memory ran out: ", "engine": "MemoryError: engine openvino ran out of memory"}[where]
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith(said), done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("patch", "window"), [((96, 256, 256), [96, 128, 128]), ((64, 192, 192), [64, 192, 192]), ((1, 4, 2**22), None)]
)
def test_engines_are_compared_in_a_window_that_takes_no_gigabytes(
    patch: tuple[int, ...], window: list[int] | None, tiny_model: Path
) -> None:
    network, _ = planned(read_result_folder(tiny_model)[0], None, {})
    found = window_of(network, patch)
    assert window in (None, found) and np.prod(found) <= LARGEST_WINDOW
    assert window_of(Mean([network] * 2), patch) == found


@pytest.mark.slow
def test_weights_are_let_go_before_engines_take_theirs(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters: list[Any] = []
    held: list[int] = []

    def save(network: Any, *rest: Any) -> None:
        parameters.extend(map(weakref.ref, network.parameters()))
        original(network, *rest)

    def check(*_: Any) -> None:
        gc.collect()
        held.extend(one.numel() for parameter in parameters if (one := parameter()) is not None)

    original = convert._save
    monkeypatch.setattr(convert, "_save", save)
    monkeypatch.setattr(convert, "check_engines", check)
    export(tiny_model, tmp_path / "net")
    assert len(parameters) > 20 and not any(held)


def test_numbers_that_are_held_are_counted_without_copies_of_the_weights() -> None:
    """All copies together may be more than such files can hold, as those of five folds."""
    size = 5000
    weights = onnx.numpy_helper.from_array(np.ones((size, size, 1, 1, 1), np.float32), "weights")
    shape = [onnx.helper.make_tensor_value_info(name, 1, [1, size, 4, 4, 4]) for name in ("image", "logits")]
    node = onnx.helper.make_node("Conv", ["image", "weights"], ["logits"])
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "one", shape[:1], shape[1:], [weights]))
    reset_peak_memory()
    before = held_memory()
    assert activations(model, [4, 4, 4]) == 2 * size
    assert (peak_memory_mb() or 0) < (before + weights.ByteSize() / 2) / 1e6


def test_a_model_is_not_written_over_by_its_own_export(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m")
    before = {path: path.read_bytes() for path in model.rglob("*") if path.is_file()}
    with pytest.raises(OutputError, match="holds files of nnU-Net"):
        export(model, model)
    assert {path: path.read_bytes() for path in model.rglob("*") if path.is_file()} == before


def test_nothing_of_nnunet_is_written_over_by_an_export_or_a_result_folder(tmp_path: Path) -> None:
    """What was trained may have taken weeks."""
    model, raw = write_model(tmp_path / "m"), tmp_path / "Dataset001"
    raw.mkdir()
    shutil.copy(model / "dataset.json", raw)
    other = shutil.copytree(NETWORKS / "tumor", tmp_path / "tumor")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for folder in (model, raw):
        with pytest.raises(OutputError, match="holds files of nnU-Net"):
            result_folder(NETWORKS / "organ", folder)
    with pytest.raises(OutputError, match="holds files of nnU-Net"):
        export(model, raw)
    with pytest.raises(OutputError, match="holds an exported network"):
        result_folder(NETWORKS / "organ", other)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_names_of_patients_do_not_go_with_the_network(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m")
    change(model / "dataset.json", training=[{"image": "imagesTr/Doe_Jane_0000.nii.gz"}], description="of Jane Doe")
    export(model, tmp_path / "net")
    assert not any(b"Jane" in path.read_bytes() for path in (tmp_path / "net").iterdir())


@pytest.mark.slow
def test_of_the_network_that_was_there_before_neither_files_nor_guide_are_left(tmp_path: Path) -> None:
    for made in (tmp_path / "net", tmp_path / "net" / "notes"):
        made.mkdir()
        put((1,), made)
    (tmp_path / "net" / "model_int8.xml").touch()
    export(write_model(tmp_path / "m"), tmp_path / "net")
    names = {path.name for path in (tmp_path / "net").iterdir()}
    assert "card.json" in names and not names & {"guide", "model_int8.xml"}
    assert (tmp_path / "net" / "notes" / "guide" / "card.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["PlainConvUNet", "ResidualEncoderUNet"])
@pytest.mark.parametrize("trained", [False, True])
def test_there_and_back_and_there_again_is_the_same_network(architecture: str, trained: bool, tmp_path: Path) -> None:
    """A graph leaves out biases that are 0 and joins equal norms, as those of a network that was never trained. With
    more labels than features its last layer is a file of its own.
    """
    model = write_model(tmp_path / "m", architecture=architecture, labels=9 if trained else 5)
    file = model / "fold_0" / "checkpoint_final.pth"
    stored = torch.load(file, weights_only=False)
    if trained:
        done: set[int] = set()
        torch.manual_seed(0)
        for tensor in stored["network_weights"].values():
            if tensor.data_ptr() not in done:
                done.add(tensor.data_ptr())
                tensor += torch.randn(tensor.shape) / 10
        torch.save(stored, file)
    export(model, tmp_path / "net")
    assert (read_card(tmp_path / "net").head is not None) == trained
    result_folder(tmp_path / "net", tmp_path / "back")
    state, expected = (
        torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=False)["network_weights"]
        for folder in (tmp_path / "back", model)
    )
    assert state.keys() == expected.keys()
    different = {name for name in state if not torch.equal(state[name], expected[name])}
    assert {name.rpartition(".")[0] for name in different} == {"decoder.seg_layers.0"}  # of deep supervision only
    export(tmp_path / "back", tmp_path / "again")
    for name in read_card(tmp_path / "net").files:
        assert (tmp_path / "net" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.slow
def test_plans_of_another_network_are_refused(tmp_path: Path) -> None:
    export(write_model(tmp_path / "m"), tmp_path / "net")
    other = write_model(tmp_path / "other", spacing=(5.0, 3.0, 3.0))
    shutil.copy(other / "plans.json", tmp_path / "net")
    with pytest.raises(WeightsError, match=r"plans.json is of another network: spacing is \[5.0, 3.0, 3.0\] there"):
        result_folder(tmp_path / "net", tmp_path / "back")


def test_a_network_without_its_plans_says_so(tiny_weights: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_weights / "organ", tmp_path / "organ")
    (tmp_path / "organ" / "plans.json").unlink(missing_ok=True)
    with pytest.raises(WeightsError, match="organ was exported without plans.json: export it again"):
        result_folder(tmp_path / "organ", tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("value", [256, -1])
def test_values_that_no_label_map_can_hold(tmp_path: Path, value: int) -> None:
    model = write_model(tmp_path / "m")
    with pytest.raises(WeightsError, match="cannot hold"):
        export(model, tmp_path / "net", values={"organ_1": value})
    with pytest.raises(WeightsError, match="'liver' is not one of"):
        export(model, tmp_path / "net", values={"liver": 1})


def test_of_a_result_folder_that_cannot_be_written_no_part_of_a_checkpoint_is_left(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        with pytest.raises(OutputError, match="out cannot be written: File too large"):
            write_result_folder(tmp_path / "out", {}, {}, "c", {"w": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not list((tmp_path / "out" / "fold_0").iterdir())
    with pytest.raises(OutputError, match="cannot be written"):
        write_result_folder(tmp_path / "out" / "plans.json", {}, {}, "c")


@pytest.mark.parametrize("value", ["tumor", "tumor=", "=14", "tumor=x"])
def test_a_value_is_a_name_and_a_number(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["model", "out", "--value", value])
    assert f"argument --value: {value!r} is not NAME=VALUE" in capsys.readouterr().err
