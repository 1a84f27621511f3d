"""The label codes of FLARE 2023 and the three sets of outputs that a network of ours can have."""

from __future__ import annotations

from inference import labels

ORGANS: dict[str, int] = {one.key: one.value for one in labels.ORGANS}
TUMOR = labels.TUMOR.value
IGNORE = 255  # a voxel of a reference that no loss and no score looks at

# Structures that are small or learned late, and how many times as much they count: in where patches lie and, until the
# norms are frozen, in the cross-entropy. Without it a network of a few thousand steps never begins with the adrenal
# glands.
RARE: dict[int, float] = {
    ORGANS["pancreas"]: 1.5,
    ORGANS["right_adrenal_gland"]: 2.0,
    ORGANS["left_adrenal_gland"]: 2.0,
    ORGANS["gallbladder"]: 1.5,
    ORGANS["esophagus"]: 1.5,
    ORGANS["duodenum"]: 1.7,
    TUMOR: 2.0,
}

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
