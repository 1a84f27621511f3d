"""Options and records are the same after their way through JSON."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from inference.options import ABDOMEN, Options, Way
from inference.record import Record


def test_a_record_survives_json() -> None:
    record = Record(
        case="x", status="done", warnings=["odd"], seconds={"read": 0.5}, weights={"organ": "0f"}, threads=2,
        plan="dense", step=0.5, device="cpu", engine="torch", precision="f32", why=["so"], shape=[3, 4, 5],
        spacing=[1.0, 2.0, 3.0], dropped={"liver": 7}, labels={"1": {"name": "liver", "voxels": 8, "ml": 0.1}},
        windows={"organ": {"run": 2, "skipped": 3, "voxels": [8, 8, 8]}, "tumor": {"run": 1, "skipped": 0}},
        input_sha256="1", outputs={"nii.gz": "2", "seg.nrrd": "3"}, peak_memory_mb=3.5,
    )  # fmt: skip
    document = json.loads(json.dumps(record.to_json()))
    assert (document["windows_run"], document["windows_skipped"]) == (3, 3)
    assert document["output_sha256"] == "2"
    assert Record.from_json(document) == record
    assert Record.from_json(document | {"of another version": 1}) == record


def test_what_is_not_known_is_left_out_but_for_the_error() -> None:
    document = Record(case="x").to_json()
    assert document["status"] == "failed" and document["error"] is None
    assert not {"labels", "device", "input_sha256", "unwritten", "_inner"} & document.keys()
    assert Record(case="x", unwritten=True).to_json()["unwritten"] is True


def test_time_belongs_to_the_innermost_stage() -> None:
    record = Record()
    began = time.perf_counter()
    with record.stage("restore"):
        for _ in range(2):
            with record.stage("network"):
                time.sleep(0.05)
        time.sleep(0.03)
    taken = time.perf_counter() - began  # more than was slept, if the machine has other work
    assert record.seconds["network"] >= 0.1 and record.seconds["restore"] >= 0.03
    assert sum(record.seconds.values()) <= taken  # so that no time is in both


def test_options_survive_json() -> None:
    options = Options(weights=Path("weights"), networks=("organ", "tumor"), plan="dense", step=0.7, threads=3)
    assert options.weights.is_absolute()
    assert Options.from_json(json.loads(json.dumps(options.to_json()))) == options
    assert Options(networks="organ") == Options(networks=["organ"])  # type: ignore[arg-type]


def test_a_way_survives_its_order() -> None:
    assert Way(**json.loads(json.dumps(vars(ABDOMEN)))) == ABDOMEN


def test_the_public_names_are_those_that_are_there() -> None:
    import inference

    assert sorted(inference.__all__) == inference.__all__
    for name in inference.__all__:
        assert getattr(inference, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        inference.absent  # noqa: B018
