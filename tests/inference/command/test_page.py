"""The page and the previews that a run leaves in its outputs."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.command import page
from inference.errors import UNTOLD, OutputError, hide_names
from inference.formats.recorded import digest
from inference.names import labels_file
from tests.conftest import ROOT

EVIL = "<b>&'secret #1%"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    engine = () if arguments[0] == "merge" else ("--device", "cpu", "--engine", "onnxruntime")
    command = [sys.executable, "-m", "inference", *arguments, *engine]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def cases(out: Path) -> list[str]:
    """The rows of the page."""
    return re.findall(r'<th scope="row">(.*?)</th>', (out / "index.html").read_text())


def write_case(folder: Path, name: str, **more: object) -> None:
    """A label map, its record and its preview."""
    labels, preview = labels_file(folder, name), labels_file(folder, name, "preview")
    labels.write_bytes(name.encode())
    preview.mkdir()
    (preview / "thumbnail.png").write_bytes(b"png")
    outs = {"nii.gz": digest(labels), "preview": digest(preview)}
    record = {"case": name, "status": "done", "program": "0", "outputs": outs, "labels": {}, "doubts": {}}
    (folder / f"{name}.json").write_text(json.dumps(record | more))


@pytest.mark.slow
def test_a_run_leaves_previews_and_one_page_of_all(
    tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path], tiny_weights: Path
) -> None:
    inputs, out = tmp_path / "in", tmp_path / "out"
    for name in ("a", EVIL):
        save_scan(inputs / f"{name}_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    (inputs / "c_0000.nii.gz").write_bytes(b"no scan")
    flags = ("--weights", tiny_weights, "--preview")
    done = run(inputs, out, *flags)
    assert done.returncode == 8, done.stderr
    assert cases(out) == ["&lt;b&gt;&amp;&#x27;secret #1%", "a", "c"]
    text = (out / "index.html").read_text()
    folder = re.findall(r'data-folder="(.*?)"', text)
    assert folder == ["%3Cb%3E%26%27secret%20%231%25.preview/", "a.preview/"]
    assert text.count("data:image/png;base64,") == 2 and "c_0000.nii.gz" in text  # why it failed
    assert not (out / "c.preview").exists()

    before = digest(out / "a.preview")
    assert run(inputs, out, *flags, "--resume").returncode == 8
    assert (out / "index.html").read_text() == text
    record = json.loads((out / "a.json").read_text())
    assert record["outputs"]["preview"] == before and record["seconds"]["preview"] > 0
    shutil.rmtree(out / "a.preview")
    done = run(inputs, out, *flags, "--resume")  # as it is missing, its case is made again
    assert "a: kept" not in done.stdout and "secret #1%: kept" in done.stdout
    assert digest(out / "a.preview") == before

    # Without --preview the label map is made again: a preview of the earlier one must not stay, nor the page be old.
    assert run(inputs, out, *flags[:2], "--case", "a").returncode == 0
    assert not (out / "a.preview").exists()
    assert (out / "index.html").read_text().count("data:image/png;base64,") == 1

    done = run(inputs, out, *flags, "--resume", "--hash-names")
    text = (out / "index.html").read_text()
    assert all(re.fullmatch("[0-9a-f]{12}", case) for case in cases(out)) and len(cases(out)) == 3
    assert "secret" not in text and "data-folder" not in text and "c_0000" not in text

    parts = tmp_path / "parts"
    for part in ("1/2", "2/2"):
        run(inputs, parts, *flags, "--part", part)
        assert not (parts / "index.html").exists()
    assert run("merge", parts).returncode == 8
    assert cases(parts) == ["&lt;b&gt;&amp;&#x27;secret #1%", "a", "c"]

    done = run(inputs, tmp_path / "none", *flags, "--no-sidecar")
    assert done.returncode == 2 and "--preview makes its page from the records" in done.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_a_picture_that_cannot_be_made_costs_no_case(
    tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path], tiny_weights: Path
) -> None:
    save_scan(tmp_path / "in" / "a_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    # A name with room for .nii.gz, but not for .preview.
    long = "x" * 248
    (tmp_path / "in" / "a_0000.nii.gz").rename(tmp_path / "in" / f"{long}.nii.gz")
    done = run(tmp_path / "in", tmp_path / "out", "--weights", tiny_weights, "--preview")
    assert done.returncode == 0, done.stderr
    assert "the labels are good, but have no preview" in done.stderr and "File name too long" in done.stderr
    assert "Traceback" not in done.stderr
    assert cases(tmp_path / "out") == [long] and "no preview" in (tmp_path / "out" / "index.html").read_text()


def test_the_page_has_the_cases_that_are_as_their_records_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "abcd":
        write_case(tmp_path, name)
    (tmp_path / "b.nii.gz").write_bytes(b"by hand")
    (tmp_path / "c.nii.gz").unlink()
    write_case(tmp_path, "e", labels={"1": {"name": "liver"}})
    write_case(tmp_path, "f", status="failed", error="f is cut off")
    (tmp_path / "other.json").write_text("{}")
    page.write(tmp_path, True)
    assert cases(tmp_path) == ["a", "d", "f"]
    assert capsys.readouterr().err == "warning: the record of e is damaged: it has no row in index.html\n"


def test_a_page_that_another_run_has_written_meanwhile_loses_no_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_case(tmp_path, "b")
    made, begun = page._row, []

    def slow(*arguments: Any) -> Any:
        begun.append(1)
        if len(begun) == 1:  # the folder is listed already
            write_case(tmp_path, "a")
            page.write(tmp_path, True)  # of another run
        return made(*arguments)

    monkeypatch.setattr(page, "_row", slow)
    page.write(tmp_path, True)
    assert cases(tmp_path) == ["a", "b"]


@pytest.mark.parametrize(
    "odd",
    [
        {"case": 5},
        {"case": None},
        {"outputs": None},
        {"outputs": 7},
        {"doubts": []},
        {"warnings": None},
        {"labels": {"1": {"name": "liver", "ml": 10**400}}},
    ],
    ids=str,
)
def test_an_odd_record_costs_its_row_and_not_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], odd: dict[str, object]
) -> None:
    write_case(tmp_path, "a", **({"status": "failed", "error": "why"} | odd))
    write_case(tmp_path, "b")
    (tmp_path / "c.json").symlink_to("nowhere")
    page.write(tmp_path, True)
    assert cases(tmp_path) == ["b"]
    said = "warning: the record of {} is damaged: it has no row in index.html\n"
    assert capsys.readouterr().err == said.format("a") + said.format("c")


def test_a_page_of_somebody_elses_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_case(tmp_path, "a")
    page.write(tmp_path, False)
    path = tmp_path / "index.html"
    assert not path.exists()
    path.write_text("<!doctype html>\n<title>mine</title>")
    page.write(tmp_path, True)
    assert path.read_text().endswith("mine</title>")
    assert "the page of this run is not written" in capsys.readouterr().err
    path.unlink()
    page.write(tmp_path, True)
    write_case(tmp_path, "b")
    page.write(tmp_path, False)  # one that is there is kept right
    assert cases(tmp_path) == ["a", "b"]
    with pytest.raises(OutputError, match="index.html cannot be written"):
        page.write(tmp_path / "gone", True)


def test_names_that_a_record_shows_are_hidden_where_they_are_to_be(tmp_path: Path) -> None:
    write_case(tmp_path, "secret", warnings=["secret_0000.nii.gz is odd", "MUELLER_HANS holds IM1.dcm twice"])
    write_case(tmp_path, "2", status="failed", error="MUELLER_HANS holds IM2.dcm, which is cut off")
    hidden = hashlib.sha256(b"3").hexdigest()[:12]
    write_case(tmp_path, "3", case=hidden, warnings=[f"{hidden} is odd"])  # of a run with --hash-names
    hide_names()
    try:
        page.write(tmp_path, True)
    finally:
        hide_names(False)
    text = (tmp_path / "index.html").read_text()
    assert len(cases(tmp_path)) == 3 and text.count(UNTOLD) == 3 and f"{hidden} is odd" in text
    assert not any(name in text for name in ("secret", "MUELLER", ".dcm"))
    for name in "23":
        (tmp_path / f"{name}.json").unlink()
    hashed = {"case": "0123456789ab", "warnings": []}  # of a run with --hash-names, merged without
    shutil.rmtree(tmp_path / "secret.preview")
    write_case(tmp_path, "secret", **hashed)
    page.write(tmp_path, True)
    assert cases(tmp_path) == ["0123456789ab"] and "secret" not in (tmp_path / "index.html").read_text()
