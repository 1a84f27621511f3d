"""Everything that Viscera raises on purpose, and the exit code that each becomes.

    VisceraError                 1  an internal error where nothing more exact fits
    ├── NoInputError             2  the input holds no case
    ├── DeviceError              3  the device or engine asked for is not available
    ├── InputFolderError         5  the input cannot be opened
    ├── OutputError              7  the output folder cannot be written
    ├── WeightsError             9  weights missing, damaged or not understood
    └── CaseError                8  one case failed, others went on (4: all failed)
        ├── EngineError             the engine gave up on this scan
        ├── ScanError               the scan is damaged or is not a CT we can segment; also a ValueError
        ├── MemoryBudgetError       the scan needs more memory than there is
        └── UnwrittenError          its labels cannot be written (7: no case was done)

0 is success; 128 plus a signal's number, as 143 for SIGTERM, is a run that it stopped. The numbers follow dcm2niix's
habit of one code a cause, so that a scheduler can tell a bad scan from a bad machine.
"""

import hashlib
import json
import os
import re
import signal
import sys
import textwrap
from pathlib import Path

from .names import BIDS, bids_case, case_of, output_stem

SOME_FAILED, ALL_FAILED = 8, 4  # exit codes of a run over several cases
WRONG_FLAG = 2  # as argparse ends


class VisceraError(Exception):
    """Base of all errors with a message meant for the user."""

    exit_code = 1


class NoInputError(VisceraError):
    exit_code = 2


class DeviceError(VisceraError):
    exit_code = 3


class InputFolderError(VisceraError):
    exit_code = 5


class OutputError(VisceraError):
    exit_code = 7


class WeightsError(VisceraError):
    exit_code = 9


class CaseError(VisceraError):
    exit_code = 8


class EngineError(CaseError):
    pass


class ScanError(CaseError, ValueError):
    pass


class MemoryBudgetError(CaseError):
    pass


class UnwrittenError(CaseError):
    pass


def met_elsewhere(exit_code: int, text: str) -> VisceraError:
    """The error that another process of this program met, with its exit code."""
    error = VisceraError(text)
    error.exit_code = exit_code
    return error


class ScanWarning(UserWarning):
    """What was odd about a scan that Predictor was called with; see warnings.catch_warnings."""


def end_tidily() -> None:
    """Have SIGTERM and Ctrl-C end this program by an exception that is not shown: nothing half written is left."""
    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, _: sys.exit(128 + number))


JOIN = "if it is one of several slices, join them into one volume"  # what to do with planes in files of their own
UNTOLD = "what an earlier run without --hash-names told is hidden: run again without --resume to see it"

# What went wrong in CUDA or a library of it, which ONNX Runtime puts between two places and their types.
CUDA_FAILURE = r"CU(DA|DNN|DNN_FE|BLAS) failure \d+: [^;]+|CUDA error cuda\w+:[^;]+"

_HERE = os.path.dirname(os.path.realpath(__file__))
_hidden: bool | str = False


def first_cause(error: BaseException) -> BaseException:
    """The error at the beginning of a chain of `raise ... from`: NumPy's own words go on for 20 lines. That something
    was cancelled is no cause: why is told by what was raised from it."""
    while (cause := error.__cause__) is not None and type(cause).__name__ != "CancelledError":
        error = cause
    return error


def one_line(error: BaseException) -> str:
    """What a library's error says, in one line: the first cause, without the places in C++ that it passed."""
    error = first_cause(error)
    text = re.sub(r"Exception from \S+:\d+:|\x1b\[[\d;]*m", " ", str(error))
    if failure := re.search(CUDA_FAILURE, text):
        text = failure[0]
    return textwrap.shorten(text, 200, placeholder=" ...") or type(error).__name__


def hide_names(hidden: bool | str = True) -> None:
    """Whether `shown` gives hashes from now on, in this process and in workers that it starts; of BIDS, hashes of what
    BIDS calls the cases."""
    global _hidden
    _hidden = hidden


def names_are_hidden() -> bool | str:
    return _hidden


def shown(name: str | Path) -> str:
    """A name that may hold any bytes, safe to print: control characters and undecodable bytes are escaped.

    With `hide_names` the first 12 digits of the sha256 of the case's name: the same for a scan, its case and what is
    written for it.
    """
    if _hidden:
        case = output_stem(Path(os.path.basename(name).removesuffix(".json")))
        while (shorter := case_of(case)) != case:
            case = shorter
        if _hidden == BIDS:
            case = bids_case(case) or case
        return hashlib.sha256(os.fsencode(case)).hexdigest()[:12]
    return _escaped(name)


def how_to_install(extra: str) -> str:
    """The command that installs an extra. pip knows a checkout, which is not installed, by its folder only; what is
    installed under the name of that may be another program."""
    from importlib.metadata import PackageNotFoundError, distribution  # 20 ms that only an error is worth

    package = __package__ or ""
    try:
        is_installed = os.path.realpath(str(distribution(package).locate_file(package))) == _HERE
    except PackageNotFoundError:
        is_installed = False
    return f'pip install "{package}[{extra}]"' if is_installed else f'pip install ".[{extra}]" in the checkout'


def retold(text: str, case: str, told_of: str) -> str:
    """A text of an earlier run, whose record calls the case `told_of`; another one in its place if names are hidden now
    and were not then: it may name any file or folder."""
    return text if not _hidden or told_of == shown(case) else UNTOLD


def _escaped(name: str | Path) -> str:
    return json.dumps(os.fsencode(name).decode(errors="backslashreplace"), ensure_ascii=False)[1:-1]
