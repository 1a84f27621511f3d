"""Networks in one file: the same labels and the same bytes, and nothing written that its cards do not name."""

from __future__ import annotations

import gc
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from inference import pack as module
from inference.errors import OutputError, WeightsError
from inference.pack import pack, unpacked
from inference.predictor import Predictor


@pytest.fixture(scope="module")
def packed(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("packed") / "tiny.zip"
    assert [card.name for card in pack(tiny_weights, file)] == ["organ", "tumor"]
    return file


def changed(packed: Path, file: Path, edit: Callable[[dict[str, bytes]], None]) -> Path:
    """The archive with other contents."""
    with zipfile.ZipFile(packed) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    edit(contents)
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return file


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_same_networks_make_the_same_bytes_and_come_out_as_they_were(
    packed: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    pack(tiny_weights, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()
    with unpacked(packed) as folder:
        assert names(folder) == names(tiny_weights)
        for name in names(folder):
            assert (folder / name).read_bytes() == (tiny_weights / name).read_bytes()
    assert not folder.exists()
    with zipfile.ZipFile(packed) as archive:
        labels = json.loads(archive.read("labels.json"))
    assert [one["value"] for one in labels["organ"]] == [1, 2, 3, 4]


def test_only_an_earlier_file_of_networks_is_replaced(packed: Path, tiny_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "x_0000.nii.gz").write_bytes(b"a scan")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with zipfile.ZipFile(tmp_path / "series.zip", "w") as archive:
        archive.writestr("1.dcm", b"a slice")
    before = {path: path.lstat() for path in tmp_path.iterdir()}
    for path in before:
        with pytest.raises(OutputError, match=f"{path.name} exists already and is not a file of networks"):
            pack(tiny_weights, path)
    assert {path: path.lstat() for path in tmp_path.iterdir()} == before
    pack(tiny_weights, Path(shutil.copy(packed, tmp_path / "again.zip")))


def test_networks_that_a_run_takes_only_by_name_are_packed_too(tiny_weights: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_weights / "tumor", tmp_path / "weights" / "vessels")
    shutil.copytree(tiny_weights / "organ", tmp_path / "weights" / "organ")
    assert [card.name for card in pack(tmp_path / "weights", tmp_path / "both.zip")] == ["organ", "vessels"]
    with unpacked(tmp_path / "both.zip") as folder:
        assert names(folder) == names(tmp_path / "weights")
    with pytest.raises(WeightsError, match="organ is a network itself"):
        pack(tmp_path / "weights" / "organ", tmp_path / "none.zip")


def test_the_program_takes_a_file_where_it_takes_a_folder(
    packed: Path, tiny_weights: Path, blob: np.ndarray, save_scan: Callable[..., Path], tmp_path: Path
) -> None:
    save_scan(tmp_path / "in" / "x_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    found = []
    for weights in (packed, tiny_weights):
        out = tmp_path / weights.name
        command: list[str | Path] = [sys.executable, "-m", "inference", tmp_path / "in", out, "--weights", weights]
        subprocess.run([*command, "--device", "cpu", "--engine", "onnxruntime"], check=True, capture_output=True)
        record = json.loads((out / "x.json").read_text())
        found.append(((out / "x.nii.gz").read_bytes(), record["weights"]))
    assert found[0] == found[1]


def test_a_predictor_of_a_file_is_pickled_as_one_of_a_folder(packed: Path, blob: np.ndarray) -> None:
    predictor = Predictor(packed, device="cpu", engine="onnxruntime")
    again = pickle.loads(pickle.dumps(predictor))
    labels = predictor(blob, (3.0, 2.0, 2.0), "LPS")
    assert labels.any()
    assert np.array_equal(again(blob, (3.0, 2.0, 2.0), "LPS"), labels)


def test_a_predictor_for_other_labels_keeps_the_unpacked_networks(packed: Path, blob: np.ndarray) -> None:
    predictor = Predictor(packed, max_memory=10**12)
    predictor = predictor.with_labels((predictor.labels[1], predictor.labels[14]))
    gc.collect()
    assert predictor(blob, (2.5, 2.0, 2.0), "LPS").shape == blob.shape  # estimates memory by files of the networks


@pytest.mark.parametrize("name", ["../organ", "/organ", "..", "a/../organ", "C:organ", "a\\organ"])
def test_no_file_is_written_outside_the_folder(packed: Path, tmp_path: Path, name: str) -> None:
    def edit(contents: dict[str, bytes]) -> None:
        contents[f"{name}/card.json"] = contents["organ/card.json"]

    file = changed(packed, tmp_path / "x.zip", edit)
    with pytest.raises(WeightsError, match="is not the name of a file or a network"), unpacked(file):
        pass
    assert names(tmp_path) == ["x.zip"]


def test_files_that_a_card_names_elsewhere_are_refused(packed: Path, tmp_path: Path) -> None:
    def edit(contents: dict[str, bytes]) -> None:
        card = json.loads(contents["organ/card.json"])
        card["files"]["../../escaped"] = "0" * 64
        contents["organ/card.json"] = json.dumps(card).encode()
        contents["organ/../../escaped"] = b"x"

    file = changed(packed, tmp_path / "x.zip", edit)
    with pytest.raises(WeightsError, match="is not the name of a file or a network"), unpacked(file):
        pass


def test_what_no_card_names_stays_packed(packed: Path, tmp_path: Path) -> None:
    def edit(contents: dict[str, bytes]) -> None:
        contents |= {"organ/evil.pth": b"x", "more.py": b"x"}

    with unpacked(changed(packed, tmp_path / "x.zip", edit)) as folder:
        assert not [name for name in names(folder) if "evil" in name or "more" in name]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("checkpoint_final.pth", "is a checkpoint: export the folder of its model"),
        ("model.model", "is a checkpoint: export the folder of its model"),
        ("model.onnx", "is a graph, part of a network: give the folder that the network's folder is in"),
        ("model.zip", "is an archive of nnU-Net: unpack it, export it"),
    ],
)
def test_what_is_given_in_place_of_networks_is_called_what_it_is(tmp_path: Path, name: str, said: str) -> None:
    with zipfile.ZipFile(tmp_path / name, "w") as archive:  # as PyTorch's files are, too
        archive.writestr("Dataset900/nnUNetTrainer__nnUNetPlans__3d_fullres/plans.json", "{}")
    with pytest.raises(WeightsError, match=f"{name} {said}"), unpacked(tmp_path / name):
        pass


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.999])
def test_a_file_that_was_cut_off(packed: Path, tmp_path: Path, cut: float) -> None:
    whole = packed.read_bytes()
    (tmp_path / "x.zip").write_bytes(whole[: int(len(whole) * cut)])
    with pytest.raises(WeightsError, match="is damaged or not a file of networks"), unpacked(tmp_path / "x.zip"):
        pass


def test_a_flipped_bit_is_found(packed: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        start = archive.getinfo("organ/model.onnx").header_offset + 200
    damaged = bytearray(packed.read_bytes())
    damaged[start] ^= 1
    (tmp_path / "x.zip").write_bytes(damaged)
    with pytest.raises(WeightsError, match="is damaged"), unpacked(tmp_path / "x.zip"):
        pass


def test_what_is_incomplete_too_large_or_no_archive(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_graph(contents: dict[str, bytes]) -> None:
        del contents["organ/model.onnx"]

    file = changed(packed, tmp_path / "x.zip", without_graph)
    with pytest.raises(WeightsError, match=r"incomplete: organ/model.onnx is missing"), unpacked(file):
        pass
    file = changed(packed, tmp_path / "x.zip", lambda contents: contents.clear())
    with pytest.raises(WeightsError, match="holds no network"), unpacked(file):
        pass
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    with pytest.raises(WeightsError, match="would unpack to more than"), unpacked(packed):
        pass


def test_a_network_that_is_damaged_is_not_packed(tiny_weights: Path, tmp_path: Path) -> None:
    import shutil

    weights = shutil.copytree(tiny_weights, tmp_path / "weights")
    (weights / "tumor" / "model.onnx").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"model.onnx is damaged"):
        pack(weights, tmp_path / "x.zip")
    with pytest.raises(OutputError, match="cannot be written"):
        pack(tiny_weights, tmp_path / "none" / "x.zip")
    with pytest.raises(OutputError, match="cannot be written"):
        pack(tiny_weights, weights / "tumor" / "model.onnx" / "x.zip")  # where nothing can be removed either
    assert sorted(path.name for path in tmp_path.iterdir()) == ["weights"]
