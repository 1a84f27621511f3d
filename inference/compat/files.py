"""The files that TotalSegmentator writes: one NIfTI per structure or one for all, and statistics.json."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Extension, Nifti1Image

from ..errors import OutputError, UnwrittenError, shown
from ..formats.atomic import discard, write_atomically
from ..formats.nifti.file import write_labels
from ..formats.opening import is_same
from ..labels import structures
from ..scan import Scan
from .statistics import Statistics


def one_file(output: Path) -> Path:
    """Where the labels of all structures go: without an ending to OUTPUT.nii, as nibabel and so TotalSegmentator have
    it. Raises ValueError where the ending is another."""
    try:
        path = Path(Nifti1Image.filespec_to_file_map(output)["image"].filename)
    except ImageFileError:
        path = output
    if not path.name.endswith((".nii", ".nii.gz")):
        raise ValueError(
            f"{shown(output.name)} is the name of one label map (ml), and ends in neither .nii nor .nii.gz"
        )
    return path


def image_of(labels: np.ndarray, like: Nifti1Image, names: Mapping[int, str]) -> Nifti1Image:
    """Labels (z, y, x) uint8 as an image with the header of another, and the names of the values in an extension.

    The extension is a CIFTI label table, where TotalSegmentator's load_multilabel_nifti looks for one.
    """
    image = type(like)(labels.T, like.affine, like.header)
    rows = "".join(
        f'<Label Key="{one.value}" {_colour(one.colour)} Alpha="1"><![CDATA[{one.key}]]></Label>\n'
        for one in structures(names)
    )
    table = f'<VolumeInformation Index="0"><LabelTable>\n{rows}</LabelTable></VolumeInformation>'
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<CaretExtension>{table}</CaretExtension>\n'
    image.header.extensions.append(Nifti1Extension(0, text.encode()))
    return image


def _colour(colour: Sequence[int]) -> str:
    parts = zip(("Red", "Green", "Blue"), colour, strict=True)
    return " ".join(f'{name}="{part / 255:.6g}"' for name, part in parts)


def write(
    files: Mapping[Path, int | None],
    labels: np.ndarray,
    image: Nifti1Image,
    scan: Scan,
    statistics: tuple[Path, Statistics] | None,
) -> None:
    """Write all files or none.

    files   path -> the value whose mask it holds, or None: it holds `image`
    labels  (z, y, x) uint8
    scan    on whose grid they lie; needs no voxels
    Raises OutputError.
    """
    done: list[Path] = []
    try:
        for path, value in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if value is None:
                content = image.to_bytes()
                write_atomically(path, gzip.compress(content, 1, mtime=0) if path.suffix == ".gz" else content)
            else:
                write_labels(path, (labels == value).astype(np.uint8), scan)
            done.append(path)
        if statistics:
            path, numbers = statistics
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(numbers, indent=4).encode())
    except BaseException as error:
        discard(done)
        if isinstance(error, UnwrittenError):
            raise OutputError(str(error)) from error
        if isinstance(error, OSError):
            raise OutputError(f"{shown(path)} cannot be written: {error.strerror or error}") from error
        raise


def check(files: Sequence[Path], scan: Path) -> None:
    """Raises OutputError where a file would take the place of the scan, or a folder that of a file, or may not be made:
    before the networks run."""
    for path in files:
        there = next(one for one in (path.parent, *path.parents) if one.exists() or one == one.parent)
        if not there.is_dir():
            raise OutputError(f"{shown(there)} is a file, and a folder is needed there: choose another output, or ml")
        if not os.access(there, os.W_OK | os.X_OK):
            raise OutputError(f"{shown(there)} may not be written to: choose another output")
        if is_same(path, scan):
            raise OutputError(f"{shown(path)} is the scan itself: choose another output")


def saved(image: Nifti1Image, folder: Path) -> Path:
    """An image in memory as a file that can be segmented."""
    path = folder / "image.nii"
    nib.save(image, path)
    return path
