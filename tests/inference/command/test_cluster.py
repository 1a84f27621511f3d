"""Workers of Dask in the place of processes: the same results, and nothing lost with a worker."""

from __future__ import annotations

import gc
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from inference.command.cli import parse
from inference.command.cluster import Cluster
from inference.command.dask_worker import check, first_order, identity
from inference.command.schedulers import Place, connected
from inference.errors import hide_names
from inference.options import Options
from tests.conftest import ROOT, command, wait
from tests.inference.command.test_schedule import label_maps, without_times
from tests.made.ct import ct_series
from tests.made.ports import free_port

pytest.importorskip("distributed")

FLAGS = ("--device", "cpu", "--engine", "onnxruntime", "--threads", "1")
SPACING = (3.0, 2.0, 2.0)
LOST_GPU = "engine torch failed: CUDA error: an illegal memory access was encountered"
Save = Callable[..., Path]


def run(*arguments: Any, **more: str) -> subprocess.CompletedProcess[str]:
    """The command with more variables of the environment."""
    return subprocess.run(
        command(*arguments, *FLAGS),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=300,
        env=os.environ | more,
    )


def started(*arguments: Any, stderr: int | IO[str] = subprocess.PIPE) -> subprocess.Popen[str]:
    """The command in a session of its own, as a terminal starts it."""
    return subprocess.Popen(
        command(*arguments, *FLAGS),
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )


def in_session(leader: int) -> list[str]:
    """Command lines of the processes of a session."""
    listed = subprocess.run(["ps", "-o", "args=", "--sid", str(leader)], capture_output=True, text=True, check=False)
    return listed.stdout.splitlines()


class Dask:
    """A scheduler and workers of somebody's, as their commands start them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.address = folder, f"tcp://127.0.0.1:{free_port()}"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.scheduler = self._start("dask_scheduler", "--host", self.address, "--no-dashboard")

    def start_workers(self, count: int, cwd: Path = ROOT) -> None:
        there = len(self.workers())
        self._start("dask_worker", self.address, "--nworkers", count, "--nthreads", 2, "--no-dashboard", cwd=cwd)
        wait(lambda: len(self.workers()) == there + count, "the workers do not come")

    def _start(self, program: str, *arguments: Any, cwd: Path = ROOT) -> subprocess.Popen[bytes]:
        whole = [sys.executable, "-m", f"distributed.cli.{program}", *map(str, arguments)]
        with open(self.folder / f"{program}.log", "a") as log:
            process = subprocess.Popen(whole, stdout=log, stderr=log, cwd=cwd, start_new_session=True)
        self.processes.append(process)
        return process

    def asked(self, what: Callable[[Any], Any]) -> Any:
        """What a client of its own finds out."""
        with connected(self.address, 60) as client:
            return what(client)

    def workers(self) -> dict[str, int]:
        """Address -> process."""
        found: dict[str, int] = self.asked(lambda client: client.run(os.getpid, on_error="ignore"))
        return found

    def busy(self) -> list[int]:
        """The processes that have a task."""
        pids, tasks = self.asked(lambda client: (client.run(os.getpid, on_error="ignore"), client.processing()))
        return [pids[address] for address, keys in tasks.items() if keys and address in pids]

    def only_busy(self, but: int | None = None) -> int:
        """The one process that has a task, once there is just one, and another than `but`: a label map is there a
        moment before its task has ended."""
        found: list[int] = []

        def is_one() -> bool:
            found[:] = self.busy()
            return len(found) == 1 and found != [but]

        wait(is_one, "no worker has the scan, or several have one")
        return found[0]

    def loaded(self) -> int:
        """How many workers have the networks of a run."""
        return sum(self.asked(lambda client: client.run(_has_networks, on_error="ignore")).values())

    def stop(self) -> None:
        for process in reversed(self.processes):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[Dask]:
    one = Dask(tmp_path)
    yield one
    one.stop()


def _has_networks() -> bool:
    from inference.command.dask_worker import _runs

    return any(run.worker for run in _runs.values())


def test_where_workers_are_is_checked_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["in", "out"]).scheduler is None
    for good in ("local", "slurm", "tcp://a:8786", "tls://a:8786"):
        assert parse(["in", "out", "--scheduler", good]).scheduler == good
    for bad in (["http://a"], ["slurm", "--workers", "auto"]):
        with pytest.raises(SystemExit):
            parse(["in", "out", "--scheduler", *bad])
    assert "needs the number of its --workers" in capsys.readouterr().err


def test_a_missing_package_is_one_sentence(tmp_path: Path, save_scan: Save, blob: np.ndarray) -> None:
    scan = save_scan(tmp_path / "a_0000.nii.gz", blob, SPACING)
    bare = [sys.executable, "-S", "-m", "inference", str(scan), str(tmp_path / "out"), "--scheduler", "local"]
    done = subprocess.run(bare, capture_output=True, text=True, check=False, cwd=ROOT)
    why = 'error: --scheduler needs the package distributed: pip install ".[cluster]" in the checkout\n'
    assert (done.returncode, done.stderr) == (3, why)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_missing_scheduler_is_one_sentence(tmp_path: Path, save_scan: Save, blob: np.ndarray) -> None:
    scan = save_scan(tmp_path / "a_0000.nii.gz", blob, SPACING)
    done = run(scan, tmp_path / "out", "--scheduler", f"tcp://127.0.0.1:{free_port()}")
    assert done.returncode == 3 and done.stderr.count("\n") == 1
    assert "cannot be used" in done.stderr
    # The others on a slow machine.
    assert any(cause in done.stderr for cause in ("Connection refused", "Timed out", "it does not answer"))


def test_a_process_that_stands_still_ends_itself(tmp_path: Path) -> None:
    """Even if a library has Python's lock, so that no thread of Python's could end it."""
    program = (
        "import ctypes; from inference.command.dask_worker import _watch; _watch(0.2); ctypes.PyDLL(None).sleep(50)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1 and "Timeout" in done.stderr


@pytest.mark.slow
def test_local_workers_of_dask_give_what_processes_give(
    tmp_path: Path, blob: np.ndarray, save_scan: Save, tiny_weights: Path
) -> None:
    inputs = tmp_path / "in"
    whole = save_scan(inputs / "a_0000.nii.gz", np.resize(blob, (60, 60, 72)), SPACING)
    save_scan(inputs / "b_0000.nii.gz", blob, SPACING)
    (inputs / "c_0000.nii.gz").write_bytes(whole.read_bytes()[:-2000])
    save_scan(inputs / "d_0000.nii.gz", blob[:, ::-1, ::-1], SPACING, "RAS")
    inputs.joinpath("e_0000.nii.gz").write_bytes(b"no NIfTI")
    one, two = tmp_path / "one", tmp_path / "two"
    flags = ("--weights", tiny_weights, "--on-error", "empty", "--format", "nii.gz,seg.nrrd")
    plain = run(inputs, one, *flags, "--json", f"{one}.json")
    dask = ("--scheduler", "local", "--workers", 2)
    (tmp_path / "tmp").mkdir()
    done = run(inputs, two, *flags, "--json", f"{two}.json", *dask, TMPDIR=str(tmp_path / "tmp"))
    assert not os.listdir(tmp_path / "tmp")  # Dask's own folder would stay
    assert plain.returncode == done.returncode == 8
    assert sorted(done.stderr.splitlines()) == sorted(plain.stderr.splitlines())
    assert label_maps(one) == label_maps(two) and len(label_maps(two)) == 4
    assert sorted(os.listdir(one)) == sorted(os.listdir(two))  # no hidden file either
    assert (one / "measurements.csv").read_bytes() == (two / "measurements.csv").read_bytes()
    records, others = (json.loads(Path(f"{out}.json").read_text()) for out in (one, two))
    assert without_times(records) == without_times(others)
    summaries = [json.loads((out / "summary.json").read_text()) for out in (one, two)]
    for summary in summaries:
        del summary["started"], summary["ended"]
    assert summaries[0] == summaries[1]
    again = run(inputs, two, "--weights", tiny_weights, "--format", "nii.gz,seg.nrrd", "--resume", *dask)
    assert again.returncode == 8 and again.stdout.count("kept") == 3


@pytest.mark.slow
def test_ctrl_c_leaves_no_process_and_no_half_written_file(
    tmp_path: Path, blob: np.ndarray, save_scan: Save, tiny_weights: Path
) -> None:
    scan = save_scan(tmp_path / "in" / "a_0000.nii.gz", blob, SPACING)
    shutil.copy(scan, scan.with_name("b_0000.nii.gz"))
    for name in "cde":
        save_scan(tmp_path / "in" / f"{name}_0000.nii.gz", np.resize(blob, (600, 60, 72)), SPACING)
    out = tmp_path / "out"
    process = started(tmp_path / "in", out, "--weights", tiny_weights, "--scheduler", "local", "--workers", 2)
    assert process.stdout
    while "a.nii.gz" not in process.stdout.readline():
        pass
    time.sleep(0.5)
    assert len(in_session(process.pid)) >= 3
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == "error: stopped by SIGINT; finished cases are kept\n"
    wait(lambda: not in_session(process.pid), "processes are left")
    whole = {f"{name}.{ending}" for name in "abcde" for ending in ("json", "nii.gz")}
    assert {path.name for path in out.iterdir()} <= whole | {"summary.json", "measurements.csv"}


def _interrupted(dask_scheduler: Any = None) -> None:
    """The scheduler tells its clients of something just as the next two of them are greeted."""
    from distributed.diagnostics.plugin import SchedulerPlugin

    class Told(SchedulerPlugin):  # type: ignore[misc]
        greeted = 0

        def add_client(self, scheduler: Any, client: str) -> None:
            self.greeted += 1
            if self.greeted <= 2:
                scheduler.loop.add_callback(scheduler.report, {"op": "lost-data", "key": "none of theirs"})

    dask_scheduler.add_plugin(Told(), name="told")


def _greeted(dask_scheduler: Any = None) -> int:
    greeted: int = dask_scheduler.plugins["told"].greeted
    return greeted


def test_a_greeting_with_another_message_is_asked_for_again(dask: Dask) -> None:
    """And no client is left half open: when Python frees it, the next one may wait for ever."""
    from distributed import Client

    dask.asked(lambda client: client.run_on_scheduler(_interrupted))
    assert dask.asked(lambda client: client.run_on_scheduler(_greeted)) == 3
    clients = [one for one in gc.get_objects() if issubclass(type(one), Client)]
    assert all(client.status == "closed" for client in clients)


@pytest.mark.slow
def test_workers_are_met_whenever_distributed_looks_for_them_itself(
    tmp_path: Path, tiny_weights: Path, dask: Dask
) -> None:
    """Its look, every two seconds, asks for no workers, and what it finds takes the place of what was asked for."""
    from dask import config

    dask.start_workers(1)
    options, place = Options(weights=tiny_weights), Place(dask.address, 1, 1, None, tmp_path)
    with config.set({"distributed.client.scheduler-info-interval": "1ms"}):
        for _ in range(30):
            cluster = Cluster(place, options, 60, lambda: None)
            assert cluster.waiting == 1
            cluster.stop()


@pytest.mark.slow
def test_a_scan_that_costs_two_workers_fails_by_name_and_the_cluster_stays(
    tmp_path: Path, blob: np.ndarray, save_scan: Save, tiny_weights: Path, dask: Dask
) -> None:
    """And a run that is stopped gives back what it holds of somebody's cluster."""
    dask.start_workers(2)
    for name in "ac":
        save_scan(tmp_path / "in" / f"{name}_0000.nii.gz", blob, SPACING)
    save_scan(tmp_path / "in" / "b_0000.nii.gz", np.resize(blob, (900, 60, 72)), SPACING)
    out = tmp_path / "out"
    arguments = (tmp_path / "in", out, "--weights", tiny_weights, "--scheduler", dask.address)
    process = started(*arguments)
    wait(lambda: (out / "a.json").exists() and (out / "c.json").exists(), "a and c are not done")
    wait(lambda: dask.loaded() == 2, "the networks are not loaded")  # or b is not begun
    first = dask.only_busy()
    os.kill(first, signal.SIGKILL)
    os.kill(dask.only_busy(but=first), signal.SIGKILL)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 8, said + errors
    assert "once more on another worker" in errors and "the second that was lost with this scan" in errors
    summary = json.loads((out / "summary.json").read_text())
    assert [one["case"] for one in summary["failed"]] == ["b"] and summary["cases"]["done"] == 2
    assert set(label_maps(out)) == {"a.nii.gz", "c.nii.gz"}
    wait(lambda: len(dask.workers()) == 2, "the workers do not come back")

    process = started(*arguments, "--resume")
    wait(lambda: dask.loaded() == 1, "b is not begun")
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143 and not dask.busy()
    assert not [path.name for path in out.iterdir() if path.name.startswith(".") or path.name == "b.nii.gz"]
    done = run(*arguments, "--resume")
    assert (done.returncode, done.stdout.count("kept")) == (0, 2), done.stderr


def _lose_gpu() -> None:
    """In this process networks seem to be on a GPU, and fail."""
    from inference import predictor
    from inference.errors import EngineError

    load = predictor.Predictor._load

    def on_gpu(self: Any) -> None:
        load(self)
        self.choice = replace(self.choice, device="cuda")

    def fail(*_: Any) -> None:
        raise EngineError(LOST_GPU) from RuntimeError("CUDA error")

    predictor.Predictor._load, predictor.segment = on_gpu, fail  # type: ignore[method-assign,assignment,attr-defined]


@pytest.mark.slow
def test_a_worker_that_may_have_lost_its_gpu_is_replaced(
    tmp_path: Path, blob: np.ndarray, save_scan: Save, tiny_weights: Path, dask: Dask
) -> None:
    dask.start_workers(1)
    before = dask.workers()
    dask.asked(lambda client: client.run(_lose_gpu))
    for name in "ab":
        save_scan(tmp_path / "in" / f"{name}_0000.nii.gz", blob, SPACING)
    out = tmp_path / "out"
    done = run(tmp_path / "in", out, "--weights", tiny_weights, "--scheduler", dask.address)
    assert done.returncode == 8 and set(label_maps(out)) == {"b.nii.gz"}
    assert done.stderr.splitlines() == [f"error: [1/2] a: {LOST_GPU}", "error: 1 of 2 cases failed"]
    assert set(dask.workers().values()).isdisjoint(before.values())


@pytest.mark.slow
def test_workers_with_other_networks_or_without_the_program_are_found_before_the_first_scan(
    tmp_path: Path, blob: np.ndarray, save_scan: Save, tiny_weights: Path, dask: Dask
) -> None:
    scan = save_scan(tmp_path / "a_0000.nii.gz", blob, SPACING)
    options = Options(weights=tiny_weights)
    wanted, order = identity(options), first_order("run", options, 60, False)
    assert check(order, wanted) is None
    assert "version" in str(check(order, wanted | {"labels": 0}))
    elsewhere = tmp_path / "elsewhere"
    for folder, source in (("inference", ROOT / "inference"), ("weights", tiny_weights)):
        shutil.copytree(source, elsewhere / folder, ignore=shutil.ignore_patterns("__pycache__"))
    dask.start_workers(1)
    dask.start_workers(1, elsewhere)
    done = run(scan, tmp_path / "out", "--scheduler", dask.address)  # with the networks of the program
    assert done.returncode == 9 and "cannot take part: " in done.stderr and not label_maps(tmp_path / "out")
    shutil.rmtree(elsewhere / "weights")
    shutil.copytree(ROOT / "weights", elsewhere / "weights")
    assert run(scan, tmp_path / "out", "--scheduler", dask.address).returncode == 0
    dask.start_workers(1, tmp_path)
    done = run(scan, tmp_path / "out", "--scheduler", dask.address)
    assert done.returncode == 3 and "cannot run this program: " in done.stderr and "No module named" in done.stderr


def test_a_worker_of_another_version_says_so_though_it_knows_none_of_the_options(tiny_weights: Path) -> None:
    options = Options(weights=tiny_weights)
    order = json.loads(first_order("run", options, 60, False))
    order["options"]["of_a_later_version"] = 1
    why = check(json.dumps(order), identity(options) | {"program": "9.0"})
    assert why and why[0] == 9 and why[1].endswith("of this program, and this machine has 9.0")


def test_dicom_is_written_where_the_workers_are(tmp_path: Path, tiny_weights: Path) -> None:
    without = "import sys, json; sys.modules['highdicom'] = None; from inference.command.dask_worker import check; "
    options = Options(weights=tiny_weights)
    for dicom in (False, True):
        given = json.dumps([first_order("run", options, 60, False, dicom), identity(options)])
        program = without + "print(json.dumps(check(*json.loads(sys.argv[1]))))"
        done = subprocess.run(
            [sys.executable, "-c", program, given], capture_output=True, text=True, check=False, cwd=ROOT
        )
        why = [3, 'labels in DICOM need highdicom, which is not installed: pip install ".[dicom]" in the checkout']
        assert json.loads(done.stdout) == (why if dicom else None), done.stderr


@pytest.mark.slow
def test_the_machine_of_the_command_needs_no_library_of_dicom(
    tmp_path: Path, blob: np.ndarray, tiny_weights: Path, dask: Dask
) -> None:
    pytest.importorskip("highdicom")
    ct_series(tmp_path / "s", blob, spacing=SPACING)
    dask.start_workers(1)
    without = "import sys; sys.modules['highdicom'] = None; from inference.command.cli import main; sys.exit(main())"
    given = [tmp_path / "s", tmp_path / "out", "--weights", tiny_weights, "--format", "seg", *FLAGS]
    for scheduler, code, said in (("local", 3, "labels in DICOM need highdicom"), (dask.address, 0, "")):
        asked = [sys.executable, "-c", without, *map(str, given), "--scheduler", scheduler]
        done = subprocess.run(asked, capture_output=True, text=True, check=False, cwd=ROOT, timeout=300)
        assert done.returncode == code and said in done.stderr
    assert (tmp_path / "out" / "s.seg.dcm").is_file()


@pytest.mark.slow
def test_runs_in_one_worker_change_neither_each_other_nor_the_worker(
    tmp_path: Path, tiny_weights: Path, dask: Dask
) -> None:
    from inference.command.dask_worker import end, first_order, identity, load, segment

    def share(dask_worker: Any) -> Any:
        return dask_worker.memory_manager.memory_pause_fraction

    def export_works() -> bool:
        import torch.export

        return hasattr(torch.export, "export")

    dask.start_workers(1)
    options = Options(weights=tiny_weights, device="cpu", engine="onnxruntime", threads=1)
    wanted = identity(options)
    (tmp_path / "jane_0000.nii.gz").write_bytes(b"no NIfTI")
    case = {"name": "jane", "files": [str(tmp_path / "jane_0000.nii.gz")], "outputs": [str(tmp_path / "jane.nii.gz")]}
    order = json.dumps({"case": case, "ways": None, "container": None, "threads": None})
    first = {}
    for name in ("hides", "shows"):
        hide_names(name == "hides")
        try:
            first[name] = first_order(name, options, 60, False)
        finally:
            hide_names(False)

    def both(client: Any) -> None:
        def done(what: Any, *arguments: Any) -> Any:
            return client.submit(what, *arguments, pure=False).result(60)

        (before,) = client.run(share).values()
        assert before == 0.8
        for name in ("hides", "shows"):
            assert "ready" in done(load, first[name], wanted)
        assert "jane" in done(segment, "shows", order)
        error = json.loads(done(segment, "hides", order))["record"]["error"]
        assert "no" in error and "jane" not in error
        assert list(client.run(share).values()) == [False]  # its networks must not stop it
        client.run(end, "hides")
        assert list(client.run(share).values()) == [False]
        client.run(end, "shows")
        assert list(client.run(share).values()) == [before]
        assert done(export_works)

    dask.asked(both)


@pytest.mark.slow
def test_nothing_is_lost_and_nothing_twice_while_workers_are_killed(
    tmp_path: Path, blob: np.ndarray, save_scan: Save, tiny_weights: Path, dask: Dask
) -> None:
    inputs, out, plain = tmp_path / "in", tmp_path / "out", tmp_path / "plain"
    scan = save_scan(inputs / "00_0000.nii.gz", blob, SPACING)
    for number in range(1, 60):
        os.link(scan, inputs / f"{number:02d}_0000.nii.gz")
    assert run(inputs, plain, "--weights", tiny_weights).returncode == 0
    dask.start_workers(4)
    flags = ("--weights", tiny_weights, "--scheduler", dask.address, "--progress", "json", "--json", f"{out}.json")
    log = tmp_path / "log"
    with log.open("w") as errors:
        process = started(inputs, out, *flags, stderr=errors)
    assert process.stdout

    def lost() -> set[str]:
        """The scans that were lost with a worker so far."""
        return set(re.findall(r"\] (\d\d): .*once more on another worker", log.read_text()))

    ended: list[str] = []
    kills, last, held = 0, 0, []
    chance = random.Random(33)
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] != "case":
            continue
        ended.append(event["case"])
        # The second kill of a scan would be its end: that of the last kill is done, and the loss was said long ago.
        if kills < 5 and len(ended) > last + 6 and lost() <= set(ended) and len(workers := dask.workers()) > 1:
            with open(f"/proc/{dask.scheduler.pid}/status") as status:
                held += [int(line.split()[1]) for line in status if line.startswith("VmRSS")]
            os.kill(chance.choice(list(workers.values())), signal.SIGKILL)
            kills, last = kills + 1, len(ended)
    assert process.wait(60) == 0, log.read_text()
    assert kills >= 4 and lost(), log.read_text()
    names = [f"{number:02d}" for number in range(60)]
    assert sorted(ended) == names
    assert [record["case"] for record in json.loads(Path(f"{out}.json").read_text())] == names
    assert label_maps(out) == label_maps(plain) and sorted(os.listdir(out)) == sorted(os.listdir(plain))
    assert (out / "measurements.csv").read_bytes() == (plain / "measurements.csv").read_bytes()
    assert held[-1] - held[1] < 20_000, held  # kB of the scheduler
