"""The report of real runs of a tiny network, opened in a real browser; scaling's sizes by hand."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import nibabel as nib
import numpy as np
import pytest

from benchmark.report import CaseRuns, _table_5, build
from benchmark.scaling import growth, make_sizes
from inference.errors import OutputError
from tests.benchmark.runs import benchmark, run_of, runs_of


@pytest.fixture(scope="module")
def report(
    blob: np.ndarray,
    save_scan: Callable[..., Path],
    tiny_weights: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder of a report over two cases, one of which fails, and scores."""
    work = tmp_path_factory.mktemp("report")
    save_scan(work / "cases" / "good_0000.nii.gz", np.resize(blob, (55, 60, 72)), (3.0, 2.0, 2.0))
    (work / "cases" / "broken_0000.nii.gz").write_bytes(b"no NIfTI")
    flags = f"--weights {tiny_weights} --device cpu --engine onnxruntime"
    done = benchmark("run", "--cases", work / "cases", "--out", work / "runs.json", "--repeat", "1", "--flags", flags)
    assert done.returncode == 0, done.stderr
    for folder in ("pred", "ref"):
        save_scan(work / folder / "good.nii.gz", np.ones((5, 9, 9), np.uint8), (3.0, 2.0, 2.0))
    done = benchmark("score", "--pred", work / "pred", "--ref", work / "ref", "--out", work / "scores.json")
    assert done.returncode == 0, done.stderr
    done = benchmark("report", work / "runs.json", work / "scores.json", "--out", work / "report")
    assert done.returncode == 0, done.stderr
    return work / "report"


@pytest.mark.slow
def test_the_report_says_what_was_measured_and_what_failed(report: Path) -> None:
    text = (report / "README.md").read_text()
    runs = json.loads((report.parent / "runs.json").read_text())
    good = next(run for run in runs["runs"] if run["case"] == "good")
    lines = reversed(text.splitlines())  # of two rows with one name the first
    rows = {line.split("|")[1].strip(): line for line in lines if line.startswith("|")}
    assert f"{good['wall_s']:.1f}" in rows["good"] and "72 x 60 x 55" in rows["good"]
    assert "failed" in rows["broken"]
    assert "| 27.73 | - |" in rows["512 x 512 x 55"]  # as many slices, but another size
    assert "100.00" in rows["liver"] and "88.59" in rows["paper"]
    assert "| good | 0 of 0 | 0 of 0 | 0 | 0 | 0.0 |" in text, "no tumour, and none that is false"
    assert runs["host"]["commit"] in text and "1 of 2 cases within 15 s" in text
    for figure in ("slices", "stages", "memory"):
        assert f"]({figure}.png)" in text and (report / f"{figure}.png").stat().st_size > 5000


def test_a_case_of_the_papers_size_stands_beside_the_papers() -> None:
    gpu = {"max_mb": 900.0, "flare_area_mb_s": 4000.0}
    runs = [run_of("x", wall, gpu_memory=gpu) for wall in (3.0, 2.0, 7.0)]
    table = _table_5([CaseRuns("x", 100, "512 x 512 x 100", runs, 0), CaseRuns("y", 55, "512 x 400 x 55", runs, 0)])
    assert table[2] == ["512 x 512 x 100", "27.58", "3.00", "2538", "900", "25422", "4000"]
    assert table[1][2] == "-"


@pytest.mark.slow
def test_the_page_opens_in_a_browser_and_needs_no_other_file(report: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is installed")
    page = tmp_path / "index.html"
    shutil.copy(report / "index.html", page)  # alone: its pictures are in it
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    shown = subprocess.run(
        [*command, "--dump-dom", "--virtual-time-budget=2000", page.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    ).stdout  # fmt: skip
    assert shown.count("<table>") == 5 and shown.count("<img") == 3
    picture = tmp_path / "page.png"
    size = "--window-size=1200,3400"
    subprocess.run(
        [*command, size, f"--screenshot={picture}", page.as_uri()], capture_output=True, check=True, timeout=120
    )
    seen = matplotlib.image.imread(picture)
    assert seen.shape[:2] == (3400, 1200)
    blue = (seen[..., 2] > seen[..., 0] + 0.2).mean()  # the curves and bars of the three figures
    assert blue > 0.001  # how much of it depends on the times of the runs


def test_sizes_keep_the_extent_and_the_anatomy(save_scan: Callable[..., Path], tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(0, 110, 10, dtype=np.int16)[:, None, None], (11, 4, 5))
    scan = save_scan(tmp_path / "ramp.nii.gz", ramp, (3.0, 1.0, 1.0), "LPI")
    make_sizes(scan, tmp_path, (6, 21))
    for count, spacing in ((6, 6.0), (21, 1.5)):
        image = nib.load(tmp_path / f"slices_{count:03d}_0000.nii.gz")
        assert image.shape == (5, 4, count)
        assert image.header.get_zooms()[2] == pytest.approx(spacing)
        column = np.asarray(image.dataobj)[0, 0]
        assert column.tolist() == np.linspace(100, 0, count).tolist()  # LPI: the file's first slice is the highest


def test_growth_is_the_line_through_the_medians() -> None:
    runs = [run_of(f"slices_{n:03d}", 2 + 0.01 * n + off, 500 + n) for n in (100, 200, 400) for off in (0, 0.001, 9)]
    found = growth(runs_of(runs))
    assert found["seconds"] == pytest.approx([2.001, 0.01], abs=1e-4)
    assert found["memory_mb"] == pytest.approx([500, 1])
    with pytest.raises(ValueError, match="two sizes"):
        growth(runs_of(runs[:3]))


def test_what_is_no_result_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"format": "other"}')
    done = benchmark("report", tmp_path / "other.json", "--out", tmp_path / "report")
    assert done.returncode == 1 and "other.json holds no runs" in done.stderr
    done = benchmark("compare", tmp_path / "other.json", tmp_path / "other.json")
    assert done.returncode == 1 and "other.json holds no runs" in done.stderr


def test_nothing_but_earlier_results_is_written_over(tmp_path: Path) -> None:
    other, out = tmp_path / "dataset.json", tmp_path / "out"
    other.write_text('{"labels": {}}')
    for program in (("run", "--cases", tmp_path), ("score", "--pred", tmp_path, "--ref", tmp_path)):
        done = benchmark(*program, "--out", other)
        assert done.returncode == 2 and "dataset.json exists already and was not written" in done.stderr
    assert other.read_text() == '{"labels": {}}'

    runs = runs_of([run_of("a", 1.0, exit_code=1, samples={"gpu": None})])
    for _ in range(2):  # an earlier report makes room for the next
        build(runs, None, out)
    (out / "README.md").write_text("My project\n")
    with pytest.raises(OutputError, match="README.md exists already and was not written by this program"):
        build(runs, None, out)
    assert (out / "README.md").read_text() == "My project\n"
