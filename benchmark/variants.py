"""What precision, window size and window plan do to labels and time, beside nnU-Net's own way on float32.

    python -m benchmark variants WEIGHTS SCANS... [--window 48,192,256] [--json FILE]

Every variant segments every scan by `python -m inference` in a separate process, one after the other, and is compared
with the reference: `--plan dense --precision f32` with the patch of the card. This prints the voxels that changed, the
Dice of each label with the reference, and the time as a share of the reference's, all on this machine. The last variant
is the reference itself on the scan without CUT on each side, mostly air: it shows how much labels move on their own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmark.document import markdown
from benchmark.parity import agreement
from benchmark.process import start
from inference.cards import read_cards

REFERENCE = ("--plan", "dense", "--precision", "f32")
CUT = 8.0  # mm
SEEN = 1000  # voxels that a label must have in the reference for its Dice to be told


def segment(weights: Path, scan: Path, out: Path, flags: tuple[str, ...]) -> tuple[np.ndarray, float]:
    """Label map and seconds of the networks, from the run's own record."""
    record = out / "record.json"
    start(scan, out, "--weights", weights, "--json", record, "--device", "cpu", *flags)
    (found,) = json.loads(record.read_text())
    labels = np.asarray(nib.load(out / f"{found['case']}.nii.gz").dataobj, np.uint8)
    return labels, float(found["seconds"]["network"])


def with_patch(weights: Path, out: Path, patch: list[int]) -> Path:
    """A copy of the weights whose cards name another window."""
    shutil.copytree(weights, out)
    for path in out.glob("*/card.json"):
        card = json.loads(path.read_text())
        path.write_text(json.dumps(card | {"patch": patch}))
    return out


def rim(scan: Path) -> tuple[slice, slice]:
    """What a scan's planes keep when CUT is taken off each side."""
    x, y = (max(1, round(CUT / float(mm))) for mm in nib.load(scan).header.get_zooms()[:2])
    return slice(x, -x), slice(y, -y)


def compare(weights: Path, scans: list[Path], windows: list[list[int]]) -> dict[str, Any]:
    """By variant and scan: `voxels` (share that is equal), `dice` by label, `time` (share of the reference's)."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="viscera-variants-") as temporary:
        work = Path(temporary)
        variants: dict[str, tuple[Path, tuple[str, ...]]] = {
            "bf16": (weights, ("--plan", "dense", "--precision", "bf16")),
            "abdomen plan": (weights, ("--plan", "abdomen", "--precision", "f32")),
            "abdomen plan, bf16": (weights, ("--plan", "abdomen", "--precision", "bf16")),
            "step 0.75": (weights, (*REFERENCE, "--step", "0.75")),
        }
        if all("int8" in card.forms for card in read_cards(weights, None)):
            variants["abdomen plan, int8"] = (weights, ("--plan", "abdomen", "--precision", "int8"))
        for window in windows:
            name = "x".join(map(str, window))
            variants[f"window {name}"] = (with_patch(weights, work / f"weights-{name}", window), REFERENCE)
        for scan in scans:
            expected, seconds = segment(weights, scan, work / "reference", REFERENCE)
            runs = [(name, folder, scan, flags, expected) for name, (folder, flags) in variants.items()]
            less = rim(scan)
            smaller = work / "less" / scan.name
            smaller.parent.mkdir(exist_ok=True)
            nib.save(nib.load(scan).slicer[less], smaller)
            runs.append((f"{CUT:g} mm less image", weights, smaller, REFERENCE, expected[less]))
            for name, folder, shown, flags, wanted in runs:
                found, took = segment(folder, shown, work / "variant", flags)
                same = agreement(found, wanted)
                dice = {label: value for label, value in same.dice.items() if np.sum(wanted == label) >= SEEN}
                results.setdefault(name, {})[scan.name] = {
                    "voxels": same.voxels, "dice": dice, "time": took / seconds,
                }  # fmt: skip
    return results


def table(results: dict[str, Any]) -> str:
    """A Markdown table of the worst of all scans, and the mean share of time."""
    rows = [["variant", "voxels changed", "lowest Dice of a label", "mean Dice", "time"]]
    for name, scans in results.items():
        voxels = max(1 - found["voxels"] for found in scans.values())
        dice = [value for found in scans.values() for value in found["dice"].values()]
        time = float(np.mean([found["time"] for found in scans.values()]))
        rows.append([name, f"{100 * voxels:.3f} %", f"{min(dice):.3f}", f"{np.mean(dice):.4f}", f"{time:.2f}"])
    return markdown(rows)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("weights", type=Path)
    parser.add_argument("scans", type=Path, nargs="+", metavar="SCAN")
    parser.add_argument("--window", action="append", default=[], metavar="Z,Y,X", help="another window, in voxels")
    parser.add_argument("--json", type=Path, metavar="FILE")


def run(options: argparse.Namespace) -> None:
    """Print the table of all variants."""
    windows = [[int(n) for n in text.split(",")] for text in options.window]
    results = compare(options.weights, options.scans, windows)
    print(table(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    from benchmark.__main__ import old_name

    old_name("variants")
