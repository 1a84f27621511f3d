"""Systems other than Linux: here they are played, and types are checked. docs/install.md says what was tried there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.inference.dicom import series


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that has nothing that only Linux has; so have those that it starts."""
    (tmp_path / "site").mkdir()
    shutil.copy(ROOT / "tests" / "made" / "elsewhere.py", tmp_path / "site" / "sitecustomize.py")
    return os.environ | {"PYTHONPATH": str(tmp_path / "site")}


@pytest.fixture
def scans(tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path]) -> Path:
    """NIfTI, MetaImage, and a folder of DICOM beside them."""
    sitk = pytest.importorskip("SimpleITK")
    save_scan(tmp_path / "in" / "nifti_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    image = sitk.GetImageFromArray(blob)
    image.SetSpacing((2.0, 2.0, 3.0))
    sitk.WriteImage(image, str(tmp_path / "in" / "meta_0000.mha"), useCompression=True)
    (tmp_path / "series").mkdir()
    series(tmp_path / "series" / "s", blob)
    return tmp_path / "in"


def command(inputs: Path, outputs: Path, weights: Path) -> list[str | Path]:
    flags = ["--engine", "onnxruntime", "--threads", "1"]
    return [sys.executable, "-m", "inference", inputs, outputs, "--weights", weights, *flags]


@pytest.mark.slow
def test_the_command_needs_nothing_that_only_linux_has(
    scans: Path, elsewhere: dict[str, str], tiny_weights: Path, tmp_path: Path
) -> None:
    for inputs in (scans, scans.parent / "series" / "s"):
        for out, environment in (("here", None), ("elsewhere", elsewhere)):
            subprocess.run(command(inputs, tmp_path / out, tiny_weights), check=True, cwd=ROOT, env=environment)
    assert {path.name for path in (tmp_path / "here").glob("*.nii.gz")} == {"nifti.nii.gz", "meta.nii.gz", "s.nii.gz"}
    for labels in (tmp_path / "here").glob("*.nii.gz"):
        assert (tmp_path / "elsewhere" / labels.name).read_bytes() == labels.read_bytes()
    records = [json.loads((tmp_path / out / "nifti.json").read_text()) for out in ("here", "elsewhere")]
    assert "peak_memory_mb" in records[0] and "peak_memory_mb" not in records[1]  # so it was really missing


@pytest.mark.slow
def test_a_worker_that_is_a_program_fails_by_name_and_hides_names(
    elsewhere: dict[str, str], tiny_weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "Doe_0000.nii.gz").write_bytes(b"no scan at all")
    flags = command(tmp_path / "in", tmp_path / "out", tiny_weights)
    done = subprocess.run(
        [*flags, "--hash-names"], capture_output=True, text=True, check=False, cwd=ROOT, env=elsewhere
    )
    assert done.returncode == 4 and "is " in done.stderr and "Traceback" not in done.stderr
    assert "Doe" not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_signal_ends_a_run_whose_worker_is_a_program(
    blob: np.ndarray, save_scan: Callable[..., Path], elsewhere: dict[str, str], tiny_weights: Path, tmp_path: Path
) -> None:
    save_scan(tmp_path / "in" / "x_0000.nii.gz", np.resize(blob, (300, 60, 72)), (3.0, 2.0, 2.0))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # else what a shell's `&` ignores is inherited
    run = command(tmp_path / "in", tmp_path / "out", tiny_weights)
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        run, cwd=ROOT, env=elsewhere, text=True, start_new_session=True, stdout=pipe, stderr=pipe
    )
    signal.signal(signal.SIGINT, before)
    assert process.stdout and "onnxruntime" in process.stdout.readline()  # the networks are loaded
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130 and said.startswith("error: stopped by SIGINT") and said.count("\n") == 1
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # no worker is left


@pytest.mark.slow
def test_a_process_that_has_computed_can_call_the_command(scan: Path, tiny_weights: Path, tmp_path: Path) -> None:
    """PyTorch's threads do not survive a fork: the worker of such a process is a program."""
    pytest.importorskip("torch")
    program = (
        "import sys, torch\nfrom inference.command.cli import main\ntorch.set_num_threads(2)\n"
        "torch.nn.functional.conv3d(torch.ones(1, 8, 32, 32, 32), torch.ones(8, 8, 3, 3, 3))\n"
        "sys.exit(main(sys.argv[1:]))"  # nothing guards it: `__main__` is not imported again
    )
    arguments: list[str | Path] = [scan, tmp_path / "out", "--weights", tiny_weights, "--engine", "torch"]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments, "--threads", "2", "--timeout", "120"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture
def scan(tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path]) -> Path:
    return save_scan(tmp_path / "x_0000.nii.gz", blob, (3.0, 2.0, 2.0))


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_nothing_is_called_that_a_platform_lacks(platform: str, tmp_path: Path) -> None:
    """By the types of Python's own modules, where this program asks the system for anything."""
    pytest.importorskip("mypy")
    modules = ["-p", "inference.command", "-p", "inference.formats", "-m", "inference.machine"]
    flags = ["--platform", platform, "--cache-dir", str(tmp_path), "-m", "inference.__main__"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *flags, *modules], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout
