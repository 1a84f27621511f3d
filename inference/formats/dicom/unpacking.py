"""Unpacks many slices in several processes: decoders hold Python's lock, so that threads would wait for each other.

Each process is a program of its own, which is sent its slices as JSON and answers with a line and the voxels of each.
"""

from __future__ import annotations

import json
import os
import re
import subprocess  # nosec B404
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

import numpy as np

from ...errors import ScanError, hide_names, names_are_hidden
from ...machine import THREADS_VARIABLE, own_program, usable_cpus
from .headers import quiet
from .pixels import planes
from .slices import Slice

WORTH = 32  # packed slices, which take a second or two: as long as a process needs to begin
MOST = 4  # processes
EACH = 70_000_000  # bytes

Answer = tuple[int, np.ndarray] | BaseException | None


def planes_of(slices: Sequence[Slice]) -> Iterator[tuple[int, np.ndarray]]:
    """The place of each slice among these, and its HU (y, x), in no order. Raises ScanError, and MemoryError where a
    process was killed."""
    count = _processes(slices)
    if not count:
        with quiet():
            yield from planes(slices)
        return
    answers: Queue[Answer] = Queue(2 * count)
    parts = np.array_split(np.arange(len(slices)), count)
    programs: list[subprocess.Popen[bytes]] = []
    threads: list[Thread] = []
    try:
        for part in parts:
            programs.append(_start([slices[z] for z in part]))
            threads.append(Thread(target=_collect, args=(programs[-1], part, answers), daemon=True))
            threads[-1].start()
        running = count
        while running:
            answer = answers.get()
            if isinstance(answer, BaseException):
                raise answer
            if answer is None:
                running -= 1
            else:
                yield answer
    finally:
        for program in programs:
            program.kill()
            program.wait()
        for thread in threads:  # one that waits for room in the queue would do so for ever
            while thread.is_alive():
                with suppress(Empty):
                    answers.get(timeout=0.01)


def beside(slices: Sequence[Slice]) -> int:
    """Bytes that the processes for these slices take."""
    return _processes(slices) * EACH


def _processes(slices: Sequence[Slice]) -> int:
    packed = sum(one.is_packed for one in slices)
    threads = re.match(r"\d+", os.environ.get(THREADS_VARIABLE, ""))  # "4,2" where threads have threads
    count = min(packed // WORTH, int(threads[0]) if threads else usable_cpus(), MOST)
    # A file of frames would be read by each of them.
    return 0 if count < 2 or any(one.has_frames for one in slices) else count


def _start(slices: Sequence[Slice]) -> subprocess.Popen[bytes]:
    command, pipe = own_program(__name__), subprocess.PIPE
    program = subprocess.Popen(command, stdin=pipe, stdout=pipe, start_new_session=True)  # nosec B603
    assert program.stdin
    order = {"hidden": names_are_hidden(), "slices": [asdict(one) | {"file": os.fspath(one.file)} for one in slices]}
    with suppress(BrokenPipeError):  # it was killed: it will give no answer
        program.stdin.write((json.dumps(order) + "\n").encode("ascii"))
        program.stdin.flush()
    return program


def _collect(program: subprocess.Popen[bytes], part: np.ndarray, answers: Queue[Answer]) -> None:
    """Pass on what a program answers, and None at its end."""
    assert program.stdout
    try:
        for _ in part:
            line = json.loads(program.stdout.readline() or '{"lost": true}')
            if "lost" in line:
                raise MemoryError
            if "error" in line:
                raise ScanError(line["error"])
            kind, shape = np.dtype(line["dtype"]), line["shape"]
            voxels = program.stdout.read(kind.itemsize * shape[0] * shape[1])
            if len(voxels) < kind.itemsize * shape[0] * shape[1]:
                raise MemoryError
            answers.put((int(part[line["z"]]), np.frombuffer(voxels, kind).reshape(shape)))
        answers.put(None)
    except BaseException as error:
        answers.put(error)


def main() -> None:
    """The program."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # so that nothing that a library prints is taken for an answer
    order = json.loads(sys.stdin.buffer.readline())
    hide_names(order["hidden"])
    slices = [Slice(**one | {"file": Path(one["file"])}) for one in order["slices"]]

    def answer(line: dict[str, Any], voxels: bytes = b"") -> None:
        answers.write((json.dumps(line) + "\n").encode("ascii") + voxels)
        answers.flush()

    try:
        with quiet():
            for z, plane in planes(slices):
                answer({"z": z, "shape": plane.shape, "dtype": plane.dtype.str}, plane.tobytes())
    except ScanError as error:
        answer({"error": str(error)})
    except OSError:  # nobody listens any more
        os._exit(1)
