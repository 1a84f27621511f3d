"""Figures of one memory curve: maximum, and the area under it in FLARE's way and as it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FLARE_INTERVAL = 0.1  # seconds: FLARE's area is the sum of its samples times this, however far apart they were


def figures(t_s: Sequence[float], mb: Sequence[float]) -> dict[str, float]:
    """`max_mb`, `flare_area_mb_s` (sum of the samples * 0.1) and `trapezoid_mb_s` (the integral) of a curve."""
    return {
        "max_mb": round(float(max(mb)), 3),
        "flare_area_mb_s": round(float(np.sum(mb) * FLARE_INTERVAL), 3),
        "trapezoid_mb_s": round(float(np.trapezoid(mb, t_s)), 3),
    }


def flare24(ram_mb: Sequence[float], cpu_percent: Sequence[float]) -> dict[str, float]:
    """FLARE 2024's figures without a GPU, by the names of its columns: MB and per cent of the whole machine."""
    return {
        "MaxCPU_Utilization": round(float(max(cpu_percent)), 2),
        "AUC_CPU_Time": round(float(np.sum(cpu_percent) * FLARE_INTERVAL), 2),
        "MaxRAM": round(float(max(ram_mb)), 2),
        "AUC_RAM_Time": round(float(np.sum(ram_mb) * FLARE_INTERVAL), 2),
    }
