"""Where a run's Dask workers come from: processes of this machine, jobs of Slurm, or a scheduler that somebody runs."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DeviceError, how_to_install, one_line
from .stopping import held

if TYPE_CHECKING:
    from distributed import Client

STARTED = LOCAL, SLURM = "local", "slurm"
PROTOCOLS = ("tcp://", "tls://")
MEMORY = 3_000_000_000  # bytes of a job of Slurm, as of cluster/slurm.sbatch
MINUTES = "00:30:00"  # that dask-jobqueue asks for unless it is told otherwise
TRIES = 5  # to connect
LOOPBACK = "127.0.0.1"
QUIET = {"dashboard": False, "dashboard_address": f"{LOOPBACK}:0"}  # no page, and no port that others may have taken


def check_installed(name: str) -> None:
    """Raises DeviceError where the scheduler of a name needs something that is not installed."""
    for package in ("distributed", "dask_jobqueue") if name == SLURM else ("distributed",):
        if find_spec(package) is None:
            raise DeviceError(f"--scheduler needs the package {package}: {how_to_install('cluster')}")
    if name == SLURM and not shutil.which("sbatch"):
        raise DeviceError(
            f"--scheduler {SLURM} needs sbatch, which is not installed here: run it where jobs are submitted"
        )


@dataclass(frozen=True)
class Place:
    """A scheduler, and how many workers of how many threads are started for it.

    name     LOCAL, SLURM, or the address of a scheduler, whose workers are not ours
    folder   that all workers see
    memory   bytes that each of them may hold; None: no limit is known
    """

    name: str
    workers: int
    threads: int
    memory: int | None
    folder: Path

    @property
    def own(self) -> bool:
        """Whether the cluster is started for this run, and ends with it."""
        return self.name in STARTED

    @property
    def queues(self) -> bool:
        """Whether workers may come hours later."""
        return self.name == SLURM

    def open(self, scratch: str) -> Client:
        """Start what has to be started. Raises DeviceError.

        scratch  a folder for what Dask writes on this machine: it would leave one of its own
        """
        from multiprocessing import resource_tracker

        import dask
        from distributed import Client

        # Dask's own log reports workers that come and go, in several lines each; the command reports what matters.
        for name in ("distributed", *(f"distributed.{part}" for part in ("client", "nanny", "scheduler", "worker"))):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        if self.name == LOCAL and sys.platform != "win32":
            resource_tracker.ensure_running()  # which would let the signals through again as it starts
        try:
            # What is started here is ended by us, and sees no Ctrl-C.
            with (
                held(),
                dask.config.set({"distributed.worker.memory.terminate": False, "temporary-directory": scratch}),
            ):
                if self.name == LOCAL:
                    return Client(_local(self), set_as_default=False)
                if self.name == SLURM:
                    return Client(_slurm(self), set_as_default=False)
                return connected(self.name, 10)
        except (OSError, ImportError, RuntimeError, ValueError) as error:
            cause = one_line(error).replace("TimeoutError", "it does not answer")
            raise DeviceError(f"the Dask scheduler {self.name} cannot be used: {cause}") from error

    def close(self, client: Client) -> None:
        """End what was started."""
        cluster: Any = client.cluster
        client.close(timeout=5)
        if cluster is not None:
            cluster.close(timeout=10)


class _GreetingError(OSError):
    """Of a scheduler."""


def connected(address: str, seconds: float) -> Client:
    """A client of somebody's scheduler. Raises OSError, ImportError.

    Distributed 2026.8 expects a greeting and nothing else in the first package. A scheduler that tells all its clients
    of a lost worker at that moment puts both into one, and an assertion fails: another try is all it takes. But the
    first leaves a client half open, and if Python happens to free that while the next one starts, the thread waits for
    ever for a lock that it holds. So the assertion becomes an OSError, after which Distributed closes the client."""
    from distributed import Client

    class Closing(Client):  # type: ignore[misc]
        async def _ensure_connected(self, timeout: float | None = None) -> None:
            try:
                await super()._ensure_connected(timeout=timeout)
            except AssertionError as error:
                raise _GreetingError("its greeting cannot be read") from error

    for _ in range(TRIES - 1):
        with suppress(_GreetingError):
            return Closing(address, timeout=seconds, set_as_default=False)
    return Closing(address, timeout=seconds, set_as_default=False)


def _local(place: Place) -> Any:
    from distributed import LocalCluster

    return LocalCluster(
        n_workers=place.workers,
        threads_per_worker=1,
        processes=True,
        host=LOOPBACK,
        protocol="tls://",
        security=True,  # or every user of this machine could send it a task
        memory_limit=0,
        dashboard_address=None,
        scheduler_kwargs=QUIET,
        silence_logs=logging.CRITICAL,
    )


def _slurm(place: Place) -> Any:
    """Jobs of one worker each; a job that is lost is sent again. What `jobqueue.slurm` of Dask's configuration says of
    partition, account, time, memory and network comes first."""
    import dask
    from dask_jobqueue import SLURMCluster

    def configured(name: str) -> Any:
        return dask.config.get(f"jobqueue.slurm.{name}", None)

    skipped = list(configured("job-directives-skip") or [])
    if configured("walltime") == MINUTES:
        skipped.append(f"-t {MINUTES}")  # the partition's own default is a better guess
    path = shlex.quote(os.fspath(Path(__file__).parents[2]))
    log = [] if configured("log-directory") else ["--output=viscera-%j.log"]
    cluster = SLURMCluster(
        cores=1,
        processes=1,
        job_cpu=place.threads,
        memory=f"{place.memory or MEMORY} B" if place.memory or not configured("memory") else None,
        protocol="tls://",
        security=True,  # or every user of the cluster could send it a task
        shared_temp_directory=os.fspath(place.folder.absolute()),  # its keys, readable by this user alone
        scheduler_options={**QUIET, **(configured("scheduler-options") or {})},
        worker_extra_args=[*(configured("worker-extra-args") or []), "--memory-limit", "0"],
        # A worker imports this program from where it lies here.
        job_script_prologue=[
            *(configured("job-script-prologue") or []),
            f"export PYTHONPATH={path}${{PYTHONPATH:+:$PYTHONPATH}}",
        ],
        # Workers that are lost are sent as new jobs; queued again by Slurm there would be one too many.
        job_extra_directives=[*(configured("job-extra-directives") or []), "--no-requeue", *log],
        job_directives_skip=skipped,
        silence_logs=logging.CRITICAL,
    )
    cluster.adapt(minimum=place.workers, maximum=place.workers)
    return cluster
