"""cluster/kubernetes.yaml: its numbers agree, and its command is one that Viscera takes."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from inference import errors
from inference.command.cli import parse
from inference.command.part import Part
from tests.conftest import ROOT


@pytest.fixture
def job() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "cluster" / "kubernetes.yaml").read_text())
    return document["spec"]


def test_each_pod_takes_its_own_part(job: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    (container,) = job["template"]["spec"]["containers"]
    program, arguments = container["command"][:3], container["command"][3:]
    assert program == ["python3", "-m", "inference"]
    for index in range(job["completions"]):
        monkeypatch.setenv("JOB_COMPLETION_INDEX", str(index))
        request = parse(arguments)
        assert request.part == Part(index + 1, job["completions"]) and request.resume
    assert request.options.threads == int(container["resources"]["requests"]["cpu"])
    assert job["parallelism"] == job["maxFailedIndexes"] == job["completions"]


def test_mounts_are_those_of_the_command(job: dict[str, Any]) -> None:
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert set(container["command"][3:5]) < set(mounts)
    assert set(mounts.values()) == {volume["name"] for volume in pod["volumes"]}


def test_what_viscera_says_of_its_inputs_is_not_tried_again(job: dict[str, Any]) -> None:
    _, rule = job["podFailurePolicy"]["rules"]
    codes = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")}
    assert set(rule["onExitCodes"]["values"]) == (codes | {errors.ALL_FAILED, errors.SOME_FAILED}) - {1}
