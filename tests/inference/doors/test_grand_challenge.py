"""The platform Grand Challenge, played: a process that is asked over loopback, and one that runs once."""

from __future__ import annotations

import http.client
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

import numpy as np
import pytest

from inference.doors import grand_challenge
from inference.errors import ScanError
from inference.predictor import Predictor
from tests.conftest import ROOT

sitk = pytest.importorskip("SimpleITK")


def socket(slug: str, place: str, image: bool = True) -> dict[str, Any]:
    """An entry of inputs.json with the fields of the platform's own example."""
    about = {"slug": slug, "relative_path": place, "is_image_kind": image, "is_json_kind": not image}
    return {"socket": about, "file": None, "image": {"name": "x"} if image else None, "value": None if image else 42}


@pytest.fixture
def root(tmp_path: Path, blob: np.ndarray, tiny_weights: Path) -> Path:
    """Where the platform puts a case, and the model that was uploaded."""
    place = tmp_path / "input" / "images" / "ct"
    place.mkdir(parents=True)
    (tmp_path / "output").mkdir()
    (tmp_path / "opt" / "ml").mkdir(parents=True)
    (tmp_path / "opt" / "ml" / "model").symlink_to(tiny_weights)
    image = sitk.GetImageFromArray(blob)
    image.SetSpacing((2.0, 2.0, 3.0))
    image.SetOrigin((-250.00999512345, 17.1, -1240.7512345678))
    image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    sitk.WriteImage(image, str(place / "1f2e.mha"), useCompression=True)
    entries = [socket("ct-image", "images/ct"), socket("age-in-months", "age-in-months.json", image=False)]
    (tmp_path / "input" / "inputs.json").write_text(json.dumps(entries))
    return tmp_path


def program(*arguments: str | Path) -> list[str | Path]:
    return [sys.executable, "-m", "inference.doors.grand_challenge", *arguments]


def asked(
    port: int,
    method: str,
    path: str,
    body: bytes | Iterator[bytes] | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


class Platform:
    """A server that has been started."""

    def __init__(self, root: Path, *flags: str) -> None:
        self.process = subprocess.Popen(
            program("invoke", "--root", root, "--port", "0", *flags),
            cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stdout
        said = self.process.stdout.readline()
        assert said.startswith("port "), self.process.communicate()
        self.port = int(said.split()[1].rstrip(":"))

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
        return asked(self.port, method, path, body)


@pytest.fixture
def platform(root: Path) -> Iterator[Platform]:
    started = Platform(root, "--output", "images/organs")
    yield started
    started.process.kill()
    started.process.communicate()


@pytest.mark.slow
def test_a_server_that_is_asked_as_the_platform_asks(platform: Platform, root: Path, tiny_weights: Path) -> None:
    assert platform.ask("GET", "/health") == (200, "")
    assert platform.ask("GET", "/")[0] == platform.ask("POST", "/health")[0] == 404
    output = root / "output" / "images" / "organs"
    with ThreadPoolExecutor(1) as pool:
        invoked = pool.submit(platform.ask, "POST", "/invoke", b"{}")
        assert platform.ask("GET", "/health") == (200, "") and not invoked.done()  # health is told meanwhile
        assert invoked.result() == (201, "")
    assert os.listdir(root / "output") == ["images"] and os.listdir(output) == ["1f2e.mha"]
    labels, scan = (
        sitk.ReadImage(str(path)) for path in (output / "1f2e.mha", root / "input" / "images" / "ct" / "1f2e.mha")
    )
    assert (labels.GetOrigin(), labels.GetSpacing(), labels.GetDirection()) == (
        scan.GetOrigin(), scan.GetSpacing(), scan.GetDirection(),
    )  # fmt: skip
    hu = sitk.GetArrayFromImage(scan)
    affine = np.diag([-1.0, -1, 1, 1])
    affine[:3, :3] = affine[:3, :3] @ np.reshape(scan.GetDirection(), (3, 3)) @ np.diag(scan.GetSpacing())
    affine[:3, 3] = np.array(scan.GetOrigin()) * [-1, -1, 1]
    expected = Predictor(tiny_weights)(hu, affine=affine)
    assert np.array_equal(sitk.GetArrayFromImage(labels), expected) and expected.any()

    # The next case is damaged: it is told why, no label map of another is left, and the server goes on.
    (root / "input" / "images" / "ct" / "1f2e.mha").rename(root / "whole")
    (root / "input" / "images" / "ct" / "aa.mha").write_bytes((root / "whole").read_bytes()[:-50])
    status, why = platform.ask("POST", "/invoke")
    assert status == 500 and why.startswith("aa.mha is cut off") and os.listdir(output) == []
    (root / "whole").rename(root / "input" / "images" / "ct" / "aa.mha")
    assert platform.ask("POST", "/invoke")[0] == 201 and os.listdir(output) == ["aa.mha"]

    platform.process.send_signal(signal.SIGTERM)
    said, complained = platform.process.communicate(timeout=60)
    assert platform.process.returncode == 143
    assert said.count("segmented") == 2 and "error: aa.mha is cut off" in complained and "Traceback" not in complained


@pytest.mark.slow
def test_a_program_that_runs_once(root: Path) -> None:
    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(program("exec", "--root", root), cwd=ROOT, text=True, capture_output=True, check=False)

    done = run()
    assert done.returncode == 0, done.stderr
    assert os.listdir(root / "output" / "images" / "segmentation") == ["1f2e.mha"]
    (root / "input" / "inputs.json").unlink()
    done = run()
    assert done.returncode == 4 and done.stderr == "error: inputs.json cannot be read: No such file or directory\n"
    (root / "opt" / "ml" / "model").unlink()
    (root / "opt" / "ml" / "model").mkdir()
    (root / "opt" / "ml" / "model" / "README").touch()
    done = run()  # a model that holds no network is not replaced in silence
    assert done.returncode == 9 and done.stderr.startswith("error: ")


class Broken(grand_challenge.Algorithm):
    """One with a fault that nobody thought of."""

    spent = False

    def __init__(self) -> None:
        super().__init__(None, Path(), Path())  # type: ignore[arg-type]

    def _segment(self) -> str | None:
        raise ValueError("embedded null byte")


class Slow(Broken):
    """One whose caller may be gone when it has its answer."""

    spent = True

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.alone = threading.Event(), threading.Event()

    def _segment(self) -> str | None:
        self.begun.set()
        self.alone.wait(60)
        return super()._segment()


@pytest.fixture
def port() -> Iterator[int]:
    """Of a server in this process."""
    with grand_challenge.server(Broken(), 0) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield int(listening.server_port)
        listening.shutdown()
        thread.join()


def test_an_error_of_any_kind_is_an_answer(port: int, capfd: pytest.CaptureFixture[str]) -> None:
    assert asked(port, "POST", "/invoke") == (500, "internal error: ValueError: embedded null byte")
    assert "\nerror: internal error: ValueError: embedded null byte\n" in capfd.readouterr().err


def test_a_server_that_may_have_lost_its_gpu_answers_and_ends() -> None:
    algorithm = Broken()
    algorithm.spent = True
    with grand_challenge.server(algorithm, 0) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        assert asked(listening.server_port, "GET", "/health") == (200, "") and thread.is_alive()
        assert asked(listening.server_port, "POST", "/invoke")[0] == 500
        thread.join(60)
        assert not thread.is_alive()


def test_a_server_that_may_have_lost_its_gpu_ends_although_nobody_waits_for_its_answer() -> None:
    algorithm = Slow()
    with grand_challenge.server(algorithm, 0) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        with closing(http.client.HTTPConnection("127.0.0.1", listening.server_port, timeout=60)) as connection:
            connection.request("POST", "/invoke")
            assert algorithm.begun.wait(60)
            connection.sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))  # resets when it is closed
        algorithm.alone.set()
        thread.join(60)
        ended = not thread.is_alive()
        listening.shutdown()
        assert ended


def test_a_body_that_is_not_read_is_refused(port: int) -> None:
    for body in (b"x" * (3 << 20), iter([b"x" * 100])):  # the latter is sent in chunks
        status, why = asked(port, "POST", "/invoke", body)
        assert status == 413 and "1,048,576 bytes" in why
    for length in ("-1", "x", "9" * 5000):
        assert asked(port, "POST", "/invoke", headers={"Content-Length": length})[0] == 413
    assert asked(port, "POST", "/invoke", b"x" * (1 << 20))[0] == 500  # read, and the case is tried


def test_which_images_are_taken(root: Path) -> None:
    inputs = root / "input"
    only = inputs / "images" / "ct" / "1f2e.mha"
    assert grand_challenge.images(inputs) == grand_challenge.images(inputs, ["ct-image"]) == [only]
    two = [socket("ct-image", "images/ct"), socket("pet-image", "images/pet")]
    (inputs / "inputs.json").write_text(json.dumps(two))
    (inputs / "images" / "pet").mkdir()
    other = inputs / "images" / "pet" / "2.mha"
    other.touch()
    assert grand_challenge.images(inputs, ["pet-image", "ct-image"]) == [other, only]


@pytest.mark.parametrize(
    ("entries", "sockets", "cause"),
    [
        ([], (), "inputs.json has 0 images"),
        ([socket("a", "images/ct"), socket("b", "images/ct")], (), "inputs.json has 2 images"),
        ([socket("a", "images/ct")], ["b"], "inputs.json has no image b, only: a"),
        ([socket("a", "../etc")], (), "outside of /input"),
        ([socket("a", "/etc")], (), "outside of /input"),
        ([socket("a", "images/ct\0")], (), "outside of /input"),
        ([socket("a", "images/mr")], (), "images/mr cannot be opened: No such file"),
        ([socket("a", "images")], (), "images holds 0 images"),
        ([{"slug": "a"}], (), "not a list of sockets"),
        ({"a": 1}, (), "not a list of sockets"),
        (3, (), "not a list of sockets"),
    ],
)
def test_what_is_no_case_is_refused(entries: Any, sockets: tuple[str, ...], cause: str, root: Path) -> None:
    (root / "input" / "inputs.json").write_text(json.dumps(entries))
    with pytest.raises(ScanError, match=cause):
        grand_challenge.images(root / "input", sockets)
