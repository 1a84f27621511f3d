"""`totalsegmentator` with the arguments and results of TotalSegmentator 2.18.0 (python_api.py), task `total`."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.nifti1 import Nifti1Image

from ..cards import labels_of, read_cards
from ..errors import ScanError, ScanWarning, UnwrittenError, shown
from ..formats.archive import is_archive
from ..formats.cases import Case, find_cases
from ..formats.channels import name_of_file
from ..formats.reading import peek, read_scan
from ..labels import is_tumor
from ..names import labels_file
from ..options import WEIGHTS, Options
from ..pack import unpacked
from ..predictor import Predictor
from ..task import run_case
from . import files
from .statistics import BORDER, Statistics
from .statistics import statistics as measured
from .structures import Structures, class_map, recoded, theirs, wanted

DEVICES = {"gpu": "auto", "gpu:0": "auto", "cpu": "cpu"}  # theirs too goes on without a GPU
# What has no counterpart here, and the value that asks for nothing.
REFUSED: dict[str, Any] = {
    "nora_tag": "None", "preview": False, "task": "total", "radiomics": False, "crop_path": None,
    "output_type": "nifti", "test": 0, "license_number": None, "v1_order": False, "remove_small_blobs": False,
    "statistics_normalized_intensities": False, "save_probabilities": None, "report": None, "save_lowres": False,
    "plans": "nnUNetPlans", "model_size": "big",
}  # fmt: skip
# What chooses among several networks and ways there, and what says only how the work is done.
FAST = ("fast", "fastest", "higher_order_resampling", "higher_order_resampling_LEGACY", "resampling_order")
EFFORT = ("robust_crop", "debug")


def totalsegmentator(
    input: str | Path | Nifti1Image,
    output: str | Path | None = None,
    ml: bool = False,
    nr_thr_resamp: int = 1,
    nr_thr_saving: int = 6,
    fast: bool = False,
    nora_tag: str | None = "None",
    preview: bool = False,
    task: str = "total",
    roi_subset: Sequence[str] | None = None,
    statistics: bool | str | Path = False,
    radiomics: bool = False,
    crop_path: str | Path | None = None,
    body_seg: bool = False,
    force_split: bool = False,
    output_type: str | list[str] = "nifti",
    quiet: bool = False,
    verbose: bool = False,
    test: int = 0,
    skip_saving: bool = False,
    device: str = "gpu",
    license_number: str | None = None,
    statistics_exclude_masks_at_border: bool = True,
    no_derived_masks: bool = False,
    v1_order: bool = False,
    fastest: bool = False,
    roi_subset_robust: Sequence[str] | None = None,
    stats_aggregation: str = "mean",
    remove_small_blobs: bool | float = False,
    *,
    statistics_extra: bool = False,
    weights: str | Path = WEIGHTS,
    threads: int | None = None,
    accept_intensities: bool = False,
    **others: Any,
) -> Nifti1Image | tuple[Nifti1Image, Statistics]:
    """Segment a scan. Returns the label map with TotalSegmentator's values, with the statistics if they are asked for.

    input    a file, a folder or ZIP with one volume of DICOM, or an image of nibabel in HU
    output   folder of a mask per structure, with `ml` one file of all; None: nothing is written
    weights  networks: by default those of this program; threads, accept_intensities: as of Options

    Arguments mean what they mean there; docs/totalsegmentator.md says which change nothing here. Anything odd is a
    ScanWarning. Raises ValueError for an argument that is not offered and a structure that the networks do not know,
    TypeError for one that TotalSegmentator has not, and the errors of `errors`.
    """
    given = locals()
    _refuse(given | others)
    subset = roi_subset_robust if roi_subset_robust is not None else roi_subset
    if isinstance(subset, str):
        raise ValueError("roi_subset must be a list of strings")
    with unpacked(Path(weights)) as folder:
        asked = wanted(read_cards(folder, None), subset)
    targets = {} if output is None or skip_saving else _targets(Path(output), ml, asked)
    options = Options(
        Path(weights),
        asked.networks,
        DEVICES[device],
        threads=threads,
        accept_intensities=accept_intensities,
        labels=tuple(asked.names.values()),
    )
    with tempfile.TemporaryDirectory(prefix="viscera-") as name:
        scan = files.saved(input, Path(name)) if isinstance(input, Nifti1Image) else Path(input)
        numbers_file = _statistics_file(statistics, output, ml)
        files.check([*targets, *([numbers_file] if numbers_file else [])], scan)
        predictor = _predictor(options)
        case = _case(scan, Path(name) / "labels")
        image, odd = _segmented(predictor, case)
        labels = recoded(np.asarray(image.dataobj).T, predictor.labels)
        numbers = None
        if statistics:
            seen = read_scan(case.sources, accept_intensities, predictor.ct, abdominal=predictor.abdominal)
            numbers = measured(
                labels, seen.voxels, seen.grid.spacing, asked.names, median=stats_aggregation == "median",
                cut_too=not statistics_exclude_masks_at_border, extra=statistics_extra,
            )  # fmt: skip
        image = files.image_of(labels, image, asked.names)
        files.write(
            targets,
            labels,
            image,
            peek(case.sources[0], abdominal=predictor.abdominal),
            (numbers_file, numbers) if numbers_file and numbers else None,
        )
    notes = _notes(given | others, labels_of(predictor.cards, None))
    if subset is None and (count := len(asked.names)) < (most := len(class_map())):
        notes.append(f"only {count} of TotalSegmentator's {most} structures: the networks know no others")
    if numbers and (cut := [name for value, name in asked.names.items() if _is_cut(numbers[name], labels == value)]):
        notes.append(
            f"0 in the statistics, since they come within {BORDER} voxels of an end of the scan: {', '.join(cut)} "
            "(--stats_include_incomplete, in Python statistics_exclude_masks_at_border=False, measures them)"
        )
    for text in (*odd, *notes):
        warnings.warn(text, ScanWarning, stacklevel=2)
    return image if numbers is None else (image, numbers)


def _refuse(given: dict[str, Any]) -> None:
    """Raises ValueError and TypeError where an argument asks for what is not offered."""
    for name, nothing in REFUSED.items():
        if given.get(name, nothing) not in (nothing, None, [nothing]):  # output_type may be a list
            raise ValueError(f"{name}={given[name]!r} of TotalSegmentator is not offered here")
    for name, choices in (("device", tuple(DEVICES)), ("stats_aggregation", ("mean", "median"))):
        if given[name] not in choices:
            raise ValueError(f"{name}={given[name]!r} is not one of {', '.join(choices)}")
    if unknown := sorted(set(given["others"]) - {*REFUSED, *FAST, *EFFORT}):
        raise TypeError(f"totalsegmentator() has no argument {', '.join(unknown)}")


def _targets(output: Path, ml: bool, asked: Structures) -> dict[Path, int | None]:
    if ml:
        return {files.one_file(output): None}
    return {output / f"{name}.nii.gz": value for value, name in asked.names.items()}


def _statistics_file(statistics: bool | str | Path, output: str | Path | None, ml: bool) -> Path | None:
    if isinstance(statistics, str | Path):
        return Path(statistics)
    if not statistics or output is None:
        return None
    return (Path(output).parent if ml else Path(output)) / "statistics.json"


_loaded = lru_cache(maxsize=1)(Predictor)


def _predictor(options: Options) -> Predictor:
    """The networks stay loaded for the next scan, whichever of their labels that asks for."""
    return _loaded(replace(options, labels=None)).with_labels(options.labels)


def _case(scan: Path, work: Path) -> Case:
    """The scan, in a folder or archive the only one of DICOM. Raises ScanError, and the errors of `find_cases`."""
    if not scan.is_dir() and not is_archive(scan):
        name = name_of_file(scan)
        return Case(name, (scan,), (labels_file(work, name),))
    cases = find_cases(scan, work).cases
    case, *more = [one for one in cases if one.volume] or cases  # NIfTI beside a series may be written by this
    if more:
        raise ScanError(f"{shown(scan)} holds {1 + len(more)} scans: give one of them")
    if case.refused:
        raise ScanError(case.refused)
    return case


def _segmented(predictor: Predictor, case: Case) -> tuple[Nifti1Image, list[str]]:
    """The label map with the values of the networks, and what was odd."""
    case.labels.parent.mkdir()
    record = run_case(predictor, case)
    if predictor.spent:  # the next scan gets networks that run, on the CPU where this process has lost its GPU
        _loaded.cache_clear()
    if record.status != "done":
        raise (UnwrittenError if record.unwritten else ScanError)(record.error)
    return nib.load(case.labels), record.warnings


def _is_cut(entry: Mapping[str, Any], mask: np.ndarray) -> bool:
    return entry["volume"] == 0 and bool(mask.any())


def _notes(given: dict[str, Any], names: Mapping[int, str]) -> list[str]:
    notes = []
    if changed := [name for name in FAST if given.get(name)]:
        notes.append(f"{' and '.join(changed)}: no difference here, the networks decide how fine and how fast it is")
    if others := [name for name in names.values() if theirs(name) is None and not is_tumor(name)]:
        notes.append(f"{', '.join(others)}: left out, since TotalSegmentator has no such structure")
    return notes
