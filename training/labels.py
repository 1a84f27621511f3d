"""The label codes of FLARE 2023 and the three sets of outputs that a network of ours can have."""

from __future__ import annotations

ORGANS: dict[str, int] = {
    "liver": 1,
    "right_kidney": 2,
    "spleen": 3,
    "pancreas": 4,
    "aorta": 5,
    "inferior_vena_cava": 6,
    "right_adrenal_gland": 7,
    "left_adrenal_gland": 8,
    "gallbladder": 9,
    "esophagus": 10,
    "stomach": 11,
    "duodenum": 12,
    "left_kidney": 13,
}
TUMOR = 14
IGNORE = 255  # a voxel of a reference that no loss and no score looks at

NAMES: dict[int, str] = {0: "background", **{code: name for name, code in ORGANS.items()}, TUMOR: "tumor"}

# Output channel -> name. The unified network's channels are FLARE's codes; the tumour network has its own code 1.
OUTPUTS: dict[str, dict[str, int]] = {
    "organ": {"background": 0, **ORGANS},
    "tumor": {"background": 0, "tumor": 1},
    "unified": {"background": 0, **ORGANS, "tumor": TUMOR},
}


def outputs_named(count: int) -> str:
    """The key of OUTPUTS of a network with so many outputs. Raises ValueError if none has."""
    for name, channels in OUTPUTS.items():
        if len(channels) == count:
            return name
    raise ValueError(f"a network with {count} outputs is none of {', '.join(OUTPUTS)}")
