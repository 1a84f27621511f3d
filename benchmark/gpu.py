"""Measure this program on a machine with a GPU, without questions: `python -m benchmark gpu KIT OUT`

KIT is what `make gpu-kit` made. On the other machine, which needs Python 3.12, PyTorch, CuPy and onnx, from the root
of this project:

    pip install --no-index --no-deps --target /tmp/site KIT/wheels/*.whl; \\
    PYTHONPATH=/tmp/site python3 -m benchmark gpu KIT OUT

Stages, each in a process with a time limit; what it finds is in OUT at once, so that whatever ends it costs little:

    labels    labels.json     label maps beside the CPU's; the very first process, with all that is cold
    start     start.json      what a start costs, part by part, each in a fresh process; most costly imports
    runs      runs.json       time, stages, memory, FLARE's area: sizes of the paper's Table 5, fresh processes
    process   process.json    scans in one process, profile.txt: where the time of a warm one goes
    memory    memory.json     the same scan with ever less of the card free, and how that ends

A stage that fails is in errors.json, and the next goes on. About 130 s with an H100.
"""

from __future__ import annotations

import argparse
import cProfile
import io
import json
import os
import pstats
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmark.document import write
from benchmark.parity import agreement
from benchmark.process import ROOT, host
from benchmark.run import measure
from benchmark.scaling import make_sizes

LIMITS = {"labels": 50, "start": 80, "runs": 60, "process": 45, "memory": 60}  # seconds, with a GPU
CPU_LIMIT = 300  # without one
ENGINES = {"cuda": "torch", "cpu": "auto"}  # where there is PyTorch, but no ONNX Runtime for CUDA
SIZES = (55, 100, 215, 448)  # slices, of Table 5's
USUAL_SIZE = "slices_215_0000.nii.gz"
LEFT_FREE = (1800, 1000, 400)  # MB of the card, rung by rung
PROBE_LIMIT = 40  # seconds
IMPORT = re.compile(r"import time:\s*(\d+) \|\s*(\d+) \|\s*(\S+)")
MOST_IMPORTS = 25
PACKAGES = ("torch", "cupy", "cupy_backends", "onnx", "numpy", "nvidia", "triton")  # what a start reads from the disk


@dataclass(frozen=True)
class Job:
    """What a stage is told: folders, the device, how many scans one process takes."""

    kit: Path
    out: Path
    work: Path
    device: str
    scans: int

    @property
    def flags(self) -> list[str]:
        """Of python -m inference."""
        return ["--device", self.device, "--engine", ENGINES[self.device]]

    @property
    def scan(self) -> Path:
        """The largest scan of the kit."""
        return max((self.kit / "scans").glob("*.nii.gz"), key=lambda path: path.stat().st_size)

    def save(self, name: str, document: dict[str, Any]) -> None:
        write(document, self.out / name)

    def agreement(self, found: Path) -> dict[str, Any]:
        """A label map beside the CPU's of the same name."""
        ours, theirs = (np.asarray(nib.load(path).dataobj) for path in (found, self.kit / "labels" / found.name))
        same = agreement(ours, theirs)
        return {"voxels": same.voxels, "least_dice": min(same.dice.values(), default=None), "dice": same.dice}


def labels(job: Job) -> None:
    """All scans of the kit by the command line, and their labels beside the CPU's."""
    outputs, record = job.work / "labels", job.work / "labels-record.json"
    start = time.perf_counter()
    _inference(job, job.kit / "scans", outputs, "--json", record)
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
    print(f"first process: {document['wall_s']} s")


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


def start(job: Job) -> None:
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


def runs(job: Job) -> None:
    """Fresh processes over Table 5's sizes; the stages before have warmed the caches."""
    document = measure(job.work / "sizes", job.out / "runs.json", job.flags)
    for run in document.runs:
        gpu, seconds = run.gpu_memory or {}, (run.record or {}).get("seconds", {})
        stages = ", ".join(f"{name} {value:.2f}" for name, value in seconds.items())
        print(f"{run.case}: {run.wall_s:.2f} s ({stages}), {gpu.get('max_mb')} MB, "
              f"{gpu.get('flare_area_mb_s')} MB*s {run.error or ''}")  # fmt: skip


def process(job: Job) -> None:
    """The same scan again and again in one process; then one more under two profilers."""
    from inference.formats.nifti.file import write_labels
    from inference.formats.reading import read_scan
    from inference.predictor import Predictor

    path = job.work / "sizes" / USUAL_SIZE
    path = path if path.is_file() else job.scan
    begin = time.perf_counter()
    predictor = Predictor(device=job.device, engine=ENGINES[job.device])
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
    print(f"{path.name}: load {document['load']:.2f} s, then {totals} s")
    profiler = cProfile.Profile()
    profiler.runcall(predictor.segment, scan)
    text = io.StringIO()
    for order in ("tottime", "cumulative"):
        pstats.Stats(profiler, stream=text).strip_dirs().sort_stats(order).print_stats(30)
    (job.out / "profile.txt").write_text(text.getvalue())
    import torch

    with torch.profiler.profile() as seen:  # of all that runs on the card, CuPy's kernels too
        predictor.segment(scan)
    by = f"self_{job.device}_time_total"
    table = seen.key_averages().table(sort_by=by, row_limit=30, max_name_column_width=70)
    (job.out / "profile.txt").write_text(f"{text.getvalue()}\n{table}\n")
    print("profile.txt is written")


HOLD = """
import sys, torch
held = torch.zeros(1, device="cuda")
for line in sys.stdin:
    held = None; torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    held = torch.empty(max(free - int(line) * 10**6, 1), dtype=torch.uint8, device="cuda")
    print(torch.cuda.mem_get_info()[0] // 10**6, flush=True)
"""


def memory(job: Job) -> None:
    """A real lack of memory: another process holds the card but for a rest."""
    document: dict[str, Any] = {"scan": job.scan.name, "rungs": []}
    holder = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdin and holder.stdout
    try:
        for left in LEFT_FREE:
            print(left, file=holder.stdin, flush=True)
            rung: dict[str, Any] = {"left_mb": left, "free_mb": int(holder.stdout.readline())}
            outputs, record = job.work / f"left-{left}", job.work / f"left-{left}.json"
            begin = time.perf_counter()
            try:
                _inference(job, job.scan, outputs, "--json", record)
            except RuntimeError as error:
                rung["error"] = str(error)
            rung["wall_s"] = round(time.perf_counter() - begin, 3)
            rung["record"] = json.loads(record.read_text())[:1] if record.is_file() else []
            rung["agreement"] = [job.agreement(path) for path in outputs.glob("*.nii.gz")]
            document["rungs"].append(rung)
            job.save("memory.json", document)
            how = [(one["status"], one.get("device"), one.get("fallback"), one["error"]) for one in rung["record"]]
            print(f"{rung['free_mb']} MB free: {how or rung.get('error')}, {rung['wall_s']} s")
    finally:
        holder.kill()
        holder.wait()


def sizes(job: Job) -> None:
    """Make the sizes of Table 5 from the kit's largest scan."""
    folder = job.work / "making"
    folder.mkdir()
    make_sizes(job.scan, folder, SIZES)
    folder.rename(job.work / "sizes")


STAGES: dict[str, Callable[[Job], None]] = {
    "labels": labels, "start": start, "runs": runs, "process": process, "memory": memory
}  # fmt: skip


def _inference(job: Job, inputs: Path, outputs: Path, *flags: str | Path) -> str:
    """Run the command line; what it said on stderr. Raises RuntimeError with its last words where it fails."""
    command = [sys.executable, "-m", "inference", inputs, outputs, *job.flags, *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr.strip()[-600:]}")
    return done.stderr


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
        said = _inference(job, job.scan, job.work / "imports")
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


def _memory(device: str) -> dict[str, float]:
    """MB of the card in use by all, and what PyTorch's and CuPy's pools hold at most and now; nothing on the CPU."""
    if device == "cpu":
        return {}
    import cupy
    import torch

    free, total = torch.cuda.mem_get_info()
    kept = cupy.get_default_memory_pool().total_bytes()
    figures = {"gpu": total - free, "torch_most": torch.cuda.max_memory_reserved(), "cupy_pool": kept}
    return {f"{name}_mb": value / 1e6 for name, value in figures.items()}


def _card() -> str | None:
    """Name, driver and memory of the GPU."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


@contextmanager
def _group(command: list[str]) -> Any:
    """A process with all that it starts, killed together at the end."""
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _stage(command: list[str], seconds: float) -> str | None:
    """Run a stage to its end or its time limit; why it failed, or None."""
    with _group(command) as process:
        try:
            _, said = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return f"timed out after {seconds:.1f} s"
    return said.strip()[-1500:] or f"exit code {process.returncode}" if process.returncode else None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kit", type=Path, metavar="KIT")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--stages", default=",".join(STAGES), help="some of them (default: all)")
    parser.add_argument("--scans", type=int, default=10, help="that one process segments (default: 10)")
    parser.add_argument("--seconds", type=float, default=200, help="for everything (default: 200)")
    parser.add_argument("--inside", nargs=2, metavar=("STAGE", "FOLDER"), help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> None:
    """Run the stages; exit code 1 if one failed."""
    kit, out = options.kit.absolute(), options.out.absolute()
    if options.inside:
        stage, folder = options.inside
        (STAGES | {"sizes": sizes})[stage](Job(kit, out, Path(folder), options.device, options.scans))
        return
    wanted = options.stages.split(",")
    if unknown := set(wanted) - set(STAGES):
        raise ValueError(f"no stages {', '.join(sorted(unknown))}")
    out.mkdir(parents=True, exist_ok=True)
    begin, errors = time.monotonic(), {}
    with tempfile.TemporaryDirectory(prefix="viscera-gpu-") as work:
        command = [sys.executable, "-u", "-m", "benchmark", "gpu", str(kit), str(out), "--device", options.device]
        command += ["--scans", str(options.scans), "--inside"]

        def stage(name: str, limit: float) -> None:
            since = time.monotonic()
            error = _stage([*command, name, work], max(min(limit, options.seconds - since + begin), 0.1))
            print(f"-- {name}: {error or 'done'}, {time.monotonic() - since:.1f} s", flush=True)
            if error:
                errors[name] = error
                write(errors, out / "errors.json")

        with _group([*command, "sizes", work]) if "runs" in wanted else _nothing() as making:
            for name in (one for one in STAGES if one in wanted):
                if making and name != "labels":  # nothing else runs while times are taken
                    making.wait()
                stage(name, LIMITS[name] if options.device == "cuda" else CPU_LIMIT)
    sys.exit(1 if errors else 0)


@contextmanager
def _nothing() -> Any:
    yield None
