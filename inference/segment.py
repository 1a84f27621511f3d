"""One scan through the networks: turned upright, overlaid, looked over."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .anatomy import doubts
from .anatomy.hosts import drop_hostless
from .anatomy.orientation import Verdict, judge, rightly, speaks_for_its_header
from .anatomy.thin import Thin, thinned
from .boxes import bounding
from .cards import labels_of
from .formats.probabilities import Probabilities
from .labels import is_tumor, known
from .model import Model, Organs, Progress, box_around, find_organs, segment_with
from .options import Way
from .record import Record
from .scan import Grid, Scan
from .tilt import Tilt

EMPTY = "nothing was found: the label map is empty"


def segment(
    scan: Scan,
    models: Sequence[Model],
    ways: Sequence[Way],
    xp: Any,
    record: Record,
    progress: Progress,
    probabilities: Probabilities | None = None,
    fix_orientation: bool = False,
    wanted: Collection[int] | None = None,
) -> np.ndarray:
    """Labels of a scan, (z, y, x) uint8 on its own grid.

    models           in rising priority: a later network's label wins where it is not 0
    ways             one for each
    record           gets seconds, windows, dropped, orientation, doubts and warnings
    probabilities    gets those of each network's labels
    fix_orientation  a scan that surely lies otherwise than its header says is segmented again as it lies
    wanted           values of the labels that are; None: all. A tumour that is not becomes what is around it

    The scan's voxels are freed, if it allows that, once the last network has seen them.
    """
    if scan.tilted:
        tilt = Tilt.of(scan.grid)
        upright = tilt.upright(scan)
        scan.free()
        return tilt.back(segment(upright, models, ways, xp, record, progress, probabilities, fix_orientation, wanted))

    names = labels_of([model.card for model in models], None)
    left_out = {value: name for value, name in names.items() if wanted is not None and value not in wanted}
    tumors = {value: () for value, name in left_out.items() if is_tumor(name)}

    def labelled(scan: Scan, record: Record, probabilities: Probabilities | None) -> np.ndarray:
        labels = _overlaid(scan, models, ways, xp, record, progress, probabilities)
        if tumors:  # before organs are looked at
            with record.stage("restore"):
                drop_hostless(labels, tumors)
        return labels

    if not models[0].card.channels[0].is_ct:
        return _without(left_out, labelled(scan, record, probabilities), record)
    hu = thinned(scan.voxels, scan.grid)  # since the scan may be freed

    def judged(grid: Grid, labels: np.ndarray, record: Record) -> tuple[Thin, Verdict | None]:
        with record.stage("check"):
            thin = Thin.of(hu, labels, grid, names)
            return thin, judge(thin)

    reads = all(map(_reads_headers, models))
    fix = fix_orientation and reads
    own = Record()
    labels = labelled(replace(scan, once=False) if fix else scan, own, probabilities)
    thin, verdict = judged(scan.grid, labels, own)
    if verdict:
        again = Record(seconds=own.seconds)
        fixed = _as_it_lies(scan, verdict, labelled, judged, again, probabilities) if fix else None
        if fixed:
            own = again
            labels, thin, verdict = fixed
        own.orientation = {
            "turned": list(verdict.turned), "certain": verdict.certain, "why": verdict.why,
            "fix": "done" if fixed else "refused" if fix_orientation else "not asked for",
        }  # fmt: skip
        own.warnings.append(f"{verdict.text}; {_told(bool(fixed), fix_orientation, reads)}")
    unseen = {one.key for name in left_out.values() if (one := known(name))}
    with own.stage("check"):
        found = {key: doubt for key, doubt in doubts.find(thin).items() if key not in unseen}
    own.doubts = {key: {"doubt": doubt.kind, "why": doubt.why} for key, doubt in found.items()}
    if text := doubts.summary(found):
        own.warnings.append(text)
    labels = _without(left_out, labels, own)
    record.add(own)
    return labels


def _without(left_out: Mapping[int, str], labels: np.ndarray, record: Record) -> np.ndarray:
    """Labels but for those that are not wanted, which become background.

    left_out  value -> name
    """
    if not left_out:
        return labels
    record.dropped = {name: voxels for name, voxels in record.dropped.items() if name not in left_out.values()}
    codes = np.arange(256, dtype=np.uint8)
    codes[list(left_out)] = 0
    with record.stage("restore"):
        for plane in labels:
            plane[...] = codes[plane]
        if not labels.any() and EMPTY not in record.warnings:
            record.warnings.append("none of the chosen labels was found: the label map is empty")
    return labels


def _told(fixed: bool, asked: bool, reads: bool) -> str:
    """What was done with a scan that seems to lie otherwise than its header says; reads: whether networks heed that."""
    if fixed:
        return "it was segmented as it seems to lie"
    if not reads:
        return "the networks take it as it is stored all the same"
    if asked:
        return "it was segmented as its header says all the same, since not all signs support a change"
    return "--fix-orientation segments it as it lies, if all signs support that"


def _reads_headers(model: Model) -> bool:
    """Whether a scan is turned for a network: one that takes it as stored sees the same whatever its header says."""
    return bool(model.card.orientation) and (model.earlier is None or _reads_headers(model.earlier))


def _as_it_lies(
    scan: Scan,
    verdict: Verdict,
    labelled: Callable[[Scan, Record, Probabilities | None], np.ndarray],
    judged: Callable[[Grid, np.ndarray, Record], tuple[Thin, Verdict | None]],
    record: Record,
    probabilities: Probabilities | None,
) -> tuple[np.ndarray, Thin, Verdict] | None:
    """Labels of a scan turned as a verdict says, and what was wrong in all; None where it is not surely right then.

    One axis may hide another, since labels of a turned scan are poor, so each is turned as it is found.
    """
    so_far: Verdict | None = None
    doubt: Verdict | None = verdict
    scan = replace(scan, once=False)
    while doubt and doubt.sure and not (so_far and set(so_far.turned) & set(doubt.sure)):
        so_far = doubt.surely(so_far)
        scan = replace(scan, grid=rightly(scan.grid, doubt.surely()))
        record.warnings, record.dropped = [], {}
        labels = labelled(scan, record, None)
        thin, doubt = judged(scan.grid, labels, record)
    if so_far is None or doubt or not labels.any() or not speaks_for_its_header(thin):
        return None
    if probabilities:  # they are kept of one way through only
        probabilities.clear()
        labels = labelled(scan, Record(seconds=record.seconds), probabilities)
    return labels, thin, so_far


def _overlaid(
    scan: Scan,
    models: Sequence[Model],
    ways: Sequence[Way],
    xp: Any,
    record: Record,
    progress: Progress,
    probabilities: Probabilities | None,
) -> np.ndarray:
    labels: np.ndarray | None = None
    seen: dict[Model, Organs] = {}  # by guides: one that several networks have looks once
    for place, (model, way) in enumerate(zip(models, ways, strict=True)):
        found = None
        if model.guide and model.card.guide and way.guided:
            if model.guide not in seen:
                seen[model.guide] = find_organs(scan, model.guide, xp, record)
            found = box_around(seen[model.guide], model.card.guide.values)
        elif labels is not None and all(each.follow for each in ways[: place + 1]):
            found = bounding(labels)
            if found is None:
                # Outside the abdomen a tumour network has nothing to find and would only raise false alarms.
                record.windows[model.card.name] = {"run": 0, "skipped": 0}
                record.warnings.append(f"no organ was found, so the network {model.card.name} was not run")
                continue
        last = model is models[-1]
        above = segment_with(scan, model, way, found, xp, record, progress, probabilities, last)
        labels = above if labels is None else overlay(labels, above)
    assert labels is not None  # there is a network, and the first is run
    if not labels.any():
        record.warnings.append(EMPTY)
    return labels


def overlay(below: np.ndarray, above: np.ndarray) -> np.ndarray:
    """`above` where it is not 0, else `below` (paper, section 2.3: the tumour has priority)."""
    return np.where(above > 0, above, below)
