"""How scans, cases, label maps and their records are named. Names only: no file is looked at."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

NIFTI = (".nii.gz", ".nii")
METAIMAGE = (".mha", ".mhd")
NRRD = (".nrrd", ".nhdr")
SEGMENTATION = ".seg.nrrd"  # 3D Slicer's: never a scan
# That label maps are written in, the usual one first: files end in a dot and these.
FORMATS = ("nii.gz", "seg.nrrd", "mha", "seg.dcm", "labelmap.dcm", "rtstruct.dcm", "sr.dcm")
DICOM_FORMATS = FORMATS[3:]  # for a series of DICOM only
# How --format calls them; their endings will do as well.
FORMAT_NAMES = {
    "nifti": "nii.gz",
    "seg.nrrd": "seg.nrrd",
    "mha": "mha",
    "seg": "seg.dcm",
    "labelmap": "labelmap.dcm",
    "rtstruct": "rtstruct.dcm",
    "sr": "sr.dcm",
}
PROBABILITIES = "probabilities"  # ending of the folder that holds those of a case, one file a label
PREVIEW = "preview"  # ending of the folder that holds the pictures of a case
FOLDERS = (PROBABILITIES, PREVIEW)
PICTURE, THUMBNAIL, VOLUME = "picture.png", "thumbnail.png", "volume.js"  # in the preview of a case
PAGE = "index.html"  # of all cases of a folder
LAYOUTS = ("flat", "bids")  # of the outputs: all in one folder, or as BIDS names and sorts them
BIDS = LAYOUTS[1]
ANAT, DSEG = "anat", "_dseg"  # the folder of BIDS that label maps lie in, and how their names end
CHANNEL = "_0000"  # nnU-Net's and FLARE's suffix of the first, here the only, image channel


def stem(name: str) -> str | None:
    """The name without the ending of a format that we read, or None."""
    for ending in NIFTI + METAIMAGE + NRRD:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return None


def without_ending(name: str) -> str:
    """The same, or the whole name where it has none of these endings."""
    return stem(name) or name


def case_of(name: str) -> str:
    """The case of a scan's file or of a folder, by its name: never hidden, never empty."""
    whole = without_ending(name)
    return whole.removesuffix(CHANNEL).lstrip(".") or whole.lstrip(".") or "scan"


def bids_case(case: str) -> str | None:
    """What BIDS calls a case: its entities where it has such, as in sub-01_ses-2_acq-venous_ct, else sub- and what is
    left of its name. None if that is nothing: ASCII letters and digits alone may be in it.
    """
    if entities := re.fullmatch(r"(sub-[0-9a-zA-Z+]+(?:_[a-z]+-[0-9a-zA-Z+]+)*)(?:_[0-9a-zA-Z]+)?", case):
        return entities[1]
    label = re.sub(r"[^0-9a-zA-Z]", "", case)
    return f"sub-{label}" if label else None


def bids_folder(outputs: Path, case: str) -> Path:
    """OUTPUTS/sub-X/ses-Y/anat of a case as BIDS calls it, without ses-Y if it has none."""
    levels = re.match(r"(sub-[^_]+)(?:_(ses-[^_]+))?", case)
    return outputs.joinpath(*filter(None, levels.groups()), ANAT) if levels else outputs


def labels_file(outputs: Path, case: str, kind: str = FORMATS[0], layout: str = LAYOUTS[0]) -> Path:
    """OUTPUTS/X.nii.gz, or with the ending of another of FORMATS or of FOLDERS; in another layout where that has it."""
    if layout == BIDS:
        return bids_folder(outputs, case) / f"{case}{DSEG}.{kind}"
    return outputs / f"{case}.{kind}"


def format_of(labels: Path) -> str | None:
    """Which of FORMATS a file is in by its name, or which of FOLDERS one is, if any."""
    return next((kind for kind in (*FORMATS, *FOLDERS) if labels.name.endswith(f".{kind}")), None)


def output_stem(labels: Path) -> str:
    """The name of a label map in any of FORMATS, or of one of FOLDERS, without its ending."""
    kind = format_of(labels)
    return labels.name.removesuffix(f".{kind}") if kind else labels.name


def formats_named(names: Iterable[str]) -> tuple[str, ...]:
    """Those of FORMATS that are called so in FORMAT_NAMES or by their endings, each once. Raises ValueError."""
    formats = tuple(dict.fromkeys(FORMAT_NAMES.get(name, name) for name in names))
    if unknown := [name for name in formats if name not in FORMATS]:
        raise ValueError(f"{unknown[0]!r} is not one of {', '.join(FORMAT_NAMES)}")
    if not formats:
        raise ValueError("no format is named")
    if "sr.dcm" in formats and "seg.dcm" not in formats:
        raise ValueError("sr refers to the segments of a DICOM SEG: name seg as well")
    return formats


def siblings(labels: Path) -> list[Path]:
    """The names of a label map in each of FORMATS, and of the folders beside it."""
    return [labels_file(labels.parent, output_stem(labels), kind) for kind in (*FORMATS, *FOLDERS)]


def record_file(labels: Path) -> Path:
    """X.json beside X.nii.gz, X.seg.nrrd and so on."""
    return labels.with_name(f"{output_stem(labels)}.json")


def listed(parts: Sequence[str]) -> str:
    """Some things as a sentence names them: a, b and c."""
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last
