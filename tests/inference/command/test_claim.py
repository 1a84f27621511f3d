"""Two runs in one folder at once: never the same label maps, whoever comes first and however the other ends."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from inference.command import claim as module
from inference.command.claim import HAS, Claim
from inference.errors import OutputError
from tests.conftest import ROOT, wait

pytestmark = pytest.mark.skipif(module.fcntl is None, reason="Windows has no locks that end with their process")

# Another process, since a process never excludes itself: takes label maps, says so, and holds them until it is killed.
HOLDER = """
import sys, time
from pathlib import Path
from inference.command.claim import Claim
from inference.errors import OutputError
claim = Claim(Path(sys.argv[1]))
try:
    claim.take(sys.argv[2:])
    print("taken", flush=True)
    sys.stdin.read()
    claim.release()
except OutputError as error:
    print(error, flush=True)
"""


def holder(folder: Path, *names: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(folder), *names]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_the_same_label_map_is_taken_once_at_a_time(tmp_path: Path) -> None:
    other = holder(tmp_path, "a.nii.gz", "b.nii.gz")
    assert answer(other) == "taken"
    claim = Claim(tmp_path)
    with pytest.raises(OutputError, match=r"another run \(process \d+ on .*\), and 1 of its label maps .* b\.nii\.gz"):
        claim.take(["b.nii.gz", "c.nii.gz"])
    assert len(left(tmp_path)) == 1
    assert claim.take(["c.nii.gz"]) is None  # two runs may share a folder
    claim.release()
    other.communicate()
    assert not left(tmp_path)
    assert claim.take(["b.nii.gz"]) is None
    claim.release()
    assert not left(tmp_path)


def test_a_run_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    other = holder(tmp_path, "a.nii.gz")
    assert answer(other) == "taken"
    other.send_signal(signal.SIGKILL)
    other.communicate()
    assert len(left(tmp_path)) == 1
    claim = Claim(tmp_path)
    assert claim.take(["a.nii.gz"]) is None
    claim.release()
    assert not left(tmp_path)


def test_each_time_of_asking_has_a_name_of_its_own(tmp_path: Path) -> None:
    """A run that found the file of the time before without a lock may be late to remove it."""
    claim, names = Claim(tmp_path), set()
    for _ in range(2):
        claim.take(["a.nii.gz"])
        names |= set(left(tmp_path))
        claim.release()
    assert len(names) == 2


def test_what_another_run_writes_is_let_be(
    tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path], tiny_weights: Path
) -> None:
    for name in ("a.nii", "a.nii.gz", "b.nii.gz"):
        save_scan(tmp_path / "in" / name, blob, (3.0, 2.0, 2.0))
    out = tmp_path / "out"
    out.mkdir()
    labels, table = (out / f".{name}.10000000001.part" for name in ("a.nii.gz", "measurements.csv"))
    labels.touch()
    table.touch()

    def run(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "inference", str(tmp_path / "in"), str(out), "--weights", str(tiny_weights)]
        command += ["--engine", "onnxruntime", "--device", "cpu", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    other = holder(out, "a.nii.gz")
    assert answer(other) == "taken"
    code, said = run("--part", "2/3")  # has a scan that is called as one of part 1
    assert code == 4 and "a.nii.gz is left out: a.nii has the same case name" in said
    assert run("--part", "3/3")[0] == 0 and (out / "b.nii.gz").exists()
    assert labels.exists() and table.exists()
    other.communicate()
    assert run("--part", "3/3")[0] == 0
    assert labels.exists() and not table.exists()


@pytest.mark.slow
def test_of_many_that_begin_in_one_moment_one_goes_on(tmp_path: Path) -> None:
    for _ in range(3):
        others = [holder(tmp_path, "a.nii.gz", "b.nii.gz") for _ in range(6)]
        answers = Counter("taken" if answer(other) == "taken" else "refused" for other in others)
        assert answers == {"taken": 1, "refused": 5}
        for other in others:
            other.communicate()
        assert not left(tmp_path)


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_a_warning(error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:  # as Lustre without the option flock
        raise OSError(error, "no locks")

    monkeypatch.setattr(module.fcntl, "lockf", refuse)
    assert "no file can be locked here (no locks)" in str(Claim(tmp_path).take(["a.nii.gz"]))
    assert not left(tmp_path)


def test_a_second_run_is_refused_and_costs_the_first_nothing(
    tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path], tiny_weights: Path
) -> None:
    save_scan(tmp_path / "in" / "a_0000.nii.gz", np.resize(blob, (100, 60, 72)), (3.0, 2.0, 2.0))
    save_scan(tmp_path / "in" / "b_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "inference", str(tmp_path / "in"), str(out), "--weights", str(tiny_weights)]
    command += ["--device", "cpu", "--engine", "onnxruntime", "--threads", "1"]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait(lambda: any(path.read_bytes()[:1] == HAS for path in out.glob(".viscera.*.run")), "the first run has nothing")
    first.send_signal(signal.SIGSTOP)  # it may be quicker than the second one begins
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 7 and "is being written by another run" in second.stderr
    _, said = first.communicate()
    assert first.returncode == 0 and "error" not in said
    assert {"a.nii.gz", "a.json", "b.nii.gz", "b.json", "summary.json", "measurements.csv"} == set(left(out))
