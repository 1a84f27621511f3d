"""--format: which files hold the labels of a case, and that they are written, kept and taken away together."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.command.cli import parse
from inference.errors import UnwrittenError
from inference.formats import atomic, writing
from inference.formats.cases import find_cases
from inference.formats.outputs import make_room
from inference.formats.recorded import wrote
from inference.formats.written import Description
from inference.names import (
    FOLDERS,
    FORMAT_NAMES,
    FORMATS,
    SEGMENTATION,
    format_of,
    labels_file,
    record_file,
    siblings,
)
from inference.scan import Scan
from tests.conftest import ROOT


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "inference", *arguments, "--device", "cpu", "--engine", "onnxruntime"]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def voxels(path: Path) -> np.ndarray:
    sitk = pytest.importorskip("SimpleITK")
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


@pytest.fixture
def inputs(tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path]) -> Path:
    save_scan(tmp_path / "in" / "a_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    save_scan(tmp_path / "in" / "b_0000.nii.gz", blob[:, ::-1, ::-1], (3.0, 2.0, 2.0), "RAS")
    return tmp_path / "in"


def test_names_of_each_format() -> None:
    for kind in FORMATS:
        labels = labels_file(Path("out"), "x.1", kind)
        assert labels == Path("out") / f"x.1.{kind}" and format_of(labels) == kind
        assert record_file(labels) == Path("out/x.1.json")
        assert siblings(labels) == [Path(f"out/x.1.{one}") for one in (*FORMATS, *FOLDERS)]
    assert format_of(Path("x.nrrd")) is None
    assert writing.WRITERS.keys() == set(FORMATS) and SEGMENTATION.removeprefix(".") in FORMATS


def test_the_flag() -> None:
    assert parse(["in", "out"]).formats == ("nii.gz",)
    assert parse(["in", "out", "--format", "seg.nrrd"]).formats == ("seg.nrrd",)
    assert parse(["in", "out", "--format", ".seg.nrrd, nii.gz,seg.nrrd"]).formats == ("seg.nrrd", "nii.gz")
    every = "nifti,seg.nrrd,mha,seg,labelmap,rtstruct,sr"
    assert (
        parse(["in", "out", "--format", every]).formats
        == FORMATS
        == tuple(FORMAT_NAMES[one] for one in every.split(","))
    )
    for wrong in ("nrrd", "", "nii.gz,", "nifti,sr"):
        with pytest.raises(SystemExit):
            parse(["in", "out", "--format", wrong])


@pytest.mark.slow
def test_both_formats_are_written_and_resumed_together(inputs: Path, tmp_path: Path, tiny_weights: Path) -> None:
    out, every = tmp_path / "out", ("--weights", tiny_weights, "--resume")
    both = (*every, "--format", "nii.gz,seg.nrrd")
    done = run(inputs, out, *both)
    assert done.returncode == 0, done.stderr
    written = [
        "a.json",
        "a.nii.gz",
        "a.seg.nrrd",
        "b.json",
        "b.nii.gz",
        "b.seg.nrrd",
        "measurements.csv",
        "summary.json",
    ]
    assert sorted(os.listdir(out)) == written
    record: dict[str, Any] = json.loads((out / "a.json").read_text())
    assert record["outputs"] == {kind: sha256(out / f"a.{kind}") for kind in ("nii.gz", "seg.nrrd")}
    assert record["output_sha256"] == record["outputs"]["nii.gz"]
    for case in "ab":
        assert np.array_equal(voxels(out / f"{case}.nii.gz"), voxels(out / f"{case}.seg.nrrd"))
    assert np.count_nonzero(voxels(out / "a.nii.gz"))
    assert b"Segment0_Name:=organ 1\n" in (out / "a.seg.nrrd").read_bytes()

    # Both are there and whole: kept. One is damaged: the case is done again, and the damaged file is no loss.
    whole = (out / "b.seg.nrrd").read_bytes()
    (out / "b.seg.nrrd").write_bytes(whole[:-1])
    done = run(inputs, out, *both, "--json", tmp_path / "r.json")
    assert [one["status"] for one in json.loads((tmp_path / "r.json").read_text())] == ["kept", "done"]
    assert (out / "b.seg.nrrd").read_bytes() == whole
    assert "the b.seg.nrrd that was there is not known to be this program's" in done.stderr
    assert sorted(os.listdir(out)) == sorted([*written, "b.seg.nrrd.before"])

    # A run that makes the labels anew leaves no older ones in a format that it does not write.
    done = run(inputs, out, "--weights", tiny_weights, "--case", "a")
    assert done.returncode == 0 and not (out / "a.seg.nrrd").exists() and (out / "a.nii.gz").exists()
    assert json.loads((out / "a.json").read_text())["outputs"].keys() == {"nii.gz"}

    # What is there in one format only does not fit a request for two; more than is asked for does.
    done = run(inputs, out, *both, "--json", tmp_path / "r.json")
    assert [one["status"] for one in json.loads((tmp_path / "r.json").read_text())] == ["done", "kept"]
    done = run(inputs, out, *every, "--json", tmp_path / "r.json")
    assert [one["status"] for one in json.loads((tmp_path / "r.json").read_text())] == ["kept", "kept"]
    assert (out / "a.seg.nrrd").exists()


def test_a_segmentation_alone_and_an_empty_one_for_a_failed_case(
    inputs: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    cut = inputs / "b_0000.nii.gz"
    cut.write_bytes(cut.read_bytes()[:-100])
    out = tmp_path / "out"
    out.mkdir()
    for name in ("a.seg.nrrd", "a.nii.gz"):
        (out / name).write_bytes(b"by hand")
    flags = ("--weights", tiny_weights, "--format", "seg.nrrd", "--on-error", "empty")
    done = run(inputs, out, *flags)
    assert done.returncode == 8, done.stderr
    # The other's .nii.gz is not in the way of anything: it stays as it is.
    both = ("measurements.csv", "summary.json")
    names = ["a.json", "a.nii.gz", "a.seg.nrrd", "a.seg.nrrd.before", "b.json", "b.seg.nrrd", *both]
    assert sorted(os.listdir(out)) == names
    assert (out / "a.nii.gz").read_bytes() == (out / "a.seg.nrrd.before").read_bytes() == b"by hand"
    record = json.loads((out / "b.json").read_text())
    assert record["status"] == "failed" and record["outputs"] == {"seg.nrrd": sha256(out / "b.seg.nrrd")}
    assert "output_sha256" not in record
    empty = voxels(out / "b.seg.nrrd")
    assert empty.shape == (26, 60, 72) and not empty.any()
    assert b"Segment0_Name:=organ 1\n" in (out / "b.seg.nrrd").read_bytes()


def test_a_segmentation_among_the_inputs_is_no_scan(inputs: Path) -> None:
    (inputs / "a.seg.nrrd").write_bytes(b"NRRD0004\n")
    (inputs / "c.seg.nrrd").write_bytes(b"NRRD0004\n")
    found = find_cases(inputs, inputs)
    assert [case.name for case in found.cases] == ["a", "b"] and not found.left_out and not found.warnings


def test_a_file_that_cannot_be_written_takes_the_others_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = Scan.of(np.zeros((8, 10, 14), np.int16), (7.0, 5.0, 4.0), "LPS")
    labels = np.zeros((8, 10, 14), np.uint8)
    (tmp_path / "x.seg.nrrd").mkdir()
    files = [tmp_path / "x.nii.gz", tmp_path / "x.seg.nrrd"]
    for outputs in (files, files[::-1]):  # the last is written first
        with pytest.raises(UnwrittenError, match="x.seg.nrrd cannot be written"):
            writing.write(labels, scan, outputs, Description({1: "liver"}))
        assert os.listdir(tmp_path) == ["x.seg.nrrd"]

    def refused(path: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(atomic, "remove", refused)
    with pytest.raises(UnwrittenError, match="x.seg.nrrd cannot be written"):  # which is the cause
        writing.write(labels, scan, files[::-1], Description({1: "liver"}))


def test_room_is_made_for_all_files_of_a_case(tmp_path: Path) -> None:
    nii, seg = tmp_path / "x.nii.gz", tmp_path / "x.seg.nrrd"
    nii.write_bytes(b"one")
    seg.write_bytes(b"two")
    record = {"case": "x", "status": "done", "program": "0.2.0"}
    (tmp_path / "x.json").write_text(json.dumps(record | {"outputs": {"nii.gz": sha256(nii), "seg.nrrd": "other"}}))
    assert wrote(nii) and not wrote(seg)
    assert make_room([nii, seg]) == {seg: tmp_path / "x.seg.nrrd.before"}
    assert os.listdir(tmp_path) == ["x.seg.nrrd.before"]

    # A record whose fields are of another kind tells nothing.
    nii.write_bytes(b"one")
    (tmp_path / "x.json").write_text(json.dumps(record | {"outputs": [sha256(nii)]}))
    assert not wrote(nii)

    # A folder in the place of one: nothing is touched.
    seg.mkdir()
    with pytest.raises(UnwrittenError, match="x.seg.nrrd cannot be written: a folder has that name"):
        make_room([nii, seg])
    assert sorted(os.listdir(tmp_path)) == ["x.json", "x.nii.gz", "x.seg.nrrd", "x.seg.nrrd.before"]
