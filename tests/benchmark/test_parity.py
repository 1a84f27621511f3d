"""Agreement by hand, and beside nnU-Net the whole command on a tiny network, and the shipped one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from benchmark.parity import agreement, compare, compare_exported
from inference.card_file import read_card
from tests.benchmark.runs import benchmark
from tests.conftest import ROOT
from tests.made.networks import write_model

NETWORK = ROOT / "weights" / "unified"


def test_agreement_by_hand() -> None:
    ours = np.array([0, 1, 1, 2, 2, 2])
    theirs = np.array([0, 1, 2, 2, 2, 2])
    found = agreement(ours, theirs)
    assert found.voxels == 5 / 6
    assert found.dice == {1: 2 / 3, 2: 6 / 7}
    assert not found.enough
    assert agreement(ours, ours).enough
    with pytest.raises(ValueError, match="cannot be compared"):
        agreement(ours, ours[:3])


def test_scans_are_files_of_names_of_their_own(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "ct.nii.gz").touch()
    for scans, cause in ((["a"], "a is not a file"), (["a/ct.nii.gz", "b/ct.nii.gz"], "the same case name")):
        with pytest.raises(ValueError, match=cause):
            compare(tmp_path / "model", [tmp_path / scan for scan in scans], engine="openvino")


def test_scans_are_of_the_format_that_nnunet_reads(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text('{"file_ending": ".nrrd"}')
    with pytest.raises(ValueError, match=r"x_0000.nii.gz does not end in .nrrd"):
        compare_exported(NETWORK, tmp_path, [tmp_path / "x_0000.nii.gz"], fold="0", engine="openvino")


@pytest.mark.slow
def test_a_network_of_metaimages(blob: np.ndarray, save_scan: Callable[..., Path], tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    scan = sitk.ReadImage(save_scan(tmp_path / "x_0000.nii.gz", blob, (3.0, 2.0, 2.0), "ASL"))
    sitk.WriteImage(scan, tmp_path / "x_0000.mha", True)
    model = write_model(tmp_path / "model", dataset={"file_ending": ".mha", "orientation": None})
    done = benchmark("parity", model, tmp_path / "x_0000.mha")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("x: 100.0000 %") and "1: 1.0000" in done.stdout


@pytest.mark.slow
def test_a_tiny_network_on_a_turned_scan(blob: np.ndarray, save_scan: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("nnunetv2")
    scans = [
        save_scan(tmp_path / "plain_0000.nii.gz", blob, (3.0, 2.0, 2.0)),
        save_scan(tmp_path / "turned_0000.nii.gz", blob, (2.0, 2.5, 2.5), "ASL"),
    ]
    # More labels than features: its last layer comes after blending and resampling.
    done = benchmark("parity", write_model(tmp_path / "model", labels=6), *scans)
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["plain", "turned"], done.stderr
    assert done.returncode == 0, done.stdout
    for line in lines:
        assert float(line.split()[1]) >= 99.95, line
        assert "1: 1.0000" in line  # labels were found, so that there was something to compare


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The shipped network as a result folder of nnU-Net, and exported from there once more."""
    pytest.importorskip("torch")
    pytest.importorskip("nnunetv2")
    from benchmark.peers.nnunet import write_models
    from inference.export.convert import export

    folder = tmp_path_factory.mktemp("shipped")
    (model,) = write_models([NETWORK], folder / "models")
    export(model, folder / "weights" / "again")
    return model, folder / "weights" / "again"


@pytest.mark.slow
def test_exported_weights_become_a_folder_for_nnunet(shipped: tuple[Path, Path]) -> None:
    _, again = shipped
    assert (again / "model.onnx").read_bytes() == (NETWORK / "model.onnx").read_bytes()
    card, expected = (asdict(read_card(folder)) for folder in (again, NETWORK))
    for of_the_export in ("name", "folder", "files", "forms", "trained_on", "digest"):
        del card[of_the_export], expected[of_the_export]
    assert card == expected


@pytest.mark.slow
def test_the_shipped_network_on_the_sample(shipped: tuple[Path, Path], tmp_path: Path) -> None:
    model, again = shipped
    sample = nib.load(ROOT / "docs" / "sample" / "HCC_048_0000.nii.gz")
    scan = tmp_path / "x_0000.nii.gz"
    nib.save(sample.slicer[30:195, 25:160], scan)  # without its edges one window sees it; the tiny network has many
    found = compare_exported(again, model, [scan], fold="0", engine="openvino")["x"]
    assert found.enough, found
    assert found.dice.keys() >= set(range(1, 14))
