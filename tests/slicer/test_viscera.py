"""The logic of the module for 3D Slicer, without Slicer."""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.labels import structures
from tests.conftest import ROOT
from tests.made.networks import STRUCTURES

MODULE = ROOT / "slicer" / "Viscera" / "Viscera.py"
spec = importlib.util.spec_from_file_location("slicer_module", MODULE)
assert spec and spec.loader
module: Any = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)


@pytest.fixture
def command(tmp_path: Path) -> str:
    """The program as an install has it: a script that any environment can call."""
    path = tmp_path / "bin" / "viscera"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\ncd {ROOT} && exec {sys.executable} -m inference "$@"\n')
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def process(command: str) -> Iterator[Any]:
    made = module.VisceraProcess(command, {"PATH": "/usr/bin:/bin"})
    yield made
    made.clean()
    assert not os.path.exists(made.folder)


def watched(process: Any) -> list[float]:
    """What the bar showed until the end."""
    shown, end = [], time.monotonic() + 60
    while not process.ended:
        assert time.monotonic() < end
        process.poll()
        shown.append(process.fraction)
        time.sleep(0.05)
    return shown


def test_a_volume_becomes_a_segmentation_with_names_and_colours(
    process: Any, blob: np.ndarray, save_scan: Callable[..., Path], named_weights: Path
) -> None:
    slicerio = pytest.importorskip("slicerio")
    save_scan(Path(process.scan), blob, (3.0, 2.0, 2.0))
    process.start(["--weights", str(named_weights), "--networks", "organ", "--threads", "1"])
    shown = watched(process)
    assert process.error is None and process.message == "Done"
    assert shown == sorted(shown) and shown[-1] == 1.0
    assert any("look at twice" in text for text in process.warnings)
    segments = slicerio.read_segmentation(process.result)["segments"]
    assert [(one["name"], one["labelValue"]) for one in segments] == [
        (one.title, one.value) for one in structures(STRUCTURES)
    ]
    for segment, one in zip(segments, structures(STRUCTURES), strict=True):
        np.testing.assert_allclose(np.array(segment["color"]) * 255, one.colour, atol=0.01)


def test_what_went_wrong_is_one_sentence(process: Any, tmp_path: Path) -> None:
    Path(process.scan).write_bytes(b"no scan")
    process.start()
    watched(process)
    assert process.result is None
    assert process.error.startswith("scan_0000.nii is not NIfTI") and process.error.endswith("(exit code 4)")


def test_networks_that_are_not_there(process: Any, tmp_path: Path) -> None:
    Path(process.scan).write_bytes(b"no scan")
    process.start(["--weights", str(tmp_path / "none")])
    watched(process)
    assert str(tmp_path / "none") in process.error and process.error.endswith("(exit code 9)")


def test_stop_ends_the_program(
    process: Any, blob: np.ndarray, save_scan: Callable[..., Path], named_weights: Path
) -> None:
    save_scan(Path(process.scan), np.tile(blob, (6, 4, 4)), (3.0, 2.0, 2.0))  # would take minutes
    process.start(["--weights", str(named_weights), "--threads", "1", "--step", "0.1"])
    while not process.message.startswith("Segmenting"):
        process.poll()
        assert not process.ended, process.error
        time.sleep(0.05)
    process.stop()
    watched(process)
    assert process.error == "Stopped" and process.result is None


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("echo '[1]'; echo '{\"event\": 3}'; echo plain; exit 0", "it gave no reason (exit code 0)"),
        ("echo 'error: no space left' >&2; exit 7", "no space left (exit code 7)"),
    ],
)
def test_another_program(script: str, error: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text(f"#!/bin/sh\n{script}\n")
    other.chmod(0o755)
    process = module.VisceraProcess(str(other))
    process.start()
    watched(process)
    process.clean()
    assert process.error == error and process.result is None


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    for given, environment in (("", {"PATH": str(tmp_path)}), (str(tmp_path / "viscera"), None)):
        process = module.VisceraProcess(given, environment)
        process.start()
        assert process.ended and process.error.startswith(f"{given or 'viscera'} was not found: install Viscera")
        process.clean()


def test_the_file_keeps_to_the_python_of_slicer() -> None:
    ast.parse(MODULE.read_text(), feature_version=(3, 9))
    imported = {
        name
        for node in ast.walk(ast.parse(MODULE.read_text()))
        for name in ([one.name for one in node.names] if isinstance(node, ast.Import) else [])
    }
    assert imported - set(sys.stdlib_module_names) == {"qt", "slicer"}


STUB = """
set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/use.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/none.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/none.cmake")
"""
USE = """
include(CMakeParseArguments)
function(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MODULE "WITH_GENERIC_TESTS" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  foreach(script ${MODULE_SCRIPTS})
    if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${script}")
      message(FATAL_ERROR "${script} is missing")
    endif()
  endforeach()
  message(STATUS "module ${MODULE_NAME}: ${MODULE_SCRIPTS}${MODULE_UNPARSED_ARGUMENTS}")
endfunction()
"""


def test_cmake_finds_the_module(tmp_path: Path) -> None:
    """With Slicer's macros as its documents describe them, since Slicer itself is not there."""
    if not shutil.which("cmake"):
        pytest.skip("no cmake")
    for name, text in (("SlicerConfig.cmake", STUB), ("use.cmake", USE), ("none.cmake", "")):
        (tmp_path / "slicer" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "slicer" / name).write_text(text)
    command = ["cmake", f"-DSlicer_DIR={tmp_path / 'slicer'}", "-DCMAKE_C_COMPILER_FORCED=1"]
    command += ["-DCMAKE_CXX_COMPILER_FORCED=1", "-S", str(ROOT / "slicer"), "-B", str(tmp_path / "build")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "-- module Viscera: Viscera.py\n" in done.stdout, done.stderr
