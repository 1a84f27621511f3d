"""A report of runs and scores for a person: Markdown with its figures, and one HTML page that needs no other file.

It takes what `python -m benchmark run` (or `scaling`) and `score` wrote. Nothing is left out: a case that failed has
its row, a figure that was not measured is a dash.
"""

from __future__ import annotations

import argparse
import base64
import html
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from benchmark.document import Run, Runs, markdown, read, read_runs
from benchmark.lesions import Lesions, rows
from benchmark.paper import MOST_GPU_MB, MOST_SECONDS, TABLE_4, TABLE_5
from inference.errors import OutputError
from inference.formats.outputs import page_in_the_way
from inference.labels import ORGANS, TABLE, TUMOR

matplotlib.use("Agg")  # no screen is needed
from matplotlib import pyplot as plt

Table = list[list[str]]  # rows; the first is the head
STAGES = ("read", "load", "prepare", "network", "restore", "check", "measure", "write")
OURS, PAPER = "#1f6f8b", "#c8553d"
TITLE = "# Benchmark"
HEADS = {  # of the files that are written, by which one of an earlier report is known
    "README.md": TITLE,
    "index.html": '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Viscera benchmark</title>',
}
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { padding: .25rem .75rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; height: auto; }
"""


PAPER_NOTE = (
    "The paper's figures are from a Quadro RTX 5000, for its own scans and both of its networks; a row has Viscera's "
    "where a case of the same size was run."
)
SCORE_NOTE = "The paper's figures are of FLARE's hidden validation scans, Viscera's of the references that were given."
LESION_NOTE = (
    "A tumour of the reference is found if a piece of the prediction has an IoU of 0.1 with it; a piece that has this "
    "with none of them is false."
)


@dataclass(frozen=True)
class CaseRuns:
    """The runs of one case that ended well, and how many did not."""

    name: str
    slices: int | None
    shape: str
    runs: list[Run]
    failed: int

    def median(self, *path: str) -> float | None:
        """The median over the runs of a figure within a run; None where no run has it."""
        found = []
        for run in self.runs:
            value: Any = vars(run)
            for key in path:
                value = value.get(key) if value else None
            if value is not None:
                found.append(float(value))
        return statistics.median(found) if found else None

    def spread(self) -> str:
        """Median wall time, and the range of it where there are several runs."""
        walls = [run.wall_s for run in self.runs]
        if not walls:
            return "failed"
        middle = f"{statistics.median(walls):.1f}"
        return middle if len(walls) == 1 else f"{middle} ({min(walls):.1f} to {max(walls):.1f})"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", type=Path)
    parser.add_argument("scores", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, required=True, help="folder")


def run(options: argparse.Namespace) -> None:
    """Write the report of runs, and of scores where there are any, to a folder."""
    scores = read(options.scores, "scores") if options.scores else None
    build(read_runs(options.runs), scores, options.out)
    print(f"{options.out / 'index.html'}")


def build(document: Runs, scores: dict[str, Any] | None, out: Path) -> None:
    """Write README.md, index.html and the figures to the folder `out`, which is made.

    Raises OutputError where one of the two is somebody else's.
    """
    for name, head in HEADS.items():
        if why := page_in_the_way(out / name, head.encode()):
            raise OutputError(f"{out / name} {why}: choose another folder")
    cases = _cases(document)
    out.mkdir(parents=True, exist_ok=True)
    parts: list[str | Table | Path] = [TITLE, _where(document), "## Cases", _case_table(cases)]
    parts += [_tolerances(cases), "## Beside the paper's Table 5", _table_5(cases), PAPER_NOTE]
    growth = document.growth
    if growth:
        (seconds, each), (mb, each_mb) = growth["seconds"], growth["memory_mb"]
        parts.append(
            f"Fitted over {len(cases)} sizes: {seconds:.2f} s + {1000 * each:.1f} ms per slice, {mb:.0f} MB + "
            f"{each_mb:.2f} MB per slice of host memory. The paper's Table 5 grows by 42 ms per slice."
        )
    if any(case.slices for case in cases):
        parts.append(_plot_slices(cases, out / "slices.png"))
    if scores:
        parts += ["## Beside the paper's Table 4", _table_4(scores["means"]), SCORE_NOTE]
        parts += ["DSC / NSD in per cent by label, mean over the cases:", _label_table(scores)]
        if tumours := scores.get("lesions", {}).get("cases"):
            cases_of = {case: Lesions.from_json(found) for case, found in tumours.items()}
            parts += ["## Tumours one by one", rows(cases_of), LESION_NOTE]
    ran = [case for case in cases if case.runs]
    if ran:
        parts += ["## Where the time goes", _plot_stages(ran, out / "stages.png")]
        parts += ["## Memory over time", _plot_memory(ran, out / "memory.png")]
    (out / "README.md").write_text(_markdown(parts))
    (out / "index.html").write_text(_page(parts))


def _cases(document: Runs) -> list[CaseRuns]:
    cases = []
    for name, runs in document.by_case().items():
        good = [run for run in runs if run.ended_well]
        shape = next((run.record["shape"] for run in good if run.record), None)
        size = " x ".join(map(str, reversed(shape))) if shape else "-"
        cases.append(CaseRuns(name, shape[0] if shape else None, size, good, len(runs) - len(good)))
    return sorted(cases, key=lambda case: (case.slices or 0, case.name))


def _where(document: Runs) -> str:
    host, image = document.host, document.image
    how = f"container {image['name']} ({image['digest'][:19]}, {image['size_mb']} MB)" if image else "process"
    gpu = next((run.samples["gpu"] for run in document.runs if run.samples["gpu"]), None)
    versions = ", ".join(f"{name} {number}" for name, number in host.libraries.items())
    flags = f" Flags: {' '.join(document.flags)}." if document.flags else ""
    return (
        f"Measured {host.time} on {host.processor}, {host.cores} cores, {host.memory_mb / 1000:.0f} GB, "
        f"{gpu or 'no GPU'}; {host.system}. Viscera {host.viscera}, commit {host.commit}, as {how}; "
        f"Python {host.python}, {versions}.{flags} One process per case; medians, and the range if there are several "
        "rounds."
    )


def _case_table(cases: list[CaseRuns]) -> Table:
    head = ["case", "size", "seconds", "host MB", "host area MB*s", "GPU MB", "FLARE's area MB*s", "trapezoid MB*s"]
    rows = [head]
    for case in cases:
        seconds = case.spread() + (f", {case.failed} failed" if case.failed and case.runs else "")
        figures = [
            case.median("host_memory", "max_mb"),
            case.median("host_memory", "trapezoid_mb_s"),
            case.median("gpu_memory", "max_mb"),
            case.median("gpu_memory", "flare_area_mb_s"),
            case.median("gpu_memory", "trapezoid_mb_s"),
        ]
        rows.append([case.name, case.shape, seconds, *map(_whole, figures)])
    return rows


def _tolerances(cases: list[CaseRuns]) -> str:
    """How many cases are within what FLARE tolerates."""
    walls = [case.median("wall_s") for case in cases]
    within = sum(wall is not None and wall <= MOST_SECONDS for wall in walls)
    said = f"FLARE's tolerances: {within} of {len(cases)} cases within {MOST_SECONDS:.0f} s"
    gpu = [most for case in cases if (most := case.median("gpu_memory", "max_mb")) is not None]
    if not gpu:
        return f"{said}. No GPU was used, its memory is 0."
    return (
        f"{said}; {sum(most <= MOST_GPU_MB for most in gpu)} of {len(gpu)} within {MOST_GPU_MB:.0f} MB of GPU memory."
    )


def _table_5(cases: list[CaseRuns]) -> Table:
    rows = [["size", "paper s", "ours s", "paper GPU MB", "ours GPU MB", "paper area MB*s", "ours area MB*s"]]
    for row in TABLE_5:
        size = f"512 x 512 x {row.slices}"
        ours = next((case for case in cases if case.shape == size), None)
        wall, most, area = (
            ours.median(*path) if ours else None
            for path in (("wall_s",), ("gpu_memory", "max_mb"), ("gpu_memory", "flare_area_mb_s"))
        )
        rows.append(
            [
                size,
                f"{row.seconds:.2f}",
                "-" if wall is None else f"{wall:.2f}",
                *(_whole(row.gpu_mb), _whole(most), _whole(row.area_mb_s), _whole(area)),
            ]
        )
    return rows


def _table_4(means: dict[str, Any]) -> Table:
    organs = [means[str(one.value)] for one in ORGANS if means[str(one.value)]["dsc"] is not None]
    ours = [statistics.fmean(one[key] for one in organs) if organs else None for key in ("dsc", "nsd")]
    ours += [means[str(TUMOR.value)][key] for key in ("dsc", "nsd")]
    head = ["", "organ DSC", "organ NSD", "tumour DSC", "tumour NSD"]
    return [head, ["paper", *(f"{one:.2f}" for one in TABLE_4)], ["ours", *map(_per_cent, ours)]]


def _label_table(scores: dict[str, Any]) -> Table:
    rows = [["label", "DSC", "NSD"]]
    for one in TABLE:
        mean = scores["means"][str(one.value)]
        rows.append([one.title, _per_cent(mean["dsc"]), _per_cent(mean["nsd"])])
    return rows


def _plot_slices(cases: list[CaseRuns], out: Path) -> Path:
    figure, axis = plt.subplots(figsize=(8, 4.2), layout="constrained")
    axis.plot([r.slices for r in TABLE_5], [r.seconds for r in TABLE_5], "o--", color=PAPER, label="paper, RTX 5000")
    points = [(case.slices, run.wall_s) for case in cases if case.slices for run in case.runs]
    axis.plot(*zip(*points, strict=True), "o", color=OURS, label="ours")
    axis.axhline(MOST_SECONDS, color="grey", lw=1, ls=":", label="FLARE's tolerance")
    axis.set(xlabel="slices", ylabel="seconds, start included", xlim=(0, None), ylim=(0, None))
    axis.legend(frameon=False)
    return _saved(figure, out)


def _plot_stages(cases: list[CaseRuns], out: Path) -> Path:
    figure, axis = plt.subplots(figsize=(8, 1.2 + 0.35 * len(cases)), layout="constrained")
    names = [case.name for case in cases]
    left = np.zeros(len(cases))
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.95, len(STAGES) + 1))
    for stage, colour in zip(STAGES, colours, strict=False):
        part = np.array([case.median("record", "seconds", stage) or 0 for case in cases])
        axis.barh(names, part, left=left, color=colour, label=stage)
        left += part
    rest = np.array([case.median("wall_s") or 0 for case in cases]) - left
    axis.barh(names, np.maximum(rest, 0), left=left, color=colours[-1], label="start and end")
    axis.invert_yaxis()
    axis.set(xlabel="seconds (median of each stage; stages may overlap)")
    axis.legend(frameon=False, ncols=len(STAGES) + 1, loc="lower center", bbox_to_anchor=(0.5, 1))
    return _saved(figure, out)


def _plot_memory(cases: list[CaseRuns], out: Path) -> Path:
    columns = min(3, len(cases))
    rows = -(-len(cases) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(4 * columns, 2.6 * rows), layout="constrained", squeeze=False, sharey=True
    )
    for axis in axes.flat[len(cases) :]:
        axis.set_axis_off()
    for case, axis in zip(cases, axes.flat, strict=False):
        for run in case.runs:
            samples = run.samples
            axis.plot(samples["t_s"], np.array(samples["host_mb"]) / 1000, color=OURS, lw=1, label="host")
            if "gpu_mb" in samples:
                axis.plot(samples["t_s"], np.array(samples["gpu_mb"]) / 1000, color=PAPER, lw=1, label="GPU")
        axis.set(title=case.name, xlabel="seconds", ylabel="GB", ylim=(0, None))
    lines = dict(zip(*reversed(axes.flat[0].get_legend_handles_labels()), strict=True))
    axes.flat[0].legend(lines.values(), lines.keys(), frameon=False)
    return _saved(figure, out)


def _saved(figure: Any, out: Path) -> Path:
    figure.savefig(out, dpi=110)
    plt.close(figure)
    return out


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _per_cent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _markdown(parts: list[str | Table | Path]) -> str:
    blocks = []
    for part in parts:
        if isinstance(part, Path):
            blocks.append(f"![{part.stem}]({part.name})")
        elif isinstance(part, str):
            blocks.append(part)
        else:
            blocks.append(markdown(part))
    return "\n\n".join(blocks) + "\n"


def _page(parts: list[str | Table | Path]) -> str:
    blocks = []
    for part in parts:
        if isinstance(part, Path):
            data = base64.b64encode(part.read_bytes()).decode()
            blocks.append(f'<img alt="{html.escape(part.stem)}" src="data:image/png;base64,{data}">')
        elif isinstance(part, str):
            level = len(part) - len(part.lstrip("#"))
            text = html.escape(part.lstrip("# "))
            blocks.append(f"<h{level}>{text}</h{level}>" if level else f"<p>{text}</p>")
        else:
            head, *rows = part
            lines = ["".join(f"<th>{html.escape(cell)}</th>" for cell in head)]
            lines += ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
            blocks.append("<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>")
    body = "\n".join(blocks)
    return (
        f'{HEADS["index.html"]}<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n"
    )
