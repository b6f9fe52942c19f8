"""3D U-Net with per-axis pooling: the network of Biom3d 0.1.2 by structure and parameter names.

Ronneberger et al. 2015 (U-Net), Çiçek et al. 2016 (3D), Isensee et al. 2021 (plain conv - instance norm -
leaky ReLU blocks, deep supervision). Parameter names and shapes equal those of Biom3d's `UNet3DVGGDeep`,
so that weights can be exchanged; the code is our own.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from biom3d.models.conv import Conv3d

Stride = tuple[int, int, int]
MAX_FACTOR = 10  # the deepest stages have 10 x the features of the first: 320 at width 32, as in nnU-Net


def stage_strides(num_pools: Sequence[int]) -> list[Stride]:
    """Return the stride (z, y, x) of every stage after the first.

    An axis with fewer pools than the deepest one is not halved in the first and last stages: its steps of
    stride 1 are split between start and end, the odd one at the end: pools (3, 4, 4) -> 222 222 222 122.
    """
    depth = max(num_pools)
    columns = []
    for pools in num_pools:
        ones = depth - pools
        columns.append([1] * (ones // 2) + [2] * pools + [1] * (ones - ones // 2))
    return [(z, y, x) for z, y, x in zip(*columns, strict=True)]


class InstanceNorm(nn.InstanceNorm3d):
    """Instance norm; on a CPU it is computed as a group norm of one channel a group, which is the same.

    That is 5 x faster (2.6 -> 0.5 ms for 32 channels of 32x64x64 in single precision) and, other than instance norm,
    takes tensors in channels-last order as they are.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, z, y, x) to the same shape."""
        if x.device.type == "cpu":
            return nn.functional.group_norm(x, x.shape[1], self.weight, self.bias, self.eps)
        return super().forward(x)


class Block(nn.Module):
    """Two 3x3x3 convolutions, each with instance norm and leaky ReLU; the first may stride."""

    def __init__(self, channels_in: int, channels_out: int, stride: Stride = (1, 1, 1)) -> None:
        super().__init__()
        self.conv1 = Conv3d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = InstanceNorm(channels_out, affine=True)
        self.conv2 = Conv3d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = InstanceNorm(channels_out, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, channels_in, z, y, x) to (b, channels_out, z/stride, y/stride, x/stride)."""
        return self.finish(self.conv1(x))

    def finish(self, x: Tensor) -> Tensor:
        """Do what follows the first convolution; x is its result, (b, channels_out, ...)."""
        x = nn.functional.leaky_relu(self.bn1(x), 0.01, inplace=True)
        return nn.functional.leaky_relu(self.bn2(self.conv2(x)), 0.01, inplace=True)


class UpBlock(nn.Module):
    """Transposed convolution to the size of the skip connection, concatenation, one block."""

    def __init__(self, channels_in: int, channels_skip: int, stride: Stride) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(channels_in, channels_skip, kernel_size=stride, stride=stride, bias=False)
        self.encoder_block = Block(2 * channels_skip, channels_skip)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map (b, channels_in, ...) and the skip (b, channels_skip, ...) to the skip's shape."""
        block = self.encoder_block
        # not `block(torch.cat(...))`, which would hold the largest tensor of all until the block is done
        return block.finish(block.conv1(torch.cat([self.up(x), skip], dim=1)))


class Encoder(nn.Module):
    """Stages of growing width; `layers[i]` halves the axes its stride says."""

    def __init__(self, channels_in: int, widths: Sequence[int], strides: Sequence[Stride]) -> None:
        super().__init__()
        stage_inputs = [channels_in, *widths[:-1]]
        stage_steps: list[Stride] = [(1, 1, 1), *strides]
        self.layers = nn.ModuleList(
            nn.Sequential(Block(a, b, s)) for a, b, s in zip(stage_inputs, widths, stage_steps, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of every stage, finest first."""
        features = []
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return features


class Decoder(nn.Module):
    """Way up; `convs[j]` turns the features of level j into class scores."""

    def __init__(self, widths: Sequence[int], strides: Sequence[Stride], num_outputs: int) -> None:
        super().__init__()
        levels = list(zip(widths[:0:-1], widths[-2::-1], reversed(strides), strict=True))
        self.layers = nn.ModuleList(nn.Sequential(UpBlock(a, b, s)) for a, b, s in levels)
        self.convs = nn.ModuleList(nn.Conv3d(b, num_outputs, 1, bias=False) for _, b, _ in levels)

    def forward(self, features: list[Tensor], num_heads: int) -> list[Tensor]:
        """Return the class scores of the `num_heads` finest levels, finest first."""
        x = features[-1]
        heads = []
        for j, layer in enumerate(self.layers):
            (up,) = layer.children()
            x = up(x, features[-2 - j])
            if j >= len(self.layers) - num_heads:
                heads.append(self.convs[j](x))
        return heads[::-1]


class UNet(nn.Module):
    """The default network.

    Args:
        num_channels: channels of the image.
        num_outputs: classes including the background.
        num_pools: how often each axis (z, y, x) is halved; 0 for z makes it work on 2D images (z = 1).
        width: features of the first stage, doubled per stage up to `MAX_FACTOR` times that.
    """

    def __init__(self, num_channels: int, num_outputs: int, num_pools: Sequence[int], width: int = 32) -> None:
        super().__init__()
        strides = stage_strides(num_pools)
        widths = [width * min(2**i, MAX_FACTOR) for i in range(len(strides) + 1)]
        self.encoder = Encoder(num_channels, widths, strides)
        self.decoder = Decoder(widths, strides, num_outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
                nn.init.kaiming_normal_(module.weight, a=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Map an image (b, c, z, y, x) to class scores (b, classes, z, y, x)."""
        return self.decoder(self.encoder(x), 1)[0]

    def forward_heads(self, x: Tensor, num_heads: int) -> list[Tensor]:
        """Return the class scores of the `num_heads` finest levels, finest first (deep supervision)."""
        return self.decoder(self.encoder(x), num_heads)
