"""The peers that ours is measured beside: the commands that segment one scan with each, and how it was set up.

A peer gets its best honest settings on the machine at hand, in words that go into the result: the same networks,
no test-time augmentation, the fastest precision that it knows and as many threads as ours.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np

from benchmark.parity import turned
from inference.card import read_card
from inference.engines.choose import choose
from inference.labels import ORGANS

# TotalSegmentator's structures -> FLARE's labels.
STRUCTURES = {one.totalsegmentator: one.value for one in ORGANS if one.totalsegmentator}


@dataclass(frozen=True)
class Networks:
    """The same networks in both forms, in rising priority, and where they run."""

    exported: list[Path]  # folders with model.onnx and card.json
    models: list[Path]  # nnU-Net v2 result folders
    device: str  # cpu or cuda


@dataclass(frozen=True)
class Peer:
    """How another program segments one scan: `commands` one after the other, then `labels` reads what it found."""

    settings: str
    commands: list[list[str]]
    labels: Callable[[], np.ndarray]


def nnunet(networks: Networks, scan: Path, work: Path) -> Peer:
    """nnU-Net's own predictor with TTA off: one process each to read and to write, as there is one scan."""
    return _nnunet(networks, scan, work, ["--disable_tta", "-npp", "1", "-nps", "1"])


def nnunet_defaults(networks: Networks, scan: Path, work: Path) -> Peer:
    """nnU-Net's own predictor as it comes; its TTA mirrors only along axes that the checkpoint allows."""
    return _nnunet(networks, scan, work, [])


def _nnunet(networks: Networks, scan: Path, work: Path, flags: list[str]) -> Peer:
    if find_spec("nnunetv2") is None:
        raise ValueError("nnunetv2 is not installed")
    inputs = work / "inputs"
    inputs.mkdir()
    # nnU-Net takes a scan as its file stores it: it gets one that lies as the network knows it.
    turned(scan, read_card(networks.exported[0]).orientation, inputs / "case_0000.nii.gz")
    program = str(Path(sys.executable).with_name("nnUNetv2_predict_from_modelfolder"))
    commands, outputs = [], []
    for number, model in enumerate(networks.models):
        out = work / f"network-{number}"
        command = [program, "-i", str(inputs), "-o", str(out), "-m", str(model), "-f", "0"]
        commands.append([*command, "-device", networks.device, *flags])
        outputs.append(out / "case.nii.gz")
    settings = f"nnUNetv2_predict_from_modelfolder {' '.join(flags)} (nnU-Net {version('nnunetv2')}, float32)"
    return Peer(settings, commands, lambda: _merged(outputs, scan))


def monai(networks: Networks, scan: Path, work: Path) -> Peer:
    """MONAI's transforms and SlidingWindowInferer, in the precision that ours takes by itself."""
    if find_spec("monai") is None:
        raise ValueError("monai is not installed")
    precision = choose(networks.device, "auto", "auto").precision
    commands, outputs = [], []
    for network in networks.exported:
        outputs.append(work / f"{network.name}.nii.gz")
        command = [sys.executable, "-m", "benchmark.monai_peer", str(network), str(scan), str(outputs[-1])]
        command += ["--threads", str(len(os.sched_getaffinity(0)))]
        commands.append([*command, "--device", networks.device, "--precision", precision])
    settings = f"SlidingWindowInferer (MONAI {version('monai')}, PyTorch {version('torch')}, {precision})"
    return Peer(settings, commands, lambda: _merged(outputs, scan))


def totalsegmentator(networks: Networks, scan: Path, work: Path) -> Peer:
    """TotalSegmentator with its own networks, for the 13 organs only."""
    program = shutil.which("TotalSegmentator")
    weights = Path(os.environ.get("TOTALSEG_HOME_DIR", Path.home() / ".totalsegmentator")) / "nnunet" / "results"
    if program is None:
        raise ValueError("TotalSegmentator is not installed")
    if not weights.is_dir() or not any(weights.iterdir()):
        raise ValueError(f"TotalSegmentator's weights are not in {weights}, and a benchmark downloads nothing")
    out = work / "structures"
    command = [program, "-i", str(scan), "-o", str(out), "-d", "gpu" if networks.device == "cuda" else "cpu"]

    def labels() -> np.ndarray:
        found = np.zeros(nib.load(scan).shape, np.uint8)
        for name, label in STRUCTURES.items():
            found[np.asarray(nib.load(out / f"{name}.nii.gz").dataobj) > 0] = label
        return found

    settings = f"TotalSegmentator {version('TotalSegmentator')} --roi_subset of the 13 organs, its own networks"
    return Peer(settings, [[*command, "--roi_subset", *STRUCTURES]], labels)


PEERS: dict[str, Callable[[Networks, Path, Path], Peer]] = {
    "nnunet": nnunet,
    "nnunet-defaults": nnunet_defaults,
    "monai": monai,
    "totalsegmentator": totalsegmentator,
}


def write_models(exported: list[Path], out: Path) -> list[Path]:
    """nnU-Net result folders of exported networks. Raises WeightsError for one that was exported without its plans."""
    from inference.export.back import result_folder  # PyTorch, which a measuring run must not wait for

    folders = [out / network.name for network in exported]
    for network, folder in zip(exported, folders, strict=True):
        result_folder(network, folder)
    return folders


def _merged(outputs: list[Path], scan: Path) -> np.ndarray:
    """The label maps of a peer as one, on the axes of the scan's file: a later one wins where it is not 0."""
    own = nib.load(scan)
    labels: np.ndarray | None = None
    for path in outputs:
        image = nib.load(path)
        turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.io_orientation(own.affine))
        found = np.asarray(image.as_reoriented(turn).dataobj).astype(np.uint8)
        labels = found if labels is None else np.where(found > 0, found, labels)
    assert labels is not None
    return labels
