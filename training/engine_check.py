"""Run one engine on one patch in a process of its own, so that no two engines share a process.

python -m training.engine_check FOLDER ENGINE PRECISION PATCH.npy LOGITS.npy
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from inference.card import read_card
from inference.engines.choose import choose, load
from inference.machine import usable_cpus


def main() -> None:
    folder, engine, precision, patch, logits = sys.argv[1:]
    network = load(choose("cpu", engine, precision), read_card(Path(folder)), usable_cpus())
    np.save(logits, network(np.load(patch)))


if __name__ == "__main__":
    main()
