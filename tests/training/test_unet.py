"""The trainer's own network beside PlainConvUNet."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("nnunetv2")

from training.network import build_student  # noqa: E402
from training.plans import STUDENTS  # noqa: E402
from training.unet import UNet, folded  # noqa: E402


def test_folded_it_is_the_plain_conv_unet_that_is_exported() -> None:
    torch.manual_seed(0)
    network = UNet(STUDENTS["near_isotropic"], 15).eval()
    for norm in network.norms():  # as training leaves them
        norm.weight.data.uniform_(0.5, 1.5)
        norm.bias.data.normal_()
        norm.get_buffer("running_mean").normal_()
        norm.get_buffer("running_var").uniform_(0.5, 2)
    plain = build_student(15, "near_isotropic").eval()
    state = folded(network.state_dict())
    assert {name: value.shape for name, value in state.items()} == {
        name: value.shape for name, value in plain.named_parameters()
    }
    plain.load_state_dict(state, strict=False)
    image = torch.randn(1, 1, 16, 32, 48)
    with torch.inference_mode():
        first, *coarser = network(image, 3)
        assert torch.allclose(first, plain(image), atol=1e-5 * float(first.abs().max()))
    assert [tuple(logits.shape[2:]) for logits in coarser] == [(8, 16, 24), (4, 8, 12)]
