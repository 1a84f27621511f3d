"""One case, from files to files: read, segment, measure, write."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from . import errors, machine
from .cards import record_fields, smaller_ways
from .errors import CaseError, MemoryBudgetError, ScanError, UnwrittenError, one_line, shown
from .formats.cases import Case
from .formats.channels import name_of_file
from .formats.probabilities import Probabilities
from .formats.reading import given_sources, peek, read_scan, volume_in
from .formats.sources import case_digest
from .formats.writing import check, write
from .formats.written import Description, Written
from .model import Progress, Quiet
from .names import FOLDERS, FORMATS, PREVIEW, PROBABILITIES, case_of, format_of, formats_named, labels_file
from .options import Way, most_voxels
from .predictor import Predictor
from .preview import folder as preview
from .quantities import quantities
from .record import Record
from .scan import Scan


def segment_file(
    predictor: Predictor,
    scan: str | Path | Sequence[str | Path],
    outputs: str | Path,
    formats: str | Sequence[str] = FORMATS[:1],
    *,
    probabilities: bool = False,
) -> Record:
    """Segment a file, the folder of a DICOM series or a ZIP with one to OUTPUTS/X.nii.gz; where the networks take
    several channels, a file for each. The record says how it went: no scan raises anything. No record is written beside
    the labels. The folder is made if it is missing.

    formats        of the label map, one or several, as --format calls them: "nifti", "seg.nrrd", "mha", "seg",
                   "labelmap", "rtstruct", "sr"; or by their endings, such as "nii.gz"
    probabilities  are written to the folder OUTPUTS/X.probabilities
    Raises ValueError where a format is none of these, or `scan` is no path.
    """
    kinds = formats_named([formats] if isinstance(formats, str) else formats)
    with suppress(OSError):  # if it cannot be made, writing says so
        Path(outputs).mkdir(parents=True, exist_ok=True)
    channels = tuple(map(Path, given_sources(scan)))
    name, volume = case_of(channels[0].name), None
    if len(channels) == 1:
        name = name_of_file(channels[0])
        with suppress(Exception):  # which reading will meet as well, and the record then tells
            volume = volume_in(channels[0])
    files = tuple(labels_file(Path(outputs), name, kind) for kind in (*kinds, *[PROBABILITIES] * probabilities))
    return run_case(predictor, Case(name, channels, files, volume=volume))


@dataclass(frozen=True)
class Share:
    """Memory that this process shares with others that segment.

    container  bytes that the container leaves to all of them; one scan alone may have them
    wait       is told the bytes that a scan takes at most, and returns once they are free
    """

    container: int
    wait: Callable[[int], None]


def run_case(
    predictor: Predictor,
    case: Case,
    progress: Progress | None = None,
    ways: tuple[Way, ...] | None = None,
    share: Share | None = None,
) -> Record:
    """Segment a case and write its label map. Nothing is raised: the record says how it went.

    ways   how windows are laid, one for each network; default: the predictor's own
    share  of memory; None: no other process needs it
    """
    choice, ways = predictor.choice, ways or predictor.ways
    record = Record(
        case=shown(case.name),
        threads=predictor.threads,
        **record_fields(predictor.cards, ways, predictor.options),
        device=choice.device,
        engine=choice.engine,
        precision=choice.precision,
        why=list(choice.why),
    )
    machine.reset_peak_memory()
    start = perf_counter()
    try:
        _run(predictor, case, record, ways, progress or Quiet(), share)
        record.status = "done"
    except Exception as error:
        record.error = cause(error)
        record.unwritten = isinstance(error, UnwrittenError)
    record.seconds["total"] = perf_counter() - start
    record.peak_memory_mb = machine.peak_memory_mb()
    return record


def _run(
    predictor: Predictor,
    case: Case,
    record: Record,
    ways: tuple[Way, ...],
    progress: Progress,
    share: Share | None,
) -> None:
    if most_voxels(ways) < most_voxels(predictor.ways):  # a process before this one was lost
        record.fallback.append(_smaller(ways))
    with record.stage("read"):
        if len(case.files) != len(predictor.ct):
            raise ScanError(f"{len(case.files)} files are given, and the networks take {len(predictor.ct)} channels")
        ways, need = _fitting(predictor, case, record, ways, share)
    if share:
        share.wait(need)
    with record.stage("read"):
        scan = _read(predictor, case)
        record.input_sha256 = case_digest(case.sources)
    check(scan, case.scan.name, case.outputs)
    record.shape, record.spacing = list(scan.grid.shape), list(scan.grid.spacing)
    record.resampled = scan.resampled or None
    record.warnings += scan.warnings
    with _kept(predictor, case) as probabilities:
        labels = _labels(predictor, case, scan, record, ways, progress, probabilities)
        record.warnings += record.fallback
        with record.stage("measure"):
            record.labels = _measured(predictor, case, scan, labels)
        with record.stage("write"):  # last of all: once a label map is there, nothing may fail any more
            about = Description(predictor.labels, record.weights, predictor.options.anonymous, record.labels)
            outputs = [path for path in case.outputs if format_of(path) != PREVIEW]
            written = write(labels, scan, outputs, about, probabilities)
        record.probabilities = probabilities.listed() if probabilities else None
    record.outputs = digests_of(outputs, written)
    record.warnings += dict.fromkeys(one.doubt for one in written if one.doubt)
    if path := case.folder(PREVIEW):
        with record.stage("preview"):
            _preview(predictor, case, scan, labels, path, record)


def _kept(predictor: Predictor, case: Case) -> AbstractContextManager[Probabilities | None]:
    """Where probabilities are until they are written, if they are asked for."""
    if case.folder(PROBABILITIES):
        return closing(Probabilities(predictor.cards, case.labels.parent, predictor.labels))
    return nullcontext()


def _preview(predictor: Predictor, case: Case, scan: Scan, labels: np.ndarray, path: Path, record: Record) -> None:
    """Write the pictures of the first channel that is CT, or of the first. A case never fails for them."""
    channel = predictor.ct.index(True) if True in predictor.ct else 0
    try:
        is_ct = predictor.ct[channel]
        channels = scan.channels or _read(predictor, case).channels
        found = {int(value): label["name"] for value, label in (record.labels or {}).items()}
        written = preview.write(path, channels[channel], is_ct, labels, scan.grid, found)
    except Exception as error:
        record.warnings.append(f"the labels are good, but have no preview: {cause(error)}")
    else:
        record.outputs[PREVIEW] = written.sha256


def _fitting(
    predictor: Predictor, case: Case, record: Record, ways: tuple[Way, ...], share: Share | None
) -> tuple[tuple[Way, ...], int]:
    """The ways that the limit on memory allows, if there is one, and, where memory is shared, the bytes that the case
    will take at most: before the first voxel is read.
    """
    budget = predictor.budget
    if share is None and budget.limit() is None:
        return ways, 0
    scans = [peek(one, predictor.options.resample, predictor.abdominal) for one in case.sources]
    held, most = (max(each) for each in zip(*(scan.voxel_bytes for scan in scans), strict=True))
    scan = replace(scans[0], voxel_bytes=(held, most))  # channels may be of several types
    folders = [kind for kind in FOLDERS if case.folder(kind)]
    try:
        ways = budget.fitting(scan, ways, record, folders, share.container if share else None)
    except MemoryBudgetError as error:
        raise MemoryBudgetError(f"{shown(case.scan.name)} {error}") from error
    return ways, budget.need(scan, ways, folders, share.container) if share else 0


def _read(predictor: Predictor, case: Case) -> Scan:
    """The scan. Where memory is limited its voxels are freed in the networks, and read again for what is measured."""
    options = predictor.options
    scan = read_scan(case.sources, options.accept_intensities, predictor.ct, options.resample, predictor.abdominal)
    return replace(scan, once=predictor.budget.limit() is not None)


def _measured(predictor: Predictor, case: Case, scan: Scan, labels: np.ndarray) -> dict[str, Any]:
    """What the record says of labels. Voxels that are read again for it are let go of: writing DICOM takes as much."""
    channels = scan.channels or _read(predictor, case).channels
    ct = {channel: channels[channel] for channel, is_ct in enumerate(predictor.ct) if is_ct}
    return quantities(labels, scan.grid, predictor.labels, ct)


def _labels(
    predictor: Predictor,
    case: Case,
    scan: Scan,
    record: Record,
    ways: tuple[Way, ...],
    progress: Progress,
    probabilities: Probabilities | None,
) -> np.ndarray:
    """Segment; where memory runs out, again in smaller windows if a network takes them, and from a GPU at last on
    the CPU. What an attempt has freed is read again.
    """

    def attempt() -> np.ndarray:
        if probabilities:
            probabilities.clear()
        given = scan if scan.channels else _read(predictor, case)
        labels, found = predictor.segment(given, progress, ways, probabilities)
        record.add(found)
        return labels

    smaller = smaller_ways(predictor.cards, ways)
    # A try that failed has to be left before the next: its exception holds all that it had allocated.
    with suppress(MemoryError):
        return attempt()
    if smaller:
        record.fallback.append(_smaller(smaller))
        ways = smaller
        with suppress(MemoryError):
            return attempt()
    if predictor.choice.device == "cpu":
        raise MemoryError
    record.fallback.append("there was too little memory on the GPU: on the CPU")
    predictor = Predictor(replace(predictor.options, device="cpu", engine="auto", precision="auto"))
    record.device, record.engine, record.precision = "cpu", predictor.choice.engine, predictor.choice.precision
    return attempt()


def _smaller(ways: Sequence[Way]) -> str:
    return f"there was too little memory at first: in windows of {most_voxels(ways):,} voxels at most"


def digests_of(outputs: Sequence[Path], written: Sequence[Written]) -> dict[str, str]:
    """Format -> sha256 of the outputs of a case."""
    return {str(format_of(path)): one.sha256 for path, one in zip(outputs, written, strict=True)}


def cause(error: Exception) -> str:
    """Why a case failed, in a sentence. A fault of ours is said as such, with its traceback on stderr."""
    if isinstance(error, CaseError):
        return str(error)
    if machine.ran_out(error):
        return "not enough memory for this scan"
    text = f"internal error: {type(error).__name__}"
    if not errors.names_are_hidden():  # a message of Python's can hold a path
        text += f": {one_line(error)}"
        traceback.print_exception(error)
    return text
