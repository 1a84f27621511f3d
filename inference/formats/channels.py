"""Which numbered files of a folder are channels of one scan, and which are scans of a data set; what their cases are
called.

Data sets number their scans in the way in which nnU-Net numbers channels. Channels count from 0000 without a gap and
are few; all else that is numbered is a scan of its own.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..names import CHANNEL, case_of, stem, without_ending
from .opening import listing

MOST_CHANNELS = 4  # more files of one name, or numbers with gaps, are a data set that numbers its scans
ANOTHER_CHANNEL = "treated as another channel, while a {image} has only {only}: if it is a scan, give it alone"
REFERENCE = f"treated as reference labels, since a scan of the same name with {CHANNEL} lies beside it"


def case_names(stems: set[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Stem -> name of its case, and stem -> why it is none, for the stems of one folder."""
    references = {one for one in stems if one + CHANNEL in stems}
    numbers: dict[str, set[int]] = {}
    for one in stems:
        base, number = split(one)
        if number is not None and one not in references:
            numbers.setdefault(base, set()).add(number)
    names: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for one in stems - references:
        base, number = split(one)
        count = len(numbers.get(base, ()))
        channels = number is not None and count <= MOST_CHANNELS and numbers[base] == set(range(count))
        if not channels:
            names[one] = one
        elif number == 0:
            names[one] = base
        else:
            reasons[one] = ANOTHER_CHANNEL
    for one in references:
        if names.get(one + CHANNEL) == one:
            reasons[one] = REFERENCE
        else:
            names[one] = one
    return names, reasons


def name_of_path(path: Path) -> str:
    """Of a folder or file that is a case by itself."""
    path = path if path.name not in ("", "..") else path.resolve()
    return case_of(re.sub(r"\.(zip|dcm)$", "", path.name, flags=re.IGNORECASE))


def name_of_file(scan: Path) -> str:
    """The case of a file that is given alone: called as if its folder were given, if that can be listed."""
    name, whole = name_of_path(scan), without_ending(scan.name)
    if not whole.endswith(CHANNEL):
        return name
    try:
        beside = {stem(one.name) or "" for one in listing(scan.parent)}
    except OSError:
        return name
    numbered = {one for one in beside if split(one)[0] == split(whole)[0]}
    return name if case_names({whole, *numbered})[0].get(whole) != whole else whole.lstrip(".")


def split(name: str) -> tuple[str, int | None]:
    """("x", 4) of "x_0004"; (name, None) if it does not end so."""
    match = re.fullmatch(r"(.+)_([0-9]{4})", name, re.DOTALL)
    return (match[1], int(match[2])) if match else (name, None)
