"""What runs in a process of a Dask cluster: networks loaded once for a run, and one of its scans after another.

Orders and answers are those of worker.py, as JSON text, so that a name of any bytes passes whatever Dask packs it in.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from .. import errors, machine
from ..cards import digests, networks_of
from ..engines.lean import start_lean
from ..errors import DeviceError, WeightsError
from ..formats.dicom import cannot_write
from ..options import WEIGHTS, Options
from ..pack import unpacked
from ..version import LABELS, __version__
from .worker import Worker, fatal

PATIENCE = 5.0  # s that a scan has to end in once its run has
SOON = 0.5  # s in which an answer is sent


class Ended(BaseException):
    """The run is over. Not an Exception, so that it does not become a record."""


@dataclass
class _Run:
    """What this process has of a run, whose names of files it hides or shows."""

    hide_names: bool | str
    worker: Worker | None = None
    busy: bool = False
    ended: bool = False


_runs: dict[str, _Run] = {}
_pauses: list[tuple[Any, Any]] = []  # of Dask, switched off while a run is here: memory managers, and their shares
_turn = threading.Lock()  # one scan at a time, whatever the cluster has of threads: the watch is one for the process


def first_order(run: str, options: Options, timeout: float, own: bool, dicom: bool = False) -> str:
    """What `check` and `load` are told.

    run      a name that no other run has
    options  whose folder of networks all workers see, or which are the program's own
    timeout  s without progress after which the process ends itself
    own      whether the process was started for this run, and does nothing else
    dicom    whether labels are written as DICOM
    """
    given = options.to_json()
    if options.weights == WEIGHTS:
        del given["weights"]  # the program may lie elsewhere there
    hide = errors.names_are_hidden()
    return json.dumps(
        {"run": run, "options": given, "hide_names": hide, "timeout": timeout, "own": own, "dicom": dicom}
    )


def identity(options: Options) -> dict[str, Any]:
    """What all workers of a run must agree in. Raises WeightsError."""
    with unpacked(options.weights) as weights:
        cards, _ = networks_of(options, weights)
    return {"program": __version__, "labels": LABELS, "networks": digests(cards)}


def check(order: str, wanted: dict[str, Any]) -> tuple[int, str] | None:
    """Why this process cannot be a worker of the run, after the exit code for that; None if it can."""
    try:
        _fit(json.loads(order), wanted)
    except Exception as error:
        code, text = fatal(error)["fatal"]
        return code, text
    return None


def load(order: str, wanted: dict[str, Any]) -> str:
    """Load the networks of a run: "ready" or "fatal"."""
    given = json.loads(order)
    said: list[dict[str, Any]] = []
    run = _runs[given["run"]] = _Run(given["hide_names"])

    def hear(message: dict[str, Any]) -> None:
        if "ready" in message:
            said.append(message)
        if run.ended:
            raise Ended
        _watch(given["timeout"])

    with _at(run):
        _watch(given["timeout"])
        try:
            options = _fit(given, wanted)
            _keep_running()
            machine.limit_threads(options.threads or machine.usable_cpus())
            if given["own"]:
                start_lean()
            run.worker = Worker(options, hear, lambda: None)
        except Exception as error:
            said = [fatal(error)]
    return json.dumps(said[0])


def segment(name: str, order: str) -> str:
    """Do an order of the run of that name: "record". null if the run has ended, or has not loaded its networks in this
    process: one with the same address had.

    Nothing is raised: Dask writes the arguments of what fails into its log, and there are names of files in them.
    """
    run = _runs.get(name)
    if run is None or run.worker is None:
        return "null"
    with _at(run), suppress(Ended):
        run.worker.send({})  # the watch begins
        return json.dumps(run.worker.obey(json.loads(order)), allow_nan=False)
    return "null"


async def leave() -> None:
    """End this process once this is answered: its GPU may be lost to it. Dask's nanny, where there is one, starts
    another."""
    await asyncio.sleep(SOON)
    os._exit(1)


async def end(name: str) -> None:
    """Give up the scan that this process has of a run, and its networks."""
    if run := _runs.pop(name, None):
        run.ended = True
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE
        while run.busy and loop.time() < until:
            await asyncio.sleep(0.02)
        run.worker = None
    if not _runs:
        _let_pause()


@contextmanager
def _at(run: _Run) -> Iterator[None]:
    with _turn:
        run.busy = True
        before = errors.names_are_hidden()
        errors.hide_names(run.hide_names)  # other runs in this process may show them
        try:
            yield
        finally:
            errors.hide_names(before)
            faulthandler.cancel_dump_traceback_later()
            run.busy = False


def _watch(timeout: float) -> None:
    """End this process unless it is called again in time, even if a library holds Python's lock."""
    faulthandler.dump_traceback_later(timeout, exit=True, file=sys.__stderr__ or sys.stderr)


def _fit(given: dict[str, Any], wanted: dict[str, Any]) -> Options:
    """The options of a run. Raises WeightsError where this process would make other labels, or other records, than the
    run wants, and DeviceError where it could not write them."""
    if (__version__, LABELS) != (wanted["program"], wanted["labels"]):  # first: another version knows other options
        raise WeightsError(f"it has version {__version__} of this program, and this machine has {wanted['program']}")
    options = replace(Options(), **given["options"])
    networks = identity(options)["networks"]
    if networks != wanted["networks"]:
        names = [name for name, digest in wanted["networks"].items() if networks.get(name) != digest]
        raise WeightsError(f"network {', '.join(names)} in {options.weights} is a different one there")
    if given["dicom"] and (why := cannot_write()):
        raise DeviceError(why)
    return options


def _keep_running() -> None:
    """Dask pauses a worker whose memory is four fifths of its share, for as long as that is so; networks that stay
    loaded would keep it there for ever."""
    from distributed import get_worker

    manager: Any = get_worker().memory_manager
    _pauses.append((manager, manager.memory_pause_fraction))
    manager.memory_pause_fraction = False


def _let_pause() -> None:
    """As before the first run that is or was here."""
    while _pauses:
        manager, share = _pauses.pop()
        manager.memory_pause_fraction = share
