"""The table of measurements that a run leaves in its outputs."""

from __future__ import annotations

import csv
import json
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

from inference import errors
from inference.command import table
from inference.command.table import write_measurements
from inference.errors import OutputError
from inference.formats.recorded import Recorded, digest, measured
from tests.conftest import ROOT

Rows = list[dict[str, str]]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "inference", *arguments, "--device", "cpu", "--engine", "onnxruntime"]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def read(outputs: Path) -> Rows:
    with (outputs / "measurements.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def volumes(outputs: Path) -> dict[tuple[str, str], float]:
    """Of each case and label; each has one."""
    found = [((row["case"], row["label"]), float(row["value"])) for row in read(outputs) if row["quantity"] == "volume"]
    assert len(dict(found)) == len(found)
    return dict(found)


def write_case(outputs: Path, name: str, ml: float) -> None:
    """A label map and its record."""
    labels = outputs / f"{name}.nii.gz"
    labels.write_bytes(name.encode())
    record = {"case": name, "status": "done", "program": "0", "outputs": {"nii.gz": digest(labels)}}
    record["labels"] = {"1": {"name": "liver", "voxels": 8, "ml": ml}}
    (outputs / f"{name}.json").write_text(json.dumps(record))


@pytest.mark.slow
def test_the_table_holds_what_lies_in_the_folder(
    tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path], tiny_weights: Path
) -> None:
    inputs, out = tmp_path / "in", tmp_path / "out"
    for name in ("=a", "b"):
        save_scan(inputs / f"{name}_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    weights = ("--weights", tiny_weights)
    assert run(inputs, out, *weights).returncode == 0
    first = read(out)
    labels, hu = (np.asarray(nib.load(path).dataobj) for path in (out / "b.nii.gz", inputs / "b_0000.nii.gz"))
    for row in first:
        own = labels == int(row["label"])
        if row["quantity"] == "mean":
            assert float(row["value"]) == pytest.approx(hu[own].mean(), abs=0.006)
        if row["quantity"] == "volume":
            assert float(row["value"]) == pytest.approx(own.sum() * 12 / 1000, abs=1e-3)
    assert {row["case"] for row in first} == {"'=a", "b"}

    assert run(inputs, out, *weights, "--resume").returncode == 0  # both are kept
    assert read(out) == first
    (out / "b.nii.gz").write_bytes(b"damaged")  # redone
    assert run(inputs, out, *weights, "--resume").returncode == 0
    assert read(out) == first
    assert run(inputs, out, *weights, "--case", "b", "--networks", "tumor").returncode == 0
    later = volumes(out)
    assert {label for case, label in later if case == "b"} <= {"14"}
    assert {key: ml for key, ml in later.items() if key[0] == "'=a"} == {
        (row["case"], row["label"]): float(row["value"])
        for row in first
        if row["case"] == "'=a" and row["quantity"] == "volume"
    }

    assert run(inputs, out, *weights, "--resume", "--hash-names").returncode == 0
    assert {len(row["case"]) for row in read(out)} == {12}
    assert [row["value"] for row in read(out) if row["quantity"] == "volume"] == [
        row["value"] for row in first if row["quantity"] == "volume"
    ]
    done = run(inputs, tmp_path / "bare", *weights, "--case", "b", "--no-sidecar")
    assert done.returncode == 0 and [path.name for path in (tmp_path / "bare").iterdir()] == ["b.nii.gz"]


def test_label_maps_that_are_not_as_their_records_say_have_no_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate("abcde"):
        write_case(tmp_path, name, float(number))
    (tmp_path / "b.nii.gz").write_bytes(b"by hand")
    (tmp_path / "c.nii.gz").unlink()
    record = json.loads((tmp_path / "d.json").read_text())
    record["labels"]["1"]["ml"] = "much"
    (tmp_path / "d.json").write_text(json.dumps(record))
    (tmp_path / "f.json").write_text("{}")
    write_measurements(tmp_path)
    assert volumes(tmp_path) == {("a", "1"): 0.0, ("e", "1"): 4.0}
    assert capsys.readouterr().err == "warning: the record of d is damaged: it has no rows in measurements.csv\n"


def test_a_table_of_somebody_elses_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_case(tmp_path, "a", 1.0)
    path = tmp_path / "measurements.csv"
    path.write_text("case,ml\na,2\n")
    write_measurements(tmp_path)
    assert path.read_text() == "case,ml\na,2\n"
    assert "measurements.csv exists already and was not written by this program" in capsys.readouterr().err
    path.unlink()
    for _ in range(2):
        write_measurements(tmp_path)
        assert volumes(tmp_path) == {("a", "1"): 1.0}
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.json", "a.nii.gz", "measurements.csv"]


def rewrite(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Write the table of a folder; which records were read. The bytes are those of a table made of all records."""
    read: list[str] = []

    def noted(one: Recorded) -> Any:
        read.append(one.case)
        return measured(one)

    with monkeypatch.context() as patched:
        patched.setattr(table, "measured", noted)
        write_measurements(outputs)
    written = (outputs / "measurements.csv").read_bytes()
    copy = shutil.copytree(outputs, outputs.with_name("copy"), ignore=shutil.ignore_patterns(".viscera*", "*.csv"))
    write_measurements(copy)
    assert (copy / "measurements.csv").read_bytes() == written
    shutil.rmtree(copy)
    return read


def test_rows_whose_files_nobody_touched_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for number, name in enumerate("abcdefgh"):
        write_case(out, name, float(number))
    assert rewrite(out, monkeypatch) == list("abcdefgh") and not (out / table.LIST).exists()  # too few
    monkeypatch.setattr(table, "MANY", 5)
    assert rewrite(out, monkeypatch) == list("abcdefgh")
    assert rewrite(out, monkeypatch) == []
    write_case(out, "B, after b", 9.0)
    write_case(out, "c", 9.0)  # the same number of bytes
    (out / "d.nii.gz").unlink()
    times = (out / "e.nii.gz").stat()
    (out / "e.nii.gz").write_bytes(b"E")
    os.utime(out / "e.nii.gz", ns=(times.st_atime_ns, times.st_mtime_ns))
    (out / "f.seg.nrrd").write_bytes(b"f")
    (out / "g.json").write_text('{"case": "g", "status": "done", "program": "0", "labels": 1}')
    assert rewrite(out, monkeypatch) == ["B, after b", "c", "e", "f", "g"]
    assert volumes(out) == {("B, after b", "1"): 9.0, ("a", "1"): 0.0, ("b", "1"): 1.0, ("c", "1"): 9.0,
                            ("f", "1"): 5.0, ("h", "1"): 7.0}  # fmt: skip
    assert rewrite(out, monkeypatch) == ["e", "g"]  # read until they are as their records say


def change_list(change: Callable[[list[str]], object]) -> Callable[[Path], Any]:
    """What changes the lines of the list in a folder."""

    def spoil(out: Path) -> None:
        lines = (out / table.LIST).read_text().splitlines(keepends=True)
        change(lines)
        (out / table.LIST).write_text("".join(lines))

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        lambda out: (out / "measurements.csv").write_bytes((out / "measurements.csv").read_bytes() + b"\n"),
        lambda out: (out / "measurements.csv").unlink(),
        lambda out: (out / table.LIST).write_bytes(b""),
        lambda out: (out / table.LIST).write_bytes((out / table.LIST).read_bytes()[:-9]),
        lambda out: (out / table.LIST).write_text("[" * 10**5),
        lambda out: (out / table.LIST).unlink() or (out / table.LIST).mkdir(),
        change_list(lambda lines: lines.pop(1)),
        change_list(lambda lines: lines.insert(1, lines.pop(2))),
        change_list(lambda lines: lines.append(lines.pop().replace("24]", "1.5]"))),
    ],
    ids=[
        "table changed",
        "no table",
        "no list",
        "a list cut off",
        "brackets",
        "a folder",
        "a line lost",
        "lines swapped",
        "a number damaged",
    ],
)
def test_a_table_that_is_not_that_of_its_list_is_made_anew(
    spoil: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "MANY", 1)
    (tmp_path / "out").mkdir()
    for name in "abc":
        write_case(tmp_path / "out", name, 1.0)
    assert rewrite(tmp_path / "out", monkeypatch) == ["a", "b", "c"] and rewrite(tmp_path / "out", monkeypatch) == []
    spoil(tmp_path / "out")
    assert rewrite(tmp_path / "out", monkeypatch)[-1] == "c"


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted by /proc")
def test_the_table_is_closed_before_another_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows replaces no file that is open."""
    monkeypatch.setattr(table, "MANY", 1)
    write_case(tmp_path, "a", 1.0)
    write_measurements(tmp_path)
    replaced: list[Path] = []
    replace = Path.replace

    def noted(part: Path, path: Path) -> Path:
        assert path not in [one.resolve() for one in Path("/proc/self/fd").iterdir()]
        replaced.append(path)
        return replace(part, path)

    monkeypatch.setattr(Path, "replace", noted)
    write_measurements(tmp_path)
    assert replaced == [tmp_path / "measurements.csv", tmp_path / table.LIST]


@pytest.mark.parametrize("many", [1, 1000])
def test_a_table_that_another_run_has_written_meanwhile_loses_no_row(
    many: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "MANY", many)
    write_case(tmp_path, "b", 1.0)
    write_measurements(tmp_path)
    write_case(tmp_path, "c", 2.0)
    begun: list[str] = []

    def slow(one: Recorded) -> Any:
        begun.append(one.case)
        if begun == ["c" if many == 1 else "b"]:  # the folder is listed already
            write_case(tmp_path, "a", 3.0)
            write_measurements(tmp_path)  # of another run, from its first record to its last
        return measured(one)

    monkeypatch.setattr(table, "measured", slow)
    write_measurements(tmp_path)
    assert volumes(tmp_path) == {("a", "1"): 3.0, ("b", "1"): 1.0, ("c", "1"): 2.0}


def test_names_are_hidden_in_rows_that_were_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MANY", 1)
    (tmp_path / "out").mkdir()
    write_case(tmp_path / "out", "a", 1.0)
    for hidden in (False, True, False):
        errors.hide_names(hidden)
        try:
            assert rewrite(tmp_path / "out", monkeypatch) == ["a"]
        finally:
            errors.hide_names(False)
        assert {case == "a" for case, _ in volumes(tmp_path / "out")} == {not hidden}


def test_a_table_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="measurements.csv cannot be written"):
        write_measurements(tmp_path / "gone")
