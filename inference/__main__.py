"""The program, as `viscera` where it is installed, or as `python -m` and the package's name.

From here to the end of the process, no signal and no stream causes a traceback.
"""

import os
import signal

STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def main() -> None:
    """Run the command and end the process."""
    for number in STOPPING:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup leaves SIGHUP
            signal.signal(number, _stop)

    from .command import cli, console  # so that a signal during these imports is heeded

    code: object = 1
    try:
        code = cli.main()
    except SystemExit as stop:  # of the parser: a wrong flag, --help
        code = stop.code
    for number in STOPPING:  # how it ends is decided
        signal.signal(number, signal.SIG_IGN)
    if isinstance(code, int) and code > 128:
        os._exit(code)  # whoever stopped the run does not wait until a full pipe is read
    console.drop_unsaid()
    raise SystemExit(code)


def _stop(number: int, _: object) -> None:
    os._exit(128 + number)  # nothing has begun


if __name__ == "__main__":
    main()
