"""The page of all cases of a folder, in HTML: a table that can be sorted, and a viewer for each case.

Standard library only. All of it is in one file, but for the volumes of the viewer, which lie in the previews.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from typing import Any

from ..labels import known, structures
from ..record import TWICE

HEAD = b'<!doctype html>\n<html lang="en">\n<meta name="generator" content="Viscera">\n'  # of no other page
VERDICTS = {"failed": "failed", "look": "to be looked at", "good": "nothing odd"}  # in the order in which they sort
DOUBTS = ("missing", "look", "cut")


@dataclass(frozen=True)
class Row:
    """A case.

    case       its name, as it may be shown
    error      why it failed; None if it is done
    doubts     (doubt, organ, why), as in a record
    warnings   one sentence each
    labels     name -> (value, ml)
    thumbnail  a PNG, if there is one
    folder     its preview, as a relative address that ends in "/"; None where there is none, or its name is hidden
    """

    case: str
    error: str | None = None
    doubts: tuple[tuple[str, str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    labels: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    thumbnail: bytes | None = None
    folder: str | None = None

    @property
    def verdict(self) -> str:
        if self.error is not None:
            return "failed"
        return "look" if self.warnings or any(doubt != "cut" for doubt, *_ in self.doubts) else "good"


def row(case: str, record: Mapping[str, Any], thumbnail: bytes | None, folder: str | None) -> Row:
    """The row of a record, read from JSON. Raises KeyError, TypeError, ValueError or AttributeError if it is none."""
    error = None
    if record["status"] == "failed":
        error = str(record.get("error") or "the cause is not known")
    doubts = [(str(one["doubt"]), organ, str(one["why"])) for organ, one in record.get("doubts", {}).items()]
    labels = {str(one["name"]): (int(value), float(one["ml"])) for value, one in (record.get("labels") or {}).items()}
    return Row(
        case,
        error,
        tuple(sorted(doubts, key=lambda doubt: DOUBTS.index(doubt[0]))),
        tuple(str(one) for one in record.get("warnings", []) if not str(one).startswith(TWICE)),
        labels,
        thumbnail,
        folder,
    )


def html(rows: Sequence[Row]) -> Iterator[bytes]:
    """The page, in parts."""
    columns = _columns(rows)
    counts = {verdict: sum(one.verdict == verdict for one in rows) for verdict in VERDICTS}
    parts = {
        "style": _file("page.css"),
        "script": _file("page.js"),
        "licence": _file("NIIVUE-LICENSE.txt").replace("--", "=="),  # "--" may end a comment
        "viewer": base64.b64encode(_bytes("niivue.js.gz")).decode(),
        "count": f"{len(rows):,} case" + "s" * (len(rows) != 1),
        "counts": ", ".join(f"{number:,} {VERDICTS[verdict]}" for verdict, number in counts.items() if number),
        "labels": "".join(map(_head_cell, columns)),
    }
    yield HEAD
    # Split, not replaced: a case may be called like a part.
    for at, text in enumerate(re.split(r"\{\{(\w+)\}\}", _file("page.html"))):
        if at % 2 == 0:
            yield text.encode()
        elif text == "rows":
            for one in rows:
                yield _row(one, columns).encode("utf-8", "backslashreplace")
        else:
            yield parts[text].encode()


@dataclass(frozen=True)
class _Column:
    name: str
    title: str
    colour: str


def _columns(rows: Sequence[Row]) -> list[_Column]:
    """A column for each name of a label, in the order of their values."""
    values: dict[str, int] = {}
    for one in rows:
        for name, (value, _) in one.labels.items():
            values.setdefault(name, value)
    columns = []
    for name in sorted(values, key=lambda name: (values[name], name)):
        (structure,) = structures({values[name]: name})
        columns.append(_Column(name, structure.title, structure.hex_colour))
    return columns


def _head_cell(column: _Column) -> str:
    swatch = f'<span class="swatch" style="background:{column.colour}"></span>'
    return f'<th scope="col" class="number"><button type="button">{swatch}{escape(column.title)}</button></th>'


def _row(row: Row, columns: Sequence[_Column]) -> str:
    case = escape(row.case)
    picture = ""
    if row.thumbnail:
        picture = f'<img src="data:image/png;base64,{base64.b64encode(row.thumbnail).decode()}" alt="">'
    if row.thumbnail or row.folder:
        address = f' data-folder="{escape(row.folder)}"' if row.folder else ""
        alt = escape(f"Three planes through the organs of {row.case}")
        picture = (
            f'<button type="button" class="open" aria-label="Open {case}" data-alt="{alt}"{address}>{picture}</button>'
        )
    verdict = list(VERDICTS).index(row.verdict)
    volumes = "".join(_volume(row.labels.get(column.name)) for column in columns)
    return (
        f'<tr data-verdict="{row.verdict}"><td>{picture}</td>'
        f'<th scope="row">{case}</th>'
        f'<td data-sort="{verdict}"><span class="verdict {row.verdict}">{VERDICTS[row.verdict]}</span></td>'
        f'<td data-sort="{-_weight(row)}">{_remarks(row)}</td>{volumes}</tr>\n'
    )


def _weight(row: Row) -> int:
    """How much there is to look at."""
    return 100 * (row.error is not None) + sum(doubt != "cut" for doubt, *_ in row.doubts) + len(row.warnings)


def _remarks(row: Row) -> str:
    lines = [] if row.error is None else [escape(row.error)]
    for doubt, organ, why in row.doubts:
        structure = known(organ)
        lines.append(f"<b>{escape(structure.title if structure else organ)}</b> {escape(doubt)}: {escape(why)}")
    lines += map(escape, row.warnings)
    return f"<ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>" if lines else ""


def _volume(label: tuple[int, float] | None) -> str:
    if label is None:
        return '<td class="number" data-sort=""></td>'
    ml = label[1]
    return f'<td class="number" data-sort="{ml}">{f"{ml:,.0f}" if ml >= 10 else f"{ml:.2g}"}</td>'


def _file(name: str) -> str:
    return _bytes(name).decode()


def _bytes(name: str) -> bytes:
    return (resources.files(__package__) / "browser" / name).read_bytes()
