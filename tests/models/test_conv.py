import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from biom3d.models import conv
from biom3d.models.conv import Conv3d
from biom3d.models.unet import UNet


@pytest.fixture
def without_avx512(monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")


def gradients(layer, x):
    layer.zero_grad()
    x = x.clone().requires_grad_()
    layer(x).square().sum().backward()
    return x.grad, layer.weight.grad


@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 2, 2), (1, 2, 2)])
@pytest.mark.parametrize("shape", [(2, 8, 6, 8, 10), (1, 16, 1, 8, 8), (1, 8, 5, 7, 9)])
def test_the_gradients_are_those_of_torch_in_double_precision(stride, shape, without_avx512):
    torch.manual_seed(0)
    layer = Conv3d(shape[1], 16, 3, stride=stride, padding=1, bias=False)
    exact = nn.Conv3d(shape[1], 16, 3, stride=stride, padding=1, bias=False).double()
    exact.load_state_dict(layer.state_dict())
    x = torch.randn(shape)
    assert conv.pads_beforehand(x, layer)
    wanted = gradients(exact, x.double())
    for ours, theirs in zip(gradients(layer, x), wanted, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


def test_a_whole_network_learns_the_same(without_avx512, monkeypatch):
    torch.manual_seed(0)
    network, x = UNet(1, 2, (2, 2, 2), 8), torch.randn(1, 1, 16, 16, 16)

    def all_gradients():
        network.zero_grad()
        network(x).square().mean().backward()
        return [p.grad.clone() for p in network.parameters() if p.grad is not None]

    ours = all_gradients()
    monkeypatch.setattr(conv, "pads_beforehand", lambda *_: False)
    theirs = all_gradients()
    assert len(ours) == len(theirs) > 10
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


def test_onednn_has_a_kernel_of_its_own_for_the_padded_gradient():
    code = (
        "import torch; from biom3d.models.conv import Conv3d\n"
        "Conv3d(16, 16, 3, padding=1, bias=False)(torch.randn(2, 16, 16, 16, 16)).sum().backward()"
    )
    env = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "ONEDNN_VERBOSE": "1"}
    said = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    (line,) = [line for line in said.splitlines() if "exec" in line and "backward_weights" in line]
    assert "jit:avx2," in line, line


def test_a_layer_that_does_not_learn_is_torchs_own(without_avx512):
    layer = Conv3d(8, 8, 3, padding=1, bias=False).requires_grad_(False)
    assert type(layer(torch.randn(1, 8, 4, 4, 4, requires_grad=True)).grad_fn).__name__ == "ConvolutionBackward0"
