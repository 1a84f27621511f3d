"""Plans of many kinds: labels of the exported network beside nnU-Net's own, both in this process."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("nnunetv2")

from benchmark.parity import SAME_LABEL, SAME_VOXELS, agreement  # noqa: E402
from inference.export.architecture import assign  # noqa: E402
from inference.export.checkpoint import USUAL, read_result_folder  # noqa: E402
from inference.export.convert import planned  # noqa: E402
from inference.export.graph import save_graphs, to_onnx  # noqa: E402
from inference.export.write import save_card  # noqa: E402
from inference.predictor import Predictor  # noqa: E402
from inference.scan import Scan  # noqa: E402
from tests.made.networks import write_model  # noqa: E402

Both = Callable[..., tuple[np.ndarray, np.ndarray]]
SPACING = (3.0, 2.0, 2.0)
FEW = 0.01  # of the voxels: of fewer, near-ties decide the Dice, which nnU-Net has in float16

REGIONS = {
    "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "inner": 3},
    "regions_class_order": [1, 2, 3],
}
PLANS: dict[str, dict[str, Any]] = {
    "regions": {"dataset": REGIONS},
    "regions and a label to ignore": {
        "dataset": {
            "labels": {"ignore": 4, "inner": 3, "whole": [1, 2, 3], "core": [2, 3], "background": 0},
            "regions_class_order": [3, 1, 7],
        }
    },
    "a label to ignore": {"dataset": {"labels": {"organ": 1, "ignore": 3, "background": 0, "other": 2}}},
    "values with gaps": {"dataset": {"labels": {"far": 9, "background": 0, "near": 4, "same": 4, "one": [2]}}},
}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    """Labels of channels (c, z, y, x), of the exported network and of nnU-Net's predictor, for a changed plan."""
    graphs: dict[tuple[int, int], Path] = {}  # networks of one seed and size have the same weights

    def labels(channels: np.ndarray, spacing: tuple[float, float, float], **plan: Any) -> tuple[np.ndarray, np.ndarray]:
        place = tmp_path_factory.mktemp("plan")
        model = write_model(place / "model", orientation=None, **plan)
        stored = read_result_folder(model, None, USUAL)
        network, card = planned(stored, None, {})
        size = len(card["channels"]), len(card["labels"])
        if size not in graphs:
            assign(network, stored.state)
            graphs[size] = tmp_path_factory.mktemp("graphs")
            save_graphs(to_onnx(network, card["patch"]), graphs[size])
        folder = shutil.copytree(graphs[size], place / "weights" / "network")
        save_card(card, folder, {"f32": ["model.onnx"]})
        predictor = Predictor(place / "weights", device="cpu", plan="dense", precision="f32")
        scan = Scan.of(channels[0], spacing, "LPS")
        ours, _ = predictor.segment(scan)
        return ours, nnunets(model, channels, spacing)

    return labels


def nnunets(model: Path, channels: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    theirs = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    theirs.initialize_from_trained_model_folder(str(model), (0,))
    found = theirs.predict_single_npy_array(channels.astype(np.float32), {"spacing": list(spacing)})
    return np.asarray(found).astype(np.uint8)


@pytest.mark.slow
def test_labels_by_the_hundred_are_nnunets(both: Both, blob: np.ndarray) -> None:
    """Random weights of 130 channels leave more near-ties, which nnU-Net decides in float16."""
    ours, theirs = both(blob[None, 5:-5, 20:-20, 20:-20], SPACING, labels=130)
    assert agreement(ours, theirs).voxels >= 0.998
    assert ours.max() > 100


def check(ours: np.ndarray, theirs: np.ndarray) -> None:
    found = agreement(ours, theirs)
    assert found.voxels >= SAME_VOXELS, found
    many = {value: dice for value, dice in found.dice.items() if (theirs == value).mean() > FEW}
    assert many and min(many.values()) >= SAME_LABEL, found


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANS)
def test_labels_are_nnunets(name: str, both: Both, blob: np.ndarray) -> None:
    check(*both(blob[None, :, 8:-8, 8:-8], SPACING, **PLANS[name]))
