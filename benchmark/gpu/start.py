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

from benchmark.gpu.job import Job
from benchmark.process import ROOT, host

PROBE_LIMITS = {"cuda": 25, "cpu": 120}  # seconds
IMPORT = re.compile(r"import time:\s*(\d+) \|\s*(\d+) \|\s*(\S+)")
MOST_IMPORTS = 60
PACKAGES = ("torch", "onnx", "onnxruntime", "numpy", "nvidia", "triton")  # what a start reads from the disk
STEPS = """
import json, sys, time
start, steps, device = time.perf_counter(), {}, sys.argv[1]
def step(name):
    global start
    steps[name], start = round(time.perf_counter() - start, 4), time.perf_counter()
"""
LEAN = "from inference.engines.lean import start_lean; start_lean()\n"
LOAD = (
    STEPS
    + LEAN
    + """
import numpy; step("import numpy and nibabel")
import torch; step("import torch")
torch.zeros(1, device=device); step("its context")
import inference.engines.torch; step("the engine's other imports")
from inference.predictor import Predictor; step("import inference.predictor")
Predictor(device=device, engine=sys.argv[2]); step("the rest of Predictor")
if device == "cuda":
    free, total = torch.cuda.mem_get_info(); steps["gpu_mb"] = round((total - free) / 1e6)
print(json.dumps(steps))
"""
)
WITHOUT_TORCH = (
    STEPS
    + """
import numpy; step("import numpy")
import onnxruntime; step("import onnxruntime")
from inference.predictor import Predictor; step("import inference.predictor")
predictor = Predictor(device=device, engine="onnxruntime"); step("the rest of Predictor")
window = numpy.zeros((1, 1, *predictor.cards[0].patch), numpy.float32)
for name in ("first window", "second window"):
    predictor._models[0].network(window); step(name)
print(json.dumps(steps))
"""
)
CONVOLUTION = (
    STEPS
    + LEAN
    + """
import torch; step("import torch")
x = torch.zeros(1, 16, 64, 128, 128, device=device, dtype=torch.float16); torch.cuda.synchronize(); step("context")
torch.matmul(x[0, 0, 0], x[0, 0, 0]); torch.cuda.synchronize(); step("first product of matrices")
for name in ("first convolution", "second convolution"):
    torch.nn.functional.conv3d(x, x.new_zeros(16, 16, 3, 3, 3), padding=1); torch.cuda.synchronize(); step(name)
free, total = torch.cuda.mem_get_info(); steps["gpu_mb"] = round((total - free) / 1e6)
print(json.dumps(steps))
"""
)
DRIVER = (
    STEPS
    + """
import ctypes
from importlib.util import find_spec
from pathlib import Path
driver, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
def make_context():
    assert driver.cuInit(0) == 0 and driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
"""
)
# What an engine without PyTorch would start with.
CUDNN = (
    DRIVER
    + """
make_context(); assert driver.cuCtxSetCurrent(context) == 0; step("context")
place, *_ = find_spec("nvidia").submodule_search_locations  # two with the link that ONNX Runtime needs
for name in ("libcublasLt.so.*", "libcublas.so.*", "libcudnn.so.*"):
    path = next(Path(place).rglob(name)); library = ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL); step(path.name)
handle = ctypes.c_void_p(); assert library.cudnnCreate(ctypes.byref(handle)) == 0; step("cudnnCreate")
free, total = ctypes.c_size_t(), ctypes.c_size_t(); driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
steps["gpu_mb"] = round((total.value - free.value) / 1e6)
print(json.dumps(steps))
"""
)
BESIDE = (
    DRIVER
    + LEAN
    + """
from threading import Thread
making = Thread(target=make_context); making.start()
import torch; step("import torch")
making.join(); step("waiting for the context")
torch.zeros(1, device=device); torch.cuda.synchronize(); step("first array")
print(json.dumps(steps))
"""
)
# What becomes of a process after an error that CUDA gives to whatever it does next.
LOST = (
    STEPS
    + LEAN
    + """
import os, torch
from pathlib import Path
from inference.formats.reading import read_scan
from inference.predictor import Predictor
scan = read_scan(Path("docs/sample/HCC_048_0000.nii.gz"))
predictor = Predictor(device=device, engine="torch"); step("Predictor")
def attempt(name, what):
    try: what()
    except Exception as error: steps[name] = f"{type(error).__name__}: {error}"[:300]
attempt("fault", lambda: torch.zeros(1, device=device)[torch.full((1,), 5, device=device)].cpu())
attempt("next scan", lambda: predictor.segment(scan))
steps["spent"] = predictor.spent
attempt("another on the GPU", lambda: Predictor(device=device, engine="torch"))
other = Predictor(); steps["another"] = [other.choice.device, *other.choice.why]
print(json.dumps(steps), flush=True)
os._exit(0)
"""
)
CUDA_PROBES = {
    "a GPU that is lost": LOST,
    "convolution": CONVOLUTION,
    "context made while torch is imported": BESIDE,
    "cuDNN without torch": CUDNN,
}


def run(job: Job) -> None:
    """What a start is made of, part by part; with a GPU at last one that finds no file and no kernel in a cache."""
    document: dict[str, Any] = {"host": asdict(host()), "device": job.device, "probes": [], "imports": []}
    probes = {"load": LOAD, "import torch": "import torch", "import torch without its compiler": LEAN + "import torch"}
    if find_spec("onnxruntime"):
        probes["load, ONNX Runtime"] = WITHOUT_TORCH
    if job.device == "cuda":
        probes |= CUDA_PROBES
    probes |= {"python": "pass", "import numpy": "import numpy"}

    def probe(name: str, code: str, **variables: str) -> None:
        document["probes"].append({"probe": name, **variables, **_probe(code, job, variables)})
        job.save("start.json", document)
        last = document["probes"][-1]
        print(f"{name}: {last['wall_s']} s {last['steps'] or ''} {last['error'] or ''}", flush=True)

    for name, code in probes.items():
        probe(name, code)
    document["imports"] = _imports(job)
    job.save("start.json", document)
    own = sorted(document["imports"], key=lambda one: -one["self_ms"])[:12]
    print("imports by their own time (ms): " + ", ".join(f"{one['module']} {one['self_ms']:.0f}" for one in own))
    if job.device == "cuda":
        _forget_files()
        probe("load, nothing cached", LOAD, CUDA_CACHE_PATH=str(job.work / "cuda"))


def _probe(code: str, job: Job, variables: dict[str, str]) -> dict[str, Any]:
    """Wall time of a fresh interpreter with `code`, its own memory, what it printed as JSON, its last words."""
    begin = time.perf_counter()
    command = [sys.executable, "-c", code, job.device, job.engine]
    environment, limit = os.environ | variables, PROBE_LIMITS[job.device]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=limit
        )
    except subprocess.TimeoutExpired:
        return {"wall_s": float(limit), "steps": None, "error": "timed out"}
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
