"""Export of a student's parameters: its card, its weights in one file, and what is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from torch.nn import Module

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("nnunetv2")

from inference.card_file import read_card  # noqa: E402
from inference.engines.choose import choose, load  # noqa: E402
from inference.errors import WeightsError  # noqa: E402
from inference.export.back import result_folder  # noqa: E402
from tests.conftest import ROOT  # noqa: E402
from tests.training.conftest import TINY  # noqa: E402
from training.export import export_student  # noqa: E402
from training.network import build_student  # noqa: E402
from training.plans import STUDENTS  # noqa: E402
from training.unet import State  # noqa: E402


@pytest.fixture(scope="module")
def student() -> Iterator[Module]:
    """A small student without norms, in the table of students as "tiny", whose weights float16 holds exactly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(STUDENTS, "tiny", TINY)
        torch.manual_seed(0)
        network = build_student(15, "tiny").eval()
        for parameter in network.parameters():
            parameter.data = parameter.data.half().float()
        yield network


@pytest.fixture(scope="module")
def shared_weights(student: Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student exported from its float16 parameters."""
    folder = tmp_path_factory.mktemp("student")
    half: State = {name: value.detach().half() for name, value in student.named_parameters()}
    torch.save(half, folder / "plain.pt")
    export_student(folder / "plain.pt", folder / "unified", "tiny", trained_on="nothing")
    return folder / "unified"


@pytest.mark.slow
def test_weights_that_float16_holds_lie_once_beside_both_graphs(student: Module, shared_weights: Path) -> None:
    card = read_card(shared_weights)
    assert set(card.files) == {"model.onnx", "model_f16.onnx", "weights.bin"}
    assert card.way == "abdomen" and card.labels[14].name == "tumor"
    assert sorted(path.name for path in shared_weights.iterdir()) == sorted(
        [*card.files, "card.json", "dataset.json", "plans.json"]
    )
    parameters = sum(parameter.numel() for name, parameter in student.named_parameters() if "seg_layers.0" not in name)
    assert (shared_weights / "weights.bin").stat().st_size < 1.1 * 2 * parameters
    assert (shared_weights / "model.onnx").stat().st_size < parameters
    for name in ("model.onnx", "model_f16.onnx"):
        stored = {
            weight.name: onnx.numpy_helper.to_array(weight)
            for weight in onnx.load(shared_weights / name).graph.initializer
        }
        for weight, value in stored.items():
            assert value.dtype == np.float16
            np.testing.assert_array_equal(value, student.get_parameter(weight).detach().numpy())


@pytest.mark.slow
def test_every_engine_answers_as_the_module_from_shared_weights(student: Module, shared_weights: Path) -> None:
    card = read_card(shared_weights)
    batch = np.random.default_rng(0).normal(size=(1, 1, *TINY.patch)).astype(np.float32)
    with torch.inference_mode():
        expected = student(torch.from_numpy(batch)).numpy()
    for engine in ("openvino", "onnxruntime", "torch"):
        answer = load(choose("cpu", engine, "f32", [card]), card, 1)(batch)
        np.testing.assert_allclose(answer, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
def test_a_file_of_weights_can_be_read_by_all_who_can_read_the_graph(shared_weights: Path) -> None:
    modes = {(shared_weights / name).stat().st_mode & 0o777 for name in ("model.onnx", "weights.bin")}
    umask = os.umask(0)
    os.umask(umask)
    assert modes == {0o666 & ~umask}


@pytest.mark.slow
def test_weights_that_float16_does_not_hold_stay_in_two_graphs_and_nothing_of_before_is_left(
    student: Module, shared_weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "unified"
    shutil.copytree(shared_weights, out)
    (out / "model_int8.bin").write_bytes(b"of the network before")
    odd: State = {name: value.detach() + 1e-5 for name, value in student.named_parameters()}
    torch.save(odd, tmp_path / "odd.pt")
    export_student(tmp_path / "odd.pt", out, "tiny")
    assert sorted(path.name for path in out.iterdir()) == [
        "card.json", "dataset.json", "model.onnx", "model_f16.onnx", "plans.json"
    ]  # fmt: skip
    for weight in onnx.load(out / "model.onnx", load_external_data=False).graph.initializer:
        expected = student.get_parameter(weight.name).detach() + 1e-5
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(weight), expected.numpy())
    together = sum(path.stat().st_size for path in shared_weights.iterdir())
    assert together < 0.55 * sum(path.stat().st_size for path in out.iterdir())


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        ({"decoder.transpconvs.0.bias": torch.zeros(5)}, "decoder.transpconvs.0.bias has the shapes 5 and 16"),
        ({"encoder.stages.0.0.convs.0.norm.weight": torch.ones(8)}, "norm.weight is in only one of the two"),
        ({"decoder.seg_layers.1.bias": torch.zeros(4)}, "decoder.seg_layers.0.bias has the shapes 15 and 4"),
        ({"decoder.transpconvs.0.bias": None}, "decoder.transpconvs.0.bias is in only one of the two"),
    ],
)
def test_another_students_parameters_are_refused_in_one_sentence(
    student: Module, changed: dict[str, Any], cause: str, tmp_path: Path
) -> None:
    state = {name: value.detach() for name, value in student.named_parameters()} | changed
    torch.save({name: value for name, value in state.items() if value is not None}, tmp_path / "odd.pt")
    with pytest.raises(WeightsError, match=rf"^.*odd.pt cannot be exported: .*({cause})$") as refusal:
        export_student(tmp_path / "odd.pt", tmp_path / "net", "tiny")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "net").exists()


def test_a_file_that_holds_no_parameters_is_refused_in_one_sentence(student: Module, tmp_path: Path) -> None:
    torch.save({"step": 3}, tmp_path / "last.pt")
    torch.save({"a": torch.ones(2)}, tmp_path / "other.pt")
    (tmp_path / "text.pt").write_text("no tensors")
    for name in ("last.pt", "text.pt", "gone.pt", "other.pt"):
        with pytest.raises(WeightsError, match=name) as refusal:
            export_student(tmp_path / name, tmp_path / "net", "tiny")
        assert "\n" not in str(refusal.value), name


@pytest.mark.slow
def test_the_way_back_finds_weights_in_a_file_of_their_own(
    student: Module, shared_weights: Path, tmp_path: Path
) -> None:
    result_folder(shared_weights, tmp_path / "back")
    state = torch.load(tmp_path / "back" / "fold_0" / "checkpoint_final.pth", weights_only=True)["network_weights"]
    for name, value in student.state_dict().items():
        if "seg_layers.0" not in name:
            assert torch.equal(state[name], value), name


@pytest.mark.slow
def test_old_names_say_the_new_ones_and_work(shared_weights: Path, tiny_model: Path, tmp_path: Path) -> None:
    def run(*command: str | Path) -> str:
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return done.stderr

    said = run("training.export", tiny_model, tmp_path / "net", "--fold", "0")
    assert said == "python -m training.export MODEL_FOLDER is now python -m inference.export MODEL_FOLDER\n"
    assert (tmp_path / "net" / "card.json").is_file()
    said = run("training.result_folder", tmp_path / "net", tmp_path / "back", "--labels", "unified")
    assert said == "python -m training.result_folder is now python -m inference.export.back\n"
    assert (tmp_path / "back" / "fold_0" / "checkpoint_final.pth").is_file()
