"""What is printed may be lost; no case may be lost with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from tests.conftest import ROOT


@pytest.fixture
def inputs(tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path]) -> Path:
    """Two scans and, between them, a file that is none: something is said on both streams."""
    scan = save_scan(tmp_path / "in" / "a_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    shutil.copy(scan, scan.with_name("ü_0000.nii.gz"))
    (tmp_path / "in" / "b_0000.nii.gz").write_bytes(b"no NIfTI")
    return tmp_path / "in"


def shell(line: str, inputs: Path, weights: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which $V is the command and its arguments; the exit code is that of $V."""
    command = [sys.executable, "-m", "inference", str(inputs), str(inputs.parent / "out"), "--weights", str(weights)]
    command += ["--engine", "onnxruntime", "--threads", "1"]
    script = f"V='{' '.join(command)}'\n{line}\nexit ${{PIPESTATUS[0]}}"
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONUTF8"} | environment
    return subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, errors="replace", check=False, cwd=ROOT, env=variables
    )


def assert_all_done(inputs: Path) -> None:
    out = inputs.parent / "out"
    expected = {"a.nii.gz", "a.json", "ü.nii.gz", "ü.json", "b.json", "measurements.csv", "summary.json"}
    assert set(os.listdir(out)) == expected
    assert np.array_equal(nib.load(out / "a.nii.gz").dataobj, nib.load(out / "ü.nii.gz").dataobj)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("$V | true", 2),  # lines that arrive on what is left of stderr: the failure, and the count of failures
        ("$V 2>&1 | true", 0),
        ("$V 2>&1 | head -1", 0),
        ("$V >/dev/full", 2),
        ("$V >/dev/full 2>&1", 0),
        ("$V >&-", 2),
        ("$V 2>&-", 0),
        ("$V <&- >&- 2>&-", 0),
    ],
)
def test_a_lost_stream_costs_no_case_and_not_the_exit_code(
    line: str, said: int, inputs: Path, tiny_weights: Path
) -> None:
    done = shell(line, inputs, tiny_weights)
    assert done.returncode == 8, done.stderr
    assert_all_done(inputs)
    assert done.stderr.count("\n") == done.stderr.count("error: ") == said


@pytest.mark.parametrize(
    ("name", "shown"), [("ascii", "\\xfc"), ("latin-1", "\ufffd"), ("utf-8", "ü")]
)  # latin-1's byte is no UTF-8
def test_a_name_that_the_log_cannot_hold_is_escaped(name: str, shown: str, inputs: Path, tiny_weights: Path) -> None:
    done = shell("$V", inputs, tiny_weights, PYTHONIOENCODING=name)
    assert done.returncode == 8, done.stderr
    assert f"[3/3] {shown}: " in done.stdout
    assert_all_done(inputs)


@pytest.mark.parametrize(
    ("line", "code"),
    [("$V --help >&-", 0), ("$V --help >/dev/full", 0), ("$V --version | true", 0), ("$V --step 9 2>/dev/full", 2)],
)
def test_help_and_wrong_flags_on_lost_streams(line: str, code: int, tmp_path: Path) -> None:
    done = shell(line, tmp_path, tmp_path)
    assert done.returncode == code
    assert "Error" not in done.stderr and "Exception" not in done.stderr


def test_a_fault_of_ours_is_said_on_a_lost_stream_without_losing_the_worker(tmp_path: Path) -> None:
    """In the worker a traceback is printed; where that failed, the worker went, and its networks with it."""
    program = (
        "import sys\nfrom inference.command.console import forgiving_streams\n"
        "from inference.task import cause\n"
        "with forgiving_streams():\n    print(cause(ZeroDivisionError('by\\nnothing')), file=open(sys.argv[1], 'w'))"
    )
    with Path("/dev/full").open("w") as full:
        command: list[Any] = [sys.executable, "-c", program, tmp_path / "said"]
        subprocess.run(command, stderr=full, check=False, cwd=ROOT)
    assert (tmp_path / "said").read_text() == "internal error: ZeroDivisionError: by nothing\n"
