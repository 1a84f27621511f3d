"""What the control groups of this process leave it: its own group, and every group that this lies in.

In a container the process's own group is mostly the root of all that it sees. In a job of Slurm, a unit of systemd, or
a container that sees the host's tree it is not, and limits stand in any of the groups on the way (man 7 cgroups).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

PROCESS = Path("/proc/self")
# Limit, what is taken, and what of this is file cache that the kernel drops first: of cgroup 2, and of cgroup 1.
MEMORY = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
# man 7 cgroups: number, controllers, path. man 5 proc_pid_mountinfo: root, place, type, source, options.
GROUP = re.compile(r"(\d+):([^:]*):(.*)")
MOUNT = re.compile(r"\S+ \S+ \S+ (\S+) (\S+) .* - (cgroup2?) \S+ (\S+)")
ENDLESS = 1 << 60  # bytes: cgroup 1 has a number, not a word, for no limit


def memory_left() -> int | None:
    """Bytes that can still be taken before the kernel kills: the least that any group leaves, less than 0 if one has
    more already. None where no group has a limit."""
    left = []
    for group in _groups("memory"):
        for limit, taken, cache in MEMORY:
            with suppress(OSError, ValueError):  # of the other version, or "max"
                most = int((group / limit).read_text())
                if most < ENDLESS:
                    left.append(most - int((group / taken).read_text()) + number_in(group / "memory.stat", cache))
    return min(left, default=None)


def processors() -> float | None:
    """Processors' worth of time that is granted: the least of any group. None where no group has a limit."""
    granted = []
    for group in _groups("cpu"):
        with suppress(OSError, ValueError):
            quota, period = (group / "cpu.max").read_text().split()
            granted.append(int(quota) / int(period))
        with suppress(OSError, ValueError):
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            if int(quota) > 0:
                granted.append(int(quota) / int(period))
    return min(granted, default=None)


def tasks_left() -> int | None:
    """Processes and threads that can still be started: the least that any group leaves. None where none has a limit."""
    left = []
    for group in _groups("pids"):
        with suppress(OSError, ValueError):
            left.append(int((group / "pids.max").read_text()) - int((group / "pids.current").read_text()))
    return min(left, default=None)


def _groups(controller: str) -> Iterator[Path]:
    """The folder of the group that this process is in, and those of all above it as far as they are mounted: of
    cgroup 2, and of a controller of cgroup 1. Some machines have both."""
    own = _own(controller)
    for root, place, kind, options in _lines("mountinfo", MOUNT):
        if kind in own and (kind == "cgroup2" or controller in options.split(",")):
            inside = _below(own[kind], _plain(root))
            for names in range(len(inside), -1, -1):
                yield Path(_plain(place), *inside[:names])


def _own(controller: str) -> dict[str, str]:
    """The group of this process, by the type of file system that shows it."""
    own = {}
    for number, controllers, group in _lines("cgroup", GROUP):
        if number == "0":
            own["cgroup2"] = group
        elif controller in controllers.split(","):
            own["cgroup"] = group
    return own


def _below(group: str, root: str) -> tuple[str, ...]:
    """The names that lead to a group from the root of a mount; none where the mount does not hold it."""
    try:
        inside = PurePosixPath(group).relative_to(root).parts
    except ValueError:
        return ()
    return () if ".." in inside else inside  # it was moved out of what its namespace shows


def _lines(name: str, kind: re.Pattern[str]) -> Iterator[tuple[str, ...]]:
    """The parts of each line of a file about this process that is of that kind."""
    try:
        text = (PROCESS / name).read_text(errors="surrogateescape")
    except OSError:  # no Linux
        return
    yield from (match.groups() for line in text.split("\n") if (match := kind.fullmatch(line)))


def _plain(text: str) -> str:
    """A path of mountinfo, in which spaces and backslashes are octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def number_in(file: Path | str, name: str) -> int:
    """The number behind `name` in a file of the kernel's, one entry a line; 0 where there is none."""
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return 0
    return next((int(words[1]) for words in map(str.split, lines) if words and words[0] == name), 0)
