"""The verb `compat` of the command: takes the arguments of another program and writes its files."""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from ..errors import (
    ALL_FAILED,
    WRONG_FLAG,
    CaseError,
    InputFolderError,
    OutputError,
    UnwrittenError,
    VisceraError,
    shown,
)
from ..options import WEIGHTS, given_path
from .console import say, say_error, say_warning

VERB = "compat"
PROGRAMS = ("totalsegmentator",)
DESCRIPTION = """\
Takes the arguments of TotalSegmentator 2 (task total) and writes its files: a mask per structure in the folder OUT, or
with --ml one label map, with its names and values; statistics.json.
"""
NO_EFFECT = "no effect here"
# Flags of TotalSegmentator 2.18.0 (bin/TotalSegmentator.py).
SWITCHES = (
    ("-ml", "--ml", "one file OUT with the labels of all structures"),
    ("-ss", "--skip_saving", "write no label maps"),
    ("-sx", "--statistics_extra", "more numbers in statistics.json"),
    ("-sii", "--stats_include_incomplete", "measure structures at the ends of the scan as well"),
    ("-q", "--quiet", "print errors and warnings only"),
    ("-f", "--fast", NO_EFFECT),
    ("-ff", "--fastest", NO_EFFECT),
    ("-ho", "--higher_order_resampling", NO_EFFECT),
    ("-bs", "--body_seg", NO_EFFECT),
    ("-fs", "--force_split", NO_EFFECT),
    ("-rc", "--robust_crop", NO_EFFECT),
    ("-ndm", "--no_derived_masks", NO_EFFECT),
    ("-v", "--verbose", NO_EFFECT),
    ("--debug", NO_EFFECT),
)
NUMBERS = (("-nr", "--nr_thr_resamp"), ("-ns", "--nr_thr_saving"), ("-ro", "--resampling_order"))
REFUSED = (
    "-sl --save_lowres", "-t --nora_tag", "-p --preview", "-ms --model_size", "-r --radiomics", "-rp --report",
    "-cp --crop_path", "-v1o --v1_order", "-rmb --remove_small_blobs", "-sp --save_probabilities",
    "-l --license_number", "--test", "-lt --list-tasks", "-lc --list-classes",
)  # fmt: skip


class _Refused(argparse.Action):
    """A flag that TotalSegmentator has. Without it argparse could take it for the beginning of another."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        parser.error(f"{'/'.join(self.option_strings)} of TotalSegmentator is not offered here")


def _only(choice: str, otherwise: str) -> Callable[[str], str]:
    """The type of a flag that takes one value; of any other it says how to have that."""

    def given(name: str) -> str:
        if name != choice:
            raise argparse.ArgumentTypeError(f"{name!r} is not offered, only {choice}: {otherwise}")
        return name

    return given


_task = _only("total", f"networks of other tasks run without {VERB} (docs/totalsegmentator.md)")
_output_type = _only("nifti", f"without {VERB} --format seg,rtstruct writes DICOM")


def parser_of(program: str) -> argparse.ArgumentParser:
    """The parser of `compat totalsegmentator`; its names are those of the Python function's arguments."""
    parser = argparse.ArgumentParser(
        prog=f"{program} {VERB} {PROGRAMS[0]}", description=DESCRIPTION, allow_abbrev=False
    )
    add = parser.add_argument
    add(
        "-i",
        dest="input",
        type=given_path,
        required=True,
        metavar="SCAN",
        help="a NIfTI file, or a folder or ZIP with one series",
    )
    add("-o", dest="output", type=given_path, required=True, metavar="OUT", help="a folder, with --ml one file")
    add("-rs", "--roi_subset", nargs="+", metavar="NAME", help="only these structures")
    add("-rsr", "--roi_subset_robust", nargs="+", metavar="NAME", help="the same as --roi_subset here")
    add(
        "-s",
        "--statistics",
        nargs="?",
        const=True,
        default=False,
        type=given_path,
        metavar="FILE",
        help="volume (mm3) and mean intensity of each structure in FILE (OUT/statistics.json, with --ml beside OUT)",
    )
    add("-sa", "--stats_aggregation", choices=("mean", "median"), default="mean", help="of the intensities (mean)")
    add("-ta", "--task", type=_task, default="total", metavar="total", help="the only choice")
    add("-ot", "--output_type", nargs="+", type=_output_type, default="nifti", metavar="nifti", help="the only choice")
    add("-d", "--device", default="gpu", metavar="NAME", help="cpu, or gpu if there is one")
    for *switch, text in SWITCHES:
        add(*switch, action="store_true", help=text)
    for number in NUMBERS:
        add(*number, type=int, metavar="N", default=argparse.SUPPRESS, help=NO_EFFECT)
    for names in REFUSED:
        add(*names.split(), action=_Refused, nargs="*", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    ours = parser.add_argument_group("beyond TotalSegmentator")
    ours.add_argument(
        "--weights", type=given_path, default=WEIGHTS, metavar="DIR", help="exported networks, such as its own"
    )
    ours.add_argument("--threads", type=int, metavar="N", help="processors to use")
    ours.add_argument("--accept-intensities", action="store_true", help="segment scans that cannot be CT in HU")
    return parser


def main(arguments: Sequence[str], program: str) -> int:
    """`viscera compat PROGRAM`: its arguments after the verb, and how the command is called. Returns the exit code."""
    if arguments[:1] != [PROGRAMS[0]]:
        parser = argparse.ArgumentParser(prog=f"{program} {VERB}")
        parser.add_argument("program", choices=PROGRAMS, help="whose arguments follow")
        parser.parse_args(arguments[:1])
    given = vars(parser_of(program).parse_args(arguments[1:]))
    given["statistics_exclude_masks_at_border"] = not given.pop("stats_include_incomplete")
    return _run(given)


def _run(given: dict[str, Any]) -> int:
    from ..compat import totalsegmentator  # NumPy: only once the arguments are right
    from ..compat.files import one_file

    began = perf_counter()
    code = 0
    with warnings.catch_warnings(record=True) as odd:
        warnings.simplefilter("always")
        try:
            if not os.path.exists(given["input"]):  # Path.exists raises where a name is too long
                raise InputFolderError(f"{shown(given['input'])} does not exist")
            totalsegmentator(**given)
        except VisceraError as error:
            code = _exit_code(error)
            say_error(str(error))
        except ValueError as error:  # an argument
            code = WRONG_FLAG
            say_error(str(error))
    for warning in odd:
        say_warning(str(warning.message))
    if not code and not given["quiet"]:
        written = one_file(given["output"]) if given["ml"] else given["output"]
        where = ", no label maps (--skip_saving)" if given["skip_saving"] else f" -> {shown(written)}"
        say(f"{perf_counter() - began:.1f} s{where}")
    return code


def _exit_code(error: VisceraError) -> int:
    if isinstance(error, UnwrittenError):
        return OutputError.exit_code
    return ALL_FAILED if isinstance(error, CaseError) else error.exit_code
