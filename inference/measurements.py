"""The table of what was measured: one row a case, label and quantity, as statistics programs take it.

Standard library only.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

FILE_NAME = "measurements.csv"
COLUMNS = ("case", "label", "name", "quantity", "value", "unit")
HEAD = (",".join(COLUMNS) + "\n").encode()
Row = tuple[str, int, str, str, float, str]


def rows(case: str, labels: dict[str, dict[str, Any]]) -> Iterator[Row]:
    """The rows of one case, whose name may be shown as it is.

    labels  as `quantities` gives them and a record holds them; what a record of an earlier version lacks has no row

    Raises KeyError, TypeError, ValueError or AttributeError where they are not of that kind.
    """
    if not isinstance(case, str):
        raise TypeError
    for value, one in labels.items():
        for quantity, number, unit in _of(one):
            yield case, int(value), shown_label(one["name"]), quantity, _number(number), unit


def table(cases: Iterable[Iterable[Row]]) -> Iterator[bytes]:
    """The table as CSV in UTF-8, a part a case."""
    yield HEAD
    yield from map(lines, cases)


def lines(rows: Iterable[Row]) -> bytes:
    """Rows as lines of the table: fields with a comma in quotes, as spreadsheets write them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for case, label, name, quantity, number, unit in rows:
        writer.writerow((_plain(case), label, _plain(name), quantity, number, unit))
    return text.getvalue().encode()


def is_table(head: bytes) -> bool:
    """Whether a file that begins so is such a table."""
    return head.startswith(HEAD)


def shown_label(name: object) -> str:
    """The name of a label, which is no case's and is never hidden, in one line. Raises TypeError where it is none."""
    if not isinstance(name, str):
        raise TypeError
    return " ".join(name.encode(errors="backslashreplace").decode().split())


def _of(label: dict[str, Any]) -> Iterator[tuple[str, float, str]]:
    """Quantity, value and unit."""
    yield "volume", label["ml"], "ml"
    channels = label.get("hu", {})
    for channel, scale in channels.items():
        of = f" of channel {int(channel):04d}" if len(channels) > 1 else ""
        for quantity in ("mean", "median", "standard_deviation"):
            yield f"{quantity.replace('_', ' ')}{of}", scale[quantity], "HU"
    for axis, mm in label.get("extent_mm", {}).items():
        yield f"extent {axis}", mm, "mm"
    if "pieces" in label:
        diameter = label["diameter"]
        yield "pieces", label["pieces"], ""
        yield "longest axial diameter", diameter["mm"], "mm"
        yield "slice of the diameter", diameter["slice"], ""
        for side, mm in zip(("right", "anterior", "superior"), diameter["position_mm"], strict=True):
            yield f"position of the diameter {side}", mm, "mm"
    for side, voxels in label.get("edges", {}).items():
        yield f"edge contact {side}", voxels, "voxels"


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return value


@lru_cache(maxsize=1000)
def _plain(text: str) -> str:
    """A text that no spreadsheet takes for a formula, whatever it takes for the end of a field."""
    return re.sub(r"(^|[,;|\t])(\s*)(?=[=+@＝＋－＠-])", r"\1\2'", text)
