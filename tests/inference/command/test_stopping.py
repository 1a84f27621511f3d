"""Signals: whenever they come, and however often, the run ends once, in order, with the exit code of one of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT, wait

INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """A background job of a shell ignores SIGINT, one of nohup SIGHUP, and so would all that they start."""
    before = signal.signal(INT, signal.default_int_handler), signal.signal(HUP, signal.SIG_DFL)
    yield
    for number, handler in zip((INT, HUP), before, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def command(tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path], tiny_weights: Path) -> list[str]:
    """The command for 30 scans, of which the first one takes its time."""
    scan = save_scan(tmp_path / "in" / "01_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    for number in range(2, 30):
        os.link(scan, scan.with_name(f"{number:02d}_0000.nii.gz"))
    save_scan(tmp_path / "in" / "00_0000.nii.gz", np.resize(blob, (300, 60, 72)), (3.0, 2.0, 2.0))
    paths = [tmp_path / "in", tmp_path / "out", "--weights", tiny_weights, "--json", tmp_path / "r.json"]
    return [sys.executable, "-m", "inference", *map(str, paths), "--engine", "onnxruntime", "--threads", "1"]


def start(command: list[str], **changes: Any) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, text=True, start_new_session=True, **pipes | changes)


def assert_ended_in_order(process: subprocess.Popen[str], numbers: tuple[signal.Signals, ...], folder: Path) -> None:
    """By one of `numbers`: of two that wait, Python takes the smaller first. `folder` holds out and r.json."""
    _, said = process.communicate(timeout=30)
    assert process.returncode in [128 + number for number in numbers]
    assert said.count("\n") <= 1 and (not said or f"stopped by {signal.Signals(process.returncode - 128).name}" in said)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # no worker is left
    if "before the first case" in said or not said:
        return
    names = os.listdir(folder / "out")
    assert not [name for name in names if name.startswith(".")]
    summary = json.loads((folder / "out" / "summary.json").read_text())
    assert summary["exit_code"] == process.returncode
    assert summary["cases"]["done"] + summary["cases"]["not_begun"] == 30
    assert len(json.loads((folder / "r.json").read_text())) == summary["cases"]["done"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "numbers", [(INT,), (TERM,), (HUP,), (INT, INT), (TERM, INT), (HUP, TERM), (INT,) * 10], ids=str
)
@pytest.mark.parametrize("group", [False, True], ids=["process", "group"])
def test_signals_during_a_case(
    numbers: tuple[signal.Signals, ...], group: bool, command: list[str], tmp_path: Path
) -> None:
    """On one worker, or on two where a group gets them."""
    process = start([*command, "--workers", "2" if group else "1"])
    assert process.stdout and process.stdout.readline()  # the networks are loaded
    time.sleep(0.05)
    for number in numbers:
        (os.killpg if group else os.kill)(process.pid, number)
        time.sleep(0.01)
    assert_ended_in_order(process, numbers, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", [INT, TERM, HUP])
def test_a_signal_at_any_moment_of_the_start(number: signal.Signals, command: list[str]) -> None:
    """From the command's first import to the first case; before that the interpreter decides."""
    for moment in range(0, 500, 60):
        process = start([command[0], "-X", "importtime", *command[1:]])
        assert process.stderr
        while "argparse" not in process.stderr.readline():
            pass
        time.sleep(moment / 1000)
        for _ in range(2):
            os.killpg(process.pid, number)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 128 + number
        assert "Traceback" not in said and "Error" not in said


def test_a_signal_that_is_ignored_at_the_start_stays_ignored(tmp_path: Path, tiny_weights: Path) -> None:
    """nohup ignores SIGHUP, a shell's `&` SIGINT."""
    (tmp_path / "x_0000.nii").write_bytes(b"no NIfTI")
    program = (
        "import os, signal, sys\nfrom inference.command import cli, run\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "able = run.find_cases\n"
        "def find(*arguments):\n    os.kill(os.getpid(), signal.SIGHUP)\n    return able(*arguments)\n"
        "run.find_cases = find\nsys.exit(cli.main(sys.argv[1:]))"
    )
    arguments = [str(part) for part in (tmp_path, tmp_path / "out", "--weights", tiny_weights)]
    done = subprocess.run([sys.executable, "-c", program, *arguments], check=False, cwd=ROOT, capture_output=True)
    assert done.returncode == 4, done.stderr


def test_what_does_not_end_by_itself_is_ended_after_a_second(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / "00.json")  # --resume waits for somebody to write it
    process = start([*command, "--resume"])
    wait((tmp_path / "r.json").exists, "the run does not begin")
    time.sleep(0.3)
    process.send_signal(TERM)
    assert_ended_in_order(process, (TERM,), tmp_path)


# What a notebook does: call main, and go on.


@pytest.fixture
def arguments(tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path], tiny_weights: Path) -> list[str]:
    scan = save_scan(tmp_path / "Doe_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    paths = [scan, tmp_path / "out", "--weights", tiny_weights]
    return [*map(str, paths), "--engine", "onnxruntime", "--threads", "1", "--hash-names"]


def called(name: str, arguments: list[str]) -> None:
    """Let a program of tests.inference.caller call `main` with these arguments."""
    command = [sys.executable, "-m", "tests.inference.caller", name, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_main_leaves_its_caller_as_it_was(arguments: list[str]) -> None:
    called("leaves_its_caller_as_it_was", arguments)


def test_main_stopped_by_a_signal_leaves_its_caller_as_it_was(arguments: list[str]) -> None:
    called("is_stopped_by_a_signal", arguments)


def test_main_in_another_thread_sets_no_handlers(arguments: list[str], tmp_path: Path) -> None:
    called("runs_in_another_thread", arguments)
    assert (tmp_path / "out" / "Doe.nii.gz").exists()
