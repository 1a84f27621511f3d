"""What a process imports, proved in processes of their own."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import inference
from inference.options import ENGINES
from tests.conftest import ROOT

HEAVY = {
    *ENGINES,
    "dask",
    "distributed",
    "numpy",
    "nibabel",
    "scipy",
    "SimpleITK",
    "onnx",
    "nnunetv2",
    "training",
    "tqdm",
}


def imported(program: str, *arguments: str | Path) -> set[str]:
    """Top-level names in sys.modules after `program` ran with `arguments`."""
    report = "\nimport json, sys; print('\\n' + json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", program + report, *arguments], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_help_imports_nothing_heavy() -> None:
    program = "import sys\nfrom inference.command.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    assert not imported(program) & HEAVY


def test_the_package_is_light_until_it_is_used() -> None:
    assert not imported("import inference") & HEAVY


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_imports_its_engine_and_no_other(
    engine: str, tmp_path: Path, blob: np.ndarray, save_scan: Callable[..., Path], tiny_weights: Path
) -> None:
    pytest.importorskip(engine)
    scan = save_scan(tmp_path / "x_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    flags = (scan, tmp_path / "out", "--weights", tiny_weights, "--device", "cpu", "--engine", engine, "--threads", "1")
    # The supervisor, which stays beside the worker, imports none of it.
    names = imported("import sys\nfrom inference.command.cli import main\nassert main(sys.argv[1:]) == 0", *flags)
    assert not names & HEAVY
    worker = (
        "import sys\nfrom pathlib import Path\nfrom inference.command.cli import parse\n"
        "from inference.formats.cases import Case\n"
        "from inference.command.worker import Worker\nfrom inference.options import DENSE\n"
        "request = parse(sys.argv[1:])\n"
        "case = Case('x', (request.inputs,), (request.outputs / 'again.nii.gz',))\n"
        "record = Worker(request.options, lambda message: None, lambda: None).segment(case, (DENSE, DENSE))\n"
        "assert record.status == 'done', record"
    )
    names = imported(worker, *flags)
    assert engine in names
    assert not names & (set(ENGINES) - {engine})
    assert not names & {"SimpleITK", "nnunetv2", "training"}  # nibabel takes SciPy where it is installed


def test_a_worker_starts_without_what_libraries_import_for_others() -> None:
    pytest.importorskip("openvino")
    lean = "from inference.engines.lean import start_lean; start_lean(); import openvino, inference.predictor"
    assert imported("import openvino, nibabel") >= {"pydicom", "openvino_telemetry"}
    assert not imported(lean) & {"pydicom", "openvino_telemetry"}
    assert "pydicom" in imported(f"{lean}; from inference.formats.dicom import read")
    assert imported(f"import pydicom, openvino; {lean}") >= {"pydicom", "openvino_telemetry"}


def test_public_names_are_sorted_and_there_and_typed() -> None:
    assert inference.__all__ == sorted(inference.__all__)
    assert set(inference.__all__) <= set(dir(inference))
    for name in inference.__all__:
        assert getattr(inference, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'predict'"):
        inference.predict  # noqa: B018
    tree = ast.parse(Path(inference.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 1]
    typed = {alias.name for node in imports for alias in node.names}  # what type checkers see
    assert typed == set(inference.__all__)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_no_engine_reports_its_use(engine: str, tmp_path: Path, tiny_weights: Path) -> None:
    """ONNX Runtime and OpenVINO can; each would first keep a number for the machine under its home."""
    pytest.importorskip(engine)
    program = (
        "import sys\nfrom pathlib import Path\nfrom inference.card_file import read_card\n"
        "from inference.engines.choose import choose, load\n"
        "load(choose('cpu', sys.argv[1], 'f32'), read_card(Path(sys.argv[2])), 1)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    environment |= {"HOME": str(tmp_path)}
    subprocess.run(
        [sys.executable, "-c", program, engine, tiny_weights / "organ"], check=True, cwd=ROOT, env=environment
    )
    assert list(tmp_path.iterdir()) == []


def test_thread_variables_are_set_in_the_worker_before_numpy_is_there() -> None:
    program = (
        "import os, sys\nfrom inference.command import cli, worker\n"
        "request = cli.parse(['a', 'b', '--threads', '3'])\n"
        "def start():\n"
        "    assert os.environ['OMP_NUM_THREADS'] == '3' and 'numpy' not in sys.modules\n"
        "    assert os.environ['OPENBLAS_NUM_THREADS'] == '1'\n    os._exit(7)\n"
        "worker.start_lean = start\nworker.serve(0, 1, request.options)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 7, done.stderr
