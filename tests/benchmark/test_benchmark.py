"""The programs `run` and `score` on tiny networks, held to the published schema; the figures by hand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmark.document import read_runs, write
from benchmark.efficiency import figures
from benchmark.process import watch
from benchmark.sampler import container_mb, open_gpu, resident_mb, tree
from tests.benchmark.runs import SCHEMA, benchmark, run_of, runs_of
from tests.conftest import ROOT, wait

jsonschema = pytest.importorskip("jsonschema")


def test_figures_of_a_curve_by_hand() -> None:
    assert figures([0.0, 0.1, 0.3], [10.0, 20.0, 40.0]) == {
        "max_mb": 40.0, "flare_area_mb_s": 7.0, "trapezoid_mb_s": 1.5 + 6.0
    }  # fmt: skip


@pytest.mark.slow
def test_every_program_explains_itself_and_an_old_name_says_the_new_one(tmp_path: Path) -> None:
    from benchmark.__main__ import PROGRAMS

    listed = benchmark("--help").stdout
    for program in PROGRAMS:
        assert f"\n    {program} " in listed
        assert benchmark(program, "--help").stdout.startswith(f"usage: python -m benchmark {program} ")
    command: list[str | Path] = [sys.executable, "-m", "benchmark.torso", tmp_path / "torso_0000.nii.gz"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stderr == "python -m benchmark.torso is now python -m benchmark torso\n"
    assert (tmp_path / "torso_0000.nii.gz").is_file()


def test_measuring_waits_for_no_picture_and_no_engine() -> None:
    program = (
        "import sys\nfrom benchmark.__main__ import main\ntry: main(['run', '--help'])\nexcept SystemExit: pass\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    names = set(done.stdout.splitlines()[-1].split())
    assert not names & {"matplotlib", "surface_distance", "torch", "openvino", "onnx", "onnxruntime"}


def test_a_document_survives_its_file(tmp_path: Path) -> None:
    document = runs_of([run_of("a", 1.5), run_of("b", 2.0, exit_code=1, error="no"), run_of("a", 2.5)])
    write(document.to_json(), tmp_path / "runs.json")
    assert read_runs(tmp_path / "runs.json") == document
    assert [(case, len(runs)) for case, runs in document.by_case().items()] == [("a", 2), ("b", 1)]
    write(document.to_json() | {"runs": [{"case": "a"}]}, tmp_path / "runs.json")
    with pytest.raises(ValueError, match=r"runs.json is not complete: KeyError 'round'"):
        read_runs(tmp_path / "runs.json")


def test_a_processs_children_count_with_it() -> None:
    grow = "import time; block = bytearray(80_000_000); block[::4096] = b'x' * len(block[::4096]); time.sleep(30)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grow!r}])"
    process = subprocess.Popen([sys.executable, "-c", parent])
    try:
        wait(lambda: resident_mb(tree(process.pid)) > 90, "the child does not grow")
        assert len(tree(process.pid)) == 2
        assert 90 < resident_mb(tree(process.pid)) < 200
    finally:
        for pid in reversed(tree(process.pid)):
            os.kill(pid, 9)
        process.wait()


def test_no_container_is_no_memory(tmp_path: Path) -> None:
    assert container_mb(tmp_path / "cid") == 0
    (tmp_path / "cid").write_text("0" * 64)
    assert container_mb(tmp_path / "cid") == 0


@pytest.mark.slow
def test_run_measures_every_case_alone_and_score_scores_it(
    blob: np.ndarray, save_scan: Callable[..., Path], tiny_weights: Path, tmp_path: Path
) -> None:
    cases, out = tmp_path / "cases", tmp_path / "runs.json"
    for name in ("a", "b"):
        save_scan(cases / f"{name}_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    shutil.copytree(tiny_weights, tmp_path / "a blank")
    flags = f"--weights '{tmp_path}/a blank' --device cpu --engine onnxruntime"
    done = benchmark("run", "--cases", cases, "--out", out, "--repeat", "2", "--flags", flags)
    assert done.returncode == 0, done.stderr
    document = json.loads(out.read_text())
    jsonschema.validate(document, SCHEMA)
    assert [(one["case"], one["round"]) for one in document["runs"]] == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    for one in document["runs"]:
        assert one["exit_code"] == 0
        assert one["record"]["seconds"]["total"] < one["wall_s"]
        assert one["host_memory"]["max_mb"] > 30
        samples = one["samples"]
        assert len(samples["t_s"]) == len(samples["host_mb"]) >= one["wall_s"] / 0.1 * 0.5
        assert samples["sampler_cpu_share"] < 1
    bad: dict[str, Any] = document | {"version": 2}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(bad, SCHEMA)

    labels = np.zeros(blob.shape, np.uint8)
    labels[5:15, 20:40, 20:40] = 1
    labels[5:15, 20:30, 20:30] = 14
    for folder in ("pred", "ref"):  # of a set that numbers its cases
        save_scan(tmp_path / folder / "a_0000.nii.gz", labels, (3.0, 2.0, 2.0))
        labels[16:18, 20:30, 20:30] = 14  # in the reference only
    scored = benchmark("score", "--pred", tmp_path / "pred", "--ref", tmp_path / "ref", "--out", tmp_path / "s.json")
    assert scored.returncode == 0, scored.stderr
    scores = json.loads((tmp_path / "s.json").read_text())
    jsonschema.validate(scores, SCHEMA)
    assert scores["scores"]["a_0000"]["1"] == {"dsc": 1.0, "nsd": 1.0}
    found, missed = scores["lesions"]["cases"]["a_0000"]["reference"]
    assert found == {"ml": pytest.approx(12), "iou": 1.0, "found": True} and not missed["found"]
    assert scores["lesions"]["all"]["sensitivity"] == 0.5 and scores["lesions"]["all"]["sensitivity_large"] == 1
    assert "| a_0000 | 1 of 2 | 1 of 1 | 0 | 0 | 0.0 |" in scored.stdout


@pytest.mark.slow
def test_a_killed_run_keeps_what_it_measured_and_goes_on(
    blob: np.ndarray, save_scan: Callable[..., Path], tiny_weights: Path, tmp_path: Path
) -> None:
    cases, out = tmp_path / "cases", tmp_path / "runs.json"
    save_scan(cases / "a_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    flags = f"--weights {tiny_weights} --device cpu --engine onnxruntime"
    command: list[str | Path] = ["run", "--cases", cases, "--out", out, "--repeat", "3", "--flags", flags]
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmark", *command], cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True
    )
    wait(out.exists, "nothing is measured")
    os.killpg(process.pid, 9)
    process.wait()
    kept = json.loads(out.read_text())["runs"]
    assert 1 <= len(kept) < 3
    assert benchmark(*command, "--resume").returncode == 0
    document = json.loads(out.read_text())
    jsonschema.validate(document, SCHEMA)
    assert document["runs"][: len(kept)] == kept
    assert [one["round"] for one in document["runs"]] == [0, 1, 2]
    # What was measured in another way is not mixed with it.
    done = benchmark(*command[:-1], f"{flags} --plan dense", "--resume")
    assert done.returncode == 1 and "runs.json cannot be resumed: flags differ" in done.stderr
    assert json.loads(out.read_text()) == document


@pytest.mark.slow
def test_known_memory_for_a_known_time_measures_right() -> None:
    # A machine with other work takes longer than what is slept: the program says itself for how long it has the block.
    hold = (
        "import sys, time; asked = time.monotonic(); block = b'x' * 300_000_000; had = time.monotonic()\n"
        "time.sleep(2); gone = time.monotonic(); del block; time.sleep(1); sys.exit(f'{gone - had} {gone - asked}')"
    )
    empty = watch([sys.executable, "-c", "import time; time.sleep(1)"])
    before = time.monotonic()
    held = watch([sys.executable, "-c", hold])
    assert 3 < held["wall_s"] <= time.monotonic() - before
    base = empty["host_memory"]["max_mb"]
    assert held["host_memory"]["max_mb"] - base == pytest.approx(300, rel=0.02)
    least, most = (300 * float(seconds) for seconds in held["error"].split())
    area = held["host_memory"]["trapezoid_mb_s"] - base * held["wall_s"]
    assert 0.75 * least < area < 1.25 * most  # samples are up to 0.1 s away from where the memory came and went
    assert held["flare24"]["MaxRAM"] > 300
    assert 0 < held["flare24"]["MaxCPU_Utilization"] <= 100


def test_what_cannot_be_measured_or_scored_is_one_sentence(save_scan: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = benchmark("run", "--cases", tmp_path / "empty", "--out", tmp_path / "x.json")
    assert done.returncode == 1
    assert "holds no case" in done.stderr
    done = benchmark(
        "run", "--cases", tmp_path, "--out", tmp_path / "x.json", "--runner", "docker", "--image", "no:such"
    )
    assert done.returncode == 1
    save_scan(tmp_path / "ref" / "a.nii.gz", np.ones((3, 4, 5), np.uint8), (3.0, 2.0, 2.0))
    done = benchmark("score", "--pred", tmp_path / "empty", "--ref", tmp_path / "ref", "--out", tmp_path / "x.json")
    assert done.returncode == 1
    assert done.stderr.strip().endswith("empty lacks a.nii.gz")
    assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize(
    ("visible", "name"), [(None, "0"), ("", None), ("2,0", "2"), ("GPU-7c4a", "GPU-7c4a"), ("MIG-1b,MIG-2c", "MIG-1b")]
)
def test_the_gpu_that_is_measured_is_the_one_that_cuda_uses(
    visible: str | None, name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NVML, played."""
    played = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=str,
        nvmlDeviceGetHandleByUUID=lambda name: name,
        nvmlDeviceGetName=lambda device: device,
        nvmlDeviceGetMemoryInfo=lambda _: SimpleNamespace(total=9_000_000, free=2_000_000),
        nvmlDeviceGetComputeRunningProcesses=lambda _: [
            SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in ((1, 4_000_000), (2, None), (3, 8_000_000))
        ],
    )
    monkeypatch.setitem(sys.modules, "pynvml", played)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    read, found = open_gpu()
    if name is None:
        assert read is None and found == "no GPU: CUDA_VISIBLE_DEVICES is empty"
    else:
        assert found == name and read is not None and read([1, 2]) == (7, 4)
