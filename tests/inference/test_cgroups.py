"""What control groups leave, read from copies of the kernel's files, and in real groups where these can be made."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from inference import cgroups, machine
from tests.conftest import ROOT
from tests.inference.test_estimate import cgroup  # noqa: F401

CPUS = min(len(os.sched_getaffinity(0)), machine.MOST_THREADS)


class Machine:
    """The files of a machine whose process is in a group: `own` as /proc/self/cgroup has it."""

    def __init__(self, folder: Path) -> None:
        self.mounts, self.process = folder / "mounts", folder / "self"
        self.process.mkdir()

    def is_in(self, own: str, root: str = "/") -> None:
        """The root of all mounts is a group: / but where a container has mounts of the host's without a namespace."""
        version_2 = own.startswith("0::")
        kinds = (
            [("unified", "cgroup2", "rw")]
            if version_2
            else [("memory",) * 3, ("pids",) * 3, ("cpu", "cgroup", "rw,cpu,cpuacct")]
        )
        kinds = [(name, "cgroup" if kind == name else kind, options) for name, kind, options in kinds]
        lines = ["22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=continue"]
        for name, kind, options in kinds:
            (self.mounts / name).mkdir(parents=True, exist_ok=True)
            place = str(self.mounts / name).replace(" ", r"\040")
            lines.append(f"31 22 0:28 {root} {place} rw,nosuid shared:9 master:2 - {kind} cgroup {options}")
        (self.process / "mountinfo").write_text("\n".join(lines) + "\n")
        (self.process / "cgroup").write_text(own + "\n")

    def write(self, group: str, **files: str) -> None:
        (self.mounts / group).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (self.mounts / group / name.replace("__", ".")).write_text(text)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    (tmp_path / "a b").mkdir()
    found = Machine(tmp_path / "a b")
    monkeypatch.setattr(cgroups, "PROCESS", found.process)
    return found


def test_without_a_limit_the_machine_decides(made: Machine) -> None:
    free = machine.memory_budget()  # no cgroups at all
    assert 0 < free <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") and machine.usable_cpus() == CPUS
    made.is_in("0::/")
    made.write("unified", memory__max="max\n", memory__current="5\n", cpu__max="max 100000\n")
    assert cgroups.memory_left() is None and cgroups.processors() is None
    assert machine.memory_budget() == pytest.approx(free, rel=0.2) and machine.usable_cpus() == CPUS


def test_a_limit_of_cgroup_2_less_what_is_taken_but_for_file_cache(made: Machine) -> None:
    made.is_in("0::/")
    made.write("unified", memory__max="300000", memory__current="200000", cpu__max="50000 100000\n")
    assert machine.container_budget() == 100000
    made.write("unified", memory__stat="anon 1\ninactive_file 50000\n")
    assert machine.container_budget() == machine.memory_budget() == 150000
    assert cgroups.processors() == 0.5 and machine.usable_cpus() == 1


def test_a_limit_of_cgroup_1(made: Machine) -> None:
    made.is_in("4:memory:/\n1:cpu,cpuacct:/\n0::/")
    used = {"memory__usage_in_bytes": "200000", "memory__stat": "inactive_file 7\ntotal_inactive_file 1000\n"}
    made.write("memory", memory__limit_in_bytes="300000", **used)
    made.write("cpu", cpu__cfs_quota_us="100000", cpu__cfs_period_us="100000")
    assert machine.memory_budget() == 101000 and machine.usable_cpus() == 1
    made.write("memory", memory__limit_in_bytes="9223372036854771712")
    made.write("cpu", cpu__cfs_quota_us="-1")
    assert cgroups.memory_left() is None and machine.usable_cpus() == CPUS


@pytest.mark.parametrize("version", [1, 2])
def test_the_least_of_all_groups_above_counts(version: int, made: Machine) -> None:
    """As in a job of Slurm, whose limit is not on the group that the process is in."""
    own = "/system.slice/slurmstepd.scope/job_7/step_0/task_0"
    made.is_in(f"0::{own}" if version == 2 else f"6:cpuacct,cpu:{own}\n4:memory:{own}\n0::/")
    top = ("unified", "unified") if version == 2 else ("memory", "cpu")

    def limit(group: str, most: int, taken: int, cpus: float) -> None:
        if version == 2:
            made.write(f"{top[0]}{group}", memory__max=f"{most}\n", memory__current=f"{taken}\n")
            made.write(f"{top[1]}{group}", cpu__max=f"{int(cpus * 10**5)} 100000\n")
        else:
            made.write(f"{top[0]}{group}", memory__limit_in_bytes=str(most), memory__usage_in_bytes=str(taken))
            made.write(f"{top[1]}{group}", cpu__cfs_quota_us=str(int(cpus * 10**5)), cpu__cfs_period_us="100000")

    limit("/system.slice", 10**9, 10**6, 8)
    limit("/system.slice/slurmstepd.scope/job_7", 4000, 1000, 1.5)
    limit(own, 10**7, 900, 4)
    limit("/system.slice/slurmstepd.scope/job_8", 5, 1, 0.1)  # somebody else's
    assert cgroups.memory_left() == 3000 and cgroups.processors() == 1.5
    limit("/system.slice", 10**9, 10**9 - 10, 1.25)  # others in it have taken the rest
    assert cgroups.memory_left() == 10 and cgroups.processors() == 1.25


@pytest.mark.parametrize(
    ("own", "root"),
    [
        ("/docker/7", "/docker/7"),  # the host's group, without a namespace
        ("/", "/../.."),  # a mount of outside the namespace
        ("/../other", "/"),  # a process that was moved out of it
        ("/gone (deleted)", "/"),
        ("/elsewhere", "/docker/7"),
    ],
)
def test_what_is_mounted_counts_where_the_own_group_is_not_in_it(own: str, root: str, made: Machine) -> None:
    made.is_in(f"0::{own}", root)
    made.write("unified", memory__max="3000", memory__current="1000")
    made.write("other", memory__max="1", memory__current="1")
    assert cgroups.memory_left() == 2000


@pytest.mark.parametrize("version", [1, 2])
def test_processors_that_may_have_no_worker_each_do_not_count(version: int, made: Machine) -> None:
    """Else many workers would start, and most scans fail for want of a thread."""
    made.is_in("0::/" if version == 2 else "7:pids:/\n0::/")
    group = "unified" if version == 2 else "pids"
    made.write(group, pids__max="64\n", pids__current="60\n")
    assert cgroups.tasks_left() == 4 and machine.processors() == 1
    made.write(group, pids__max="max\n")
    assert cgroups.tasks_left() is None and machine.usable_cpus() == CPUS


def test_files_that_say_nothing_set_no_limit(made: Machine) -> None:
    made.is_in("0::/")
    made.write("unified", memory__max="many", memory__current="2", cpu__max="", pids__max="2")
    assert cgroups.memory_left() is None and cgroups.tasks_left() is None and cgroups.processors() is None
    (made.process / "mountinfo").write_text("\n1 2\nno mount - cgroup2\n")
    (made.process / "cgroup").write_text("\nx\n0:\n")
    assert cgroups.memory_left() is None


def test_a_limit_of_a_real_group_above_is_seen(cgroup: Callable[[int], Path]) -> None:  # noqa: F811
    group = cgroup(300 * 10**6)
    inner = group / "inner"
    inner.mkdir()
    try:
        program = "from inference import cgroups; print(cgroups.memory_left())"
        ran = subprocess.run(
            ["bash", "-c", f'echo $$ > {inner}/cgroup.procs; exec "$@"', "bash", sys.executable, "-c", program],
            capture_output=True, text=True, check=True, cwd=ROOT,
        )  # fmt: skip
    finally:
        inner.rmdir()
    assert 250 * 10**6 < int(ran.stdout) < 300 * 10**6
