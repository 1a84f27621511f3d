"""The stage runs: fresh processes over the sizes of the paper's Table 5."""

from __future__ import annotations

from typing import Any

from benchmark.gpu.job import Job
from benchmark.run import measure
from benchmark.scaling import make_sizes

SIZES = (55, 100, 215, 448)  # slices, of Table 5's
GOALS = {"wall_s": 3, "max_mb": 2000, "flare_area_mb_s": 4000}  # of a fresh process at 215 slices
LOOK = {  # where it stands what a part of the time is made of
    "load": "start.json, probes and imports",
    "read": "profile.txt, cumulative",
    "prepare": "profile.txt, and process.json: its first scan beside its last",
    "network": "start.json, first convolution beside the second",
    "restore": "profile.txt, and process.json: its first scan beside its last",
}


def run(job: Job) -> None:
    """Fresh processes over Table 5's sizes; the stages before have warmed the caches."""
    document = measure(job.work / "sizes", job.out / "runs.json", job.flags)
    for one in document.runs:
        gpu, seconds = one.gpu_memory or {}, (one.record or {}).get("seconds", {})
        stages = ", ".join(f"{name} {value:.2f}" for name, value in seconds.items())
        print(f"{one.case}: {one.wall_s:.2f} s ({stages}), {gpu.get('max_mb')} MB, "
              f"{gpu.get('flare_area_mb_s')} MB*s {one.error or ''}", flush=True)  # fmt: skip
        if one.case == "slices_215":
            _beside_goals({"wall_s": one.wall_s, **gpu}, seconds)


def _beside_goals(figures: dict[str, Any], seconds: dict[str, float]) -> None:
    """Say which goals are missed, and where to look next."""
    missed = [f"{name} {figures.get(name)}, goal {most}" for name, most in GOALS.items() if figures.get(name, 0) > most]
    largest = max(LOOK, key=lambda name: seconds.get(name, 0))
    print(f"  missed: {'; '.join(missed) or 'nothing'}. The largest part is {largest}: {LOOK[largest]}", flush=True)


def sizes(job: Job) -> None:
    """Make the sizes of Table 5 from the kit's largest scan."""
    folder = job.work / "making"
    folder.mkdir()
    make_sizes(job.scan, folder, SIZES)
    folder.rename(job.work / "sizes")
