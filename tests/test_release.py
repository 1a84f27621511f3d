"""The sealed folder for closed networks. .ci/release makes and installs a whole one."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def release() -> Iterator[Any]:
    """The program; it stands beside environment.py and imports it."""
    path = ROOT / "requirements" / "release.py"
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location("release_program", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(path.parent))


@pytest.fixture
def folder(release: Any, tmp_path: Path) -> Path:
    """With two wheels that hold nothing, for Python 2.7."""
    wheels = tmp_path / "release" / "wheels"
    wheels.mkdir(parents=True)
    for name, version in (("Viscera", "1.0"), ("Some.Thing", "2")):
        with ZipFile(wheels / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}-{version}.dist-info/METADATA", f"Name: {name}\nVersion: {version}\n\nText\n")
            wheel.writestr("vendored/other-3.dist-info/METADATA", "Name: other\nVersion: 3\n")
    (wheels.parent / "install.sh").write_text(release.INSTALL.replace("@PYTHONS@", "2.7"))
    release.seal(wheels.parent)
    return wheels.parent


def install(folder: Path, tmp_path: Path) -> tuple[int, str]:
    environment = {"PATH": os.environ["PATH"], "PYTHON": sys.executable}
    command = ["sh", str(folder / "install.sh"), str(tmp_path / "into")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert not (tmp_path / "into").exists()
    return done.returncode, done.stderr


def test_the_list_of_wheels(release: Any, folder: Path) -> None:
    listed = release.sbom(folder / "wheels")
    assert [(one["type"], one["name"], one["version"]) for one in listed["components"]] == [
        ("library", "some.thing", "2"),
        ("application", "viscera", "1.0"),
    ]
    wheel = (folder / "wheels" / "Viscera-1.0-py3-none-any.whl").read_bytes()
    assert listed["components"][1]["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(wheel).hexdigest()}]


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_folder_installs_nothing(damage: str, folder: Path, tmp_path: Path) -> None:
    wheel = folder / "wheels" / "Some.Thing-2-py3-none-any.whl"
    if damage == "changed":
        content = bytearray(wheel.read_bytes())
        content[50] ^= 1
        wheel.write_bytes(content)
    else:
        wheel.unlink()
    code, said = install(folder, tmp_path)
    assert code == 1
    assert f"error: a file in {folder} is damaged or missing: nothing was installed\n" in said


def test_another_python_is_named(folder: Path, tmp_path: Path) -> None:
    code, said = install(folder, tmp_path)
    version = ".".join(map(str, sys.version_info[:2]))
    assert code == 1
    assert said == (f"error: this folder holds wheels for Python 2.7, and {sys.executable} is {version}: set PYTHON\n")


def test_a_folder_that_is_there_stays(release: Any, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "requirements" / "release.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"error: {tmp_path} exists: remove it, or give another folder\n"
