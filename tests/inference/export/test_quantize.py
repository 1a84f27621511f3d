"""int8 of a tiny network: its files are vouched for, and its answer is near that of float32."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("nncf")

from inference.card import read_card
from inference.engines.choose import choose, load
from inference.errors import DeviceError, WeightsError
from inference.export.quantize import FILES, quantize
from inference.machine import computes


@pytest.mark.slow
@pytest.mark.skipif(not computes("int8"), reason="this processor has no instructions for int8")
def test_int8_answers_nearly_as_float32(
    tiny_weights: Path, blob: np.ndarray, save_scan: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "organ"
    shutil.copytree(tiny_weights / "organ", folder)
    with pytest.raises(DeviceError, match="network organ has none: python -m inference.export.quantize makes it"):
        choose("cpu", "openvino", "int8", [read_card(folder)])

    quantize(folder, [save_scan(tmp_path / "x_0000.nii.gz", blob, (3.0, 2.0, 2.0))])
    card = read_card(folder)
    assert set(FILES) < set(card.files)
    assert choose("cpu", "openvino", "auto", [card]).precision != "int8"  # it is asked for by name
    batch = np.random.default_rng(0).normal(size=(1, 1, *card.patch)).astype(np.float32)
    answers = [load(choose("cpu", "openvino", p, [card]), card, 1)(batch).copy() for p in ("f32", "int8")]
    assert not np.array_equal(*answers)
    assert np.abs(answers[1] - answers[0]).mean() < 0.4 * np.abs(answers[0]).mean()  # random weights bear it badly

    (folder / FILES[1]).write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="model_int8.bin is damaged"):
        load(choose("cpu", "openvino", "int8", [card]), card, 1)
