import copy

import pytest
import torch

from biom3d.models import UNet
from biom3d.models.inference import CpuForm


def scores(dtype):
    torch.manual_seed(0)
    network, image = UNet(1, 2, (2, 2, 2), 8).eval(), torch.randn(1, 1, 16, 16, 16)
    with torch.inference_mode():
        return network(image), CpuForm(copy.deepcopy(network), dtype)(image).float()


def test_channels_last_changes_nothing_but_rounding():
    assert torch.allclose(*scores(torch.float32), atol=1e-4)


def test_bfloat16_keeps_the_labels_but_for_ties():
    trained, fast = scores(torch.bfloat16)
    assert (trained.argmax(1) == fast.argmax(1)).float().mean() > 0.98


@pytest.mark.parametrize(("channels", "outputs", "width"), [(1, 2, 4), (1, 1, 16), (2, 3, 8), (1, 3, 32)])
def test_a_plane_gives_in_16_bit_what_it_gives_in_32(channels, outputs, width):
    torch.manual_seed(0)
    network = UNet(channels, outputs, (0, 2, 2), width).eval()
    image = torch.randn(1, channels, 1, 32, 32)
    with torch.inference_mode():
        expected = network(image)
        found = CpuForm(network, torch.bfloat16)(image).float()
    assert (found - expected).abs().max() < 0.1 * expected.abs().max()
