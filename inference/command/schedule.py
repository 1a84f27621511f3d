"""Which worker has which case, and when a scan begins: one loop, for any number of workers.

A worker is started where a case waits for one, and a scan begins where its own estimate of memory fits beside what the
others may come to hold. Scans begin in the order in which they ask. So a large one waits until it fits, alone if need
be, and those behind it wait as well: none is overtaken for ever.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from time import perf_counter
from typing import Protocol

from ..errors import VisceraError, met_elsewhere
from ..formats.cases import Case
from .attempts import Attempt, Attempts
from .console import say_warning
from .room import Room
from .workers import ANSWERS, POLL, Lost, Message

ALONE = sys.maxsize  # bytes that fit beside nothing


class Pool(Protocol):
    """Workers, of this machine or of a cluster; Workers documents the methods."""

    @property
    def numbers(self) -> list[int]: ...
    def start(self) -> int: ...
    def send(self, number: int, order: Message) -> None: ...
    def receive(self, patience: float = POLL) -> tuple[int, Message | Lost] | None: ...
    def private_memory(self, number: int) -> int: ...
    def end(self, number: int) -> None: ...
    def stop(self) -> None: ...


class Schedule:
    """The cases of a run, given to workers.

    workers      of which none is started yet
    count        of them at most
    attempts     what becomes of each case
    room         that scans share; with one worker none is shared
    gpu_threads  of the worker, if there is a GPU, which has one alone; None: a GPU has as many workers as are asked for
    """

    def __init__(
        self, cases: Sequence[Case], workers: Pool, count: int, attempts: Attempts, room: Room, gpu_threads: int | None
    ) -> None:
        self.cases = deque(enumerate(cases, 1))
        self.workers, self.count, self.attempts, self.room = workers, count, attempts, room
        self.gpu_threads = gpu_threads
        self.threads: int | None = None  # of a worker, where they are others than it was started with
        self.shared = count > 1
        self.open: dict[int, Attempt] = {}  # by worker
        self.again: list[Attempt] = []  # for the next worker that is free
        self.loading: set[int] = set()  # workers, each of which has a case already
        self.asking: dict[int, int] = {}  # worker -> bytes that its scan needs before it begins; the first one first
        self.promised: dict[int, int] = {}  # worker -> bytes that its scan, which runs, may take
        self.usual: int | None = None  # bytes that the latest scan needed

    def run(self) -> None:
        """Until every case is done. Raises VisceraError if no worker can load its networks, and Stopped."""
        while self.cases or self.again or self.open:
            self._admit()
            begun = self._begin_next()
            self._listen(0 if begun else POLL)

    def _listen(self, patience: float) -> None:
        """Until a worker gives an answer or is lost, or for so many seconds: progress is reported often, and the memory
        of hundreds of workers would be read each time."""
        until = perf_counter() + patience
        while True:
            if said := self.workers.receive(max(until - perf_counter(), 0)):
                number, message = said
                self._heed(number, message)
                if isinstance(message, Lost) or message.keys() & ANSWERS:
                    return
            if perf_counter() >= until:
                return

    def rest(self) -> list[Attempt]:
        """What was begun and is not done."""
        return [*self.open.values(), *self.again]

    def _begin_next(self) -> bool:
        """Take a case if a worker is free for it, or may be started. Returns whether one was taken."""
        free = next((number for number in self.workers.numbers if number not in self.open), None)
        if free is None and not self._may_start():
            return False
        if self.again:
            attempt = self.again.pop(0)
        elif self.cases and not self._is_written(self.cases[0][1]):
            begun = self.attempts.begin(*self.cases.popleft())
            if begun is None:
                return True
            attempt = begun
        else:
            return False
        if free is None:
            self._start(attempt)
        else:
            self._give(free, attempt)
        return True

    def _may_start(self) -> bool:
        """One that is not needed is not started, nor one that would have to wait for memory at once."""
        there = self.workers.numbers
        if not there:
            return True
        if len(there) >= self.count or self.loading or self.asking or self.usual is None:
            return False
        return self.room.fits(self.usual, 0, self._memory(there))

    def _is_written(self, case: Case) -> bool:
        """Whether a worker may be writing files that a file system could take for those of a case."""
        return not all(attempt.case.file_names.isdisjoint(case.file_names) for attempt in self.rest())

    def _start(self, attempt: Attempt) -> None:
        try:
            number = self.workers.start()
        except VisceraError as error:
            self._not_loaded(attempt, error)
        else:
            self.loading.add(number)
            self.open[number] = attempt

    def _give(self, number: int, attempt: Attempt) -> None:
        """Have a case segmented, or an empty label map written."""
        if not self.attempts.make_room(attempt):
            return
        self.open[number] = attempt
        case, ways = attempt.case, attempt.ways
        if ways is None:
            self.promised[number] = 0
        files, outputs = ([os.fspath(path) for path in paths] for paths in (case.files, case.outputs))
        pictures = [(os.fspath(file), frame) for file, frame in case.volume.pictures] if case.volume else None
        self.workers.send(number, {
            "case": {"name": case.name, "files": files, "outputs": outputs, "pictures": pictures},
            "ways": [asdict(way) for way in ways] if ways else None,
            "container": self.room.container if self.shared else None,
            "threads": self.threads,
        })  # fmt: skip

    def _admit(self) -> None:
        """Let scans begin that memory is there for."""
        while self.asking:
            number, need = next(iter(self.asking.items()))
            others = [other for other in self.workers.numbers if other != number]
            if not self.room.fits(need, self.workers.private_memory(number), self._memory(others)):
                if self.promised:
                    return
                for other in others:  # nothing runs, so that it is they who hold what is missing
                    self._retire(other)
            del self.asking[number]
            self.promised[number] = need
            self.usual = need if need < ALONE else self.usual
            self.open[number].resume()
            self.workers.send(number, {"go": True})

    def _memory(self, numbers: Sequence[int]) -> list[tuple[int, int]]:
        return [(self.promised.get(number, 0), self.workers.private_memory(number)) for number in numbers]

    def _retire(self, number: int) -> None:
        """End a worker whose scan, if it has one, has not begun: another begins it."""
        self.workers.end(number)
        if attempt := self._forget(number):
            attempt.pause()
            self.again.append(attempt)

    def _forget(self, number: int) -> Attempt | None:
        """Forget what a worker was at; its case, if it had one."""
        self.loading.discard(number)
        self.asking.pop(number, None)
        self.promised.pop(number, None)
        return self.open.pop(number, None)

    def _heed(self, number: int, message: Message | Lost) -> None:
        """Act on what a worker says, or on its loss."""
        if isinstance(message, Lost):
            loading = number in self.loading
            attempt = self._forget(number)
            if attempt and loading:
                self._not_loaded(attempt, VisceraError(f"the networks could not be loaded: the worker {message}"))
            elif attempt and self.attempts.lost(attempt, message, bool(self.open)):
                self.again.append(attempt)
            return
        attempt = self.open[number]
        if "ready" in message:
            self._forget(number)
            self.attempts.loaded(message["ready"])
            if message["ready"]["device"] != "cpu" and self.gpu_threads:
                self.count, self.threads = 1, self.gpu_threads
            self._give(number, attempt)
        elif "fatal" in message:
            self._forget(number)
            self.workers.end(number)
            self._not_loaded(attempt, met_elsewhere(*message["fatal"]))
        elif "needs" in message:
            attempt.pause()
            self.asking[number] = ALONE if attempt.alone else message["needs"]
        elif "record" in message:
            self._forget(number)
            if self.attempts.answered(attempt, message["record"]):
                self.again.append(attempt)
        else:
            self.attempts.progress.hear(attempt.number, message)

    def _not_loaded(self, attempt: Attempt, error: VisceraError) -> None:
        """Another worker has the case. Raises the error if there is none."""
        self.again.append(attempt)
        self.count = len(self.workers.numbers)
        if not self.count:
            raise error
        say_warning(f"{error}; the run goes on with {self.count} of its workers")
