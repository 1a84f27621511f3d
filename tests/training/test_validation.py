"""Networks scored in training as they will run."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from inference.windows.planes import SHALLOW  # noqa: E402
from tests.training.conftest import abdomen  # noqa: E402
from training.augment import Volume  # noqa: E402
from training.packed import as_packed  # noqa: E402
from training.plans import STUDENTS  # noqa: E402
from training.unet import UNet  # noqa: E402
from training.validation import validate  # noqa: E402


def test_a_scan_of_few_planes_is_padded_as_inference_pads_it() -> None:
    seen = []
    network = UNet(STUDENTS["near_isotropic"], 15).eval()
    network.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape)))
    hu, label = abdomen(0)
    spacing = (2.5, 1.6, 1.6)
    volume = Volume(as_packed("thin", hu[:10, :40, :60], label[:10, :40, :60], spacing), torch.device("cpu"))
    validate(network, [volume], spacing, (16, 16, 16), False)
    assert seen == [(1, 1, SHALLOW, 48, 64)]
