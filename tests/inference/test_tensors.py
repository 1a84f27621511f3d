"""PyTorch's tensors as array library, on the CPU: what runs on a GPU gives the labels that NumPy gives."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference import predictor as predictors
from inference.arrays import Array
from inference.boxes import whole
from inference.card import Resample, Resize
from inference.grids.decode import CODES, PROBABILITIES, Decode, after
from inference.grids.prepare import prepare
from inference.grids.restore import restore
from inference.grids.view import View
from inference.model import Model, Quiet
from inference.options import ABDOMEN, DENSE, Way
from inference.record import Record
from inference.scan import Scan
from inference.segment import segment
from inference.windows.blend import Half
from inference.windows.patches import middle_first, slabs
from tests.conftest import ROOT
from tests.inference.anatomy.made import SPACING, trunk
from tests.inference.cards import make_card
from tests.inference.grids.test_prepare import SPACINGS
from tests.inference.grids.test_restore import in_slabs, logits_of, view_of

torch = pytest.importorskip("torch")
from inference.tensors import Tensors  # noqa: E402

XP = Tensors("cpu")


def linear(channels: int) -> tuple[Any, Any]:
    """A network whose logits are linear in its voxels, with random factors, for either library."""
    factors, biases = np.random.default_rng(4).normal(size=(2, 1, channels, 1, 1, 1)).astype(np.float32)

    def with_numpy(batch: Array) -> Array:
        return batch[:, :1] * factors + biases

    def with_torch(batch: Array) -> Array:
        return batch[:, :1] * torch.from_numpy(factors) + torch.from_numpy(biases)

    return with_numpy, with_torch


@pytest.mark.parametrize("order", [(1, 0), (3, 1)])
@pytest.mark.parametrize(("spacing", "at"), SPACINGS)
def test_restored_as_by_numpy(spacing: Any, at: Any, order: tuple[int, int]) -> None:
    view = view_of(spacing, at)
    card = replace(make_card(at, channels=6), resample=Resample(image=Resize(3), logits=Resize(*order)))
    logits, decode = logits_of(view.shape), Decode.of(card)

    def both(values: Any, xp: Any) -> tuple[np.ndarray, np.ndarray]:
        kept: list[np.ndarray] = []
        parts = [(whole(view.shape), in_slabs(values, 5))]
        labels = restore(parts, view, card, decode, xp, lambda _, probabilities: kept.append(probabilities))
        return labels, np.concatenate([one.ravel() for one in kept])

    (expected, shares), (found, others) = both(logits, np), both(torch.from_numpy(logits), XP)
    assert len(np.unique(expected)) == 6
    assert (found == expected).mean() > 0.9999  # the same sums in another order
    assert np.abs(shares.astype(int) - others).max() <= 1


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<u2", "<f4", ">f8"])
@pytest.mark.parametrize(("spacing", "at"), SPACINGS)
def test_prepared_as_by_numpy(spacing: Any, at: Any, dtype: str) -> None:
    voxels = np.random.default_rng(2).integers(1, 300, (21, 47, 52)).astype(dtype)
    voxels.flags.writeable = False
    scan, card = Scan.of(voxels, spacing, "LPS"), make_card(at)
    view = View.of(scan, card)
    before = voxels.copy()
    found = prepare(scan, view, card, XP).numpy()
    assert np.abs(found - prepare(scan, view, card, np)).max() < 1e-4
    assert np.array_equal(voxels, before)


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize(("way", "multiple"), [(DENSE, None), (ABDOMEN, None), (ABDOMEN, (4, 8, 8))])
def test_segmented_as_by_numpy(way: Way, multiple: Any, tta: bool) -> None:
    voxels = trunk()[0][10:34]
    voxels += np.random.default_rng(5).integers(-40, 40, voxels.shape).astype(np.int16)
    card = make_card((6.0, 6.0, 6.0), values=tuple(range(8)), orientation="LPS", window_multiple=multiple)
    card = replace(card, mirror_axes=(0, 2))
    found = []
    for network, xp in zip(linear(8), (np, XP), strict=True):
        record = Record()
        scan = Scan.of(voxels, SPACING, "LPS")
        found.append(segment(scan, [Model.of(card, network)], [replace(way, tta=tta)], xp, record, Quiet()))
    assert len(np.unique(found[0])) > 2
    assert (found[0] == found[1]).mean() > 0.9999


@pytest.mark.parametrize("half", [Half(), Half(np.eye(5, 4, dtype=np.float32)), Half(folds=3)])
def test_added_up_in_float16_as_by_numpy(half: Half) -> None:
    volume, patch = np.random.default_rng(7).normal(size=(1, 17, 19, 26)).astype(np.float32), (6, 8, 10)

    def blended(volume: Array, network: Any, xp: Any) -> list[Any]:
        plan = middle_first(volume.shape[1:], patch, 0.5)
        return [part for _, part in slabs(volume, network, plan, patch, xp, None, CODES["argmax"], half=half)]

    expected, found = (
        blended(values, network, xp)
        for values, network, xp in zip((volume, torch.from_numpy(volume)), linear(3), (np, XP), strict=True)
    )
    assert all(np.array_equal(one, other.numpy()) for one, other in zip(expected, found, strict=True))


@pytest.mark.parametrize("decode", ["argmax", "regions"])
def test_decoded_as_by_numpy(decode: str) -> None:
    rng = np.random.default_rng(6)
    features, head = (rng.normal(size=size).astype(np.float32) for size in ((5, 3, 40, 50), (9, 5)))
    for values, codes in ((features, CODES[decode]), (features, after(head, CODES[decode]))):
        tensor = torch.from_numpy(values)
        assert (codes(tensor, XP).numpy() == codes(values, np)).mean() > 0.9999
    shares = PROBABILITIES[decode](features, np)
    assert np.abs(PROBABILITIES[decode](torch.from_numpy(features), XP).numpy() - shares).max() < 1e-6


def test_a_card_without_memory_is_memoryerror(monkeypatch: pytest.MonkeyPatch, tiny_weights: Path) -> None:
    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    predictor = predictors.Predictor(tiny_weights, device="cpu", threads=1)
    monkeypatch.setattr(predictors, "segment", fail)
    with pytest.raises(MemoryError, match="Tried to allocate"):
        predictor(trunk()[0], (5.0, 5.0, 5.0), "LPS")


COMPUTES = """
import sys
from inference.engines.lean import EMPTY, start_lean
start_lean()
import torch
left_out = [vars(sys.modules[name]).get("__file__") for name in EMPTY]
assert left_out == [None] * len(EMPTY), left_out
from pathlib import Path
import numpy as np
from inference.predictor import Predictor
from inference.scan import Scan
from inference.tensors import Tensors
predictor = Predictor(Path(sys.argv[1]), device="cpu", engine="torch", precision="f32", threads=1)
voxels = np.load(sys.argv[2])
expected = predictor(voxels, (3.0, 2.0, 2.0), "LPS")
predictor._xp = Tensors("cpu")
assert (predictor(voxels, (3.0, 2.0, 2.0), "LPS") == expected).mean() > 0.9999
"""


@pytest.mark.slow
def test_networks_run_without_pytorchs_compiler(tiny_weights: Path, blob: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "blob.npy", blob)
    command: list[str | Path] = [sys.executable, "-c", COMPUTES, tiny_weights, tmp_path / "blob.npy"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
