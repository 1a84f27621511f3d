"""The stage runs: fresh processes over the sizes of the paper's Table 5."""

from __future__ import annotations

from benchmark.gpu.job import Job
from benchmark.run import measure
from benchmark.scaling import make_sizes

SIZES = (55, 100, 215, 448)  # slices, of Table 5's


def run(job: Job) -> None:
    """Fresh processes over Table 5's sizes; the stages before have warmed the caches."""
    document = measure(job.work / "sizes", job.out / "runs.json", job.flags)
    for one in document.runs:
        gpu, seconds = one.gpu_memory or {}, (one.record or {}).get("seconds", {})
        stages = ", ".join(f"{name} {value:.2f}" for name, value in seconds.items())
        print(f"{one.case}: {one.wall_s:.2f} s ({stages}), {gpu.get('max_mb')} MB, "
              f"{gpu.get('flare_area_mb_s')} MB*s {one.error or ''}")  # fmt: skip


def sizes(job: Job) -> None:
    """Make the sizes of Table 5 from the kit's largest scan."""
    folder = job.work / "making"
    folder.mkdir()
    make_sizes(job.scan, folder, SIZES)
    folder.rename(job.work / "sizes")
