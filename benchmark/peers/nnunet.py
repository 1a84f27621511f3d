"""nnU-Net's own predictor."""

from __future__ import annotations

import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from benchmark.peers.peer import Networks, Peer, merged, turned
from inference.card_file import read_card


def nnunet(networks: Networks, scan: Path, work: Path) -> Peer:
    """nnU-Net's own predictor with TTA off: one process each to read and to write, as there is one scan."""
    return _nnunet(networks, scan, work, ["--disable_tta", "-npp", "1", "-nps", "1"])


def nnunet_defaults(networks: Networks, scan: Path, work: Path) -> Peer:
    """nnU-Net's own predictor with its defaults; its TTA mirrors only along axes that the checkpoint allows."""
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
        folds = sorted(path.name.removeprefix("fold_") for path in model.glob("fold_*"))
        command = [program, "-i", str(inputs), "-o", str(out), "-m", str(model), "-f", *folds]
        commands.append([*command, "-device", networks.device, *flags])
        outputs.append(out / "case.nii.gz")
    settings = f"nnUNetv2_predict_from_modelfolder {' '.join(flags)} (nnU-Net {version('nnunetv2')}, float32)"
    return Peer(settings, commands, lambda: merged(outputs, scan))


def write_models(exported: list[Path], out: Path) -> list[Path]:
    """nnU-Net result folders of exported networks. Raises WeightsError for one that was exported without its plans."""
    from inference.export.back import result_folder  # PyTorch, which a measuring run must not wait for

    folders = [out / network.name for network in exported]
    for network, folder in zip(exported, folders, strict=True):
        result_folder(network, folder)
    return folders
