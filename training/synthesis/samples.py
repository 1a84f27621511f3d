"""A page of rendered slices to be judged against real CT: `python -m training.synthesis.samples OUT.png --data DIR`."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from training.synthesis.sources import LABEL_MAPS, open_renderer

SHAPE, SPACING = (12, 192, 256), np.array([4.0, 1.2, 1.2])  # fine enough in the plane to be looked at


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=5)
    parser.add_argument("--columns", type=int, default=6)
    arguments = parser.parse_args()
    renderers = [open_renderer(arguments.data, name) for name in LABEL_MAPS]
    rng = np.random.default_rng(arguments.seed)
    figure, axes = pyplot.subplots(
        arguments.rows, arguments.columns, figsize=(4 * arguments.columns, 3.3 * arguments.rows)
    )
    for axis in np.ravel(axes):
        volume = renderers[rng.integers(len(renderers))].render(rng, SHAPE, SPACING)
        axis.imshow(volume.hu[SHAPE[0] // 2], cmap="gray", vmin=-160, vmax=240)
        axis.contour(
            volume.label[SHAPE[0] // 2], levels=np.arange(0.5, 15), cmap="hsv", linewidths=0.5, vmin=0, vmax=15
        )
        axis.set_axis_off()
    figure.tight_layout(pad=0.1)
    figure.savefig(arguments.out, dpi=45)


if __name__ == "__main__":
    main()
