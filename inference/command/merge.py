"""The summaries of the parts of a run as one: the verb `merge` of the command.

Writes OUTPUTS/summary.json from the files summary.I-of-N.json that `--part I/N` left there, OUTPUTS/measurements.csv
and, with `--preview`, OUTPUTS/index.html from the records, says which parts are missing, and ends with the exit
code that one run over all cases would have had.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ALL_FAILED, SOME_FAILED, InputFolderError, NoInputError, OutputError, VisceraError, shown
from ..formats.outputs import in_the_way
from ..formats.recorded import is_summary
from ..names import PREVIEW
from ..options import given_path
from ..version import __version__
from . import page
from .console import say, say_error, say_warning
from .part import Part, part_of_summary
from .summary import is_a_case, save
from .table import write_measurements

VERB = "merge"
CASES = ("done", "kept", "failed", "not_begun")
LISTS = ("failed", "left_out", "warnings")
LISTED = 20  # missing parts that are named


def merge(outputs: Path) -> dict[str, Any]:
    """Write OUTPUTS/measurements.csv and OUTPUTS/summary.json, and return the latter. `parts` says how many there are,
    and which are missing.

    Raises InputFolderError, NoInputError if no part left a summary, OutputError, and VisceraError if parts are of runs
    that were split differently or a summary is damaged.
    """
    parts = _parts(outputs)
    if not parts:
        raise NoInputError(f"{shown(outputs)} holds no summary of a part: summary.1-of-N.json was looked for")
    counts = {part.count for part in parts}
    if len(counts) > 1:
        raise VisceraError(f"{shown(outputs)} holds parts of runs in {' and in '.join(map(str, sorted(counts)))} parts")
    (count,) = counts
    missing = sorted(set(range(1, count + 1)) - {part.index for part in parts})
    summaries = list(parts.values())
    first = summaries[0]
    if any(one.get("weights") != first.get("weights") for one in summaries):
        raise VisceraError(f"{shown(outputs)} holds parts that were made with different networks")
    if any(one.get("chosen") != first.get("chosen") for one in summaries):
        raise VisceraError(f"{shown(outputs)} holds parts for which different labels were chosen")
    cases = {name: sum(one["cases"][name] for one in summaries) for name in CASES}
    document: dict[str, Any] = {
        "program": __version__,
        "started": min(one["started"] for one in summaries),
        "ended": max(one["ended"] for one in summaries),
        "exit_code": _exit_code(cases, [one["exit_code"] for one in summaries], missing),
        "cases": cases,
        **{name: [item for one in summaries for item in one[name]] for name in LISTS},
        "weights": first.get("weights"),
        **({"chosen": first["chosen"]} if "chosen" in first else {}),
        "parts": {"count": count, "missing": missing},
    }
    path = outputs / "summary.json"
    if why := is_a_case(path):
        say_warning(f"the summary of all parts is not written: {shown(path)} {why}")
    elif why := in_the_way(path, is_summary):
        raise OutputError(f"{shown(path)} {why}")
    else:
        save(path, document)
    write_measurements(outputs)
    page.write(outputs, any(one.get(PREVIEW) for one in summaries))
    return document


def _is_whole(document: Any) -> bool:
    """Whether a summary has all that is merged: that of another version may not."""
    return (
        is_summary(document)
        and isinstance(document["cases"], dict)
        and all(isinstance(document["cases"].get(name), int) for name in CASES)
        and all(isinstance(document.get(name), list) for name in LISTS)
        and all(isinstance(document.get(name), str) for name in ("started", "ended"))
    )


def _parts(outputs: Path) -> dict[Part, dict[str, Any]]:
    """The summaries of parts, in the order of these."""
    try:
        files = {part: path for path in outputs.iterdir() if (part := part_of_summary(path.name))}
    except OSError as error:
        raise InputFolderError(f"{shown(outputs)} cannot be opened: {error.strerror}") from error
    found = {}
    for part in sorted(files, key=lambda one: one.index):
        try:
            document = json.loads(files[part].read_bytes())
        except (OSError, ValueError, RecursionError):
            document = None
        if not _is_whole(document):
            raise VisceraError(f"{shown(files[part])} cannot be read as the summary of a part")
        found[part] = document
    return found


def _exit_code(cases: dict[str, int], codes: list[int], missing: list[int]) -> int:
    """Each part knows best whether what it left out matters, and whether labels could not be written."""
    if not missing and cases["failed"] == sum(cases.values()) > 0:
        return OutputError.exit_code if OutputError.exit_code in codes else ALL_FAILED
    return SOME_FAILED if missing or any(codes) else 0


def main(arguments: Sequence[str], program: str) -> int:
    """`viscera merge OUTPUTS`: its arguments after the verb, and how the command is called. Returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"{program} {VERB}", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("outputs", type=given_path, metavar="OUTPUTS", help="the folder that all parts wrote to")
    given = parser.parse_args(arguments)
    try:
        document = merge(given.outputs)
    except VisceraError as error:
        say_error(str(error))
        return error.exit_code
    parts, cases = document["parts"], document["cases"]
    say(", ".join(f"{number} {name.replace('_', ' ')}" for name, number in cases.items()))
    if missing := parts["missing"]:
        named = ", ".join(map(str, missing[:LISTED])) + (", ..." if len(missing) > LISTED else "")
        say(f"{len(missing)} of {parts['count']} parts are missing: {named}")
    return int(document["exit_code"])
