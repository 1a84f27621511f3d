"""A processing container of Kaapana, run as the task API and as older operators run one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from inference.doors import kaapana
from inference.errors import InputFolderError, NoInputError
from tests.conftest import ROOT
from tests.made.ct import SERIES, ct_series

OLDER = {"BATCH_NAME": "batch", "OPERATOR_IN_DIR": "get-input-data", "OPERATOR_OUT_DIR": "viscera"}


@pytest.mark.slow
def test_older_operators_have_a_folder_in_each_item(tmp_path: Path, blob: np.ndarray) -> None:
    pytest.importorskip("highdicom")
    batch = tmp_path / "batch"
    ct_series(batch / "b" / "get-input-data", blob)
    (batch / "a" / "get-input-data").mkdir(parents=True)
    (batch / "a" / "get-input-data" / "slice.dcm").write_bytes(bytes(128) + b"DICM" + bytes(50))
    done = subprocess.run(
        [sys.executable, "-m", "inference.doors.kaapana"], cwd=ROOT, text=True, capture_output=True, check=False,
        env=dict(os.environ) | OLDER | {"WORKFLOW_DIR": str(tmp_path), "VISCERA_NO_SIDECAR": "true"},
    )  # fmt: skip
    assert done.returncode == 8, done.stderr  # a, which is damaged, did not keep b from being done
    assert os.listdir(batch / "b" / "viscera") == [f"{SERIES}.seg.dcm"]
    assert not list((batch / "a").rglob("*.seg.dcm")) and "error: " in done.stderr


@pytest.mark.slow
def test_the_task_api_has_a_folder_for_each_channel(
    tmp_path: Path, blob: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    inputs, outputs = tmp_path / "in", tmp_path / "out"
    for item in ("2", "1"):
        ct_series(inputs / item, blob)
    (inputs / "a file").touch()
    assert kaapana.main({"VISCERA_FORMAT": "nifti", "VISCERA_PLAN": "abdomen"}, inputs, outputs) == 0
    assert capfd.readouterr().out.count(" labels -> ") == 2
    assert sorted(os.listdir(outputs)) == ["1", "2"]
    for item in ("1", "2"):
        assert {f"{SERIES}.nii.gz", f"{SERIES}.json"} <= set(os.listdir(outputs / item))


@pytest.mark.parametrize(
    ("codes", "code"),
    [([0], 0), ([0, 0], 0), ([4, 4], 4), ([2, 2], 2), ([0, 4], 8), ([8, 4], 8), ([8, 8], 8), ([4, 2], 4)],
)
def test_several_items_end_as_several_cases_do(codes: list[int], code: int) -> None:
    assert kaapana.together(codes) == code


def test_no_item_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputFolderError, match="in cannot be opened: No such file"):
        list(kaapana.items({}, tmp_path / "in", tmp_path))
    assert kaapana.main({}, tmp_path / "in", tmp_path) == 5
    (tmp_path / "in").mkdir()
    with pytest.raises(NoInputError, match="holds no item"):
        list(kaapana.items({}, tmp_path / "in", tmp_path))
    assert kaapana.main({}, tmp_path / "in", tmp_path) == 2
    assert kaapana.main({"VISCERA_X": "1"}, tmp_path / "in", tmp_path) == 2
    assert "there is no setting VISCERA_X" in capsys.readouterr().err


def test_the_older_layout_is_taken_only_if_it_is_complete(tmp_path: Path) -> None:
    (tmp_path / "batch" / "1").mkdir(parents=True)
    (tmp_path / "in" / "2").mkdir(parents=True)
    told = OLDER | {"WORKFLOW_DIR": str(tmp_path)}
    own = (tmp_path / "batch" / "1" / "get-input-data", tmp_path / "batch" / "1" / "viscera")
    assert list(kaapana.items(told, tmp_path / "in", tmp_path / "out")) == [own]
    assert list(kaapana.items(told | {"BATCH_NAME": ""}, tmp_path / "in", tmp_path / "out")) == [
        (tmp_path / "in" / "2", tmp_path / "out" / "2")
    ]
