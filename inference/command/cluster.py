"""Workers of a Dask cluster in the place of processes of this machine: they get the same orders and say the same.

Dask starts processes, finds out that one is lost, and carries orders and records. Which worker has which case is
decided here, as always: a task goes to one worker alone, so that Dask never runs it again on its own, and how often a
scan may cost its worker does not depend on the settings of somebody's scheduler.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import secrets
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ..errors import DeviceError, VisceraError, met_elsewhere, one_line
from ..formats.cases import Case
from ..options import Options
from . import dask_worker
from .attempts import Attempt, Attempts
from .console import say_warning
from .room import Room
from .schedule import Schedule
from .schedulers import Place
from .workers import POLL, Lost, Message

if TYPE_CHECKING:
    from distributed import Client, Future

LOSSES = 10  # workers lost one after the other before any of them has loaded its networks
QUEUED = 30.0  # s without a worker after which a warning says that jobs wait
GOODBYE = 10.0  # s that workers have to give up their scans


@dataclass
class _Worker:
    """A worker with a number, and what it is at."""

    address: str
    task: Future | None = None


class Cluster:
    """The workers of a place, by number; no number is used twice. The same methods as those of Workers.

    options  with which they load networks, from a folder that all of them see
    timeout  s without progress after which a worker ends itself, and without any worker after which the run ends
    check    called several times a second; may raise
    dicom    whether labels are written as DICOM
    """

    def __init__(
        self, place: Place, options: Options, timeout: float, check: Callable[[], None], dicom: bool = False
    ) -> None:
        self.place, self.options, self.timeout, self.check = place, options, timeout, check
        self._run = secrets.token_hex(8)
        self._order = dask_worker.first_order(self._run, options, timeout, place.own, dicom)
        self._wanted = dask_worker.identity(options)
        self._client: Client | None = None
        self._scratch = TemporaryDirectory(prefix="viscera-", ignore_cleanup_errors=True)
        self._news: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()  # from the thread that Dask works in
        self._said: deque[tuple[int, Message | Lost]] = deque()
        self._waiting: dict[str, None] = {}  # addresses without a number, in the order in which they came
        self._refused: set[str] = set()  # addresses of workers that cannot load the networks, or have to go
        self._workers: dict[int, _Worker] = {}
        self._started = self._tasks = 0
        self._warned = False  # that jobs wait
        self._deserted = perf_counter()  # since when there is no worker, if there is none

    @property
    def numbers(self) -> list[int]:
        return list(self._workers)

    @property
    def waiting(self) -> int:
        """Workers that are there and have no number yet. Raises VisceraError if the cluster cannot be reached, or if
        workers of it have other networks."""
        if self._client is None:
            self._client = self.place.open(self._scratch.name)
            self._meet(self._client)
        return len(self._waiting)

    def start(self) -> int:
        """Have a worker load its networks; what it says first is "ready" or "fatal"."""
        address = next(iter(self._waiting))
        del self._waiting[address]
        self._started += 1
        self._workers[self._started] = _Worker(address)
        self._submit(self._started, dask_worker.load, self._order, self._wanted)
        return self._started

    def send(self, number: int, order: Message) -> None:
        """Send an order, as worker.py has them: with paths that mean the same in every folder."""
        case = order["case"]
        whole = {name: [os.path.abspath(path) for path in case[name]] for name in ("files", "outputs")}
        if case["pictures"]:
            whole["pictures"] = [(os.path.abspath(path), frame) for path, frame in case["pictures"]]
        self._submit(number, dask_worker.segment, self._run, json.dumps(order | {"case": case | whole}))

    def receive(self, patience: float = POLL) -> tuple[int, Message | Lost] | None:
        """What the next worker says that has something to say, or its loss; None if none does for so many seconds.

        Raises VisceraError where the scheduler is gone, or has had no worker for the timeout.
        """
        self.check()
        assert self._client
        if not self._said:
            self._listen(patience)
        if self._client.status != "running":
            raise DeviceError(f"the Dask scheduler {self.place.name} is gone")
        self._look_for_workers()
        return self._said.popleft() if self._said else None

    def _look_for_workers(self) -> None:
        deserted = perf_counter() - self._deserted
        if self._workers or self._waiting:
            self._deserted = perf_counter()
        elif not self.place.queues and deserted > self.timeout:
            raise DeviceError(f"the Dask scheduler {self.place.name} has had no worker for {self.timeout:g} s")
        elif self.place.queues and deserted > QUEUED and not self._warned:
            say_warning("no job has started yet: `squeue --me` shows what they wait for")
            self._warned = True

    def private_memory(self, number: int) -> int:
        """Of this machine's: none."""
        return 0

    def end(self, number: int) -> None:
        """Use a worker no more."""
        if worker := self._workers.pop(number, None):
            self._refused.add(worker.address)

    def stop(self) -> None:
        """End what workers are at, and those workers that were started for this run."""
        client, self._client = self._client, None
        if client is not None:
            # In a thread, since it would wait for ever for a worker that does not answer.
            ending = threading.Thread(target=self._end_all, args=(client,), daemon=True)
            ending.start()
            ending.join(GOODBYE)
            with suppress(Exception):  # the run has ended, and what could be said of its cluster is nobody's concern
                self.place.close(client)
        self._scratch.cleanup()

    def _end_all(self, client: Client) -> None:
        with suppress(Exception):  # where the scheduler is gone
            client.unsubscribe_topic("all")  # or the scheduler complains that nobody hears it
            client.cancel([worker.task for worker in self._workers.values() if worker.task])
            client.run(dask_worker.end, self._run, on_error="ignore")

    def _meet(self, client: Client) -> None:
        """Get to know the workers that are there, and hear of others as they come and go."""
        client.subscribe_topic("all", self._heard)
        # Not client.scheduler_info(), which is empty where Distributed's own look every two seconds comes between.
        for address in client.sync(client.scheduler.identity, n_workers=-1)["workers"]:
            self._waiting[address] = None
        found = client.run(dask_worker.check, self._order, self._wanted, on_error="return") if self._waiting else {}
        for address, why in found.items():
            if isinstance(why, Exception) and not isinstance(why, OSError):  # that is one that has just been lost
                raise DeviceError(f"the worker {address} cannot run this program: {one_line(why)}")
            if why and not isinstance(why, Exception):
                raise met_elsewhere(why[0], f"the worker {address} cannot take part: {why[1]}")

    def _heard(self, event: tuple[float, Any]) -> None:
        """Of the scheduler, in Dask's thread."""
        news = event[1]
        if isinstance(news, dict) and news.get("action") in ("add-worker", "remove-worker"):
            self._news.put((None, news))

    def _submit(self, number: int, task: Callable[..., str], *arguments: Any) -> None:
        """Have a worker do a task; what it returns is what the worker says."""
        assert self._client
        worker = self._workers.get(number)
        if worker is None:  # lost, which `receive` reports next
            return
        client, self._tasks = self._client, self._tasks + 1
        key = f"viscera-{self._run}-{self._tasks}"
        future = worker.task = client.submit(task, *arguments, key=key, workers=[worker.address], pure=False)

        async def answer() -> None:
            try:
                said = json.loads(await client.gather(future, asynchronous=True))
                if said and said.get("spent"):  # before it is known, since the run may end then
                    await client.run(dask_worker.leave, workers=[worker.address], wait=False, on_error="ignore")
            except Exception as error:
                said = error
            self._news.put((number, said))

        asyncio.run_coroutine_threadsafe(answer(), client.loop.asyncio_loop)

    def _listen(self, patience: float) -> None:
        """Wait for news, and take all that there are."""
        with suppress(queue.Empty):
            who, news = self._news.get(timeout=patience) if patience else self._news.get_nowait()
            while True:
                if who is None:
                    self._moved(news["worker"], news["action"] == "add-worker")
                elif news is None or isinstance(news, Exception):
                    self._lose(who, f" ({one_line(news)})" if news else " (it has been restarted)")
                elif who in self._workers:
                    self._said.append((who, news))
                    if news.get("spent"):
                        self.end(who)  # another one may come in its place, at the same address too
                who, news = self._news.get_nowait()

    def _moved(self, address: str, added: bool) -> None:
        """A worker has come, or gone."""
        number = next((number for number, worker in self._workers.items() if worker.address == address), None)
        if not added:
            self._waiting.pop(address, None)
            self._refused.discard(address)
            if number is not None:
                self._lose(number)
        elif number is None and address not in self._refused:
            self._waiting[address] = None

    def _lose(self, number: int, why: str | None = None) -> None:
        """A worker is gone, or else why it could not answer, and may be asked anew."""
        if worker := self._workers.pop(number, None):
            if why:
                self._waiting[worker.address] = None
            elif worker.task:
                worker.task.cancel()  # or Dask would keep it until there is a worker of this address again
            self._said.append((number, Lost(None, 0.0, address=worker.address + (why or ""))))


class ClusterSchedule(Schedule):
    """The cases of a run, given to the workers of a cluster. Each machine sees to its own memory."""

    def __init__(self, cases: Sequence[Case], cluster: Cluster, attempts: Attempts, room: Room) -> None:
        super().__init__(cases, cluster, 1, attempts, room, gpu_threads=None)
        self.cluster = cluster
        self.losses = 0  # of workers that were loading, since one has loaded

    def _may_start(self) -> bool:
        return self.cluster.waiting > 0

    def _heed(self, number: int, message: Message | Lost) -> None:
        if isinstance(message, Lost) and number in self.loading and (attempt := self._forget(number)):
            self.again.append(attempt)
            self.losses += 1
            text = f"a worker {message}, while it loaded the networks"
            if self.losses >= LOSSES and not set(self.cluster.numbers) - self.loading:
                raise VisceraError(f"{text}, as {self.losses - 1} did before it")
            say_warning(f"{text}; another one has its case")
            return
        if not isinstance(message, Lost) and "ready" in message:
            self.losses = 0
        super()._heed(number, message)

    def _not_loaded(self, attempt: Attempt, error: VisceraError) -> None:
        """Another worker has the case. Raises the error if there is none."""
        self.again.append(attempt)
        if not (self.cluster.numbers or self.cluster.waiting):
            raise error
        say_warning(f"{error}; the run goes on with other workers")
