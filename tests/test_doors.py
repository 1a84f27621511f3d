"""What platforms read of an image: made from the command's parser, and as their own code and documents want it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import inference
from inference.doors.settings import settings
from tests.conftest import ROOT
from tests.made.ct import SERIES, ct_series

jsonschema = pytest.importorskip("jsonschema")

TEXT = {"type": "string", "minLength": 1}
FOLDER = {"type": "string", "pattern": "^/"}
FORMATS = {"type": "array", "items": {"type": "object"}, "minItems": 1}
# The tables "Application Manifest Fields" and "Package Manifest Fields" of version 1.0.0, as far as a program that runs
# once and ends needs them: github.com/Project-MONAI/monai-deploy, guidelines/monai-application-package.md.
APP = {
    "type": "object",
    "required": ["type", "command", "environment", "input", "output", "version", "workingDirectory"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "1.0.0"},
        "type": {"const": "application"},
        "command": TEXT,
        "environment": {
            "type": "object",
            "additionalProperties": TEXT,
            "required": [
                f"HOLOSCAN_{name}"
                for name in (
                    "INPUT_PATH", "OUTPUT_PATH", "WORKDIR", "MODEL_PATH", "CONFIG_PATH", "APP_MANIFEST_PATH",
                    "PKG_MANIFEST_PATH",
                )
            ],
        },
        "input": {"type": "object", "required": ["formats"], "properties": {"path": FOLDER, "formats": FORMATS}},
        "output": {"type": "object", "required": ["format"], "properties": {"path": FOLDER, "formats": FORMATS}},
        "liveness": {"type": "null"},
        "readiness": {"type": "null"},
        "timeout": {"type": "integer", "minimum": 0},
        "version": {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
        "workingDirectory": FOLDER,
    },
}  # fmt: skip
SIZE = {"type": "string", "pattern": r"^\d+(\.\d)?(Mi|Gi)$"}
PKG = {
    "type": "object",
    "required": ["applicationRoot", "version"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "1.0.0"},
        "applicationRoot": FOLDER,
        "modelRoot": FOLDER,
        "models": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"pattern": r"^\S{1,128}$"}, "path": TEXT},
            },
        },
        "resources": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"cpu": {"type": "number"}, "gpu": {"const": 0}, "memory": SIZE, "sharedMemory": SIZE},
        },
        "version": {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
    },
}
# The section "The processing-container.json File": github.com/kaapana/kaapana,
# docs/source/development_guide/processing_container_dev_guide.rst.
CHANNELS = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["name", "mounted_path"],
        "additionalProperties": False,
        "properties": {"name": TEXT, "mounted_path": FOLDER, "description": TEXT},
    },
}
KAAPANA = {
    "type": "object",
    "required": ["name", "description", "templates"],
    "additionalProperties": False,
    "properties": {
        "name": TEXT,
        "description": TEXT,
        "api_version": {"const": 1},
        "templates": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["identifier", "description", "inputs", "outputs", "env"],
                "additionalProperties": False,
                "properties": {
                    "identifier": TEXT,
                    "description": TEXT,
                    "inputs": CHANNELS,
                    "outputs": CHANNELS,
                    "env": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["name", "value"],
                            "additionalProperties": False,
                            "properties": {
                                "name": {"type": "string", "pattern": "^[A-Z_]+$"},
                                "value": {"type": "string"},
                                "type": {"enum": ["boolean", "string", "int"]},
                                "choices": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
                                "adjustable": {"type": "boolean"},
                                "description": TEXT,
                            },
                        },
                    },
                    "command": {"type": "array", "items": TEXT, "minItems": 1},
                    "resources": {
                        "type": "object",
                        "properties": {"limits": {"type": "object"}, "requests": {"type": "object"}},
                    },
                },
            },
        },
    },
}
# The fields that are read, of src/main/java/org/nrg/containers/model/command/auto/Command.java, and the types of
# inputs, of its CommandInputEntity and CommandWrapperInputType: github.com/NrgXnat/container-service.
COMMAND = {
    "name", "label", "description", "version", "schema-version", "info-url", "type", "working-directory",
    "command-line", "override-entrypoint", "mounts", "inputs", "outputs", "xnat",
}  # fmt: skip
COMMAND_INPUT = {
    "name", "label", "description", "type", "required", "matcher", "default-value", "replacement-key", "sensitive",
    "command-line-flag", "command-line-separator", "true-value", "false-value", "select-values", "multiple-delimiter",
}  # fmt: skip
WRAPPER_INPUT = {
    "name", "label", "description", "type", "required", "matcher", "default-value", "load-children", "user-settable",
    "provides-value-for-command-input", "provides-files-for-command-mount", "derived-from-wrapper-input",
    "derived-from-xnat-object-property",
}  # fmt: skip


def doors(*arguments: str | Path, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "requirements/doors.py", *arguments]
    return subprocess.run(program, capture_output=True, text=True, check=False, cwd=root)


def made(*arguments: str | Path) -> dict[str, Any]:
    done = doors(*arguments)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.fixture(scope="module")
def command() -> dict[str, Any]:
    """The label of the image, as Docker reads it from the Dockerfile."""
    (line,) = re.findall(r"^LABEL org\.nrg\.commands=(.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    ((only,),) = [json.loads(text) for text in shlex.split(line)]
    document: dict[str, Any] = only
    return document


def test_the_dockerfile_is_up_to_date(command: dict[str, Any]) -> None:
    assert doors("--check").returncode == 0, "make doors"
    assert command == made("xnat")
    assert made("xnat", "registry/viscera:1") == command | {"image": "registry/viscera:1"}  # to be pasted


def test_another_version_makes_it_out_of_date(tmp_path: Path) -> None:
    for name in ("inference", "weights"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    (tmp_path / "Dockerfile").write_text((ROOT / "Dockerfile").read_text().replace(inference.__version__, "0.0.1"))
    assert doors("--check", root=tmp_path).returncode == 1
    assert doors(root=tmp_path).returncode == 0
    assert (tmp_path / "Dockerfile").read_text() == (ROOT / "Dockerfile").read_text()


def test_a_package_of_monai_deploy(tmp_path: Path) -> None:
    assert doors("map", tmp_path).returncode == 0
    app, pkg = (json.loads((tmp_path / name).read_text()) for name in ("app.json", "pkg.json"))
    jsonschema.validate(app, APP)
    jsonschema.validate(pkg, PKG)
    assert app["version"] == pkg["version"] == inference.__version__
    assert f'LABEL org.opencontainers.image.version="{app["version"]}"' in (ROOT / "Dockerfile").read_text()
    assert json.loads(app["command"])[:2] == ["python3", "-m"]
    for model in pkg["models"]:
        assert (ROOT / "weights" / model["path"] / "card.json").is_file()


def test_a_processing_container_of_kaapana() -> None:
    container = made("kaapana")
    jsonschema.validate(container, KAAPANA)
    (template,) = container["templates"]
    assert [one["name"] for one in template["env"]] == [one.variable for one in settings({})]
    for one in template["env"]:
        assert one["value"] in one.get("choices", [one["value"]])
    channels = template["inputs"] + template["outputs"]
    assert len({one["mounted_path"] for one in channels}) == len(channels) == len({one["name"] for one in channels})


def test_a_command_of_xnat(command: dict[str, Any]) -> None:
    """Names are unique, what refers to a name finds it, and every output is taken: Command.validateDockerCommand."""
    assert command.keys() <= COMMAND and command["type"] == "docker" and command["name"]
    mounts = [one["name"] for one in command["mounts"]]
    inputs = [one["name"] for one in command["inputs"]]
    outputs = [one["name"] for one in command["outputs"]]
    assert all(len(set(names)) == len(names) for names in (mounts, inputs, outputs))
    assert all(one["path"].startswith("/") for one in command["mounts"])
    assert {one["mount"] for one in command["outputs"]} <= set(mounts)
    for one in command["inputs"]:
        assert one.keys() <= COMMAND_INPUT and one["type"] in ("string", "boolean", "select-one")
        assert f"#{one['name']}#" in command["command-line"]
        assert one.get("default-value", "") in one.get("select-values", [one.get("default-value", "")])
    for wrapper in command["xnat"]:
        known: list[str] = []
        for one in wrapper["external-inputs"] + wrapper["derived-inputs"]:
            assert one.keys() <= WRAPPER_INPUT and one["type"] in ("Scan", "Resource")
            assert ("derived-from-wrapper-input" in one) == (one in wrapper["derived-inputs"])
            assert one.get("derived-from-wrapper-input", one["name"]) in [*known, one["name"]]
            assert one.get("provides-files-for-command-mount", mounts[0]) in mounts
            known.append(one["name"])
        assert len(wrapper["external-inputs"]) == 1
        for one in wrapper["output-handlers"]:
            assert one["as-a-child-of"] in known and one["type"] == "Resource" and one["label"]
        assert {one["accepts-command-output"] for one in wrapper["output-handlers"]} == set(outputs)


def launched(command: dict[str, Any], values: dict[str, str]) -> list[str]:
    """The container's arguments, as XNAT makes them: resolveTemplate, getValueForCommandLine and shellSplit."""
    line = command["command-line"]
    for one in command["inputs"]:
        value = values.get(one["name"], one.get("default-value", ""))
        if one["type"] == "boolean":
            value = one[f"{value}-value"]
        elif value:
            value = f"{one['command-line-flag']}{one['command-line-separator']}{value}"
        line = line.replace(f"#{one['name']}#", value)
    return shlex.split(line)


@pytest.mark.slow
def test_xnat_launches_it(command: dict[str, Any], tmp_path: Path, blob: np.ndarray) -> None:
    """With mounts as in the image, but below a folder."""
    pytest.importorskip("highdicom")
    ct_series(tmp_path / "inputs", blob)
    (tmp_path / "inputs" / "scan_2_catalog.xml").write_text("<cat:DCMCatalog/>")
    (tmp_path / "outputs").mkdir()
    script = (ROOT / "predict.sh").read_text()
    (tmp_path / "predict.sh").write_text(
        script.replace("\nmount=\n", f"\nmount={tmp_path}\n").replace("/workspace", "/nowhere")
    )
    assert {one["path"] for one in command["mounts"]} == {"/inputs", "/outputs"}
    arguments = launched(command, {"anonymous": "true", "plan": "abdomen"})
    assert arguments[:2] == ["sh", "predict.sh"] and {"--anonymous", "--plan=abdomen"} <= set(arguments)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        arguments, cwd=tmp_path, env=dict(os.environ) | {"PYTHONPATH": str(ROOT), "PATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = {f"{SERIES}.nii.gz", f"{SERIES}.seg.dcm", f"{SERIES}.json", "summary.json", "measurements.csv"}
    assert set(os.listdir(tmp_path / "outputs")) == expected
