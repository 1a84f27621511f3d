"""A picture of label maps over their scans: `python -m benchmark picture SCAN LABELS OUT.png`.

Three planes through the middle of what was found, radiological view (patient's right at the left).
Needs matplotlib.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import matplotlib
import nibabel as nib
import numpy as np

matplotlib.use("Agg")  # no screen is needed
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from inference.labels import TABLE

WINDOW = (-160, 240)  # HU, the usual soft-tissue window
COLOURS = [tuple(part / 255 for part in one.colour) for one in TABLE]  # of the values 1, 2, ...
COLOUR_MAP = ListedColormap([(0, 0, 0, 0), *COLOURS])


def save_picture(scan: Path, labels: Path, out: Path) -> None:
    """Write a PNG of the scan, and of the scan with its labels, in three planes."""
    image = nib.as_closest_canonical(nib.load(scan))
    hu = np.asarray(image.dataobj, np.float32)
    found = np.asarray(nib.as_closest_canonical(nib.load(labels)).dataobj, np.uint8)
    if hu.shape != found.shape:
        raise ValueError(f"{scan} has shape {hu.shape}, {labels} has {found.shape}")
    dx, dy, dz = image.header.get_zooms()[:3]
    middle = [int(np.median(where)) for where in np.nonzero(found)] if found.any() else [n // 2 for n in hu.shape]
    # RAS -> as radiologists look: rows downwards, the patient's right on the left.
    planes: list[tuple[str, Callable[[np.ndarray], np.ndarray], float]] = [
        ("axial", lambda v: v[::-1, ::-1, middle[2]].T, dy / dx),
        ("coronal", lambda v: v[::-1, middle[1], ::-1].T, dz / dx),
        ("sagittal", lambda v: v[middle[0], ::-1, ::-1].T, dz / dy),
    ]
    figure, axes = plt.subplots(2, 3, figsize=(13, 7.6), facecolor="black", layout="constrained")
    for column, (name, cut, aspect) in enumerate(planes):
        for row in range(2):
            view = axes[row, column]
            view.imshow(cut(hu), cmap="gray", vmin=WINDOW[0], vmax=WINDOW[1], aspect=aspect)
            if row == 1:
                view.imshow(cut(found), cmap=COLOUR_MAP, vmin=0, vmax=len(TABLE), alpha=0.6, aspect=aspect,
                            interpolation="nearest")  # fmt: skip
            view.set_axis_off()
        axes[0, column].set_title(name, color="white")
    shown = [
        Patch(color=colour, label=one.title)
        for one, colour in zip(TABLE, COLOURS, strict=True)
        if (found == one.value).any()
    ]
    if shown:
        figure.legend(handles=shown, loc="outside lower center", ncols=7, frameon=False, labelcolor="white")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=90)
    plt.close(figure)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scan", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("out", type=Path, metavar="OUT.png")


def run(options: argparse.Namespace) -> None:
    save_picture(options.scan, options.labels, options.out)


if __name__ == "__main__":
    from benchmark.__main__ import old_name

    old_name("picture")
