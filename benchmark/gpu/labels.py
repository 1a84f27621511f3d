"""The stage labels: a start with all that is cold, and labels beside the CPU's."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import asdict
from typing import Any

from benchmark.gpu.job import Job
from benchmark.process import host


def run(job: Job) -> None:
    """All scans of the kit by the command line, then the largest in float32, and labels beside the CPU's in float32."""
    outputs, record = job.work / "labels", job.work / "labels-record.json"
    start = time.perf_counter()
    job.inference(job.kit / "scans", outputs, "--json", record)
    document: dict[str, Any] = {
        "host": asdict(host()),
        "kit": (job.kit / "commit").read_text().strip(),
        "card": _card(),
    }
    document |= {"wall_s": round(time.perf_counter() - start, 3), "records": json.loads(record.read_text())}
    document["agreement"] = {path.name: job.agreement(path) for path in sorted(outputs.glob("*.nii.gz"))}
    job.save("labels.json", document)
    for name, one in document["agreement"].items():
        print(f"{name}: {one['voxels']:.6f} of the voxels, least Dice {one['least_dice']}")
    print(f"first process: {document['wall_s']} s", flush=True)
    exact = job.work / "labels-f32"
    job.inference(job.scan, exact, "--precision", "f32")
    document["agreement_f32"] = {path.name: job.agreement(path) for path in exact.glob("*.nii.gz")}
    job.save("labels.json", document)
    print(f"in float32: {[one['voxels'] for one in document['agreement_f32'].values()]} of the voxels")


def _card() -> str | None:
    """Name, driver and memory of the GPU."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
