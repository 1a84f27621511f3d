"""Figures of the FLARE 2023 paper that ours are set beside (Quadro RTX 5000, container start included)."""

from __future__ import annotations

from typing import NamedTuple


class Efficiency(NamedTuple):
    """One row of Table 5."""

    case: str
    slices: int  # of 512 x 512
    seconds: float
    gpu_mb: float
    area_mb_s: float


TABLE_5 = [
    Efficiency("0001", 55, 27.73, 2538, 23063),
    Efficiency("0051", 100, 27.58, 2538, 25422),
    Efficiency("0017", 150, 31.46, 3700, 29963),
    Efficiency("0019", 215, 30.08, 3700, 25978),
    Efficiency("0099", 334, 34.74, 1954, 28417),
    Efficiency("0063", 448, 41.71, 3700, 34501),
    Efficiency("0048", 499, 46.18, 3700, 38808),
    Efficiency("0029", 554, 48.52, 1690, 39530),
]
# Table 4, online validation: per cent of (organs' DSC, organs' NSD, tumour's DSC, tumour's NSD).
TABLE_4 = (88.59, 94.91, 42.58, 35.13)
# What FLARE 2023 tolerates without loss of points.
MOST_SECONDS = 15.0
MOST_GPU_MB = 4096.0
