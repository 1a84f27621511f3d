"""Pack what a bare machine with a GPU needs to measure this program: `python -m benchmark gpu-kit KIT SCAN...`

`make gpu-kit` puts the wheels that the machine lacks beside it. Made are

    KIT/scans/X_0000.nii.gz   the scans, HU rounded to STEP_HU, which makes them a third of the size
    KIT/labels/X.nii.gz       their label maps, computed here on the CPU in float32
    KIT/commit                the commit that labelled them
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np

from benchmark.process import host, start

STEP_HU = 10


def shrink(scan: Path, out: Path) -> None:
    """Write a scan anew with its HU rounded to multiples of STEP_HU, as int16."""
    image = nib.load(scan)
    rounded = (np.rint(np.asarray(image.dataobj) / STEP_HU) * STEP_HU).astype(np.int16)
    header = image.header.copy()
    header.set_data_dtype(np.int16)
    header.set_slope_inter(1, 0)
    nib.save(nib.Nifti1Image(rounded, image.affine, header), out)


def build(kit: Path, scans: list[Path]) -> None:
    """Write the kit's scans, labels and commit. Raises subprocess.CalledProcessError where one cannot be labelled."""
    (kit / "scans").mkdir(parents=True, exist_ok=True)
    for scan in scans:
        shrink(scan, kit / "scans" / scan.name)
    f32 = ("--device", "cpu", "--engine", "openvino", "--precision", "f32")
    start(kit / "scans", kit / "labels", "--no-sidecar", *f32)
    (kit / "commit").write_text(f"{host().commit}\n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kit", type=Path, metavar="KIT")
    parser.add_argument("scans", type=Path, nargs="+", metavar="SCAN")


def run(options: argparse.Namespace) -> None:
    build(options.kit.absolute(), options.scans)
    size = sum(path.stat().st_size for path in options.kit.rglob("*") if path.is_file())
    print(f"{options.kit}: {size / 1e6:.1f} MB")
