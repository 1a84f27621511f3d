"""Label maps without a CT, turned into tissue maps that a CT can be rendered from.

Arrays are (z, y, x) in LPS order: x grows to the patient's left, y to the back, z to the head.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage
from skimage.morphology import convex_hull_image

from inference.labels import BY_KEY
from training.files import lps_array


class Tissue(IntEnum):
    """What a voxel is made of. 0..14 are FLARE's codes, so that a tissue map's organs are its labels."""

    AIR = 0
    LIVER = BY_KEY["liver"].value
    RIGHT_KIDNEY = BY_KEY["right_kidney"].value
    SPLEEN = BY_KEY["spleen"].value
    PANCREAS = BY_KEY["pancreas"].value
    AORTA = BY_KEY["aorta"].value
    VENA_CAVA = BY_KEY["inferior_vena_cava"].value
    RIGHT_ADRENAL = BY_KEY["right_adrenal_gland"].value
    LEFT_ADRENAL = BY_KEY["left_adrenal_gland"].value
    GALLBLADDER = BY_KEY["gallbladder"].value
    ESOPHAGUS = BY_KEY["esophagus"].value
    STOMACH = BY_KEY["stomach"].value
    DUODENUM = BY_KEY["duodenum"].value
    LEFT_KIDNEY = BY_KEY["left_kidney"].value
    TUMOR = BY_KEY["tumor"].value
    FAT = 15  # around the organs, inside the abdominal wall
    SUBCUTANEOUS = 16
    SKIN = 17
    MUSCLE = 18
    BONE = 19
    LUNG = 20
    HEART = 21
    COLON = 22
    SMALL_BOWEL = 23
    BLADDER = 24
    PORTAL_VEIN = 25
    ARTERY = 26
    VEIN = 27
    NERVE = 28
    CARTILAGE = 29
    SOFT = 30  # prostate, thyroid and other soft tissue
    AIRWAY = 31
    TABLE = 32


# Structure names of TotalSegmentator (versions 1 and 2) -> tissue; the first pattern found wins.
_NAMED: list[tuple[str, Tissue]] = [
    ("hepatic_vein", Tissue.LIVER),  # the reference's liver holds its veins
    ("renal_pelvis|ureter", Tissue.SOFT),
    ("portal_vein|splenic_vein", Tissue.PORTAL_VEIN),
    ("kidney_cyst|prostate|thyroid|brain", Tissue.SOFT),
    ("kidney_left|left_kidney", Tissue.LEFT_KIDNEY),
    ("kidney_right|right_kidney", Tissue.RIGHT_KIDNEY),
    ("adrenal_gland_left|left_adrenal", Tissue.LEFT_ADRENAL),
    ("adrenal_gland_right|right_adrenal", Tissue.RIGHT_ADRENAL),
    ("inferior_vena_cava", Tissue.VENA_CAVA),
    ("liver", Tissue.LIVER),
    ("spleen", Tissue.SPLEEN),
    ("pancreas", Tissue.PANCREAS),
    ("aorta", Tissue.AORTA),
    ("gallbladder", Tissue.GALLBLADDER),
    ("esophagus", Tissue.ESOPHAGUS),
    ("stomach", Tissue.STOMACH),
    ("duodenum", Tissue.DUODENUM),
    ("lung", Tissue.LUNG),
    ("trachea", Tissue.AIRWAY),
    ("heart|atrial|pulmonary_artery", Tissue.HEART),
    ("colon", Tissue.COLON),
    ("small_bowel", Tissue.SMALL_BOWEL),
    ("urinary_bladder", Tissue.BLADDER),
    ("vena|vein", Tissue.VEIN),
    ("artery|trunk", Tissue.ARTERY),
    ("spinal_cord", Tissue.NERVE),
    ("costal_cartilages", Tissue.CARTILAGE),
    ("autochthon|gluteus|iliopsoas|muscle", Tissue.MUSCLE),
    (
        "rib|vertebra|hip|sacrum|sternum|scapula|clavicula|humerus|femur|skull|face",
        Tissue.BONE,
    ),
]
_LIMBS = "humerus|scapula|clavicula|femur|skull"


def tissue_of(structure: str) -> Tissue:
    """The tissue of a structure, named as in TotalSegmentator. Raises ValueError if it has none."""
    for pattern, tissue in _NAMED:
        if re.search(pattern, structure):
            return tissue
    raise ValueError(f"structure {structure!r} has no tissue")


@dataclass(frozen=True)
class Anatomy:
    """A tissue map, the way from each voxel to its structure's edge and to the body's wall, and what is unknown."""

    name: str
    tissue: np.ndarray  # (z, y, x) uint8 Tissue; AIR where nothing is named
    depth: np.ndarray  # (z, y, x) uint8, voxels to the nearest other structure
    wall: np.ndarray  # (z, y, x) float16, mm outside the torso's hull; negative inside
    spacing: tuple[float, float, float]  # mm (z, y, x)


def _torso_wall(torso: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """mm outside the convex outline of `torso` (bool), slice by slice, smoothed along z; negative inside."""
    wall = np.full(torso.shape, 100.0, np.float32)
    for z in np.flatnonzero(torso.any(axis=(1, 2))):
        hull = convex_hull_image(torso[z])
        wall[z] = ndimage.distance_transform_edt(~hull, spacing[1:]) - ndimage.distance_transform_edt(hull, spacing[1:])
    return ndimage.gaussian_filter(wall, [15.0 / spacing[0], 4.0 / spacing[1], 4.0 / spacing[2]])


def build_anatomy(name: str, tissue: np.ndarray, limbs: np.ndarray, spacing: tuple[float, float, float]) -> Anatomy:
    """`tissue` (z, y, x) with its margins; `limbs` (bool) marks whatever is not part of the torso's outline."""
    edge = np.zeros(tissue.shape, bool)
    for axis in range(3):
        change = np.diff(tissue, axis=axis) != 0
        before = [slice(None)] * 3
        after = [slice(None)] * 3
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        edge[tuple(before)] |= change
        edge[tuple(after)] |= change
    depth = np.minimum(ndimage.distance_transform_edt(~edge), 255).astype(np.uint8)
    wall = _torso_wall((tissue > 0) & ~limbs, spacing).astype(np.float16)
    return Anatomy(name, tissue, depth, wall, spacing)


def read_structures(label_map: Path, names: dict[int, str]) -> Anatomy:
    """An anatomy from a map of all of TotalSegmentator's structures, `names` by id."""
    structures, spacing = lps_array(nib.load(label_map))
    tissue, limbs = _tissues(structures, names)
    return build_anatomy(label_map.name, tissue, limbs, spacing)


def read_named_structures(label_map: Path) -> Anatomy:
    """As `read_structures`, with the names in the json of the same name beside the map."""
    listed = json.loads(label_map.with_name(label_map.name.replace(".nii.gz", ".json")).read_text())
    return read_structures(label_map, {int(number): entry["name"] for number, entry in listed.items()})


def _tissues(structures: np.ndarray, names: dict[int, str]) -> tuple[np.ndarray, np.ndarray]:
    """(tissue uint8, limbs bool) of a map of structures."""
    to_tissue = np.zeros(int(structures.max()) + 1, np.uint8)
    is_limb = np.zeros(len(to_tissue), bool)
    for number, name in names.items():
        if number < len(to_tissue):
            to_tissue[number] = tissue_of(name)
            is_limb[number] = re.search(_LIMBS, name) is not None
    return to_tissue[structures], is_limb[structures]
