"""Label tables for viewers, a program: OUT [--weights DIR] [--networks NAMES].

Writes OUT.label, which ITK-SNAP reads, and OUT.ctbl, which 3D Slicer reads: names and colours of the labels that these
networks write. Standard library only.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from .cards import labels_of, read_cards
from .errors import VisceraError, shown
from .formats.atomic import write_atomically, writing
from .labels import Structure, structures
from .options import WEIGHTS, given_names, given_path
from .pack import unpacked

ITK_SNAP = """\
################################################
# ITK-SnAP Label Description File
# File format:
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
# Fields:
#    IDX:   Zero-based index
#    -R-:   Red color component (0..255)
#    -G-:   Green color component (0..255)
#    -B-:   Blue color component (0..255)
#    -A-:   Label transparency (0.00 .. 1.00)
#    VIS:   Label visibility (0 or 1)
#    MSH:   Label mesh visibility (0 or 1)
#  LABEL:   Label description
################################################
    0     0    0    0        0  0  0    "Clear Label"
"""


def itk_snap(table: Iterable[Structure]) -> str:
    """A label description file, for Segmentation > Import Label Descriptions."""
    rows = []
    for one in table:
        red, green, blue = one.colour
        title = " ".join(one.title.replace('"', "'").split())
        rows.append(f'{one.value:5d} {red:5d} {green:4d} {blue:4d}        1  1  1    "{title}"\n')
    return ITK_SNAP + "".join(rows)


def slicer(table: Iterable[Structure]) -> str:
    """A colour table, for File > Add Data. Its names hold no blanks: Slicer makes blanks of underscores."""
    rows = ["0 background 0 0 0 0\n"]
    for one in table:
        red, green, blue = one.colour
        rows.append(f"{one.value} {'_'.join(one.title.split())} {red} {green} {blue} 255\n")
    return f"# Color table file\n# {len(rows)} values\n" + "".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.viewers", description=(__doc__ or "").partition("\n\n")[2]
    )
    parser.add_argument("out", type=given_path, metavar="OUT", help="path of both files, without .label and .ctbl")
    parser.add_argument(
        "--weights", type=given_path, default=WEIGHTS, metavar="DIR", help="folder of exported networks"
    )
    parser.add_argument("--networks", type=given_names, metavar="NAMES", help="as the command takes them")
    arguments = parser.parse_args()
    try:
        with unpacked(arguments.weights) as weights:
            cards = read_cards(weights, arguments.networks)
        table = structures(labels_of(cards, None))
        for ending, text in ((".label", itk_snap(table)), (".ctbl", slicer(table))):
            path = Path(f"{arguments.out}{ending}")
            with writing(shown(path)):
                write_atomically(path, text.encode())
    except VisceraError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
