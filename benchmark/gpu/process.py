"""The stage process: scans in one process, and where the time of a warm one goes."""

from __future__ import annotations

import cProfile
import io
import pstats
import time
from typing import Any

from benchmark.gpu.job import Job

USUAL_SIZE = "slices_215_0000.nii.gz"


def run(job: Job) -> None:
    """The same scan again and again in one process; then one more under two profilers."""
    from inference.formats.nifti.file import write_labels
    from inference.formats.reading import read_scan
    from inference.predictor import Predictor

    path = job.work / "sizes" / USUAL_SIZE
    path = path if path.is_file() else job.scan
    begin = time.perf_counter()
    predictor = Predictor(device=job.device, engine=job.engine)
    document: dict[str, Any] = {"scan": path.name, "load": time.perf_counter() - begin, "scans": []}
    for _ in range(job.scans):
        begin = time.perf_counter()
        scan = read_scan(path)
        read = time.perf_counter()
        found, report = predictor.segment(scan)
        segmented = time.perf_counter()
        write_labels(job.work / "process.nii.gz", found, scan)
        end = time.perf_counter()
        seconds = {"total": end - begin, "read": read - begin, "segment": segmented - read, "write": end - segmented}
        document["scans"].append(seconds | report.seconds | _memory(job.device))
        job.save("process.json", document)
    totals = [round(one["total"], 3) for one in document["scans"]]
    print(f"{path.name}: load {document['load']:.2f} s, then {totals} s (goal: 0.6)")
    print({name: round(value, 3) for name, value in document["scans"][-1].items()}, flush=True)
    profiler = cProfile.Profile()
    profiler.runcall(predictor.segment, scan)
    text = io.StringIO()
    for order in ("tottime", "cumulative"):
        pstats.Stats(profiler, stream=text).strip_dirs().sort_stats(order).print_stats(30)
    (job.out / "profile.txt").write_text(text.getvalue())
    import torch

    with torch.profiler.profile() as seen:  # of all that runs on the card
        predictor.segment(scan)
    by = f"self_{job.device}_time_total"
    table = seen.key_averages().table(sort_by=by, row_limit=30, max_name_column_width=70)
    (job.out / "profile.txt").write_text(f"{text.getvalue()}\n{table}\n")
    print("profile.txt is written")


def _memory(device: str) -> dict[str, float]:
    """MB of the card in use by all, what PyTorch's pool holds at most, and what its arrays did; nothing on the CPU."""
    if device == "cpu":
        return {}
    import torch

    free, total = torch.cuda.mem_get_info()
    pool, arrays = torch.cuda.max_memory_reserved(), torch.cuda.max_memory_allocated()
    figures = {"gpu": total - free, "pool_most": pool, "arrays_most": arrays}
    return {f"{name}_mb": value / 1e6 for name, value in figures.items()}
