"""What is known of a case once it is done: one type from the network to the file beside the labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from time import perf_counter
from typing import Any

from .version import LABELS, __version__

TWICE = "organs to look at twice"  # begins the warning that repeats the doubts


@dataclass
class Record:
    """None is what is not known, as of a case that failed early; docs/usage.md says what stands in the JSON.

    case       its name, as it may be shown
    status     "done", "kept" or "failed"
    error      why it failed, a sentence
    warnings   one sentence each
    seconds    by stage: load, read, prepare, network, restore (blending included), measure, write, preview; total
    program, labels_version   of the program that made the labels
    weights    network -> sha256 of its card
    plan, step, tta           of the way of windows
    chosen     names of the labels that were wanted; None: all that the networks have
    anonymous  DICOM that was written holds nothing of the patient
    device, engine, precision, why    the choice, and one sentence why for each part of it that was left to "auto"
    fallback   steps taken because memory ran out, one sentence each
    series     SeriesInstanceUID of a case of DICOM, unless names are hidden
    shape, spacing   (z, y, x) of the scan, and mm
    resampled    the slices lay unevenly apart and were interpolated: its labels lie on a grid of their own
    orientation  None, or how the scan seems to lie against its header: the axes that are turned, whether that is
               certain, why, and what became of the fix
    doubts     organ -> why it should be looked at: "missing", "look" or "cut", and a phrase
    dropped    name of a label -> voxels that were taken out: far from the rest of their organ, in no host of a tumour,
               or not of the largest piece
    windows    network -> windows run, windows of the dense plan that were not, voxels (z, y, x) of one, and what came
               of its guide
    labels     value in the label map -> name, voxels, ml and the rest of what `quantities` measures
    outputs    format -> sha256 of each file that holds the labels, and of the folders of probabilities and of
               the preview
    probabilities   file in that folder -> network, value and name of the label
    memory_estimate_mb, memory_limit_mb    MB (10^6 bytes) that the case was expected to take at most, and that it might
    unwritten  the labels could not be written
    """

    case: str = ""
    status: str = "failed"
    error: str | None = None
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    program: str = __version__
    labels_version: int = LABELS
    weights: dict[str, str] = field(default_factory=dict)
    threads: int | None = None
    plan: str | None = None
    step: float | None = None
    tta: bool = False
    chosen: list[str] | None = None
    anonymous: bool = False
    device: str | None = None
    engine: str | None = None
    precision: str | None = None
    why: list[str] | None = None
    fallback: list[str] = field(default_factory=list)
    input_sha256: str | None = None
    series: str | None = None
    shape: list[int] | None = None
    spacing: list[float] | None = None
    resampled: bool | None = None
    orientation: dict[str, Any] | None = None
    doubts: dict[str, dict[str, str]] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    windows: dict[str, dict[str, Any]] = field(default_factory=dict)
    labels: dict[str, dict[str, Any]] | None = None
    outputs: dict[str, str] = field(default_factory=dict)
    probabilities: dict[str, dict[str, Any]] | None = None
    peak_memory_mb: float | None = None
    memory_estimate_mb: float | None = None
    memory_limit_mb: float | None = None
    unwritten: bool = False
    _inner: float = field(default=0.0, repr=False, compare=False)  # s of stages that ended inside the one that runs

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of a block to `seconds[name]`, but for that of stages inside it."""
        start, outer, self._inner = perf_counter(), self._inner, 0.0
        try:
            yield
        finally:
            spent = perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + spent - self._inner
            self._inner = outer + spent

    def add(self, found: Record) -> None:
        """Take over what the way through the networks added to a record of its own."""
        for name, seconds in found.seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self.warnings += found.warnings
        self.windows |= found.windows
        self.dropped |= found.dropped
        self.orientation = found.orientation
        self.doubts |= found.doubts

    def to_json(self) -> dict[str, Any]:
        """What json.dumps takes; what is not known is left out, but for the error."""
        document: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name == "_inner" or (one.name == "unwritten" and not value):
                continue
            if one.name == "windows":
                document["windows_run"] = sum(windows["run"] for windows in value.values())
                document["windows_skipped"] = sum(windows["skipped"] for windows in value.values())
            if one.name == "outputs" and "nii.gz" in value:
                document["output_sha256"] = value["nii.gz"]
            if value is not None or one.name == "error":
                document[one.name] = value
        return document

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Record:
        """The record of a JSON; what another version of this program knew besides is dropped."""
        known = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in document.items() if name in known})
