"""Runs with --layout bids: what finds label maps elsewhere finds them there as well."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from inference.command import cli
from inference.command.merge import merge
from tests.conftest import ROOT, command

NO_CT = "no CT by name, which in BIDS ends in _ct"
FIRST, SECOND = "sub-1/ses-pre/anat/sub-1_ses-pre_run-2_dseg", "sub-patient2/anat/sub-patient2_dseg"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    started = command(*arguments, "--layout", "bids", "--device", "cpu", "--engine", "onnxruntime")
    return subprocess.run(started, capture_output=True, text=True, check=False, cwd=ROOT)


def cases(out: Path) -> tuple[set[str], list[str], list[str]]:
    """Those of measurements.csv, and the rows and the previews of the page."""
    with (out / "measurements.csv").open() as file:
        measured = {row["case"] for row in csv.DictReader(file)}
    page = (out / "index.html").read_text()
    return measured, re.findall(r'<th scope="row">(.*?)</th>', page), re.findall(r'data-folder="(.*?)"', page)


@pytest.fixture
def inputs(tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path]) -> Path:
    for name in ("sub-1_ses-pre_run-2_ct", "patient 2"):
        save_scan(tmp_path / "in" / f"{name}_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    (tmp_path / "in" / "bad_0000.nii.gz").write_bytes(b"no scan")
    return tmp_path / "in"


@pytest.mark.slow
def test_runs_parts_and_programs_find_what_is_there(inputs: Path, tiny_weights: Path) -> None:
    out = inputs.parent / "out"
    flags = ("--weights", tiny_weights, "--preview", "--save-probabilities", "--format", "nifti,mha")
    done = run(inputs, out, *flags)
    assert done.returncode == 8 and "bad_0000.nii.gz is not NIfTI" in done.stderr, done.stderr
    for stem in (FIRST, SECOND):
        found = {path.name.removeprefix(Path(stem).name) for path in (out / stem).parent.iterdir()}
        assert found == {".nii.gz", ".mha", ".json", ".preview", ".probabilities"}
    assert [path.name for path in (out / "sub-bad/anat").iterdir()] == ["sub-bad_dseg.json"]
    names = ["sub-1_ses-pre_run-2", "sub-bad", "sub-patient2"]
    expected = set(names[::2]), names, [f"{FIRST}.preview/", f"{SECOND}.preview/"]
    assert cases(out) == expected

    anew = ("summary.json", "sub-bad_dseg.json")
    files = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name not in anew}
    done = run(inputs, out, *flags, "--resume")
    assert done.stdout.count(": kept, ") == 2
    assert files == {path: path.read_bytes() for path in files}
    hidden = run(inputs, out, *flags, "--resume", "--hash-names", "--json", out / "all.json")
    assert "sub" not in hidden.stdout and "sub" not in hidden.stderr
    records = json.loads((out / "all.json").read_text())
    hashes = {hashlib.sha256(name.encode()).hexdigest()[:12] for name in names}
    assert {record["case"] for record in records} == hashes
    assert set(re.findall(r"\b[0-9a-f]{12}\b", hidden.stdout + hidden.stderr)) == hashes  # of scans and label maps too
    measured, rows, folders = cases(out)
    assert sorted(rows) == sorted(record["case"] for record in records) and measured < set(rows) and not folders

    # In parts, which merge joins knowing the folder alone; and the table of a program that knows both folders.
    apart = inputs.parent / "apart"
    for part in ("1/2", "2/2"):
        run(inputs, apart, *flags, "--part", part)
    assert merge(apart)["cases"]["done"] == 2
    assert cases(apart) == expected
    measure = [*command()[:2], "inference.measure", str(inputs), str(apart), "--weights", str(tiny_weights)]
    table = subprocess.run(measure, capture_output=True, text=True, check=False, cwd=ROOT).stdout
    assert {row.partition(",")[0] for row in table.splitlines()[1:]} == set(names[::2])


@pytest.mark.slow
def test_the_folder_of_the_scans_may_hold_the_dataset(inputs: Path, tiny_weights: Path) -> None:
    (inputs / "bad_0000.nii.gz").unlink()
    flags = ("--weights", tiny_weights, "--save-probabilities")
    for _ in range(2):  # the second finds label maps, tables and probabilities, all of them this program's
        done = run(inputs, inputs, *flags)
        assert (done.returncode, done.stderr) == (0, "")
    record = f"{inputs / SECOND}.json"
    done = run(inputs, inputs, *flags, "--resume", "--json", record)
    assert done.returncode == 7 and "has the name of another output" in done.stderr


def test_a_dataset_holds_its_derivatives(
    tmp_path: Path, tiny_weights: Path, blob: np.ndarray, save_scan: Callable[..., Path]
) -> None:
    out = tmp_path / "derivatives/viscera"
    scan = save_scan(tmp_path / "sub-1/ses-pre/ct/sub-1_ses-pre_run-2_ct.nii.gz", blob, (3.0, 2.0, 2.0))
    save_scan(tmp_path / "sub-1/ses-pre/anat/sub-1_ses-pre_T1w.nii.gz", blob, (3.0, 2.0, 2.0))
    for said in ("labels -> ", ": kept, "):
        done = run(tmp_path, out, "--weights", tiny_weights, "--resume")
        assert done.returncode == 0 and done.stdout.count(said) == 1, done.stderr
        assert done.stderr.splitlines() == [f"warning: {scan.name[:13]}_T1w.nii.gz is left out: {NO_CT}"]
    measure = [*command()[:2], "inference.measure", str(tmp_path), str(out), "--weights", str(tiny_weights)]
    table = subprocess.run(measure, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert {row.partition(",")[0] for row in table.splitlines()[1:]} == {"sub-1_ses-pre_run-2"}

    arguments = command(tmp_path, scan.parent, "--weights", tiny_weights)
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 7 and f"{scan} is a file of the inputs" in done.stderr


@pytest.mark.parametrize(
    ("flags", "cause"),
    [(["--format", "mha"], "needs NIfTI"), (["--no-sidecar"], "a JSON file beside each label map")],
)
def test_what_does_not_go_together(flags: list[str], cause: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.parse(["in", "out", "--layout", "bids", *flags])
    assert stop.value.code == 2 and cause in capsys.readouterr().err
