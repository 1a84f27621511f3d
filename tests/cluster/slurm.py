"""A real Slurm on one node: its own munged, slurmctld and slurmd, with their state in a folder of the test."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from tests.conftest import wait
from tests.made.ports import free_port

NODE = "node"
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue")
# Any user may send jobs, one node plays two processors. A job that is queued again may begin only once its old
# credentials have expired, 120 s by default.
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1
ReturnToService=2
KillWait=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=16000
PartitionName=all Nodes=ALL Default=YES State=UP MaxTime=1:00:00
"""


def absent() -> str | None:
    """Why no Slurm can be started here; None if one can."""
    if missing := [name for name in NEEDED if not shutil.which(name)]:
        return f"{missing[0]} is not installed: apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "Slurm is started as root only"


class Slurm:
    """Started when it is made; `stop` ends all that it started, jobs included."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("state", "spool"):
            (folder / name).mkdir(parents=True)
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        ports = free_port(), free_port()
        host = socket.gethostname().partition(".")[0]
        configuration = folder / "slurm.conf"
        configuration.write_text(
            CONFIGURATION.format(folder=folder, host=host, node=NODE, port=ports[0], node_port=ports[1])
        )
        # By this variable whatever was started, by whomever, is known to be this Slurm's.
        self.environment = os.environ | {"SLURM_CONF": str(configuration)}
        try:
            self._start_all(folder, key)
        except BaseException:
            self.stop()
            raise

    def _start_all(self, folder: Path, key: Path) -> None:
        self._start(
            "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket",
            f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed",
        )  # fmt: skip
        wait(lambda: (folder / "munge.socket").exists(), "munged has no socket")
        self._start("slurmctld", "-D", "-c")
        self.start_node()
        wait(lambda: self.asked("sinfo", "--noheader", "--format=%T") == "idle", "the node is not idle")

    def start_node(self, *flags: str) -> None:
        self._start("slurmd", "-D", "-N", NODE, *flags)

    def _start(self, *command: str) -> None:
        with open(self.folder / f"{command[0]}.out", "a") as log:
            subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True)

    def asked(self, *command: str) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    def crash_node(self) -> None:
        """What a power cut does to the node: its daemon and every job on it are gone at once."""
        self._kill(but=("munged", "slurmctld", "slurmscriptd"))
        # As slurmctld does by itself once a node has not answered for SlurmdTimeout.
        self.asked("scontrol", "update", f"nodename={NODE}", "state=down", "reason=silent")

    def stop(self) -> None:
        self._kill()

    def _kill(self, but: tuple[str, ...] = ()) -> None:
        while found := [number for number in self._processes() if _name(number) not in but]:
            for number in found:
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
                with suppress(ChildProcessError):
                    os.waitpid(number, os.WNOHANG)
            time.sleep(0.02)

    def _processes(self) -> list[int]:
        mine = f"SLURM_CONF={self.environment['SLURM_CONF']}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with suppress(OSError):  # it has ended
                    if mine in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
        return found


def _name(number: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{number}/comm").read_text().strip()
    return ""
