"""What installing Viscera puts where: wheel and source distribution, each in an environment without other packages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import nibabel as nib
import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PYTHON = """
import sys
from pathlib import Path
from viscera import Predictor, read_scan, segment_file, write_labels

predictor = Predictor(threads=1)
assert segment_file(predictor, sys.argv[1], sys.argv[2]).status == "done"
file = Path(sys.argv[2]) / "x.nii.gz"
scan = read_scan(sys.argv[1])
write_labels(Path(sys.argv[2]) / "again.nii.gz", predictor(scan.voxels, scan.grid.spacing, scan.grid.orientation), scan)
assert file.read_bytes() == file.with_name("again.nii.gz").read_bytes()
"""

slow = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    """What a program said that knows of no package but those of its environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(*folders: str) -> list[str]:
    """Of this checkout, but for those that git ignores."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *folders, cwd=ROOT)
    return [name for name in listed.split("\0") if (ROOT / name).is_file()]


def build(what: str, source: Path, into: Path) -> Path:
    """A "wheel" or an "sdist" of a folder, by the setuptools of this environment: no network is needed."""
    program = "import sys\nfrom setuptools import build_meta\ngetattr(build_meta, 'build_' + sys.argv[1])(sys.argv[2])"
    run(sys.executable, "-c", program, what, into, cwd=source)
    (made,) = into.iterdir()
    return made


def lend(folder: Path, names: Iterable[str]) -> None:
    """Put links to packages of this environment, and to what these need, into a folder."""
    folder.mkdir()
    left, seen = list(names), set()
    while left:
        wanted = Requirement(left.pop())
        if wanted.name in seen or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        seen.add(wanted.name)
        lent = distribution(wanted.name)
        left += lent.requires or []
        for name in {file.parts[0] for file in lent.files or []} - {"..", "__pycache__"}:
            (folder / name).symlink_to(str(lent.locate_file(name)))


class Environment:
    """A new environment without any package, into which one is installed. What it depends on is lent."""

    def __init__(self, folder: Path, *install: str | Path) -> None:
        self.folder = folder
        run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
        (self.packages,) = (folder / "venv").glob("lib/python*/site-packages")
        lend(folder / "lent", [*PROJECT["project"]["dependencies"], "setuptools"])  # the last for `pip install -e`
        (self.packages / "lent.pth").write_text(f"{folder / 'lent'}\n")
        before = set(self.packages.iterdir())
        options = ["--no-index", "--no-deps", "--no-build-isolation", "--quiet"]
        run(sys.executable, "-m", "pip", "--python", self.program("python"), "install", *options, *install, cwd=folder)
        self.landed = {path.name for path in set(self.packages.iterdir()) - before}

    def program(self, name: str) -> Path:
        return self.folder / "venv" / "bin" / name

    def segment(self, scan: Path, *command: str | Path) -> bytes:
        """The label map of a scan, by a command that INPUTS and OUTPUTS are added to."""
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        run(*command, scan, out, cwd=self.folder)
        return (out / "x.nii.gz").read_bytes()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout, since building leaves folders behind."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", checkout, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", checkout, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A third of the sample."""
    path = tmp_path_factory.mktemp("scan") / "x_0000.nii.gz"
    nib.save(nib.load(ROOT / "docs" / "sample" / "HCC_048_0000.nii.gz").slicer[:, :, 30:62], path)
    return path


@pytest.fixture(scope="module")
def labels(scan: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Of the scan, by the checkout."""
    out = tmp_path_factory.mktemp("labels")
    run(sys.executable, "-m", "inference", scan, out, "--threads", "1", cwd=ROOT)
    return (out / "x.nii.gz").read_bytes()


def test_every_folder_of_the_program_and_every_network_is_a_package() -> None:
    code = {"viscera", *("viscera." + ".".join(p.parts[:-1]) for p in relative("inference", "*.py") if p.parts[:-1])}
    networks = {"viscera.weights." + path.parts[0] for path in relative("weights", "card.json")}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == code | networks | {"viscera.weights"}


def relative(folder: str, pattern: str) -> list[Path]:
    return [path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob(pattern)]


@slow
def test_the_wheel_holds_the_program_and_its_weights_and_nothing_else(wheel: Path) -> None:
    expected = {f"viscera/{name.removeprefix('inference/')}" for name in files("inference", "weights")}
    with ZipFile(wheel) as opened:
        names = {name for name in opened.namelist() if ".dist-info/" not in name}
        assert names == expected
        for name in names:
            inside = name.removeprefix("viscera/")
            source = ROOT / inside if inside.startswith("weights/") else ROOT / "inference" / inside
            assert opened.read(name) == source.read_bytes(), name
    assert re.fullmatch(r"viscera-[\d.]+-py3-none-any\.whl", wheel.name)


@slow
def test_the_source_distribution_builds_the_same_wheel(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(sdist, tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    assert not {"training", "benchmark", "tests", "docs"} & {path.name for path in source.iterdir()}
    (tmp_path / "wheel").mkdir()
    assert contents(wheel) == contents(build("wheel", source, tmp_path / "wheel"))


def contents(wheel: Path) -> dict[str, bytes]:
    with ZipFile(wheel) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


@slow
def test_the_wheel_in_an_empty_environment(wheel: Path, scan: Path, labels: bytes, tmp_path: Path) -> None:
    environment = Environment(tmp_path, wheel)
    python = environment.program("python")
    assert environment.landed == {"viscera", f"{wheel.name.split('-py3')[0]}.dist-info"}
    assert {path.name for path in environment.program("").iterdir() if "viscera" in path.name} == {"viscera"}
    assert environment.segment(scan, environment.program("viscera"), "--threads", "1") == labels
    assert environment.segment(scan, python, "-m", "viscera", "--threads", "1") == labels
    assert environment.segment(scan, python, "-c", PYTHON) == labels
    assert run(environment.program("viscera"), "--help", cwd=tmp_path).startswith(
        "usage: viscera INPUTS OUTPUTS [flags]"
    )
    assert run(python, "-m", "viscera", "--help", cwd=tmp_path).startswith(
        "usage: python -m viscera INPUTS OUTPUTS [flags]"
    )
    for program in ("export", "export.tune", "export.quantize", "export.back"):  # without the extra: a sentence
        needy = subprocess.run(
            [python, "-m", f"viscera.{program}", "m", "n"], capture_output=True, text=True, cwd=tmp_path
        )
        assert needy.returncode == 1
        assert re.fullmatch(
            r"error: the exporter needs the extra export, .*: nnunetv2, onnx, torch; .*\n", needy.stderr
        )
    version = run(environment.program("viscera"), "--version", cwd=tmp_path)
    assert version == f"viscera {wheel.name.split('-')[1]}\n"


@slow
def test_the_source_distribution_in_an_empty_environment(
    sdist: Path, scan: Path, labels: bytes, tmp_path: Path
) -> None:
    environment = Environment(tmp_path, sdist)
    assert environment.landed == {"viscera", f"{sdist.name.removesuffix('.tar.gz')}.dist-info"}
    assert environment.segment(scan, environment.program("viscera"), "--threads", "1") == labels


@slow
def test_an_editable_install_runs_the_checkout(checkout: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path, "-e", checkout)
    program = "import viscera\nprint(viscera.__file__, viscera.Predictor(threads=1).cards[0].folder)"
    where = run(environment.program("python"), "-c", program, cwd=tmp_path)
    assert where == f"{checkout / 'inference' / '__init__.py'} {checkout / 'weights' / 'unified'}\n"
    assert run(environment.program("viscera"), "--version", cwd=tmp_path).startswith("viscera ")
