"""Viscera and a peer on the same scans with the same networks, in turn: A B A B, each in a separate process."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmark.document import FORMAT, VERSION, by_case, output, write
from benchmark.parity import agreement
from benchmark.peers import PEERS
from benchmark.peers.nnunet import write_models
from benchmark.peers.peer import Networks
from benchmark.process import host, watch
from benchmark.run import add_flags
from inference.cards import read_cards
from inference.formats.cases import Case, find_cases
from inference.options import WEIGHTS

KEPT = ("wall_s", "cpu_s", "host_memory", "gpu_memory")


@dataclass(frozen=True)
class Pair:
    """One run of ours and one of the peer's on a case.

    ours, theirs  what each took, by KEPT; the peer may need several commands, such as one a network
    ratio         the peer's wall time over ours
    dice          of ours with the peer's, by label
    """

    case: str
    round: int
    ours: dict[str, Any]
    theirs: list[dict[str, Any]]
    ratio: float
    equal_voxels: float
    dice: dict[str, float]
    mean_dice: float | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--peer", choices=PEERS, required=True)
    parser.add_argument("--cases", type=Path, required=True, help="folder of X_0000.nii.gz")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder of exported networks")
    parser.add_argument("--models", type=Path, nargs="+", default=[],
                        help="nnU-Net result folders of the same (default: made from --weights)")  # fmt: skip
    add_flags(parser)
    parser.add_argument("--out", type=output, required=True, help="JSON file, written after each pair")


def run(options: argparse.Namespace) -> None:
    """Measure pairs of each case and print a line for each.

    Raises ValueError if the peer is not available, RuntimeError if either program fails.
    """
    found = find_cases(options.cases, Path()).cases
    document: dict[str, Any] = {"format": FORMAT, "version": VERSION, "host": asdict(host()), "peer": options.peer}
    pairs: list[Pair] = []
    with tempfile.TemporaryDirectory(prefix="viscera-versus-") as temporary:
        work = Path(temporary)
        exported = [card.folder for card in read_cards(options.weights, None)]
        models = options.models
        if not models and options.peer.startswith("nnunet"):  # which reads result folders only
            models = write_models(exported, work / "models")
        networks = Networks(exported, models, options.device)
        document |= {"flags": options.flags, "networks": [path.name for path in exported], "settings": None}
        for number in range(options.pairs):
            for case in found:
                print(f"pair {number + 1} of {options.pairs}: {case.name}", file=sys.stderr, flush=True)
                with tempfile.TemporaryDirectory(dir=work) as room:
                    pair, document["settings"] = _pair(case, number, options, networks, Path(room))
                pairs.append(pair)
                write(document | {"pairs": [asdict(one) for one in pairs]}, options.out)
    print(document["settings"])
    print("\n".join(summary(pairs, options.peer)))


def _pair(case: Case, number: int, options: argparse.Namespace, networks: Networks, room: Path) -> tuple[Pair, str]:
    """A pair measured, and how the peer was set up."""
    scan = case.scan
    (room / "peer").mkdir()
    other = PEERS[options.peer](networks, scan, room / "peer")
    command = [sys.executable, "-m", "inference", str(scan), str(room / "ours"), "--weights", str(options.weights)]
    ours = watch([*command, "--device", networks.device, *options.flags])
    theirs = [watch(command) for command in other.commands]
    for name, done in (("ours", ours), *((options.peer, one) for one in theirs)):
        if done["exit_code"]:
            raise RuntimeError(f"{name} failed on {scan.name}: {done['error']}")
    (written,) = (room / "ours").glob("*.nii.gz")
    same = agreement(np.asarray(nib.load(written).dataobj, np.uint8), other.labels())
    wall = sum(one["wall_s"] for one in theirs)
    dice = {str(label): round(value, 5) for label, value in same.dice.items()}
    pair = Pair(
        case=case.name,
        round=number,
        ours={name: ours[name] for name in KEPT},
        theirs=[{name: one[name] for name in KEPT} for one in theirs],
        ratio=round(wall / ours["wall_s"], 3),
        equal_voxels=round(same.voxels, 6),
        dice=dice,
        mean_dice=round(statistics.fmean(same.dice.values()), 5) if same.dice else None,
    )
    return pair, other.settings


def summary(pairs: list[Pair], peer: str) -> list[str]:
    """A line for each case: both times, the ratio's median and range, and the agreement."""
    lines = []
    for case, found in by_case(pairs).items():
        ours = statistics.median(pair.ours["wall_s"] for pair in found)
        theirs = statistics.median(sum(one["wall_s"] for one in pair.theirs) for pair in found)
        ratios = [pair.ratio for pair in found]
        lines.append(
            f"{case}: Viscera {ours:.2f} s, {peer} {theirs:.2f} s; {statistics.median(ratios):.1f} times as fast "
            f"({min(ratios):.1f} to {max(ratios):.1f} over {len(ratios)} pairs); equal voxels "
            f"{100 * found[0].equal_voxels:.3f} %, mean Dice of labels {found[0].mean_dice}"
        )
    return lines
