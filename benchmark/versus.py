"""Ours and a peer on the same scans with the same networks, in turn: A B A B, a start of its own each time."""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmark.parity import agreement
from benchmark.peers import PEERS, Networks, write_models
from benchmark.run import FORMAT, VERSION, host, watch, write
from inference.card import read_cards
from inference.formats.cases import find_cases

KEPT = ("wall_s", "cpu_s", "host_memory", "gpu_memory")


def versus(
    cases: Path, peer: str, weights: Path, models: list[Path], device: str, pairs: int, flags: list[str], out: Path
) -> dict[str, Any]:
    """Measure `pairs` pairs of each case; `out` is written after each. Returns the document of schema.json.

    weights  folder of exported networks for our side
    models   nnU-Net result folders of the same networks; empty: written from `weights`
    Raises ValueError where the peer is not to be had, RuntimeError where either program fails.
    """
    found = find_cases(cases, Path()).cases
    with tempfile.TemporaryDirectory(prefix="viscera-versus-") as temporary:
        work = Path(temporary)
        exported = [card.folder for card in read_cards(weights, None)]
        networks = Networks(exported, models or write_models(exported, work / "models"), device)
        document: dict[str, Any] = {"format": FORMAT, "version": VERSION, "host": host(), "peer": peer, "flags": flags}
        document |= {"networks": [path.name for path in exported], "settings": None, "pairs": []}
        for number in range(pairs):
            for case in found:
                print(f"pair {number + 1} of {pairs}: {case.name}", file=sys.stderr, flush=True)
                with tempfile.TemporaryDirectory(dir=work) as room:
                    pair, document["settings"] = _pair(case.scan, peer, networks, weights, flags, Path(room))
                document["pairs"].append({"case": case.name, "round": number, **pair})
                write(document, out)
    return document


def _pair(
    scan: Path, peer: str, networks: Networks, weights: Path, flags: list[str], room: Path
) -> tuple[dict[str, Any], str]:
    """One run of ours and one of the peer's: what each took, the ratio, and how far the labels agree."""
    (room / "peer").mkdir()
    other = PEERS[peer](networks, scan, room / "peer")
    command = [sys.executable, "-m", "inference", str(scan), str(room / "ours"), "--weights", str(weights)]
    ours = watch([*command, "--device", networks.device, *flags])
    theirs = [watch(command) for command in other.commands]
    for name, done in (("ours", ours), *((peer, one) for one in theirs)):
        if done["exit_code"]:
            raise RuntimeError(f"{name} failed on {scan.name}: {done['error']}")
    (written,) = (room / "ours").glob("*.nii.gz")
    same = agreement(np.asarray(nib.load(written).dataobj, np.uint8), other.labels())
    wall = sum(one["wall_s"] for one in theirs)
    dice = {str(label): round(value, 5) for label, value in same.dice.items()}
    pair: dict[str, Any] = {
        "ours": {name: ours[name] for name in KEPT},
        "theirs": [{name: one[name] for name in KEPT} for one in theirs],
        "ratio": round(wall / ours["wall_s"], 3),
        "equal_voxels": round(same.voxels, 6),
        "dice": dice,
        "mean_dice": round(statistics.fmean(same.dice.values()), 5) if same.dice else None,
    }
    return pair, other.settings


def summary(document: dict[str, Any]) -> list[str]:
    """A line for each case: both times, the ratio's median and range, and the agreement."""
    by_case: dict[str, list[dict[str, Any]]] = {}
    for pair in document["pairs"]:
        by_case.setdefault(pair["case"], []).append(pair)
    lines = []
    for case, pairs in by_case.items():
        ours = statistics.median(pair["ours"]["wall_s"] for pair in pairs)
        theirs = statistics.median(sum(one["wall_s"] for one in pair["theirs"]) for pair in pairs)
        ratios = [pair["ratio"] for pair in pairs]
        lines.append(
            f"{case}: ours {ours:.2f} s, {document['peer']} {theirs:.2f} s; {statistics.median(ratios):.1f} times as "
            f"fast ({min(ratios):.1f} to {max(ratios):.1f} over {len(ratios)} pairs); equal voxels "
            f"{100 * pairs[0]['equal_voxels']:.3f} %, mean Dice of labels {pairs[0]['mean_dice']}"
        )
    return lines
