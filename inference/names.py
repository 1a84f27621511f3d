"""How scans, cases, label maps and their records are named. Names only: no file is looked at."""

from __future__ import annotations

from pathlib import Path

NIFTI = (".nii.gz", ".nii")
METAIMAGE = (".mha", ".mhd")
NRRD = (".nrrd", ".nhdr")
CHANNEL = "_0000"  # nnU-Net's and FLARE's suffix of the first, here the only, image channel


def stem(name: str) -> str | None:
    """The name without the ending of a format that we read, or None."""
    for ending in NIFTI + METAIMAGE + NRRD:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return None


def case_of(name: str) -> str:
    """The case of a scan's file or of a folder, by its name: never hidden, never empty."""
    whole = stem(name) or name
    return whole.removesuffix(CHANNEL).lstrip(".") or whole.lstrip(".") or "scan"


def labels_file(outputs: Path, case: str) -> Path:
    """OUTPUTS/X.nii.gz."""
    return outputs / f"{case}.nii.gz"


def record_file(labels: Path) -> Path:
    """X.json beside X.nii.gz."""
    return labels.with_name(labels.name.removesuffix(".nii.gz") + ".json")
