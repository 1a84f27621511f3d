"""That a test which is slow and not marked so fails, whoever does its work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

TESTS = """
import subprocess, sys, time
import pytest

BUSY = "import time; start = time.process_time()\\nwhile time.process_time() < start + 1.2: pass"

def test_own(): exec(BUSY)
def test_of_a_child(): subprocess.run([sys.executable, "-c", BUSY], check=True)
def test_waiting(): time.sleep(0.8)

@pytest.mark.slow
def test_marked(): exec(BUSY)
"""


@pytest.mark.slow
def test_an_unmarked_test_that_takes_long_fails(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.conftest",
        "-o",
        "most_seconds=0.6",
        "-q",
        "-rN",
    ]  # -rN: without a summary that repeats
    done = subprocess.run([*command, tmp_path], capture_output=True, text=True, check=False, cwd=ROOT)
    assert "2 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("of processor time: make it smaller, or mark it slow") == 2
