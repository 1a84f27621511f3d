"""The stage start: what a start costs, part by part, each in a fresh process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmark.gpu.job import ENGINES, Job
from benchmark.process import ROOT, host

PROBE_LIMIT = 40  # seconds
IMPORT = re.compile(r"import time:\s*(\d+) \|\s*(\d+) \|\s*(\S+)")
MOST_IMPORTS = 25
PACKAGES = ("torch", "cupy", "cupy_backends", "onnx", "numpy", "nvidia", "triton")  # what a start reads from the disk
CUDA_PROBES = {
    "import cupy": "import cupy",
    "context by torch": "import torch; torch.zeros(1, device='cuda'); torch.cuda.synchronize()",
    "context by cupy": "import cupy; cupy.zeros(1, cupy.float32); cupy.cuda.Device().synchronize()",
    "first convolution": "import torch; x = torch.zeros(1, 16, 64, 128, 128, device='cuda', dtype=torch.float16); "
    "torch.nn.functional.conv3d(x, x.new_zeros(16, 16, 3, 3, 3), padding=1); torch.cuda.synchronize()",
}
LOAD = """
import json, sys, time
start, steps = time.perf_counter(), {}
def step(name):
    global start
    steps[name], start = round(time.perf_counter() - start, 4), time.perf_counter()
device = sys.argv[1]
import numpy; step("import numpy")
from inference.predictor import Predictor; step("import inference.predictor")
from inference.arrays import array_library; array_library(device); step("array library and its context")
import torch; step("import torch")
torch.zeros(1, device=device); step("torch's first array")
import onnx; step("import onnx")
Predictor(device=device, engine=sys.argv[2]); step("the rest of Predictor")
if device == "cuda":
    free, total = torch.cuda.mem_get_info(); steps["gpu_mb"] = round((total - free) / 1e6)
print(json.dumps(steps))
"""


def run(job: Job) -> None:
    """What a start is made of, part by part; with a GPU at last one that finds no file and no kernel in a cache."""
    document: dict[str, Any] = {"host": asdict(host()), "device": job.device, "probes": [], "imports": []}
    probes = {"python": "pass", "import numpy": "import numpy", "import torch": "import torch"}
    probes["import onnx"] = "import onnx"
    if job.device == "cuda":
        probes |= CUDA_PROBES
    probes["load"] = LOAD

    def probe(name: str, code: str, **variables: str) -> None:
        document["probes"].append({"probe": name, **variables, **_probe(code, job, variables)})
        job.save("start.json", document)
        last = document["probes"][-1]
        print(f"{name}: {last['wall_s']} s {last['steps'] or ''} {last['error'] or ''}")

    for name, code in probes.items():
        probe(name, code)
    if job.device == "cuda":
        for loading in ("LAZY", "EAGER"):
            probe("load", LOAD, CUDA_MODULE_LOADING=loading)
        _forget_files()
        cupy, cuda = str(job.work / "cupy"), str(job.work / "cuda")
        probe("load, nothing cached", LOAD, CUPY_CACHE_DIR=cupy, CUDA_CACHE_PATH=cuda)
    document["imports"] = _imports(job)
    job.save("start.json", document)


def _probe(code: str, job: Job, variables: dict[str, str]) -> dict[str, Any]:
    """Wall time of a fresh interpreter with `code`, its own memory, what it printed as JSON, its last words."""
    begin = time.perf_counter()
    command = [sys.executable, "-c", code, job.device, ENGINES[job.device]]
    environment = os.environ | variables
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=PROBE_LIMIT
        )
    except subprocess.TimeoutExpired:
        return {"wall_s": float(PROBE_LIMIT), "steps": None, "error": "timed out"}
    wall = round(time.perf_counter() - begin, 4)
    said = done.stdout.strip().splitlines()
    error = done.stderr.strip()[-300:] if done.returncode else None
    return {"wall_s": wall, "steps": json.loads(said[-1]) if said and not error else None, "error": error}


def _imports(job: Job) -> list[dict[str, Any]]:
    """The most costly imports of a whole run, milliseconds with and without what they import themselves."""
    os.environ["PYTHONPROFILEIMPORTTIME"] = "1"
    try:
        said = job.inference(job.scan, job.work / "imports")
    finally:
        del os.environ["PYTHONPROFILEIMPORTTIME"]
    found = [(int(total), int(own), name) for own, total, name in IMPORT.findall(said)]
    most = sorted(found, reverse=True)[:MOST_IMPORTS]
    return [{"module": name, "cumulative_ms": total / 1000, "self_ms": own / 1000} for total, own, name in most]


def _forget_files() -> None:
    """Ask the kernel to drop the libraries' files from its cache, so that a start reads them from the disk."""
    for package in PACKAGES:
        spec = find_spec(package)
        for place in (spec.submodule_search_locations or []) if spec else []:
            for path in Path(place).rglob("*"):
                if path.is_file() and not path.is_symlink():
                    with path.open("rb") as stream:
                        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
