"""Pack scans with their labels for the machine that trains: `python -m training.pack OUT --data DIR`

DIR/reviewed and DIR/labelled hold X_0000.nii.gz with X.nii.gz beside it (FLARE's codes, 255 where nobody can tell),
and X.json with "patient" if a patient has several scans. --synthetic renders that many volumes from DIR/label_maps
besides. OUT/packed gets the packed scans and spec.json, which says what training.train makes of them. Packed scans are
kept, and none is unpacked again, while all scans, labels, corrections and label maps are the same, by OUT/packed.json.
Rendered volumes are kept in any case: delete OUT/packed/synth_* to have them anew. OUT/part_1, part_2, ... are
the same in parts of at most --part MB each, what one transfer to that machine may carry.

The patients of VALIDATION are packed to be scored and are never trained on. About 3 s of processor time a scan, most of
it for how one patient's organs would lie in another's; scans are packed side by side on all cores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from scipy.ndimage import distance_transform_edt

from inference.formats.atomic import write_json
from inference.formats.recorded import digest
from inference.names import case_of, labels_file
from training.corrections import Correction, corrected, read_corrections
from training.files import load_pair, lps_array, scans_of
from training.labels import IGNORE, ORGANS, TUMOR
from training.packed import LOW, SPEC, STEP, Packed, Spec, as_packed, packed_file, write_packed, write_spec
from training.plans import STUDENTS
from training.shapes import OrganMasks, displacements, organ_masks

VALIDATION = ("HCC_048", "LIDC-IDRI-0001", "TCGA-AY-4070A", "ts_slab", "amos_0001")
STATE = "packed.json"  # in OUT: of which files, and once all are packed the labels of each scan
LEFT_OUT = ("RIDER-Pilot_0109",)  # 16 slices of low quality
FOLDERS = ("reviewed", "labelled")
# Share of a patient's patches, if one of the scans has an outlined tumour, and of a scan in which few organs are seen.
WITH_TUMOUR, FEW_ORGANS = 1.3, 0.4
FEW = 10  # organs
SYNTHETIC = 0.2  # share of rendered volumes in all patches until the norms are frozen,
LATE = 0.4  # and how much of that is left after it
# Organs that a network's labels have lost parts of: about one whose verdict in X.json is "fair", soft tissue without a
# label is unknown as far as so many mm.
DOUBTED = {"pancreas": 6.0}
SOFT = (0.0, 200.0)  # HU
SHAPES = ("gibson_multiorgan_*.nii.gz", "TotalSegmentator_*_flare_label.nii.gz")  # in label_maps
BENDS = 3  # other patients as whose a scan's organs are shaped
RENDERED: tuple[int, int, int] = (112, 160, 176)  # voxels of a rendered volume, at the near-isotropic student's spacing


@dataclass(frozen=True)
class Scan:
    """A scan whose labels are beside it."""

    name: str
    patient: str
    image: Path
    labels: Path
    fair: tuple[str, ...] = ()  # organs whose labels are in the right place, with edges or ends off
    wrong: tuple[Correction, ...] = ()

    def held_out(self) -> bool:
        """Whether it is of a patient that is never trained on, whatever the number of the scan."""
        names = (self.name, self.patient)
        return any(name == one or name.startswith(f"{one}_") for name in names for one in VALIDATION)


def find_scans(data: Path, corrections: Path | None = None) -> list[Scan]:
    """The scans with labels in DATA's FOLDERS, and what a list corrects in them.

    Raises ValueError if there are none, two of one name, or a correction of a scan that is held out.
    """
    wrong = read_corrections(corrections) if corrections else {}
    scans: dict[str, Scan] = {}
    for image in sorted(path for folder in FOLDERS for path in scans_of(data / folder).values()):
        name = case_of(image.name)
        labels, about = labels_file(image.parent, name), image.with_name(f"{name}.json")
        if name in scans:
            raise ValueError(f"{image} has the name of {scans[name].image}")
        if labels.is_file() and name not in LEFT_OUT:
            told = json.loads(about.read_text()) if about.is_file() else {}
            fair = (organ for organ, verdict in told.get("verdict", {}).items() if verdict.startswith("fair"))
            scans[name] = Scan(name, told.get("patient", name), image, labels, tuple(fair), tuple(wrong.get(name, ())))
            if wrong.get(name) and scans[name].held_out():
                raise ValueError(f"{corrections} corrects {name}, which is held out for validation")
    if not scans:
        raise ValueError(f"{data} has no X_0000.nii.gz with X.nii.gz beside it in {' or '.join(FOLDERS)}")
    return list(scans.values())


def read_scan(scan: Scan) -> Packed:
    """The scan and its labels as they are trained on. Raises ValueError if the labels do not lie on the scan's grid."""
    (hu, spacing), (label, _) = map(lps_array, load_pair(scan.image, scan.labels))
    return as_packed(scan.name, hu, corrected(label, hu, spacing, scan.wrong), spacing)


def shape_maps(data: Path) -> list[Path]:
    """Label maps whose CT is not there."""
    return [path for pattern in SHAPES for path in sorted((data / "label_maps").glob(pattern))]


def digest_of(scans: Sequence[Scan], data: Path) -> str:
    """Another one once anything changes that the packed scans are made of: each is bent as others lie."""
    made_of = [(scan, digest(scan.image), digest(scan.labels)) for scan in scans]
    return hashlib.sha256(repr((made_of, list(map(digest, shape_maps(data))))).encode()).hexdigest()


def read_state(path: Path, of: str) -> dict[str, set[int]] | None:
    """Scan -> labels in it, if all scans were packed of just these files; none if not all were. None if it was of
    others."""
    try:
        state = json.loads(path.read_bytes())
        return {name: set(codes) for name, codes in state["codes"].items()} if state["of"] == of else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def find_shapes(known: Sequence[Packed], data: Path, pool: Executor) -> dict[str, OrganMasks]:
    """How organs lie in the scans that are trained on, and in `shape_maps`."""
    maps = shape_maps(data)
    ours = pool.map(lambda one: organ_masks(one.label, one.spacing), known)
    names = (*(one.name for one in known), *(path.name for path in maps))
    return dict(zip(names, (*ours, *pool.map(_shape_of_map, maps)), strict=True))


def _shape_of_map(path: Path) -> OrganMasks:
    label, spacing = lps_array(nib.load(path))
    return organ_masks(np.where(label == IGNORE, 0, label), spacing)  # IGNORE: all that is no organ


def to_train_on(scan: Scan, read: Packed, own: OrganMasks, others: Sequence[OrganMasks]) -> Packed:
    """The scan with ways to other patients' shapes, and with nothing said where a part of an organ may be missing."""
    bends = displacements(own, others, BENDS, seed=zlib.crc32(scan.name.encode()))
    label, hu = read.label.copy(), read.codes * STEP + LOW
    for organ in DOUBTED.keys() & set(scan.fair):
        label[doubtful(hu, label, ORGANS[organ], DOUBTED[organ], read.spacing)] = IGNORE
    return replace(read, label=label, bends=bends)


def doubtful(hu: np.ndarray, label: np.ndarray, organ: int, reach: float, spacing: Sequence[float]) -> np.ndarray:
    """Mask of the soft tissue without a label within `reach` mm of an organ (z, y, x): parts of it that were missed."""
    if not (label == organ).any():
        return np.zeros(label.shape, bool)
    near = distance_transform_edt(label != organ, sampling=spacing) <= reach
    mask: np.ndarray = near & (label == 0) & (hu > SOFT[0]) & (hu < SOFT[1])
    return mask


def real_shares(patients: dict[str, str], codes: dict[str, set[int]]) -> dict[str, float]:
    """How often each scan is trained on: one patient one share, split among the scans.

    `patients` names the patient of each scan, `codes` are the labels in it.
    """
    shares = {}
    for name, patient in patients.items():
        scans = [other for other, one in patients.items() if one == patient]
        few = len(codes[name] & set(ORGANS.values())) < FEW
        outlined = any(TUMOR in codes[other] for other in scans)
        shares[name] = (WITH_TUMOUR if outlined else 1.0) * (FEW_ORGANS if few else 1.0) / len(scans)
    return shares


def pack_scans(
    scans: Sequence[Scan], missing: Sequence[Scan], data: Path, packed: Path, pool: Executor
) -> dict[str, set[int]]:
    """Pack those that are missing; the labels in each scan."""
    read = dict(zip((scan.name for scan in scans), pool.map(read_scan, scans), strict=True))
    ours = [read[scan.name] for scan in scans if not scan.held_out()]
    shapes = find_shapes(ours, data, pool) if missing else {}

    patients = {scan.name: scan.patient for scan in scans}

    def one(scan: Scan) -> None:
        known = read[scan.name]
        if not scan.held_out():
            others = [shape for name, shape in shapes.items() if patients.get(name) != scan.patient]
            known = to_train_on(scan, known, shapes[scan.name], others)
        write_packed(packed, known)
        print(scan.name, flush=True)

    list(pool.map(one, missing))
    return {name: set(np.unique(known.label).tolist()) for name, known in read.items()}


def render(names: Sequence[str], data: Path, packed: Path, pool: Executor) -> None:
    """Pack volumes about the middle of the abdomen by these names, unless they are there."""
    from training.synthesis.sources import LABEL_MAPS, open_renderer

    missing = [(number, name) for number, name in enumerate(names) if not packed_file(packed, name).exists()]
    sources = LABEL_MAPS if missing else ()
    renderers = list(pool.map(partial(open_renderer, data), sources))
    spacing = STUDENTS["near_isotropic"].spacing

    def one(number: int, name: str) -> None:
        renderer = renderers[number % len(renderers)]
        volume = renderer.render(np.random.default_rng(1000 + number), RENDERED, np.array(spacing))
        write_packed(packed, as_packed(name, volume.hu, volume.label, spacing, coarse=2))  # noise is most of a file
        print(name, flush=True)

    list(pool.map(lambda numbered: one(*numbered), missing))


def make_spec(scans: Sequence[Scan], codes: dict[str, set[int]], synthetic: Sequence[str]) -> Spec:
    """Shares of the scans and of the rendered volumes; scans of VALIDATION are held out."""
    real = real_shares({scan.name: scan.patient for scan in scans if not scan.held_out()}, codes)
    if not real:
        raise ValueError("all scans with labels are held out for validation: there is none to train on")
    each = SYNTHETIC / (1 - SYNTHETIC) * sum(real.values()) / max(len(synthetic), 1)
    return Spec(
        shares=real | dict.fromkeys(synthetic, each),
        late=real | dict.fromkeys(synthetic, LATE * each),
        validation=[scan.name for scan in scans if scan.held_out()],
    )


def write_parts(files: Sequence[Path], out: Path, most: float) -> int:
    """Copy `files` into out/part_N of at most `most` MB; the number of parts."""
    for old in out.glob("part_*"):
        shutil.rmtree(old)
    parts = list(_filled(files, most * 1e6))
    for number, part in enumerate(parts, 1):
        folder = out / f"part_{number}"
        folder.mkdir(parents=True)
        for path in part:
            shutil.copy(path, folder)
    return len(parts)


def _filled(files: Sequence[Path], most: float) -> Iterator[list[Path]]:
    """The files in groups of at most `most` bytes, large ones first. Raises ValueError if one is larger than that."""
    part: list[Path] = []
    size = 0
    for path in sorted(files, key=lambda path: -path.stat().st_size):
        if path.stat().st_size > most:
            raise ValueError(f"{path} has {path.stat().st_size / 1e6:.1f} MB: no part may be so large, see --part")
        if size + path.stat().st_size > most:
            yield part
            part, size = [], 0
        part.append(path)
        size += path.stat().st_size
    yield part


def pack(
    out: Path, data: Path, synthetic: int, most: float, start: Path | None, corrections: Path | None = None
) -> str:
    """Fill `out` and say what with. Raises ValueError as the functions above."""
    packed = out / "packed"
    packed.mkdir(parents=True, exist_ok=True)
    scans = find_scans(data, corrections)
    of, state = digest_of(scans, data), out / STATE
    codes = read_state(state, of)
    if codes is None:
        for scan in scans:
            packed_file(packed, scan.name).unlink(missing_ok=True)
        write_json(state, {"of": of, "codes": {}})
    missing = [scan for scan in scans if not packed_file(packed, scan.name).exists()]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        if missing or not codes:
            codes = pack_scans(scans, missing, data, packed, pool)
            write_json(state, {"of": of, "codes": {name: sorted(found) for name, found in codes.items()}})
        rendered = [f"synth_{number:02d}" for number in range(synthetic)]
        if rendered:
            render(rendered, data, packed, pool)
    spec = make_spec(scans, codes, rendered)
    write_spec(packed, spec)
    files = [packed_file(packed, name) for name in (*spec.shares, *spec.validation)]
    parts = write_parts([*files, packed / SPEC, *([start] if start else [])], out, most)
    trained = len(spec.shares) - synthetic
    return f"{trained} scans, {synthetic} rendered volumes, {len(spec.validation)} for validation, in {parts} parts"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--corrections", type=Path, metavar="JSON", help="of labels, see training.corrections")
    parser.add_argument("--synthetic", type=int, default=0, metavar="N", help="volumes to render (default: none)")
    parser.add_argument("--part", dest="most", type=float, default=58.0, metavar="MB", help="at most per part (58)")
    parser.add_argument("--from", dest="start", type=Path, metavar="BN.PT", help="weights to begin with, packed too")
    arguments = vars(parser.parse_args())
    torch.set_num_threads(1)  # scans are packed side by side: threads that wait for each other made it ten times slower
    try:
        print(pack(**arguments))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
