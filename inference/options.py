"""What a run is asked for. Standard library only: the command and its supervisor use it too."""

from __future__ import annotations

from dataclasses import dataclass, replace

LEAST_VOXELS = 500_000  # of a wide window where memory is short


@dataclass(frozen=True)
class Way:
    """How windows are laid, and what is kept of a network's answer.

    name          as --plan names it
    step          distance of windows, as a share of one; along z wide windows share planes as planes.wide_grid says
    in_body       labels stand in the body only, and windows where its muscle is
    wide          a network that takes any window sees planes as wide as the part that is looked at
    middle_first  windows in the middle of the grid come first, and those around them only if they found something
    follow        a later network looks only around what earlier ones found
    one_piece     what lies far from the rest of its organ is dropped
    most_voxels   of a wide window: 4 million take about 1.5 GB with what is computed on the way
    """

    name: str
    step: float = 0.5
    in_body: bool = False
    wide: bool = False
    middle_first: bool = False
    follow: bool = False
    one_piece: bool = False
    most_voxels: int = 4_000_000

    def smaller(self) -> Way | None:
        """A way that takes less memory for a network that takes any window; None if there is none."""
        if not self.wide or self.most_voxels <= LEAST_VOXELS:
            return None
        return replace(self, most_voxels=LEAST_VOXELS)


DENSE = Way("dense")  # every window, as nnU-Net
ABDOMEN = Way("abdomen", in_body=True, wide=True, middle_first=True, follow=True, one_piece=True)
WAYS = {way.name: way for way in (ABDOMEN, DENSE)}
