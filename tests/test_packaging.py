"""The files around the code: what goes into the image, what locks agree on, how predict.sh behaves."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
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


def test_what_training_and_measuring_import_needs_no_torchvision() -> None:
    for package in ("torch", "nnunetv2", "nncf", "monai"):
        pytest.importorskip(package)
    program = """
import sys
sys.modules["torchvision"] = sys.modules["timm"] = None  # as if they were not installed
import nnunetv2.inference.predict_from_raw_data
import nncf
import benchmark.monai_peer
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


def test_scripts_can_be_run() -> None:
    for path in (ROOT / "predict.sh", ROOT / ".ci" / "run", ROOT / ".ci" / "container"):
        assert os.access(path, os.X_OK)
        assert b"\r" not in path.read_bytes()
