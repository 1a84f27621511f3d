"""The stage memory: the same scan with ever less of the card free."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from benchmark.gpu.job import Job

LEFT_FREE = (1800, 1000, 700, 400)  # MB of the card, rung by rung
HOLD = """
import sys, torch
held = torch.zeros(1, device="cuda")
for line in sys.stdin:
    held = None; torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    held = torch.empty(max(free - int(line) * 10**6, 1), dtype=torch.uint8, device="cuda")
    print(torch.cuda.mem_get_info()[0] // 10**6, flush=True)
"""


def run(job: Job) -> None:
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
                job.inference(job.scan, outputs, "--json", record)
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
