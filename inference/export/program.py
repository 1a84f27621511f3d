"""How the programs of this room end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from ..errors import VisceraError, end_tidily, one_line
from ..machine import ran_out


def or_exit(run: Callable[[argparse.Namespace], None], options: argparse.Namespace) -> None:
    """Run a program. Errors that a user can mend are one line, and exit with their code."""
    end_tidily()
    try:
        run(options)
    except VisceraError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:  # such as a name that is too long
        sys.exit(f"error: {error}")
    except (MemoryError, RuntimeError) as error:  # PyTorch's and OpenVINO's are RuntimeErrors
        if not ran_out(error):
            raise
        sys.exit(f"error: memory ran out: {one_line(error)}")
