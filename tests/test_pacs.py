"""A CT series into Orthanc, a real DICOM server, and its segmentation back, by the worker of docs/pacs.md."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest

from tests.conftest import ROOT, wait
from tests.made.ports import free_port

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")

from tests.made.ct import SERIES, STUDY, ct_series  # noqa: E402  # needs pydicom


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """The address of a server's REST interface, and its DICOM port."""
    program = shutil.which("Orthanc") or pytest.skip("Orthanc is not installed: apt-get install orthanc")
    if not shutil.which("storescu"):
        pytest.skip("DCMTK's storescu is not installed: apt-get install dcmtk")
    http, dicom = free_port(), free_port()
    (tmp_path / "orthanc.json").write_text(
        json.dumps(
            {
                "StorageDirectory": str(tmp_path / "storage"),
                "IndexDirectory": str(tmp_path / "storage"),
                "HttpPort": http,
                "DicomPort": dicom,
                "DicomAet": "ORTHANC",
                "AuthenticationEnabled": False,
                "StableAge": 1,
                "Plugins": [],
            }
        )
    )
    with (tmp_path / "orthanc.log").open("w") as log:
        server = subprocess.Popen([program, tmp_path / "orthanc.json"], stdout=log, stderr=log)
        address = f"http://127.0.0.1:{http}"
        try:
            for _ in range(300):
                try:
                    ask(address, "/system")
                    break
                except OSError:  # nobody listens yet, or nobody answers
                    time.sleep(0.1)
            else:
                pytest.fail((tmp_path / "orthanc.log").read_text())
            yield address, dicom
        finally:
            server.terminate()
            server.wait(30)


def ask(address: str, path: str) -> Any:
    with urlopen(address + path, timeout=10) as answer:
        data = answer.read()
    return data if path.endswith("/file") else json.loads(data)


@pytest.mark.parametrize(("status", "seen", "asked"), [(404, 2, "ab"), (503, None, "a"), (401, None, "a")])
def test_a_series_that_the_server_refuses_is_left_and_the_next_one_done(
    tmp_path: Path, status: int, seen: int | None, asked: str
) -> None:
    """Series a was deleted after the server told of it: Orthanc forgets that it told, so that a server of our own is
    asked. 401 and 503 are said of every series, and a is asked for again."""
    changes = [{"Seq": number, "ChangeType": "StableSeries", "ID": name} for number, name in ((1, "a"), (2, "b"))]
    about = {"MainDicomTags": {"Modality": "MR"}, "Instances": []}
    paths = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # http.server's name
            paths.append(self.path)
            told = {"Changes": changes, "Done": True} if self.path.startswith("/changes") else about
            self.send_response(status if self.path == "/series/a" else 200)
            self.end_headers()
            self.wfile.write(json.dumps(told).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address, state = f"http://127.0.0.1:{server.server_port}", tmp_path / "state"
        worker = [sys.executable, "docs/pacs/worker.py", address, "--once", "--state", str(state), "--", "false"]
        done = subprocess.run(worker, capture_output=True, text=True, check=False, cwd=ROOT)
        server.shutdown()
    assert done.returncode == 1 and f"HTTP Error {status}" in done.stderr and done.stderr.count("\n") == 1
    assert (int(state.read_text()) if state.exists() else None) == seen
    assert paths[1:] == [f"/series/{name}" for name in asked]


@pytest.mark.parametrize(("formats", "cause"), [("seg,sr,labelmap", "'labelmap' is not one of"), ("sr", "name seg")])
def test_formats_are_refused_before_any_series(formats: str, cause: str, tmp_path: Path) -> None:
    state = tmp_path / "state"
    worker = [sys.executable, "docs/pacs/worker.py", "http://127.0.0.1:1", "--state", str(state), "--formats", formats]
    done = subprocess.run([*worker, "--", "false"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2 and cause in done.stderr and not state.exists()


@pytest.mark.slow
def test_a_series_goes_in_and_its_segmentation_is_found_in_the_same_study(
    orthanc: tuple[str, int], blob: np.ndarray, tmp_path: Path, tiny_weights: Path
) -> None:
    address, port = orthanc
    files = ct_series(tmp_path / "s", blob, spacing=(3.0, 2.0, 2.0))
    subprocess.run(["storescu", "-aec", "ORTHANC", "127.0.0.1", str(port), *map(str, files)], check=True)

    def is_complete() -> bool:
        """Once nothing has come for a second; that may have been so on the way as well."""
        told = any(one["ChangeType"] == "StableSeries" for one in ask(address, "/changes?limit=1000")["Changes"])
        return told and all(ask(address, f"/series/{one}")["IsStable"] for one in ask(address, "/series"))

    wait(is_complete, "the series is not complete")
    command = [sys.executable, "-m", "inference", "--weights", str(tiny_weights), "--device", "cpu", "--threads", "1"]
    worker = [sys.executable, "docs/pacs/worker.py", address, "--once", "--state", str(tmp_path / "state")]

    def work() -> subprocess.CompletedProcess[str]:
        all_three = [*worker, "--formats", "seg,rtstruct,sr", "--", *command]
        return subprocess.run(all_three, capture_output=True, text=True, check=False, cwd=ROOT)

    done = work()
    assert done.returncode == 0 and "exit code 0, 3 sent" in done.stdout, done.stdout + done.stderr
    (study,) = ask(address, "/studies")
    assert ask(address, f"/studies/{study}")["MainDicomTags"]["StudyInstanceUID"] == STUDY
    found = {one["MainDicomTags"]["Modality"]: one for one in ask(address, f"/studies/{study}/series")}
    assert found.keys() == {"CT", "SEG", "RTSTRUCT", "SR"} and len(found["CT"]["Instances"]) == len(files)
    (instance,) = found["SEG"]["Instances"]
    (tmp_path / "back.dcm").write_bytes(ask(address, f"/instances/{instance}/file"))
    seg = pydicom.dcmread(tmp_path / "back.dcm")
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == SERIES and seg.PatientID == "P1"
    assert seg.pixel_array.any()

    # What was done is not done again; if it were, the server would get the same objects, and no others.
    assert "sent" not in work().stdout
    (tmp_path / "state").unlink()
    assert "exit code 0, 3 sent" in work().stdout
    assert len(ask(address, f"/studies/{study}/series")) == 4
    lost = subprocess.run([*worker[:2], "http://127.0.0.1:1", *worker[3:], "--", "x"], check=False, cwd=ROOT)
    assert lost.returncode == 1
