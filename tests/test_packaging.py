"""The files around the code: what goes into the image, what locks agree on, how predict.sh behaves."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, processor_seconds

REQUIREMENTS = ROOT / "requirements"


def pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==([\w.+]+)", path.read_text(), re.MULTILINE))


def test_the_locks_agree_where_they_name_the_same_package() -> None:
    cpu, gpu, dev = (
        pins(path) for path in (ROOT / "requirements.txt", REQUIREMENTS / "gpu.txt", REQUIREMENTS / "dev.txt")
    )
    assert cpu["openvino"] == gpu["openvino"]
    for other in (gpu, dev):
        assert {name: other[name] for name in cpu.keys() & other.keys()} == {
            name: cpu[name] for name in cpu.keys() & other.keys()
        }


@pytest.mark.parametrize("lock", [ROOT / "requirements.txt", REQUIREMENTS / "gpu.txt"], ids=lambda path: path.name)
def test_what_goes_into_an_image_is_hashed_and_has_no_torch(lock: Path) -> None:
    entries = re.split(r"\n(?=\S)", lock.read_text())
    packages = [entry for entry in entries if "==" in entry.split("\n")[0]]
    assert packages
    assert all("--hash=sha256:" in entry for entry in packages)
    assert "torch" not in pins(lock)


def test_torchvision_fits_torch_or_is_not_there() -> None:
    """PyPI's beside a CPU build of torch cannot be imported; MONAI and nnU-Net then die where they would do without."""
    pytest.importorskip("torch")
    assert not {"torchvision", "timm"} & pins(REQUIREMENTS / "dev.txt").keys()
    done = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, text=True, check=False)
    said = done.stderr.strip().splitlines()[-1:]
    assert done.returncode == 0 or said == ["ModuleNotFoundError: No module named 'torchvision'"]


@pytest.mark.slow
def test_what_training_and_measuring_import_needs_no_torchvision() -> None:
    for package in ("torch", "nnunetv2", "nncf", "monai"):
        pytest.importorskip(package)
    program = """
import sys
sys.modules["torchvision"] = sys.modules["timm"] = None  # as if they were not installed
import nnunetv2.inference.predict_from_raw_data
import nncf
import monai.inferers, monai.transforms
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_the_image_takes_only_what_it_names() -> None:
    first, *kept = (ROOT / ".dockerignore").read_text().split()
    assert first == "*"
    copied = {
        word.split("/")[0]
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY") and "--from" not in line
        for word in line.split()[1:-1]
    }
    assert copied == {name.removeprefix("!") for name in kept if name.startswith("!")} - {"requirements"} | {
        "requirements"
    }


def test_predict_sh_without_outputs_says_what_to_mount() -> None:
    if Path("/workspace/outputs").exists() or Path("/outputs").exists():
        pytest.skip("this machine has a folder of outputs at its root")
    done = subprocess.run(["sh", ROOT / "predict.sh"], capture_output=True, text=True, check=False)
    assert done.returncode == 7
    assert done.stderr.startswith("error: there is no folder /")
    assert done.stderr.count("\n") == 1


OWNER = 12345
# Takes the place of python3: reads every scan, replaces an earlier label map as the program does, says who it is.
STUB = """#!/bin/sh
cat "$3"/*.nii.gz >/dev/null || exit 1
echo new >"$4/.part" && mv -f "$4/.part" "$4/a.nii.gz" && id -u
"""


@pytest.fixture
def workspace() -> Iterator[Path]:
    """What the container has in /workspace: predict.sh, inputs that all may read, outputs of OWNER's, weights."""
    if os.getuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root can become another user, by setpriv")
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        folder = Path(name)
        folder.chmod(0o755)
        for part in ("inputs", "outputs", "weights/organ", "bin"):
            (folder / part).mkdir(parents=True)
        (folder / "predict.sh").write_text((ROOT / "predict.sh").read_text().replace("/workspace", name))
        (folder / "bin" / "python3").write_text(STUB)
        (folder / "bin" / "python3").chmod(0o755)
        for path in ("inputs/a_0000.nii.gz", "inputs/b_0000.nii.gz", "weights/organ/card.json", "outputs/a.nii.gz"):
            (folder / path).write_text("old")
        os.chown(folder / "outputs", OWNER, OWNER)
        yield folder


def predict(workspace: Path, *before: str) -> tuple[int, str]:
    """The user that the program ran as, and what predict.sh said."""
    command = [*before, "dash" if shutil.which("dash") else "sh", str(workspace / "predict.sh")]
    path = f"{workspace / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": path})
    assert done.returncode == 0, done.stderr
    assert (workspace / "outputs" / "a.nii.gz").read_text() == "new\n"
    assert done.stderr.count("\n") <= 1
    return int(done.stdout), done.stderr


def test_predict_sh_as_root_becomes_the_owner_of_the_outputs(workspace: Path) -> None:
    """Also where root ran before, and beside what is no scan."""
    (workspace / "inputs" / "gone").symlink_to("nowhere")
    (workspace / "inputs" / ".hidden").touch(0o600)
    (workspace / "inputs" / "lost+found").mkdir(0o700)
    assert predict(workspace) == (OWNER, "")


def close_link(folder: Path) -> None:
    (folder / "closed").touch(0o600)
    (folder / "inputs" / "c_0000.nii.gz").symlink_to(folder / "closed")


@pytest.mark.parametrize(
    ("close", "why"),
    [
        (lambda folder: (folder / "inputs" / "b_0000.nii.gz").chmod(0o600), "may not read every file in"),
        (lambda folder: (folder / "inputs").chmod(0o700), "may not read every file in"),
        (lambda folder: (folder / "inputs").chmod(0o711), "may not read every file in"),
        (lambda folder: (folder / "inputs").chmod(0o744), "may not read every file in"),
        (close_link, "may not read every file in"),
        (lambda folder: (folder / "outputs" / "a.nii.gz").chmod(0o600), "may not read every file in"),
        (lambda folder: (folder / "outputs").chmod(0o555), "may not write there"),
        (lambda folder: (folder / "outputs").chmod(0o666), "may not write there"),
        (lambda folder: (folder / "weights" / "organ" / "card.json").chmod(0o600), "may not read the weights"),
        (lambda folder: (folder / "weights" / "organ").chmod(0o700), "may not read the weights"),
    ],
)
def test_predict_sh_stays_root_if_the_owner_could_not_do_the_work(
    close: Callable[[Path], object], why: str, workspace: Path
) -> None:
    close(workspace)
    user, said = predict(workspace)
    assert user == 0
    assert said.startswith(f"warning: running as root and not as user {OWNER}, who owns {workspace}/outputs: ")
    assert why in said and "_0000" not in said


def test_predict_sh_stays_root_where_users_cannot_be_changed(workspace: Path) -> None:
    user, said = predict(workspace, "setpriv", "--bounding-set", "-setuid,-setgid")
    assert user == 0 and "may not change users" in said


def test_predict_sh_starts_soon_with_thousands_of_scans(workspace: Path) -> None:
    for number in range(5000):
        os.link(workspace / "inputs" / "a_0000.nii.gz", workspace / "inputs" / f"{number}_0000.nii.gz")
    before = processor_seconds()
    assert predict(workspace) == (OWNER, "")
    assert processor_seconds() - before < 2


def test_an_environment_of_another_checkout_is_not_emptied_through_a_link(tmp_path: Path) -> None:
    own = tmp_path / "main" / ".venv"
    own.mkdir(parents=True)
    (own / "pyvenv.cfg").write_text("in use")
    link = tmp_path / ".venv"
    link.symlink_to(own)
    done = subprocess.run(
        [sys.executable, REQUIREMENTS / "environment.py", link], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == f"error: {link} is a link to {own}: remove the link, or set up that environment itself\n"
    assert (own / "pyvenv.cfg").read_text() == "in use"


def test_scripts_can_be_run() -> None:
    for path in (ROOT / "predict.sh", ROOT / ".ci" / "run", ROOT / ".ci" / "container"):
        assert os.access(path, os.X_OK)
        assert b"\r" not in path.read_bytes()
