"""Parts of a run: each case in one of them, by names alone, and what schedulers say."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.command import cli
from inference.command.merge import merge
from inference.command.part import Part, part_of_summary, read_part
from inference.errors import InputFolderError, NoInputError, OutputError, VisceraError
from tests.conftest import ROOT


@given(cases=st.lists(st.text(max_size=5), unique=True), count=st.integers(1, 9))
def test_every_case_is_in_just_one_part_and_parts_are_even(cases: list[str], count: int) -> None:
    parts = [Part(index, count).of(cases) for index in range(1, count + 1)]
    assert sorted(case for part in parts for case in part) == sorted(cases)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ("3/20", {}, (3, 20)),
        ("3/20", {"SLURM_ARRAY_TASK_ID": "7"}, (3, 20)),  # what is asked for is not replaced
        ("auto", {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_COUNT": "20",
                  "SLURM_ARRAY_TASK_STEP": "1"}, (8, 20)),
        ("auto", {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "10",
                  "SLURM_ARRAY_TASK_STEP": "2"}, (4, 10)),
        ("auto", {"SGE_TASK_ID": "5", "SGE_TASK_FIRST": "1", "SGE_TASK_LAST": "20", "SGE_TASK_STEPSIZE": "1"}, (5, 20)),
        ("auto", {"SGE_TASK_ID": "5", "SGE_TASK_FIRST": "1", "SGE_TASK_LAST": "9", "SGE_TASK_STEPSIZE": "2"}, (3, 5)),
        ("auto", {"AWS_BATCH_JOB_ARRAY_INDEX": "0", "AWS_BATCH_JOB_ARRAY_SIZE": "4"}, (1, 4)),
        ("auto/4", {"JOB_COMPLETION_INDEX": "3"}, (4, 4)),
        ("auto/4", {"PBS_ARRAY_INDEX": "1"}, (1, 4)),
    ],
)  # fmt: skip
def test_what_the_command_line_and_schedulers_say(
    text: str, environment: dict[str, str], expected: tuple[int, int]
) -> None:
    assert read_part(text, environment) == Part(*expected)


@pytest.mark.parametrize(
    ("text", "environment", "cause"),
    [
        ("0/4", {}, "part 0 of 4"),
        ("5/4", {}, "part 5 of 4"),
        ("3", {}, "is not I/N"),
        ("a/4", {}, "is not I/N"),
        ("3/4/5", {}, "is not I/N"),
        ("auto/x", {}, "is not auto/N"),
        ("auto", {}, "this is not a job array"),
        ("auto", {"SGE_TASK_ID": "undefined"}, "this is not a job array"),
        ("auto", {"JOB_COMPLETION_INDEX": "3"}, "Kubernetes does not say how many parts there are"),
        ("auto/3", {"JOB_COMPLETION_INDEX": "3"}, "part 4 of 3"),
    ],
)
def test_what_is_no_part(text: str, environment: dict[str, str], cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        read_part(text, environment)


def test_the_name_of_its_summary() -> None:
    part = Part(3, 20)
    assert part.summary == "summary.3-of-20.json"
    assert part_of_summary(part.summary) == part
    assert part_of_summary("summary.json") is None
    assert part_of_summary("summary.30-of-20.json") is None


def run(inputs: Path, outputs: Path, weights: Path, *flags: str) -> int:
    command: list[str | Path] = [sys.executable, "-m", "inference", inputs, outputs, "--weights", weights]
    engine = ("--device", "cpu", "--engine", "onnxruntime", "--threads", "1")
    return subprocess.run([*command, *engine, *flags], capture_output=True, check=False, cwd=ROOT).returncode


@pytest.mark.slow
def test_parts_side_by_side_make_the_bytes_and_the_summary_of_one_run(
    tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path], tiny_weights: Path
) -> None:
    for name in "abcde":
        save_scan(tmp_path / "in" / f"{name}_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    (tmp_path / "in" / "f_0000.nii.gz").write_bytes(b"no scan")
    (tmp_path / "in" / "report.pdf").write_bytes(b"%PDF")
    (tmp_path / "in" / "g.dcm").write_bytes(b"no slice either")
    whole, out = tmp_path / "whole", tmp_path / "out"
    expected = run(tmp_path / "in", whole, tiny_weights)
    with ThreadPoolExecutor(3) as pool:
        codes = [pool.submit(run, tmp_path / "in", out, tiny_weights, "--part", f"{part}/3") for part in (1, 2, 3)]
    assert {code.result() for code in codes} <= {0, 8}
    assert {path.name: path.read_bytes() for path in out.glob("*.nii.gz")} == {
        path.name: path.read_bytes() for path in whole.glob("*.nii.gz")
    }
    assert not (out / "summary.json").exists() and not (out / "measurements.csv").exists()
    document = merge(out)
    assert document["exit_code"] == expected == 8
    assert (out / "measurements.csv").read_bytes() == (whole / "measurements.csv").read_bytes()
    one = json.loads((whole / "summary.json").read_text())
    for name in ("cases", "left_out", "weights"):
        assert document[name] == one[name]
    for name in ("failed", "warnings"):  # in the order of the parts
        assert sorted(document[name], key=str) == sorted(one[name], key=str)
    assert document["parts"] == {"count": 3, "missing": []}
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    (out / "summary.2-of-3.json").unlink()
    command: list[str | Path] = [sys.executable, "-m", "inference", "merge", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 8
    assert done.stdout == "3 done, 0 kept, 2 failed, 0 not begun\n1 of 3 parts are missing: 2\n"
    assert json.loads((out / "summary.json").read_text())["parts"]["missing"] == [2]


def test_a_part_without_a_case_is_a_success(
    tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path], tiny_weights: Path
) -> None:
    save_scan(tmp_path / "in" / "a_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    assert run(tmp_path / "in", tmp_path / "out", tiny_weights, "--part", "2/2") == 0
    document = json.loads((tmp_path / "out" / "summary.2-of-2.json").read_text())
    assert document["cases"] == {"done": 0, "kept": 0, "failed": 0, "not_begun": 0}


def test_a_case_that_is_called_summary_keeps_its_record(
    tmp_path: Path,
    blob: np.ndarray,
    save_scan: Callable[..., Path],
    tiny_weights: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    save_scan(tmp_path / "in" / "summary_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    out, why = tmp_path / "out", "summary.json is the record of the case of that name"
    (out / "somebodys.preview").mkdir(parents=True)
    assert run(tmp_path / "in", out, tiny_weights, "--part", "1/1") == 0
    assert merge(out)["cases"]["done"] == 1
    assert f"warning: the summary of all parts is not written: {out}/{why}" in capfd.readouterr().err
    assert (out / "measurements.csv").exists() and not (out / "index.html").exists()
    flags = ("--weights", tiny_weights, "--resume", "--device", "cpu", "--engine", "onnxruntime", "--threads", "1")
    assert cli.main([tmp_path / "in", out, *flags]) == 0
    assert f"warning: the summary of this run is not written: {out}/{why}" in capfd.readouterr().err
    assert json.loads((out / "summary.json").read_text())["case"] == "summary"


def test_the_exit_code_is_what_the_parts_say(tmp_path: Path) -> None:
    """What is left out matters or not, and only the run that left it out knows."""
    left_out = [{"file": "x.nii.gz", "reason": "reference labels"}]

    def code(*parts: tuple[int, int, int]) -> int:
        for index, (exit_code, done, failed) in enumerate(parts, 1):
            summary = {
                "program": "0", "started": "a", "ended": "b", "exit_code": exit_code, "failed": [], "warnings": [],
                "cases": {"done": done, "kept": 0, "failed": failed, "not_begun": 0}, "left_out": left_out,
            }  # fmt: skip
            (tmp_path / f"summary.{index}-of-{len(parts)}.json").write_text(json.dumps(summary))
        return int(merge(tmp_path)["exit_code"])

    assert code((0, 2, 0), (0, 1, 0)) == 0
    assert code((8, 2, 0), (0, 1, 0)) == 8
    assert code((4, 0, 2), (0, 1, 0)) == 8
    assert code((4, 0, 2), (0, 0, 0)) == 4
    assert code((4, 0, 2), (7, 0, 1)) == 7


def test_the_verb_names_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["merge", tmp_path]) == 2
    assert (
        capsys.readouterr().err == f"error: {tmp_path} holds no summary of a part: summary.1-of-N.json was looked for\n"
    )
    with pytest.raises(SystemExit) as stop:
        cli.main(["merge"])
    assert stop.value.code == 2 and "merge: error: the following arguments are required" in capsys.readouterr().err


def test_what_cannot_be_merged(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="holds no summary of a part"):
        merge(tmp_path)
    with pytest.raises(InputFolderError, match="cannot be opened"):
        merge(tmp_path / "none")
    summary = {
        "program": "0", "started": "a", "ended": "b", "exit_code": 0, "cases": {"done": 1, "kept": 0, "failed": 0,
        "not_begun": 0}, "failed": [], "left_out": [], "warnings": [], "weights": {"organ": "1"},
    }  # fmt: skip
    (tmp_path / "summary.1-of-2.json").write_text(json.dumps(summary))
    (tmp_path / "summary.2-of-3.json").write_text(json.dumps(summary))
    with pytest.raises(VisceraError, match="runs in 2 and in 3 parts"):
        merge(tmp_path)
    (tmp_path / "summary.2-of-3.json").rename(tmp_path / "summary.2-of-2.json")
    (tmp_path / "summary.2-of-2.json").write_text(json.dumps(summary | {"weights": {"organ": "2"}}))
    with pytest.raises(VisceraError, match="different networks"):
        merge(tmp_path)
    (tmp_path / "summary.2-of-2.json").write_text(json.dumps(summary | {"chosen": ["liver"]}))
    with pytest.raises(VisceraError, match="different labels were chosen"):
        merge(tmp_path)
    for damaged in ("{", json.dumps(summary | {"cases": None}), json.dumps(summary | {"left_out": 1})):
        (tmp_path / "summary.2-of-2.json").write_text(damaged)
        with pytest.raises(VisceraError, match="cannot be read as the summary of a part"):
            merge(tmp_path)
    (tmp_path / "summary.2-of-2.json").unlink()
    (tmp_path / "summary.json").write_text("[]")
    with pytest.raises(OutputError, match="was not written by this program"):
        merge(tmp_path)
