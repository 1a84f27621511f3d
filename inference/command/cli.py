"""The command line: arguments, exit code.

Nothing but the standard library is imported here: separate processes, the workers, do the work. Only if there is DICOM
among the inputs, this process reads its headers with pydicom, to find the cases.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from math import inf
from pathlib import Path
from typing import TypeVar

from .. import errors
from ..errors import VisceraError
from ..formats.pattern import given_pattern
from ..names import (
    BIDS,
    FORMAT_NAMES,
    FORMATS,
    LAYOUTS,
    PREVIEW,
    PROBABILITIES,
    format_of,
    formats_named,
    stem,
)
from ..options import DEVICES, ENGINES, PRECISIONS, UNEVEN, WAYS, WEIGHTS, Options, given_names, given_path
from ..pack import unpacked
from ..version import __version__
from . import compat, merge
from .console import forgiving_streams, say_error
from .part import Part, read_part
from .progress import KINDS, Progress
from .request import Request
from .run import Run
from .schedulers import LOCAL, PROTOCOLS, SLURM
from .stopping import Stopped, Stopping

Number = TypeVar("Number", int, float)
PROGRAM = "viscera"
UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}  # bytes
DESCRIPTION = "Segment abdominal organs and tumours in CT scans. Research use only."


def main(arguments: Sequence[str | Path] | None = None) -> int:
    """Run the command; returns its exit code (see errors). Leaves this process as it was."""
    given = [os.fspath(one) for one in (sys.argv[1:] if arguments is None else arguments)]
    with forgiving_streams(), Stopping() as stopping:
        progress = None
        try:
            for verb in (merge, compat):
                if given[:1] == [verb.VERB]:
                    return verb.main(given[1:], _called())
            request = parse(given)
            progress = Progress(request.progress)
            code = _run(request, progress, stopping)
        except Stopped as stopped:
            say_error(f"stopped by {stopped.name} before the first case")
            code = stopped.exit_code
        if progress:
            progress.ended(code)
        return code


def _run(request: Request, progress: Progress, stopping: Stopping) -> int:
    hidden = errors.names_are_hidden()
    errors.hide_names(request.hash_names and request.layout)
    try:
        with unpacked(request.options.weights) as weights:
            unpacked_here = replace(request, options=replace(request.options, weights=weights))
            run = Run(unpacked_here, request.options, progress, stopping)
            try:
                return run()
            finally:
                stopping.over()
                run.claim.release()
    except VisceraError as error:
        say_error(str(error))
        return error.exit_code
    finally:
        errors.hide_names(hidden)


def parser() -> argparse.ArgumentParser:
    """All arguments of the command."""
    called = _called()
    verbs = (
        f"{called} {merge.VERB} OUTPUTS joins the summaries and measurements of all parts (--part). {called} "
        f"{compat.VERB} {compat.PROGRAMS[0]} takes the arguments of TotalSegmentator and writes its files."
    )
    usage = f"{called} INPUTS OUTPUTS [flags]"  # all flags would bury the line that says what is wrong
    command = argparse.ArgumentParser(prog=called, usage=usage, description=DESCRIPTION, epilog=verbs)
    add = command.add_argument
    add(
        "inputs",
        metavar="INPUTS",
        type=given_path,
        help="a folder of X.nii.gz or X_0000.nii.gz, one scan, a BIDS dataset, or DICOM: a series, an export, a ZIP",
    )
    add("outputs", metavar="OUTPUTS", type=_folder, help="folder for the label maps X.nii.gz")
    add("--device", choices=DEVICES, default="auto", help="default: cuda if available")
    add("--engine", choices=("auto", *ENGINES), default="auto", help="what runs the networks")
    add("--plan", choices=tuple(WAYS), help="which windows run (default: as on each card, else dense)")
    add("--step", type=_step, metavar="SHARE", help="distance between windows as a share of the patch (0.5, or tuned)")
    add(
        "--tta",
        action="store_true",
        help="average over mirrored windows, as nnU-Net does by default: 8 times slower for 3 axes",
    )
    add("--precision", choices=PRECISIONS, default="auto", help="the networks' arithmetic")
    add(
        "--weights",
        type=given_path,
        default=WEIGHTS,
        metavar="DIR",
        help="folder of exported networks, or a file packed from it (default: this program's own)",
    )
    add("--networks", type=given_names, metavar="NAMES", help="in increasing priority (default: organ,tumor, else all)")
    add("--labels", type=given_names, metavar="NAMES", help="only these labels, such as liver,spleen (default: all)")
    add("--case", type=_name, action="append", default=[], metavar="NAME", help="only this case; may be repeated")
    add("--scans", type=given_pattern, metavar="PATTERN", help="scans in subfolders: which, such as '*/ct.nii.gz'")
    add("--name-by", type=_name, metavar="TAG", help="name DICOM cases by this tag, such as AccessionNumber")
    add("--part", type=_part, metavar="I/N", help="the I-th of N parts of the cases; auto: from the job array")
    known = ",".join(FORMAT_NAMES)
    add("--format", type=_formats, default=FORMATS[:1], metavar="NAMES", help=f"any of {known} (nifti)")
    add("--layout", choices=LAYOUTS, default=LAYOUTS[0], help="OUTPUTS is one folder (flat), or as in BIDS")
    add("--save-probabilities", action="store_true", help="write the folder X.probabilities, with one file per label")
    add("--preview", action="store_true", help="write pictures to X.preview, and index.html, a page of all cases")
    add("--resume", action="store_true", help="skip cases whose label map was made from the same scan in the same way")
    add("--accept-intensities", action="store_true", help="segment scans that cannot be CT in HU, with a warning")
    add(
        "--fix-orientation",
        action="store_true",
        help="if a scan certainly does not lie as its header says, segment it as it lies",
    )
    add("--uneven", choices=UNEVEN, default=UNEVEN[0], help="what to do if DICOM slices are missing or unevenly apart")
    add("--anonymous", action="store_true", help="write DICOM without patient and study")
    add("--on-error", choices=("skip", "empty"), default="skip", help="a failed case leaves nothing, or an empty map")
    add(
        "--timeout",
        type=_seconds,
        default=600.0,
        metavar="S",
        help="seconds without progress before a case fails (600)",
    )
    add(
        "--workers",
        type=_workers,
        default=1,
        metavar="N",
        help="processes that segment at once and share threads and memory; auto: as many as are worthwhile (1)",
    )
    add(
        "--scheduler",
        type=_scheduler,
        metavar="WHERE",
        help="segment on Dask workers: local, slurm, or the address of a scheduler, such as tcp://host:8786",
    )
    add("--threads", type=_count, metavar="N", help="processors to use (default: all that this process may)")
    add(
        "--max-memory",
        type=_bytes,
        metavar="SIZE",
        help="limit such as 2G or 1500M: windows become smaller, or a scan is refused",
    )
    add("--progress", choices=KINDS, default="text", help="what is printed: lines for people, or JSON for programs")
    add("--json", type=given_path, metavar="FILE", help="write one record per case: times, memory, windows, warnings")
    add("--no-sidecar", dest="sidecar", action="store_false", help="write no X.json, summary.json, measurements.csv")
    add("--hash-names", action="store_true", help="write file names as hashes in logs and records")
    add("--version", action="version", version=f"{PROGRAM} {__version__}")
    return command


def parse(arguments: Sequence[str | Path]) -> Request:
    """What the command line asks for. Exits with a sentence where it asks for something that there is not."""
    command = parser()
    given = command.parse_args([os.fspath(one) for one in arguments])
    if given.preview and not given.sidecar:
        command.error("--preview makes its page from the records, which --no-sidecar omits")
    if given.resume and not given.sidecar:
        command.error("--resume compares records, which --no-sidecar omits")
    if given.layout == BIDS and not given.sidecar:
        command.error("--layout bids needs a JSON file beside each label map, which --no-sidecar omits")
    if given.layout == BIDS and FORMATS[0] not in given.format:
        command.error("--layout bids needs NIfTI, the only format of label maps in BIDS: add nifti to --format")
    if given.scheduler == SLURM and given.workers is None:
        command.error(f"--scheduler {SLURM} needs the number of its --workers, each of which is a job")
    return Request(
        inputs=given.inputs,
        outputs=given.outputs,
        options=Options(**{one.name: getattr(given, one.name) for one in fields(Options)}),
        names=tuple(given.case),
        scans=given.scans,
        name_by=given.name_by,
        part=given.part,
        formats=given.format + (PROBABILITIES,) * given.save_probabilities + (PREVIEW,) * given.preview,
        layout=given.layout,
        resume=given.resume,
        empty=given.on_error == "empty",
        timeout=given.timeout,
        workers=given.workers,
        scheduler=given.scheduler,
        progress=given.progress,
        json=given.json,
        sidecar=given.sidecar,
        hash_names=given.hash_names,
    )


def _called() -> str:
    """How this program is called: by the name of the script that installing it makes, or as a module."""
    return PROGRAM if Path(sys.argv[0]).stem == PROGRAM else f"python -m {__name__.partition('.')[0]}"


def _folder(text: str) -> Path:
    path = given_path(text)
    if (stem(path.name) or format_of(path) in FORMATS) and not os.path.exists(path):
        # Without the name, which may be a patient's: --hash-names is not known yet.
        raise argparse.ArgumentTypeError(
            "this is the name of a file: give a folder, in which each label map is named after its scan"
        )
    return path


def _name(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("the name is empty: an unset variable in a script?")
    return text


def _part(text: str) -> Part:
    try:
        return read_part(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _number(read: Callable[[str], Number], fits: Callable[[Number], bool], what: str) -> Callable[[str], Number]:
    """A reader of numbers that fit. argparse has no message for what `read` cannot read but the name of a function."""

    def checked(text: str) -> Number:
        with suppress(ValueError):
            if fits(number := read(text)):
                return number
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")

    return checked


_step = _number(float, lambda step: 0 < step <= 1, "a number above 0 and at most 1")
_seconds = _number(float, lambda seconds: 0 < seconds < inf, "a number of seconds above 0")
_count = _number(int, lambda count: count >= 1, "a whole number of at least 1")


def _workers(text: str) -> int | None:
    return None if text == "auto" else _count(text)


def _scheduler(text: str) -> str:
    if text not in (LOCAL, SLURM) and not text.startswith(PROTOCOLS):
        raise argparse.ArgumentTypeError(f"{text!r} is not {LOCAL}, {SLURM} or an address such as tcp://host:8786")
    return text


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kMG]?)B?", text)
    size = int(float(match[1]) * UNITS[match[2]]) if match else 0
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 2G, 1500M or 2000000000")
    return size


def _formats(text: str) -> tuple[str, ...]:
    try:
        return formats_named(name.strip().removeprefix(".") for name in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
