"""Steps of training: those of Muon for filters, of AdamW for the rest."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from tests.training.conftest import TINY  # noqa: E402
from training.optimizers import MUON, optimizers, set_rate  # noqa: E402
from training.unet import UNet  # noqa: E402

RATE = 0.01


def test_a_step_changes_filters_in_all_directions_alike_and_is_as_long_as_the_rate_says() -> None:
    torch.manual_seed(0)
    network = UNet(TINY, 15).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    steps = optimizers(network, 1.0)
    set_rate(steps, RATE)
    for value in network.parameters():
        value.grad = torch.randn_like(value)
        value.grad[0] *= 10  # of one filter, or number
    for optimizer in steps:
        optimizer.step()
    filters = 0
    for name, value in network.named_parameters():
        step = (value.detach() - before[name]) / RATE + 0.02 * before[name]  # without decay
        assert torch.isfinite(step).all() and step.any(), name
        if name.endswith("conv.weight") and value.shape[1] > 1:
            filters += 1
            assert 0.1 < step.square().mean().sqrt() / MUON < 0.25, name
            sizes = torch.linalg.svdvals(step.flatten(1))
            assert sizes.max() < 3 * sizes.min(), name  # of the gradient: 5 times and more
    assert filters == len(network.blocks()) - 1
