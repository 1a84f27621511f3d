"""Makes Linux look like a system without what only Linux has, or only Unix.

Copied to sitecustomize.py, which every Python that has its folder on PYTHONPATH runs first. signal.SIGKILL stays:
Python's own subprocess needs it here.
"""

import os
import signal
import sys

sys.platform = "elsewhere"
for _module, _names in (
    (os, "fork forkpty wait3 wait4 memfd_create sched_getaffinity sched_setaffinity sysconf getuid geteuid getgid"),
    (os, "O_NONBLOCK O_NOFOLLOW O_DIRECTORY O_CLOEXEC"),
    (signal, "SIGHUP SIGALRM setitimer ITIMER_REAL pthread_sigmask"),
):
    for _name in _names.split():
        if hasattr(_module, _name):
            delattr(_module, _name)
for _name in ("fcntl", "grp", "pwd", "resource"):
    sys.modules[_name] = None  # type: ignore[assignment]  # cannot be imported


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    path = arguments[0] if event in ("open", "os.listdir", "os.scandir") else None
    if isinstance(path, str | bytes | os.PathLike) and os.fsencode(path).startswith((b"/proc", b"/sys")):
        raise FileNotFoundError(2, "No such file or directory", path)


sys.addaudithook(_refuse)
