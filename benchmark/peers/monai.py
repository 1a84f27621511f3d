"""One scan through MONAI: `python -m benchmark.peers.monai NETWORK_FOLDER SCAN OUT.nii.gz --device cpu|cuda`.

MONAI's own transforms and SlidingWindowInferer around the same network, as its bundles put them together: reorient,
resample linearly, z-score, windows with half overlap and Gaussian weights, resample the logits back, argmax.
"""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

from benchmark.peers.peer import Networks, Peer, merged
from inference.card_file import read_card
from inference.engines.choose import choose
from inference.machine import usable_cpus


def monai(networks: Networks, scan: Path, work: Path) -> Peer:
    """MONAI's transforms and SlidingWindowInferer, with the precision and threads that Viscera uses by default."""
    if find_spec("monai") is None:
        raise ValueError("monai is not installed")
    precision = choose(networks.device, "auto", "auto").precision
    commands, outputs = [], []
    for network in networks.exported:
        outputs.append(work / f"{network.name}.nii.gz")
        command = [sys.executable, "-m", "benchmark.peers.monai", str(network), str(scan), str(outputs[-1])]
        command += ["--threads", str(usable_cpus())]
        commands.append([*command, "--device", networks.device, "--precision", precision])
    settings = f"SlidingWindowInferer (MONAI {version('monai')}, PyTorch {version('torch')}, {precision})"
    return Peer(settings, commands, lambda: merged(outputs, scan))


def predict(folder: Path, scan: Path, out: Path, device: str, precision: str, threads: int) -> None:
    """Segment `scan` with the network in `folder` and write the label map `out`."""
    import torch
    from monai.inferers import SlidingWindowInferer
    from monai.transforms import (
        Compose,
        EnsureChannelFirst,
        Lambda,
        LoadImage,
        Orientation,
        ScaleIntensityRange,
        Spacing,
    )

    from inference.arrays import array_library
    from inference.engines import torch as engine
    from inference.grids.decode import with_logits

    card = read_card(folder)
    source = nib.load(scan)
    orientation = card.orientation or "".join(nib.aff2axcodes(source.affine))
    network = engine.load(card, precision=precision, device=device, threads=threads)
    network = with_logits(network, card, array_library(device, "torch"))
    z, y, x = card.spacing
    if z is None:
        raise ValueError(f"network {card.name} is 2D, which this peer is not set up for")
    (ct,) = card.channels
    low, high = (ct.of(bound) for bound in ct.clip)
    prepare = Compose(
        [
            LoadImage(image_only=True),
            EnsureChannelFirst(),
            Orientation(axcodes=orientation, labels=(("L", "R"), ("P", "A"), ("I", "S"))),
            Spacing(pixdim=(x, y, z), mode="bilinear"),
            ScaleIntensityRange(*ct.clip, low, high, clip=True),
            Lambda(lambda image: image.permute(0, 3, 2, 1)),  # MONAI's (x, y, z) -> the network's (z, y, x)
        ]
    )
    volume = prepare(str(scan))
    inferer = SlidingWindowInferer(roi_size=card.patch, sw_batch_size=1, overlap=0.5, mode="gaussian")

    def run(batch: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(network(batch.numpy())) if device == "cpu" else network(batch)

    with torch.inference_mode():
        logits: Any = inferer(volume.as_tensor()[None].to(device), run)[0]
        shape = nib.as_closest_canonical(source).shape[::-1]
        full = torch.nn.functional.interpolate(logits[None], shape, mode="trilinear")[0]
        channels = full.argmax(0).cpu().numpy()
    values = np.array([label.value for label in card.labels], np.uint8)
    labels = values[channels].transpose(2, 1, 0)
    to_file = ornt_transform(axcodes2ornt(tuple(orientation)), io_orientation(source.affine))
    stored = apply_orientation(labels, to_file)
    nib.save(nib.Nifti1Image(stored, source.affine), out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("scan", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("f32", "bf16", "f16"), default="f32")
    parser.add_argument("--threads", type=int, default=1)
    predict(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
