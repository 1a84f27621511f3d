"""int8 for an exported network: `%(prog)s weights/unified SCANS...`

Adds model_int8.xml and .bin, OpenVINO's format, to the folder, and their digests to its card. Quantisation after
training by NNCF: ranges of activations are those seen on windows of SCANS, biases are corrected. `python -m benchmark
variants` shows what it does to labels.
"""

from __future__ import annotations

from . import needs  # noqa: F401  # isort: skip

import argparse
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path

import numpy as np

from ..anatomy.look import body
from ..card import FORMS, Card
from ..card_file import FILE_NAME, newest, read_card
from ..cards import for_abdomens, which_are_ct
from ..errors import WeightsError
from ..formats.reading import read_scan
from ..grids.prepare import prepare
from ..grids.view import View
from ..options import given_path
from ..windows.layout import padding
from .plain import read_json
from .program import or_exit
from .write import move, save_card, workshop

import nncf  # isort: skip
import openvino as ov  # isort: skip
from nncf.openvino.engine import OVNativeEngine  # isort: skip
from nncf.openvino.statistics.collectors import OV_REDUCERS_MAP, OVQuantileReducer  # isort: skip
from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters  # isort: skip
from nncf.quantization.range_estimator import (  # isort: skip
    AggregatorType,
    RangeEstimatorParameters,
    StatisticsCollectorParameters,
    StatisticsType,
)
from openvino import opset13 as op  # isort: skip

FILES = FORMS["int8"]
OUTLIERS = 10_000  # one activation in so many is cut off: few reach ten times as far as all others, and coarsen all
_WITHIN = StatisticsCollectorParameters(
    statistics_type=StatisticsType.QUANTILE, aggregator_type=AggregatorType.MEAN, quantile_outlier_prob=1 / OUTLIERS
)


# NNCF finds quantiles with NumPy, for which OpenVINO holds what all layers give until the last has run, and has no
# setting against it. So these two take the place of its own.
class QuantileInGraph(OVQuantileReducer):  # type: ignore[misc]
    """Where the outliers of a layer begin, found as the network runs: nothing of the layer is held for it."""

    def __init__(self, axes: tuple[int, ...], quantile: list[float], inplace: bool) -> None:
        super().__init__(axes, quantile=quantile, inplace=inplace)
        self._inplace = True

    def get_inplace_fn(self) -> Callable[[ov.Node, int, str], ov.Node]:
        """Adds the limit, of shape 1, 1, 1, 1, 1, behind a layer's output (b, c, z, y, x), whose sizes are known."""
        mode, innermost = ("max", op.reduce_min) if self._quantile[0] > 0.5 else ("min", op.reduce_max)

        def add(layer: ov.Node, port: int, name: str) -> ov.Node:
            given = layer.output(port)
            count = round((prod(given.shape) - 1) / OUTLIERS) + 1
            # Each channel's first: OpenVINO numbers all that it searches at once, in int32.
            channels = op.reshape(given, [0, 0, -1], special_zero=True)
            found = op.reshape(op.topk(channels, count, 2, mode, "none").output(0), [-1], special_zero=False)
            limit = innermost(op.topk(found, count, 0, mode, "none").output(0), [0])
            return op.reshape(limit, [1] * len(given.shape), special_zero=False, name=name)

        return add


class AnswerLast(OVNativeEngine):  # type: ignore[misc]
    """Runs a network with its own answer as the last result.

    OpenVINO computes one result after the other. After the answer, which NNCF puts first, all layers would be held.
    """

    def __init__(self, model: ov.Model, use_fp32_precision: bool = True) -> None:
        answer, *statistics = model.get_results()
        super().__init__(ov.Model([*statistics, answer], model.get_parameters()), use_fp32_precision)


OV_REDUCERS_MAP[StatisticsType.QUANTILE] = QuantileInGraph
nncf.openvino.engine.OVNativeEngine = AnswerLast


def windows(scan: Path, card: Card) -> Iterator[np.ndarray]:
    """Windows (1, 1, z, y, x) over the body, one above the other, in units of the network; over all that is no CT.

    Raises WeightsError where the network takes several channels.
    """
    if len(card.channels) > 1:
        raise WeightsError(f"network {card.name} takes {len(card.channels)} channels: int8 is for networks of one")
    stored = read_scan(scan, ct=which_are_ct([card]), abdominal=for_abdomens([card]))
    view = View.of(stored, card)
    volume = prepare(stored, view, card, np)[0]
    if card.channels[0].is_ct:
        volume = volume[body(volume[None], card, view.spacing, np)[1]]
    depth, *plane = card.patch
    volume = np.pad(volume, padding(volume.shape, card.patch))
    for z in range(0, len(volume) - depth + 1, depth):
        y, x = ((n - size) // 2 for n, size in zip(volume.shape[1:], plane, strict=True))
        for corner in {(0, x), (y, 0), (y, x), (volume.shape[1] - plane[0], x), (y, volume.shape[2] - plane[1])}:
            part = volume[z : z + depth, corner[0] : corner[0] + plane[0], corner[1] : corner[1] + plane[1]]
            yield np.ascontiguousarray(part)[None, None]


def quantize(folder: Path, scans: list[Path]) -> None:
    """Write FILES to `folder` and enter them in its card."""
    card = read_card(folder)
    if card.after:
        raise WeightsError(f"network {card.name} is the later stage of a cascade: int8 is not supported")
    model = ov.Core().read_model(card.form("f32"))
    batches = [batch for scan in scans for batch in windows(scan, card)]
    any_size = model.input(0).partial_shape
    model.reshape(batches[0].shape)  # for which OpenVINO plans its memory
    small = nncf.quantize(
        model,
        nncf.Dataset(batches),
        subset_size=len(batches),
        preset=nncf.QuantizationPreset.MIXED,  # leaky units: what is below zero is small, so zero is not in the middle
        advanced_parameters=AdvancedQuantizationParameters(
            activations_range_estimator_params=RangeEstimatorParameters(min=_WITHIN, max=_WITHIN)
        ),
    )
    small.reshape(any_size)
    with workshop(folder) as made:
        ov.save_model(small, made / FILES[0], compress_to_fp16=False)
        fields = newest(read_json(folder / FILE_NAME))
        fields.pop("precision", None)  # what was tuned was tried with other files
        save_card(fields, made, {"int8": FILES})
        move(made, folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.quantize",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=given_path, help="an exported network")
    parser.add_argument("scans", type=given_path, nargs="+", metavar="SCAN")
    or_exit(lambda options: quantize(options.folder, options.scans), parser.parse_args())


if __name__ == "__main__":
    main()
