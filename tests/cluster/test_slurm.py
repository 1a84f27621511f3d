"""cluster/slurm.sbatch on a real Slurm: a task is told to end, then the node loses power, and nothing is lost."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.cluster.slurm import Slurm, absent
from tests.conftest import ROOT, wait

SCRIPT = ROOT / "cluster" / "slurm.sbatch"
VISCERA = (sys.executable, "-m", "inference")


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    if why := absent():
        pytest.skip(why)
    one = Slurm(tmp_path / "slurm")
    yield one
    one.stop()


def label_maps(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.nii.gz")}


@pytest.mark.slow
def test_an_array_that_loses_a_task_and_then_its_node_makes_the_bytes_of_one_machine(
    tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path], tiny_weights: Path, slurm: Slurm
) -> None:
    scan = save_scan(tmp_path / "in" / "01_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    for number in range(2, 21):
        if number not in (9, 11):
            os.link(scan, scan.with_name(f"{number:02d}_0000.nii.gz"))
    for number in (9, 11):  # the third of parts 1 and 3 take their time, so that they are stopped in the middle
        save_scan(tmp_path / "in" / f"{number:02d}_0000.nii.gz", np.resize(blob, (300, 60, 72)), (3.0, 2.0, 2.0))
    out, whole = tmp_path / "out", tmp_path / "whole"
    flags = ("--weights", str(tiny_weights), "--device", "cpu", "--engine", "onnxruntime", "--threads", "1")
    subprocess.run([*VISCERA, tmp_path / "in", whole, *flags], check=True, capture_output=True, cwd=ROOT)

    slurm.environment["VISCERA"] = " ".join(VISCERA)
    job = slurm.asked(
        "sbatch", "--parsable", "--array=1-4", "--cpus-per-task=1", "--mem=2G", "--time=10",
        f"--output={tmp_path}/%a.log", str(SCRIPT), str(tmp_path / "in"), str(out), *flags,
    )  # fmt: skip
    assert job.isdecimal()

    def log(task: int) -> str:
        path = tmp_path / f"{task}.log"
        return path.read_text() if path.exists() else ""

    # As Slurm does before it preempts a job: its steps get SIGTERM. Part 1 has the cases 01, 05, 09, 13 and 17.
    wait((out / "05.nii.gz").exists, "task 1 does nothing")
    slurm.asked("scancel", "--signal=TERM", f"{job}_1.0")
    wait(lambda: "stopped by SIGTERM" in log(1), "task 1 was not told to end")
    # Two tasks at a time: now there is room for task 3.
    wait((out / "07.nii.gz").exists, "task 3 does nothing")
    slurm.crash_node()
    assert not (out / "summary.3-of-4.json").exists()
    slurm.start_node("-b")  # as after a reboot
    wait(lambda: not slurm.asked("squeue", "--noheader", f"--jobs={job}"), "the array does not end", 300)

    restarts = {
        task: int(re.findall(r"Restarts=(\d+)", slurm.asked("scontrol", "show", "job", f"{job}_{task}"))[0])
        for task in (1, 2, 3, 4)
    }
    assert restarts[1] >= 1 and restarts[3] >= 1, restarts
    done = subprocess.run([*VISCERA, "merge", out], check=False, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, ""), log(1) + log(3)
    assert label_maps(out) == label_maps(whole) and len(label_maps(out)) == 20
    assert (out / "measurements.csv").read_bytes() == (whole / "measurements.csv").read_bytes()
    cases = json.loads((out / "summary.json").read_text())["cases"]
    assert cases["done"] + cases["kept"] == 20 and cases["kept"] >= 2 and not cases["failed"]
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]  # parts of what was killed


@pytest.mark.slow
def test_workers_of_dask_that_slurm_starts_make_the_bytes_of_one_machine(
    tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path], tiny_weights: Path, slurm: Slurm
) -> None:
    """One job is cancelled in the middle: its scan is done by the other, and a new job takes its place."""
    pytest.importorskip("dask_jobqueue")
    for number in range(4):
        save_scan(tmp_path / "in" / f"{number}_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    for number in range(4, 8):
        save_scan(tmp_path / "in" / f"{number}_0000.nii.gz", np.resize(blob, (300, 60, 72)), (3.0, 2.0, 2.0))
    out, whole = tmp_path / "out", tmp_path / "whole"
    flags = ("--weights", str(tiny_weights), "--device", "cpu", "--engine", "onnxruntime", "--threads", "1")
    subprocess.run([*VISCERA, tmp_path / "in", whole, *flags], check=True, capture_output=True, cwd=ROOT)
    environment = slurm.environment | {"PYTHONPATH": str(ROOT)}
    places = (str(tmp_path / "in"), str(out))
    command = [*VISCERA, *places, *flags, "--scheduler", "slurm", "--workers", "2", "--max-memory", "2G"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path, env=environment)
    wait((out / "4.nii.gz").exists, "the workers do nothing")
    jobs: list[str] = []

    def both_run() -> bool:
        jobs[:] = slurm.asked("squeue", "--noheader", "--states=running", "--format=%i").split()
        return len(jobs) == 2

    wait(both_run, "there are no two workers")
    slurm.asked("scancel", jobs[0])
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0 and "once more on another worker" in errors, errors
    wait(lambda: not slurm.asked("squeue", "--noheader"), "jobs are left")
    assert label_maps(out) == label_maps(whole) and len(label_maps(out)) == 8
    assert (out / "measurements.csv").read_bytes() == (whole / "measurements.csv").read_bytes()
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]  # keys of TLS, parts of files
