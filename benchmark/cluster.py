"""How many workers one command and one Dask scheduler keep busy: the real ones, with workers that only sleep.

A worker sleeps as long as a scan was measured to take, and answers as one that has segmented it. So everything is real
but for the networks and the label maps: the folder, the queue, the orders, the records.

A few processes play all workers, on the same machine. What else a worker's process has to do, which in a cluster takes
a little of its own machine, would take all of this one for a thousand of them: they do not watch themselves (WATCHING).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from inference.command import dask_worker

# s: the README's table of times, which docs/cluster.md has for the arithmetic as well.
SECONDS = (3.2, 3.4, 3.9, 4.1, 4.8, 5.2, 6.0, 5.8)
PROCESSES = 4  # that play all workers
WATCHING = {  # of Dask's settings: profiles and monitors of each worker, up to 100 times a second
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "10s",
    "distributed.admin.tick.cycle": "10s",
    "distributed.admin.system-monitor.interval": "60s",
    "distributed.admin.system-monitor.gil.enabled": False,
}
ROOT = Path(__file__).resolve().parent.parent


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, nargs="+", default=[100, 250, 500, 1000])
    parser.add_argument("--scans", type=int, default=10_000)
    parser.add_argument("--speed", type=float, default=1.0, help="how many times faster scans are; below 1: slower")
    parser.add_argument("--out", type=Path, help="JSON of all figures")
    parser.add_argument("--play", nargs=2, metavar=("ADDRESS", "COUNT"), help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> None:
    """Simulate a cohort on each number of workers, and print how busy they are."""
    if options.play:
        asyncio.run(_play(options.play[0], int(options.play[1]), options.speed))
        return
    figures = []
    for workers in options.workers:
        figures.append(simulate(workers, options.scans, options.speed))
        print(json.dumps(figures[-1]), flush=True)
    if options.out:
        options.out.write_text(json.dumps(figures, indent=2) + "\n")


def seconds_of(case: str, speed: float) -> float:
    """How long the scan of a case is slept for: the same in every process."""
    return random.Random(case).choice(SECONDS) / speed  # nosec B311


def simulate(workers: int, scans: int, speed: float) -> dict[str, float]:
    """Run the command over so many scans with so many workers; s, and MB.

    `efficiency` is the share of the workers' time in which they sleep, from the first scan to the last.
    """
    with tempfile.TemporaryDirectory(prefix="viscera-cluster-") as temporary:
        folder = Path(temporary)
        (folder / "in").mkdir()
        names = [f"{number:06d}" for number in range(scans)]
        for name in names:
            (folder / "in" / f"{name}_0000.nii.gz").touch()
        scheduler = _start("-m", "distributed.cli.dask_scheduler", "--host", "tcp://127.0.0.1", "--port", "0",
                           "--no-dashboard", "--scheduler-file", folder / "scheduler.json")  # fmt: skip
        players = []
        try:
            while not (folder / "scheduler.json").exists():
                if scheduler.poll() is not None:
                    raise RuntimeError("the scheduler of Dask does not start: is the extra cluster installed?")
                time.sleep(0.05)
            address = json.loads((folder / "scheduler.json").read_text())["address"]
            share = [len(range(player, workers, PROCESSES)) for player in range(min(PROCESSES, workers))]
            for count in share:
                players.append(_start("-m", "benchmark", "cluster", "--speed", speed, "--play", address, count))
            _wait_for_workers(address, workers)
            began = [_cpu_seconds(process.pid) for process in (scheduler, *players)]
            figures = _measure(folder, address)
            taken = [_cpu_seconds(process.pid) for process in (scheduler, *players)]
            held = _peak_mb(scheduler.pid)
        finally:
            for process in (*players, scheduler):
                process.kill()
                process.wait()
    asleep = sum(seconds_of(name, speed) for name in names)
    efficiency = asleep / (workers * figures["seconds"])
    return {"workers": workers, "scans": scans, "speed": speed, "efficiency": efficiency, **figures,
            "scheduler_cpu_seconds": taken[0] - began[0], "players_cpu_seconds": sum(taken[1:]) - sum(began[1:]),
            "scheduler_peak_mb": held}  # fmt: skip


def _measure(folder: Path, address: str) -> dict[str, float]:
    command = [sys.executable, "-m", "inference", folder / "in", folder / "out", "--scheduler", address,
               "--progress", "json"]  # fmt: skip
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout
    first = last = time.perf_counter()
    start, done = first, 0
    for line in process.stdout:
        event = json.loads(line)["event"]
        if event == "loaded":
            first = time.perf_counter()
        elif event == "case":
            done, last = done + 1, time.perf_counter()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"the command ended with {process.returncode} after {done} scans")
    return {
        "seconds": last - first,
        "before": first - start,
        "scans_per_second": done / (last - first),
        "command_cpu_seconds": usage.ru_utime + usage.ru_stime,
        "command_peak_mb": usage.ru_maxrss / 1000,
    }


def _wait_for_workers(address: str, count: int) -> None:
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=300)


def _start(*arguments: Any) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    return subprocess.Popen([sys.executable, *map(str, arguments)], stdout=quiet, stderr=quiet, cwd=ROOT)


def _peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6


def _cpu_seconds(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


async def _play(address: str, count: int, speed: float) -> None:
    """Be so many workers. The functions that the command sends are named, not sent, so that it is these here."""
    import dask
    from distributed import Worker

    dask.config.set(WATCHING)

    async def segment(run: str, order: str) -> str:
        case = json.loads(order)["case"]["name"]
        await asyncio.sleep(seconds_of(case, speed))
        outputs = {"nii.gz": "0" * 64}
        return json.dumps({"record": {"case": case, "status": "done", "labels": {}, "outputs": outputs}})

    async def load(order: str, wanted: dict[str, Any]) -> str:
        return json.dumps({"ready": {"device": "cpu", "engine": "none", "precision": "f32", "why": []}})

    vars(dask_worker).update(segment=segment, load=load)
    workers = [Worker(address, nthreads=1, memory_limit=0, dashboard=False) for _ in range(count)]
    await asyncio.gather(*workers)
    await asyncio.gather(*(worker.finished() for worker in workers))
