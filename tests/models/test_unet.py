import pytest
import torch

from biom3d.models.unet import InstanceNorm, UNet, stage_strides


@pytest.mark.parametrize(
    ("pools", "strides"),
    [
        ((3, 5, 5), ["122", "222", "222", "222", "122"]),
        ((3, 4, 4), ["222", "222", "222", "122"]),
        ((4, 5, 5), ["222", "222", "222", "222", "122"]),
        ((1, 5, 5), ["122", "122", "222", "122", "122"]),
        ((0, 3, 3), ["122", "122", "122"]),
    ],
)
def test_strides_are_those_of_biom3d(pools, strides):
    assert ["".join(map(str, stride)) for stride in stage_strides(pools)] == strides


@pytest.mark.parametrize(("pools", "tensors", "parameters"), [((3, 4, 4), 62, 16_216_864), ((3, 5, 5), 76, 30_773_152)])
def test_weights_have_the_count_of_biom3d(pools, tensors, parameters):
    state = UNet(1, 2, pools, 32).state_dict()
    assert len(state) == tensors
    assert sum(value.numel() for value in state.values()) == parameters


def test_weights_have_the_names_and_shapes_of_biom3d():
    state = UNet(1, 2, (3, 4, 4), 32).state_dict()
    assert state["encoder.layers.0.0.conv1.weight"].shape == (32, 1, 3, 3, 3)
    assert state["decoder.layers.0.0.up.weight"].shape == (320, 256, 1, 2, 2)
    assert state["decoder.layers.0.0.encoder_block.bn2.bias"].shape == (256,)
    assert state["decoder.convs.3.weight"].shape == (2, 32, 1, 1, 1)


def test_narrow_networks_are_capped_like_those_of_biom3d():
    state = UNet(1, 2, (3, 4, 4), 8).state_dict()
    assert state["encoder.layers.4.0.conv1.weight"].shape == (80, 64, 3, 3, 3)
    assert state["decoder.layers.0.0.up.weight"].shape == (80, 64, 1, 2, 2)


@pytest.mark.parametrize(
    ("size", "pools"), [((16, 16, 16), (2, 2, 2)), ((1, 32, 32), (0, 3, 3)), ((5, 16, 16), (0, 2, 2))]
)
def test_scores_have_the_shape_of_the_image(size, pools):
    assert UNet(3, 4, pools, 4)(torch.zeros(2, 3, *size)).shape == (2, 4, *size)


def test_the_finest_head_is_what_prediction_uses():
    torch.manual_seed(0)
    network, image = UNet(1, 2, (2, 2, 2), 4), torch.randn(1, 1, 16, 16, 16)
    heads = network.forward_heads(image, 2)
    assert torch.equal(heads[0], network(image))
    assert heads[1].shape[2:] == (8, 8, 8)


def test_the_norm_on_a_cpu_is_instance_norm():
    torch.manual_seed(0)
    norm, x = InstanceNorm(3, affine=True), torch.randn(2, 3, 4, 5, 6) * 3 + 7
    torch.nn.init.normal_(norm.weight)
    expected = torch.nn.functional.instance_norm(x, weight=norm.weight, bias=norm.bias, eps=norm.eps)
    assert torch.allclose(norm(x), expected, atol=1e-5)
