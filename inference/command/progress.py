"""How far a run is: lines on stdout as it goes, for people or for programs, and a bar for people at a terminal."""

from __future__ import annotations

import json
import sys
from time import perf_counter
from typing import Any

from ..errors import shown
from ..formats.cases import Case
from ..names import format_of
from ..record import Record
from ..version import __version__
from .console import say

KINDS = ("text", "json")
EVERY = {"text": 0.1, "json": 0.5}  # s between two looks at the same case
FEW = 16  # cases that are open
BAR = "{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left"


class _Share:
    """How much of a case is done, from 0 to 1: networks take the same time, as far as anybody knows."""

    def __init__(self, networks: int) -> None:
        self.networks, self.begun, self.most, self.windows = networks, 0, 1, 0

    def hear(self, message: dict[str, Any]) -> None:
        if "network" in message:
            self.begun, self.most, self.windows = self.begun + 1, max(message["most"], 1), 0
        else:
            self.windows += 1

    @property
    def done(self) -> float:
        if not self.begun:
            return 0.0
        return (self.begun - 1 + min(self.windows / self.most, 1)) / max(self.networks, self.begun)


class Progress:
    """Says what happens to the cases of a run; kind: of KINDS. What JSON lines hold is in docs/usage.md."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.cases = self.networks = self.kept = self.worked = 0
        self.began = self._due = perf_counter()
        self.open: dict[int, _Share] = {}  # by number of the case
        self.bar: Any = None

    def starts(self, cases: int, networks: int, workers: int | None) -> None:
        self.cases, self.networks = cases, networks
        self._say("run", program=__version__, cases=cases, workers=workers)

    def loaded(self, choice: dict[str, Any]) -> None:
        """The networks of the first worker are; `choice`: device, engine, precision, why."""
        self._say("loaded", ", ".join(choice["why"]) or "device, engine and precision as asked for", **choice)

    def begins(self, number: int, case: Case) -> None:
        """A worker is to have a case."""
        self._say("begun", number=number, case=shown(case.name))
        self.open[number] = _Share(self.networks)
        self._moved()

    def hear(self, number: int, message: dict[str, Any]) -> None:
        """Take what a worker says of a case: a network begins, or a window is done."""
        self.open[number].hear(message)
        if perf_counter() >= self._due:
            self._show()

    def _moved(self) -> None:
        """A case has begun or ended: shown at once, unless so many are open that each look at them takes long."""
        if len(self.open) <= FEW or perf_counter() >= self._due:
            self._show()

    def ends(self, number: int, title: str, case: Case, record: Record) -> None:
        """A case is done, kept or failed, and its record is whole."""
        self.open.pop(number, None)
        if record.status == "kept":
            self.kept += 1
            text = f"{title}: kept, {shown(case.labels.name)} was made from this scan by these networks"
        else:
            self.worked += 1
            found = len(record.labels or {})
            labels = "1 label" if found == 1 else f"{found} labels"
            text = f"{title}: {record.seconds['total']:.1f} s, {labels} -> {shown(case.labels)}"
        self._say(
            "case",
            None if record.status == "failed" else text,  # an error, which is printed as such
            number=number,
            case=record.case,
            status=record.status,
            seconds=round(record.seconds.get("total", 0.0), 2),
            error=record.error,
            warnings=record.warnings,
            files=[shown(path.name) for path in case.outputs if str(format_of(path)) in record.outputs],
        )
        self._moved()

    def ended(self, code: int) -> None:
        """Nothing is said after this."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
        self._say("end", exit_code=code)

    def clear(self) -> None:
        """Take the bar away for lines that are printed; it comes back with the next news."""
        if self.bar is not None:
            self.bar.clear()

    def _say(self, event: str, text: str | None = None, **more: Any) -> None:
        if self.kind == "json":
            say(json.dumps({"event": event, **more}))
        elif text:
            self.clear()
            say(text)

    def _show(self) -> None:
        """Say how far all is; the time left is as if what is left went as what was not kept."""
        now = perf_counter()
        self._due = now + EVERY[self.kind]
        done = self.worked + sum(share.done for share in self.open.values())
        left = self.cases - self.kept - done
        if self.kind == "json":
            seconds = now - self.began
            ahead = round(seconds / done * left, 1) if done else None
            done, seconds = round(self.kept + done, 3), round(seconds, 1)
            running = [{"number": number, "done": round(share.done, 3)} for number, share in self.open.items()]
            self._say("progress", done=done, cases=self.cases, seconds=seconds, seconds_left=ahead, running=running)
        elif sys.stderr.isatty():
            if self.bar is None:
                from tqdm import tqdm

                # No thread: the command may have to fork again.
                quiet = type("Bar", (tqdm,), {"monitor_interval": 0})
                self.bar = quiet(total=self.cases, bar_format=BAR, leave=False)
            self.bar.total, self.bar.n = done + left, done
            self.bar.set_description_str(f"{self.kept + self.worked}/{self.cases} cases")  # and draw it
