"""Which organs somebody should look at twice: one table of rules, and why each of them was broken.

Volumes are of adults, from half of the smaller to twice the larger of two published figures (adrenal glands: from a
fifth to three times, as their edges are most of them):

- liver, spleen: the central 95 % of 2989 healthy adults (Kim et al., Radiology 2021, 301: 339-347)
- kidneys, pancreas, adrenal glands: means of women and men, outlined by hand (Geraghty et al., Abdominal Imaging 2004,
  29: 482-490)

Mean HU are what tissue can have, with contrast agent or without, and a margin: those of 52 scans lie well within.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import cc3d
import numpy as np

from ..labels import BY_KEY, TUMOR
from ..record import TWICE
from .thin import Thin

CONTACT = 20.0  # mm2 of an organ on the edge of the scan: there it is cut
ONE_PIECE = 0.85  # of an organ that is one piece; the largest piece of one was 0.92 of it at least on 52 scans

Kind = Literal["missing", "look", "cut"]  # in falling order: an organ has one


@dataclass(frozen=True)
class Rule:
    """What can be expected of an organ.

    ml      of an adult's, lower and upper bound
    hu      its mean, lower and upper bound
    one     it is one piece
    beside  it is in view where these are, whole
    ends    it ends inside the abdomen, so that one on the edge of the scan is cut
    """

    ml: tuple[float, float] | None = None
    hu: tuple[float, float] | None = None
    one: bool = False
    beside: tuple[str, ...] = ()
    ends: bool = True


KIDNEY = (156.5 / 2, 193.1 * 2)
ADRENAL = (4.4 / 5, 4.4 * 3)
RULES: dict[str, Rule] = {
    "liver": Rule((824.5 / 2, 1700 * 2), (-20, 250), True, ("spleen", "right_kidney")),
    "right_kidney": Rule(KIDNEY, (-10, 400), True, ("liver", "left_kidney")),
    "spleen": Rule((81.1 / 2, 322 * 2), (0, 300), True, ("liver", "left_kidney")),
    "pancreas": Rule((64.4 / 2, 87.4 * 2), (-70, 250), beside=("liver", "right_kidney", "left_kidney")),
    "aorta": Rule(hu=(0, 700), beside=("liver",), ends=False),
    "inferior_vena_cava": Rule(hu=(0, 500), beside=("liver",), ends=False),
    "right_adrenal_gland": Rule(ADRENAL, (-70, 250), beside=("liver", "right_kidney")),
    "left_adrenal_gland": Rule(ADRENAL, (-70, 250), beside=("spleen", "left_kidney")),
    "gallbladder": Rule(hu=(-30, 400), one=True),  # in many it has been taken out
    "esophagus": Rule(beside=("liver", "stomach"), ends=False),
    "stomach": Rule(one=True, beside=("liver", "spleen")),
    "duodenum": Rule(beside=("pancreas", "right_kidney")),
    "left_kidney": Rule(KIDNEY, (-10, 400), True, ("spleen", "right_kidney")),
}


@dataclass(frozen=True)
class Doubt:
    """Why an organ should be looked at."""

    kind: Kind
    why: str


def find(scan: Thin) -> dict[str, Doubt]:
    """Organ -> what is doubtful about it, in the table's order; organs without a doubt are left out."""
    edges = _edges(scan)
    doubts: dict[str, Doubt] = {}
    for key, rule in RULES.items():
        if key not in scan.values:
            continue
        if key not in scan.ml:
            if rule.beside and all(one in scan.ml and one not in edges for one in rule.beside):
                names = " and ".join(BY_KEY[one].title for one in rule.beside)
                doubts[key] = Doubt("missing", f"not found, though the scan shows {names} whole")
            continue
        cut = edges.get(key) if rule.ends else None
        if reasons := _odd(scan, key, rule, cut is not None):
            doubts[key] = Doubt("look", "; ".join(reasons))
        elif cut:
            doubts[key] = Doubt("cut", f"it goes on beyond the {' and '.join(cut)} of the scan")
    if why := _larger_than_its_host(scan):
        doubts[TUMOR.key] = Doubt("look", why)
    return doubts


def summary(doubts: Mapping[str, Doubt]) -> str | None:
    """One line that names the organs; None where there are none but such as are cut, which nearly every scan has."""
    names = [
        BY_KEY[key].title + " (missing)" * (doubt.kind == "missing")
        for key, doubt in doubts.items()
        if doubt.kind != "cut"
    ]
    return f"{TWICE}: {', '.join(names)}" if names else None


def _odd(scan: Thin, key: str, rule: Rule, cut: bool) -> list[str]:
    """What a found organ cannot be. One that is cut may be of any small size, and in pieces."""
    reasons, ml, mask = [], scan.ml[key], scan.mask(key)
    if rule.ml and ml > rule.ml[1]:
        reasons.append(f"{ml:.0f} ml are more than an adult has")
    if rule.ml and ml < rule.ml[0] and not cut:
        reasons.append(f"{ml:.1f} ml are less than an adult has")
    if rule.hu and not rule.hu[0] <= (hu := float(scan.hu[mask].mean())) <= rule.hu[1]:
        reasons.append(f"its mean is {hu:.0f} HU")
    if rule.one and not cut:
        pieces = cc3d.connected_components(np.ascontiguousarray(mask), connectivity=26)
        share = np.bincount(pieces[mask]).max() / mask.sum()
        if share < ONE_PIECE:
            reasons.append(f"its largest piece is {100 * share:.0f} % of it")
    return reasons


def _larger_than_its_host(scan: Thin) -> str | None:
    """A tumour is larger than what is left of the organ that it touches most."""
    tumour = scan.mask(TUMOR.key)
    if not tumour.any():
        return None
    around = np.zeros(256, int)
    for axis in range(3):
        one, other = np.moveaxis(scan.labels, axis, 0), np.moveaxis(tumour, axis, 0)
        around += np.bincount(one[1:][other[:-1]], minlength=256) + np.bincount(one[:-1][other[1:]], minlength=256)
    hosts = [key for key in RULES if key in scan.ml and around[scan.values[key]]]
    host = max(hosts, key=lambda key: int(around[scan.values[key]]), default=None)
    if host is None or scan.ml[TUMOR.key] <= scan.ml[host]:
        return None
    return f"{scan.ml[TUMOR.key]:.0f} ml are more than the {BY_KEY[host].title} beside it has ({scan.ml[host]:.0f} ml)"


def _edges(scan: Thin) -> dict[str, list[str]]:
    """Organ -> the edges of the scan at which it lies, within a cell."""
    found: dict[str, list[str]] = {}
    for axis, ends in enumerate(
        (("lower edge", "upper edge"), ("back edge", "front edge"), ("left edge", "right edge"))
    ):
        cell = float(np.prod(scan.spacing)) / scan.spacing[axis]
        for end, index in zip(ends, (0, -1), strict=True):
            counts = np.bincount(scan.labels.take(index, axis).reshape(-1), minlength=256)
            for key, value in scan.values.items():
                if counts[value] * cell >= CONTACT:
                    found.setdefault(key, []).append(end)
    return found
