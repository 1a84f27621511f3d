"""`python -m inference`: from here to the end of the process, no signal and no stream causes a traceback."""

import os
import signal

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _stop(number: int, _: object) -> None:
    os._exit(128 + number)  # nothing has begun


for _number in STOPPING:
    if signal.getsignal(_number) != signal.SIG_IGN:  # as nohup leaves SIGHUP
        signal.signal(_number, _stop)

from .command.cli import main
from .command.console import drop_unsaid

code: object = 1
try:
    code = main()
except SystemExit as stop:  # of the parser: a wrong flag, --help
    code = stop.code
for _number in STOPPING:  # how it ends is decided
    signal.signal(_number, signal.SIG_IGN)
if isinstance(code, int) and code > 128:
    os._exit(code)  # whoever stopped the run does not wait until a full pipe is read
drop_unsaid()
raise SystemExit(code)
