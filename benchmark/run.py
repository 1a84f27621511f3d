"""Time and memory of every case alone, as FLARE measures them: one process or one container per case."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmark.document import Run, Runs, output, read_runs, write
from benchmark.process import host, watch
from inference.formats.cases import Case, find_cases


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", type=Path, required=True, help="folder of X_0000.nii.gz")
    add_measured(parser)


def add_measured(parser: argparse.ArgumentParser) -> None:
    """What `run` and `scaling` share."""
    parser.add_argument("--runner", choices=("process", "docker"), default="process")
    parser.add_argument("--image", default="viscera", help="for the runner docker")
    parser.add_argument("--repeat", type=int, default=3, help="rounds over all cases")
    parser.add_argument("--resume", action="store_true", help="keep the runs in --out and continue after them")
    add_flags(parser)
    parser.add_argument("--out", type=output, required=True, help="JSON file")


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--flags", type=shlex.split, default=[], help="of python -m inference, as a shell reads them: "
                        "'--plan dense'")  # fmt: skip


def run(options: argparse.Namespace) -> None:
    """Measure every case and print one line for each."""
    summarise(measure_as_told(options.cases, options))


def measure_as_told(cases: Path, options: argparse.Namespace) -> Runs:
    """`measure`, by the options of `add_measured`."""
    image = image_of(options.image) if options.runner == "docker" else None
    return measure(cases, options.out, options.flags, repeat=options.repeat, image=image, resume=options.resume)


def measure(
    cases: Path,
    out: Path,
    flags: list[str],
    *,
    repeat: int = 1,
    image: dict[str, Any] | None = None,
    resume: bool = False,
) -> Runs:
    """Run every case `repeat` times, round after round.

    `out` is written after every run, so that a kill costs one. With `resume` the runs in it are kept and not done
    again. `image`, of `image_of`, runs them in containers. Raises VisceraError where `cases` holds none, ValueError
    where what `out` holds was measured otherwise.
    """
    found = find_cases(cases, Path()).cases
    document = Runs(host(), "docker" if image else "process", flags, [], image)
    if resume and out.exists():
        document.runs.extend(_kept(read_runs(out), document, out))
    done = {(one.case, one.round) for one in document.runs}
    for number in range(repeat):
        for case in found:
            if (case.name, number) in done:
                continue
            print(f"round {number + 1} of {repeat}: {case.name}", file=sys.stderr, flush=True)
            document.runs.append(Run(case=case.name, round=number, **_run(case, image, flags)))
            write(document.to_json(), out)
    return document


def summarise(document: Runs) -> None:
    """Print a line for each case."""
    for case, runs in document.by_case().items():
        walls = [one.wall_s for one in runs]
        spread = f"{min(walls):.2f} {statistics.median(walls):.2f} {max(walls):.2f}"
        most = max(one.host_memory["max_mb"] for one in runs)
        print(f"{case}: wall s (least, median, most) {spread}; host memory at most {most:.0f} MB", end="")
        gpu = [one.gpu_memory for one in runs if one.gpu_memory]
        if gpu:
            area = statistics.median(one["flare_area_mb_s"] for one in gpu)
            print(f"; GPU at most {max(one['max_mb'] for one in gpu):.0f} MB, FLARE's area {area:.0f} MB*s", end="")
        failed = [one.error for one in runs if not one.ended_well]
        print(f"; FAILED: {failed[0]}" if failed else "")
    if document.runs and not document.runs[0].samples.get("gpu"):
        print(f"no GPU memory: {document.runs[0].samples['gpu_absent']}")


def _kept(old: Runs, new: Runs, out: Path) -> list[Run]:
    """The runs of `old`. Raises ValueError where it was not measured as `new` will be."""
    different = [name for name in ("runner", "flags", "image") if getattr(old, name) != getattr(new, name)]
    different += new.host.same_but_time(old.host)
    if different:
        raise ValueError(f"{out} cannot be resumed: {', '.join(different)} differ from now; give another --out")
    return old.runs


def _run(case: Case, image: dict[str, Any] | None, flags: list[str]) -> dict[str, Any]:
    """One case in a separate process, as FLARE runs it."""
    with tempfile.TemporaryDirectory(prefix="viscera-benchmark-") as temporary:
        work = Path(temporary)
        inputs, outputs, cidfile = work / "inputs", work / "outputs", work / "cid"
        inputs.mkdir()
        outputs.mkdir()
        shutil.copy(case.scan, inputs / case.scan.name)
        if image is None:
            command = [sys.executable, "-m", "inference", str(inputs), str(outputs), "--json", f"{work}/record.json"]
            record = work / "record.json"
        else:
            # FLARE's command; its --gpus only where there is one to give.
            gpus = ["--gpus", "device=0"] if shutil.which("nvidia-smi") else []
            mounts = ["-v", f"{inputs}/:/workspace/inputs/", "-v", f"{outputs}/:/workspace/outputs/"]
            command = ["docker", "container", "run", "--shm-size=28gb", "-m", "28G", *gpus, "--rm", "--network", "none"]
            command += ["--cidfile", str(cidfile), *mounts, image["name"], "sh", "predict.sh"]
            command += ["--json", "/workspace/outputs/.record.json"]
            record = outputs / ".record.json"
        watched = watch([*command, *flags], cidfile if image else None)
        stages = json.loads(record.read_text()) if record.is_file() else []
    if image:
        watched["cpu_s"] = None  # a container is no child of ours
    return watched | {"record": stages[0] if stages else None}


def image_of(image: str) -> dict[str, Any]:
    """Name, digest and size of a Docker image. Raises RuntimeError where the engine does not know it."""
    command = ["docker", "image", "inspect", "--format", "{{.Id}} {{.Size}}", image]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise RuntimeError(f"there is no image {image}, or no Docker engine: {error}") from error
    digest, size = done.stdout.split()
    return {"name": image, "digest": digest, "size_mb": round(int(size) / 1e6, 1)}
