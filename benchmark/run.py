"""Time and memory of every case by itself, as FLARE measures them: one start a case, by process or by container."""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmark.efficiency import figures, flare24
from inference import __version__
from inference.formats.atomic import write_atomically
from inference.formats.cases import Case, find_cases

FORMAT, VERSION = "viscera-benchmark", 1
LIBRARIES = ("numpy", "openvino", "onnxruntime", "onnxruntime-gpu", "cupy-cuda13x", "torch", "nibabel", "isal")
ROOT = Path(__file__).resolve().parent.parent


def measure(
    cases: Path, runner: str, image: str, repeat: int, flags: list[str], out: Path, resume: bool
) -> dict[str, Any]:
    """Run every case `repeat` times, round after round; returns the document that schema.json describes.

    `out` is written after every run, so that a kill costs one. With `resume` the runs in it are kept and not done
    again. Raises VisceraError where `cases` holds none, RuntimeError where the image is not there, ValueError where
    what `out` holds was measured otherwise.
    """
    found = find_cases(cases, Path()).cases
    document: dict[str, Any] = {"format": FORMAT, "version": VERSION, "host": host(), "runner": runner, "flags": flags}
    if runner == "docker":
        document["image"] = image_of(image)
    document["runs"] = []
    if resume and out.exists():
        document["runs"] = _kept(json.loads(out.read_text()), document, out)
    done = {(one["case"], one["round"]) for one in document["runs"]}
    for number in range(repeat):
        for case in found:
            if (case.name, number) in done:
                continue
            print(f"round {number + 1} of {repeat}: {case.name}", file=sys.stderr, flush=True)
            document["runs"].append({"case": case.name, "round": number, **_run(case, runner, image, flags)})
            write(document, out)
    return document


def write(document: dict[str, Any], out: Path) -> None:
    """Write JSON so that a kill leaves the file as it was before."""
    write_atomically(out, (json.dumps(document, indent=1) + "\n").encode())


def _kept(old: dict[str, Any], new: dict[str, Any], out: Path) -> list[dict[str, Any]]:
    """The runs of `old`. Raises ValueError where it was not measured as `new` will be."""
    same = ("format", "version", "runner", "flags", "image")
    different = [name for name in same if old.get(name) != new.get(name)]
    different += [name for name in new["host"] if name != "time" and old.get("host", {}).get(name) != new["host"][name]]
    if different:
        raise ValueError(f"{out} cannot be resumed: {', '.join(different)} differ from now; give another --out")
    runs: list[dict[str, Any]] = old["runs"]
    return runs


def _run(case: Case, runner: str, image: str, flags: list[str]) -> dict[str, Any]:
    """One case in a start of its own, as FLARE runs it."""
    with tempfile.TemporaryDirectory(prefix="viscera-benchmark-") as temporary:
        work = Path(temporary)
        inputs, outputs, cidfile = work / "inputs", work / "outputs", work / "cid"
        inputs.mkdir()
        outputs.mkdir()
        shutil.copy(case.scan, inputs / case.scan.name)
        if runner == "process":
            command = [sys.executable, "-m", "inference", str(inputs), str(outputs), "--json", f"{work}/record.json"]
            record = work / "record.json"
        else:
            # FLARE's command; its --gpus only where there is one to give.
            gpus = ["--gpus", "device=0"] if shutil.which("nvidia-smi") else []
            mounts = ["-v", f"{inputs}/:/workspace/inputs/", "-v", f"{outputs}/:/workspace/outputs/"]
            command = ["docker", "container", "run", "--shm-size=28gb", "-m", "28G", *gpus, "--rm", "--network", "none"]
            command += ["--cidfile", str(cidfile), *mounts, image, "sh", "predict.sh"]
            command += ["--json", "/workspace/outputs/.record.json"]
            record = outputs / ".record.json"
        watched = watch([*command, *flags], cidfile if runner == "docker" else None)
        stages = json.loads(record.read_text()) if record.is_file() else []
    if runner == "docker":
        watched["cpu_s"] = None  # a container is no child of ours
    return watched | {"record": stages[0] if stages else None}


def watch(command: list[str], cidfile: Path | None = None) -> dict[str, Any]:
    """Run a command to its end; its wall time, processor time, exit code, last words and memory over time."""
    with tempfile.TemporaryDirectory(prefix="viscera-benchmark-") as temporary:
        curve = Path(temporary) / "samples.json"
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        sampler = _sampler(curve, process.pid, cidfile)
        assert process.stderr
        said = process.stderr.read().decode(errors="replace")
        code = process.wait()
        wall = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)  # the sampler has not been waited for: it is not in it
        sampler.communicate(b"stop")
        samples = json.loads(curve.read_text())
    return {
        "exit_code": code,
        "error": said.strip().splitlines()[-1] if code and said.strip() else None,
        "wall_s": round(wall, 4),
        "cpu_s": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 3),
        "samples": samples,
        "host_memory": figures(samples["t_s"], samples["host_mb"]),
        "flare24": flare24(samples["ram_mb"], samples["cpu_percent"]),
        "gpu_memory": figures(samples["t_s"], samples["gpu_mb"]) if "gpu_mb" in samples else None,
    }


def _sampler(out: Path, pid: int, cidfile: Path | None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmark.sampler", str(out), "--pid", str(pid)]
    if cidfile:
        command += ["--cidfile", str(cidfile)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE)


def host() -> dict[str, Any]:
    """What the numbers were measured on."""
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "processor": names[0] if names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6),
        "system": platform.platform(),
        "python": platform.python_version(),
        "viscera": __version__,
        "commit": commit.stdout.strip() or None,
        "libraries": {name: found for name in LIBRARIES if (found := _version(name))},
    }


def image_of(image: str) -> dict[str, Any]:
    """Name, digest and size of a Docker image. Raises RuntimeError where the engine does not know it."""
    command = ["docker", "image", "inspect", "--format", "{{.Id}} {{.Size}}", image]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise RuntimeError(f"there is no image {image}, or no Docker engine: {error}") from error
    digest, size = done.stdout.split()
    return {"name": image, "digest": digest, "size_mb": round(int(size) / 1e6, 1)}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
