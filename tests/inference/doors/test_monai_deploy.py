"""The application package of MONAI Deploy, run as a host runs it: by the manifest's command, folders and variables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from inference.doors import monai_deploy
from tests.conftest import ROOT, command
from tests.made.ct import SERIES, ct_series

pytest.importorskip("highdicom")


@pytest.fixture
def root(tmp_path: Path, blob: np.ndarray, tiny_weights: Path) -> Path:
    """The places of the specification, below a folder."""
    ct_series(tmp_path / "var" / "holoscan" / "input" / "study" / "2", blob)
    for place in ("var/holoscan/output", "opt/holoscan/docs", "opt/holoscan/app", "etc/holoscan", "export"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "opt" / "holoscan" / "models").symlink_to(tiny_weights)
    (tmp_path / "opt" / "holoscan" / "docs" / "LICENSE").write_text("free")
    (tmp_path / "opt" / "holoscan" / "app" / "predict.sh").write_text("sh")
    program = [sys.executable, "requirements/doors.py", "map", str(tmp_path / "etc" / "holoscan")]
    subprocess.run(program, check=True, cwd=ROOT)
    return tmp_path


def environment(root: Path) -> dict[str, str]:
    """As app.json says, with its places below `root`."""
    told = json.loads((root / "etc" / "holoscan" / "app.json").read_text())["environment"]
    return {name: f"{root}{value}" if value.startswith("/") else value for name, value in told.items()}


def run(root: Path, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    app = json.loads((root / "etc" / "holoscan" / "app.json").read_text())
    python, *rest = json.loads(app["command"])
    assert python == "python3"
    variables = dict(os.environ) | {"PYTHONPATH": str(ROOT)} | environment(root) | changes
    return subprocess.run(
        [sys.executable, *rest, *arguments], cwd=f"{root}{app['workingDirectory']}",
        env=variables, text=True, capture_output=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_dicom_in_and_seg_out_and_nothing_else(root: Path, tiny_weights: Path) -> None:
    done = run(root)
    assert done.returncode == 0, done.stderr
    output = root / "var" / "holoscan" / "output"
    assert os.listdir(output) == [f"{SERIES}.seg.dcm"]
    by_hand = command(root / "var/holoscan/input", root / "hand", "--weights", tiny_weights, "--format", "seg")
    subprocess.run(by_hand, check=True, cwd=ROOT, capture_output=True)
    assert (output / f"{SERIES}.seg.dcm").read_bytes() == (root / "hand" / "input.seg.dcm").read_bytes()

    # Folders relative to the working directory, and settings.
    relative = {"HOLOSCAN_INPUT_PATH": "input/", "HOLOSCAN_OUTPUT_PATH": "more"}
    done = run(root, **relative, VISCERA_FORMAT="seg,rtstruct", VISCERA_NAME_BY="AccessionNumber")
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(root / "var" / "holoscan" / "more")) == ["A1.rtstruct.dcm", "A1.seg.dcm"]


def test_what_fails_has_the_commands_exit_code(root: Path) -> None:
    done = run(root, HOLOSCAN_INPUT_PATH=str(root / "nowhere"))
    assert done.returncode == 5 and done.stderr.startswith("error: ") and "nowhere does not exist" in done.stderr
    done = run(root, HOLOSCAN_MODEL_PATH=str(root / "typo"))  # never the program's own networks in its place
    assert done.returncode == 9 and "typo" in done.stderr and "Traceback" not in done.stderr
    done = run(root, HOLOSCAN_INPUT_PATH="")  # as if it were not there, and never the working directory
    assert done.returncode == 5 and "/var/holoscan/input does not exist" in done.stderr
    done = run(root, VISCERA_PLN="dense")
    assert done.returncode == 2 and done.stderr.startswith("error: there is no setting VISCERA_PLN")
    done = run(root, "serve")
    assert done.returncode == 2 and "show [app] [pkg], extract" in done.stderr


def test_manifests_are_printed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for asked in ("app", "pkg"):
        assert monai_deploy.main(["show", asked], environment(root)) == 0
        assert json.loads(capsys.readouterr().out) == json.loads((root / "etc/holoscan" / f"{asked}.json").read_text())
    assert monai_deploy.main(["show"], environment(root)) == 0
    assert capsys.readouterr().out.count('"apiVersion": "1.0.0"') == 2
    (root / "etc/holoscan/app.json").unlink()
    gone = {name: f"{root}{value}" for name, value in monai_deploy.ENVIRONMENT.items()}
    assert monai_deploy.main(["show"], gone) == 7 and "app.json" in capsys.readouterr().err


def test_contents_are_copied_out(root: Path) -> None:
    export = root / "export"
    monai_deploy.extract(environment(root), export)
    there = {str(path.relative_to(export)) for path in export.rglob("*") if path.is_file()}
    assert {"app/predict.sh", "docs/LICENSE", "config/app.json", "config/pkg.json"} <= there
    assert "models/organ/card.json" in there

    only = root / "only"
    (only / "config").mkdir(parents=True)  # of several parts the host mounts the one that it wants
    monai_deploy.extract(environment(root), only)
    assert os.listdir(only) == ["config"] and sorted(os.listdir(only / "config")) == ["app.json", "pkg.json"]


def test_copying_to_no_folder_is_a_sentence(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if monai_deploy.EXPORT.exists():
        pytest.skip(f"this machine has a folder {monai_deploy.EXPORT}")
    assert monai_deploy.main(["extract"], environment(root)) == 7
    assert capsys.readouterr().err == f"error: {monai_deploy.EXPORT}: No such file or directory\n"


def test_what_cannot_be_copied_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(monai_deploy, "EXPORT", root / "export")
    gone = root / "opt" / "holoscan" / "app" / "gone"
    gone.symlink_to("nowhere")
    assert monai_deploy.main(["extract"], environment(root)) == 7
    assert capsys.readouterr().err.startswith(f"error: {gone} cannot be copied: ")
