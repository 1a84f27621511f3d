"""What the values of a label map mean: the one table of them, for networks, scores, pictures, viewers and writers.

The values are those of FLARE 2023, the codes those of SNOMED CT that DICOM names for segments (context groups 7150,
7154, 7159, 244). Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from colorsys import hsv_to_rgb
from dataclasses import dataclass, replace

RGB = tuple[int, int, int]  # 0..255 each


@dataclass(frozen=True)
class Code:
    """A concept of SNOMED CT: its number, and its meaning in DICOM's words."""

    value: str
    meaning: str
    scheme: str = "SCT"  # as DICOM calls SNOMED CT


ANATOMY = Code("123037004", "Anatomical Structure")
ALTERED = Code("49755003", "Morphologically Altered Structure")
NEOPLASM = Code("108369006", "Neoplasm")
RIGHT, LEFT = Code("24028007", "Right"), Code("7771000", "Left")
KIDNEY, ADRENAL = Code("64033007", "Kidney"), Code("23451007", "Adrenal gland")


@dataclass(frozen=True)
class Structure:
    """One label.

    value             in the label map
    key               as cards, records and programs spell it
    title             as people read it
    colour            in pictures and viewers; neighbours differ
    category, type    of the structure, None where they are not known
    side              of a paired organ, else None
    totalsegmentator  its name in TotalSegmentator, None if it has none
    """

    value: int
    key: str
    title: str
    colour: RGB
    category: Code | None = None
    type: Code | None = None
    side: Code | None = None
    totalsegmentator: str | None = None

    @property
    def hex_colour(self) -> str:
        """As in web pages, "#c8553d"."""
        return "#{:02x}{:02x}{:02x}".format(*self.colour)


def _organ(value: int, key: str, colour: RGB, kind: Code, side: Code | None = None, theirs: str = "") -> Structure:
    return Structure(value, key, key.replace("_", " "), colour, ANATOMY, kind, side, theirs or key)


ORGANS: tuple[Structure, ...] = (
    _organ(1, "liver", (200, 85, 61), Code("10200004", "Liver")),
    _organ(2, "right_kidney", (242, 193, 78), KIDNEY, RIGHT, "kidney_right"),
    _organ(3, "spleen", (143, 95, 191), Code("78961009", "Spleen")),
    _organ(4, "pancreas", (247, 129, 84), Code("15776009", "Pancreas")),
    _organ(5, "aorta", (230, 57, 70), Code("15825003", "Aorta")),
    _organ(6, "inferior_vena_cava", (58, 134, 255), Code("64131007", "Inferior vena cava")),
    _organ(7, "right_adrenal_gland", (255, 214, 224), ADRENAL, RIGHT, "adrenal_gland_right"),
    _organ(8, "left_adrenal_gland", (184, 242, 230), ADRENAL, LEFT, "adrenal_gland_left"),
    _organ(9, "gallbladder", (95, 173, 86), Code("28231008", "Gallbladder")),
    _organ(10, "esophagus", (176, 137, 104), Code("32849002", "Esophagus")),
    _organ(11, "stomach", (76, 201, 240), Code("69695003", "Stomach")),
    _organ(12, "duodenum", (212, 225, 87), Code("38848004", "Duodenum")),
    _organ(13, "left_kidney", (255, 183, 3), KIDNEY, LEFT, "kidney_left"),
)
TUMOR = Structure(14, "tumor", "tumour", (255, 0, 200), ALTERED, NEOPLASM)
TABLE: tuple[Structure, ...] = (*ORGANS, TUMOR)

BY_VALUE: dict[int, Structure] = {one.value: one for one in TABLE}
BY_KEY: dict[str, Structure] = {one.key: one for one in TABLE}
TUMORS = ("tumor", "tumour", "lesion", "cancer", "carcinoma", "metastasi", "metastase", "neoplasm")  # without an "s"
_BY_NAME = {one.totalsegmentator: one for one in ORGANS} | BY_KEY | {TUMOR.title: TUMOR}


def structures(names: Mapping[int, str]) -> tuple[Structure, ...]:
    """The labels of any network, in rising order of their values.

    names  value -> name on the card, without the background. A name that the table or TotalSegmentator has, however it
           is written ("Right Kidney"), gets the table's title, colour and codes; any other its own name and a colour
    """
    return tuple(_named(value, names[value]) for value in sorted(names))


def known(name: str) -> Structure | None:
    """The label of the table that a name stands for, in the table's words or TotalSegmentator's, however written."""
    return _BY_NAME.get("_".join(name.lower().replace("_", " ").replace("-", " ").split()))


def is_tumor(name: str) -> bool:
    """Whether a label is of tumours, by a word in its name: "tumor", "Liver tumours", "lung-lesion"."""
    return any(word.removesuffix("s") in TUMORS for word in re.split(r"[\W_]+", name.lower()))


def _named(value: int, name: str) -> Structure:
    if one := known(name):
        return replace(one, value=value, key=name)
    return Structure(value, name, name.replace("_", " "), distinct_colour(value))


def distinct_colour(value: int) -> RGB:
    """A colour for a value of 1..255, the same always and far from those of values near it."""
    hue = value * 0.618034 % 1  # the golden section: each hue falls into the widest gap between those before it
    red, green, blue = hsv_to_rgb(hue, (0.9, 0.6, 0.75)[value % 3], (1.0, 0.8)[value // 3 % 2])
    return round(255 * red), round(255 * green), round(255 * blue)
