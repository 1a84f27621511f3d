"""Several workers under one loop: the results of one worker, memory shared, and one scan lost where one is."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference import cgroups, machine
from inference.cards import read_cards
from inference.command.attempts import Attempts
from inference.command.cli import main, parse
from inference.command.progress import Progress
from inference.command.room import Room
from inference.command.run import shared_out
from inference.command.schedule import Schedule
from inference.command.summary import Records, Summary
from inference.command.workers import POLL, Message, Workers
from inference.formats.cases import Case
from inference.options import ABDOMEN
from inference.record import Record
from tests.conftest import ROOT, command, wait
from tests.inference.test_cgroups import Machine
from tests.inference.test_estimate import cgroup  # noqa: F401

FLAGS = ("--device", "cpu", "--engine", "onnxruntime", "--threads", "2")
Save = Callable[..., Path]


def run(*arguments: Any, group: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command, in a cgroup if one is given."""
    enter = f"echo $$ > {group}/cgroup.procs; " if group else ""
    asked = command(*arguments, *FLAGS)
    return subprocess.run(
        ["bash", "-c", f'{enter}exec "$@"', "bash", *asked], capture_output=True, text=True, check=False, cwd=ROOT
    )


def label_maps(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.nii.gz")}


def in_air(blob: np.ndarray) -> np.ndarray:
    """A large scan that is soon done: no window runs in air."""
    large = np.full((200, 200, 200), -1000, np.int16)
    large[: len(blob), : blob.shape[1], : blob.shape[2]] = blob
    return large


def without_times(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    own = ("seconds", "peak_memory_mb", "threads", "memory_estimate_mb")
    return [{name: value for name, value in one.items() if name not in own} for one in records]


@pytest.mark.slow
def test_two_workers_give_what_one_gives(tmp_path: Path, blob: np.ndarray, save_scan: Save, tiny_weights: Path) -> None:
    """Label maps, records and tables, and what is said of failed cases; in the order of the cases."""
    inputs = tmp_path / "in"
    save_scan(inputs / "a_0000.nii.gz", np.resize(blob, (60, 60, 72)), (3.0, 2.0, 2.0))
    whole = save_scan(inputs / "b_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    (inputs / "c_0000.nii.gz").write_bytes(whole.read_bytes()[:-2000])
    save_scan(inputs / "d_0000.nii.gz", blob[:, ::-1, ::-1], (3.0, 2.0, 2.0), "RAS")
    (inputs / "e_0000.nii.gz").write_bytes(b"no NIfTI")
    done = {}
    for workers in (1, 2):
        out = tmp_path / str(workers)
        flags = ("--weights", tiny_weights, "--json", f"{out}.json", "--on-error", "empty", "--max-memory", "4G")
        done[workers] = run(inputs, out, *flags, "--workers", workers, "--progress", "json")
        assert done[workers].returncode == 8, done[workers].stderr
    one, two = tmp_path / "1", tmp_path / "2"
    assert label_maps(one) == label_maps(two) and set(label_maps(one)) == {f"{name}.nii.gz" for name in "abcd"}
    assert (one / "measurements.csv").read_bytes() == (two / "measurements.csv").read_bytes()
    assert len(list(csv.reader((one / "measurements.csv").open()))) > 10
    records, others = (json.loads((tmp_path / f"{workers}.json").read_text()) for workers in (1, 2))
    assert without_times(records) == without_times(others)
    assert [record["threads"] for record in (records[0], others[0])] == [2, 1]
    summaries = [json.loads((out / "summary.json").read_text()) for out in (one, two)]
    assert [one["case"] for one in summaries[1]["failed"]] == ["c", "e"]
    for name in ("cases", "failed", "warnings", "exit_code", "weights"):
        assert summaries[0][name] == summaries[1][name]
    said = [json.loads(line) for line in done[2].stdout.splitlines()]
    assert said[0]["event"] == "run" and (said[0]["cases"], said[0]["workers"]) == (5, 2)
    assert said[-1] == {"event": "end", "exit_code": 8}
    assert {one["event"] for one in said} == {"run", "loaded", "begun", "progress", "case", "end"}
    finished = {one["case"]: one for one in said if one["event"] == "case"}
    assert {name: one["status"] for name, one in finished.items()} == {
        "a": "done", "b": "done", "c": "failed", "d": "done", "e": "failed"
    }  # fmt: skip
    assert finished["a"]["files"] == ["a.nii.gz"] and "cut off" in finished["c"]["error"]
    assert [one["done"] for one in said if one["event"] == "progress"][-1] == 5
    assert sorted(done[1].stderr.splitlines()) == sorted(done[2].stderr.splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_is_killed_or_hangs_costs_its_scan_at_most(
    number: signal.Signals, tmp_path: Path, blob: np.ndarray, save_scan: Save, tiny_weights: Path
) -> None:
    """The others go on. One that is killed, as where memory runs out, gets its scan again: alone, in the same way."""
    for name in "ab":
        save_scan(tmp_path / "in" / f"{name}_0000.nii.gz", np.resize(blob, (450, 60, 72)), (3.0, 2.0, 2.0))
    for name in "cdefg":
        save_scan(tmp_path / "in" / f"{name}_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    out = tmp_path / "out"
    asked = command(tmp_path / "in", out, "--weights", tiny_weights, *FLAGS)
    process = subprocess.Popen(
        [*asked, "--timeout", "10", "--workers", "2", "--progress", "json"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    for line in process.stdout:
        running = json.loads(line).get("running", [])
        if len([one for one in running if one["done"]]) == 2:
            break
    else:
        pytest.fail("no two scans ran at once")
    children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    os.kill(children[0], number)
    _, said = process.communicate(timeout=120)
    found = label_maps(out)
    assert len({found[f"{name}.nii.gz"] for name in "cdefg"}) == 1
    records = [json.loads((out / f"{name}.json").read_text()) for name in "ab"]
    if number == signal.SIGKILL:
        assert process.returncode == 0 and "once more with no other beside it" in said
        assert found["a.nii.gz"] == found["b.nii.gz"] and not any(record["fallback"] for record in records)
    else:
        assert process.returncode == 8 and len(found) == 6
        (error,) = (record["error"] for record in records if record["status"] == "failed")
        assert "made no progress for 10 s" in error and error in said


def test_no_worker_outlives_its_supervisor(
    tmp_path: Path, blob: np.ndarray, save_scan: Save, tiny_weights: Path
) -> None:
    for name in "ab":
        save_scan(tmp_path / "in" / f"{name}_0000.nii.gz", np.resize(blob, (900, 60, 72)), (3.0, 2.0, 2.0))
    asked = command(tmp_path / "in", tmp_path / "out", "--weights", tiny_weights, *FLAGS)
    process = subprocess.Popen([*asked, "--workers", "2"], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=sys.stderr)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait(lambda: len(children.read_text().split()) == 2, "no two workers are started")
    started = [Path("/proc") / pid for pid in children.read_text().split()]
    process.kill()
    process.wait()
    wait(lambda: not any(path.exists() for path in started), "a worker lives")


@pytest.mark.slow
def test_scans_that_together_are_too_large_for_a_container_run_alone(
    tmp_path: Path,
    blob: np.ndarray,
    save_scan: Save,
    tiny_weights: Path,
    cgroup: Callable[[int], Path],  # noqa: F811
) -> None:
    """Two of them do not fit at once. Nothing is killed, no window is smaller, and small scans run side by side."""
    for name in "ac":
        save_scan(tmp_path / "in" / f"{name}_0000.nii.gz", in_air(blob), (3.0, 2.0, 2.0))
    for name in "bdef":
        save_scan(tmp_path / "in" / f"{name}_0000.nii.gz", blob, (3.0, 2.0, 2.0))
    flags = ("--weights", tiny_weights)
    first = run(tmp_path / "in", tmp_path / "1", *flags, "--max-memory", "20G")
    assert first.returncode == 0, first.stderr
    need = json.loads((tmp_path / "1" / "a.json").read_text())["memory_estimate_mb"]
    group = cgroup(int(1.25e6 * need))
    done = run(tmp_path / "in", tmp_path / "2", *flags, "--workers", "2", group=group)
    assert done.returncode == 0, done.stderr
    assert "killed" not in done.stderr and "SIGKILL" not in done.stderr
    assert label_maps(tmp_path / "1") == label_maps(tmp_path / "2")


@pytest.mark.parametrize(
    ("processors", "asked", "cases", "shared"),
    [
        (2, (None, None), 9, (2, 1)), (2, (None, None), 1, (1, 2)), (2, (1, None), 9, (1, 2)),
        (3, (None, None), 9, (3, 1)), (1, (None, 1), 9, (1, 1)), (4, (9, None), 9, (9, 1)),
        (32, (None, None), 99, (32, 1)),  # all of them, though one process makes use of 16 alone
        (32, (1, None), 99, (1, 16)), (32, (None, None), 1, (1, 16)), (32, (4, None), 99, (4, 8)),
        (32, (1, 32), 99, (1, 32)), (32, (None, 8), 99, (8, 1)), (8, (None, None), 4, (4, 2)),
        (32, (None, None), 3, (3, 10)),
    ],
)  # fmt: skip
def test_threads_are_shared_out(
    processors: int,
    asked: tuple[int | None, int | None],
    cases: int,
    shared: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "processors", lambda: processors)
    assert shared_out(*asked, cases) == shared


def test_more_workers_than_processes_are_allowed_are_refused_with_both_numbers(
    tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else scans fail for want of a thread, by name and with no word of why so many do."""
    inputs, out = tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    for name in "abcde":
        (inputs / f"{name}_0000.nii.gz").write_bytes(b"no scan")
    (tmp_path / "machine").mkdir()
    here = Machine(tmp_path / "machine")
    monkeypatch.setattr(cgroups, "PROCESS", here.process)
    here.is_in("0::/")
    here.write("unified", pids__max="30", pids__current="12")
    given: list[str | Path] = [inputs, out, "--weights", tiny_weights, *FLAGS, "--workers"]
    assert main([*given, "5"]) == 3
    said = capsys.readouterr().err
    assert said == (
        "error: 5 workers take up to 20 processes and threads, and the control group (pids) leaves 18: "
        "--workers 4 or fewer, or auto\n"
    )
    assert not list(out.glob("*.json"))
    assert main([*given, "9", "--case", "a", "--case", "b"]) == 4  # two workers for two cases, which are no scans


def test_what_ends_out_of_order_is_written_in_order(tmp_path: Path) -> None:
    records, summary = Records(tmp_path / "r.json"), Summary()
    for number in (3, 1, 2):
        for each in (records, summary):
            each.add(number, Record(case=str(number), error="odd", warnings=["odd"]))
    records.save()
    assert [one["case"] for one in json.loads((tmp_path / "r.json").read_text())] == ["1", "2", "3"]
    summary.write(tmp_path / "summary.json", 4, 3, [], {})
    written = json.loads((tmp_path / "summary.json").read_text())
    assert [one["case"] for one in written["failed"]] == [one["case"] for one in written["warnings"]] == ["1", "2", "3"]


# The loop itself, with workers that are real.


class Watched(Schedule):
    """Knows how many scans ran at once, what they and idle workers might hold, and how often that was looked at."""

    most_at_once = most_bytes = heard = looks = 0

    def _memory(self, numbers: Any) -> Any:
        self.looks += 1
        return super()._memory(numbers)

    def _heed(self, number: int, message: Any) -> None:
        self.heard += 1
        self.most_at_once = max(self.most_at_once, len(self.promised))
        self.most_bytes = max(self.most_bytes, sum(self.promised.values()))
        super()._heed(number, message)


class OnGpu(Watched):
    """Takes the device of every worker for a GPU."""

    def _heed(self, number: int, message: Any) -> None:
        if "ready" in message:
            message["ready"]["device"] = "cuda"
        super()._heed(number, message)


class Silent(Progress):
    def _say(self, event: str, text: str | None = None, **more: Any) -> None:
        pass


@pytest.fixture
def scheduled(tmp_path: Path, tiny_weights: Path) -> Callable[..., tuple[Watched, dict[int, Record]]]:
    """Runs cases on two workers with so much memory: the schedule, and the records."""
    weights = shutil.copytree(tiny_weights, tmp_path / "weights")
    (tmp_path / "out").mkdir()

    def schedule(
        scans: list[Path],
        memory: int,
        progress: Progress | None = None,
        kind: type[Watched] = Watched,
        alone: int | None = None,
    ) -> tuple[Watched, dict[int, Record]]:
        given = ("--weights", weights, *FLAGS, "--threads", "1", "--max-memory", str(memory))
        request = parse([scans[0].parent, tmp_path / "out", *given])
        names = [scan.name.removesuffix("_0000.nii.gz") for scan in scans]
        cases = [
            Case(name, (scan,), (tmp_path / "out" / f"{name}.nii.gz",)) for name, scan in zip(names, scans, strict=True)
        ]
        records: dict[int, Record] = {}
        progress = progress or Silent("text")
        cards = read_cards(weights, None)
        ways = (ABDOMEN,) * len(cards)
        attempts = Attempts(request, len(cases), cards, ways, progress, records.__setitem__, set())
        workers = Workers(request.options, 60, lambda: None)
        loop = kind(cases, workers, 2, attempts, Room(memory), alone)
        began = time.perf_counter()
        try:
            loop.run()
        finally:
            workers.stop()
        # Four answers a case let a decision be another one; else time does. How far scans are does not.
        assert loop.looks <= 2 * (4 * len(cases) + (time.perf_counter() - began) / POLL)
        return loop, records

    return schedule


def made(folder: Path, blob: np.ndarray, save_scan: Save, *names: str) -> list[Path]:
    """Scans whose case has a small letter are small."""
    long = np.resize(blob, (300, 60, 72))
    return [
        save_scan(folder / "in" / f"{name}_0000.nii.gz", blob if name.islower() else long, (3.0, 2.0, 2.0))
        for name in names
    ]


@pytest.mark.slow
def test_scans_run_at_once_where_memory_is_there(
    tmp_path: Path, blob: np.ndarray, save_scan: Save, scheduled: Any
) -> None:
    scans = made(tmp_path, blob, save_scan, "A", "B")
    loop, records = scheduled(scans, 10**11)
    assert loop.most_at_once == 2 and [records[number].status for number in (1, 2)] == ["done", "done"]
    limit = int(1.3 * loop.most_bytes / 2)  # for one, but not for two
    loop, records = scheduled(scans, limit)
    assert loop.most_at_once == 1 and loop.most_bytes <= limit
    assert loop.heard > 1000  # or the fixture would count nothing
    assert [records[number].status for number in (1, 2)] == ["done", "done"]


@pytest.mark.slow
def test_a_worker_that_cannot_load_its_networks_costs_nothing_where_another_has(
    tmp_path: Path, blob: np.ndarray, save_scan: Save, scheduled: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    class Removes(Silent):
        def loaded(self, taken: Message) -> None:
            with (tmp_path / "weights" / "tumor" / "model.onnx").open("ab") as file:
                file.write(b"damage")

    loop, records = scheduled(made(tmp_path, blob, save_scan, "A", "b", "c"), 10**11, Removes("text"))
    assert {record.status for record in records.values()} == {"done"} and len(records) == 3
    assert loop.count == 1 and "the run goes on with 1 of its workers" in capsys.readouterr().err


def test_the_only_worker_of_a_gpu_has_the_threads_of_all(
    tmp_path: Path, blob: np.ndarray, save_scan: Save, scheduled: Any
) -> None:
    scans = made(tmp_path, blob, save_scan, "a", "b")
    loop, records = scheduled(scans, 10**11, kind=OnGpu, alone=5)
    assert loop.count == 1 and [records[number].threads for number in (1, 2)] == [5, 5]
    loop, records = scheduled(scans, 10**11, kind=OnGpu)  # so many workers were asked for
    assert loop.count == 2 and {record.threads for record in records.values()} == {1}


def test_names_that_a_file_system_may_take_for_one_are_not_written_at_once(
    tmp_path: Path, blob: np.ndarray, save_scan: Save, scheduled: Any
) -> None:
    loop, records = scheduled(made(tmp_path, blob, save_scan, "Aa", "aa"), 10**11)
    assert loop.most_at_once == 1 and {record.status for record in records.values()} == {"done"}
