"""Trained networks in the form that a CPU predicts with fastest: channels last, in one precision, without autocast.

One forward of 32x64x64 voxels at width 32 on 2 cores (bench/peers.md has the steps): 197 ms in single precision as
trained, 129 ms so; 80 ms with autocast to bfloat16, 68 ms so.
"""

import torch
from torch import Tensor, nn

CHANNELS_LAST = torch.channels_last_3d


class CpuForm(nn.Module):
    """A trained network on a CPU; `dtype` is the precision of its convolutions and of what lies between them.

    Norms keep their float32 weights, and gather their moments in float32 whatever `dtype` is.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        for module in network.modules():
            if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
                form = torch.contiguous_format if module.in_channels == 1 else CHANNELS_LAST
                weight = module.weight.to(dtype=dtype, memory_format=form, copy=True)
                module.weight = nn.Parameter(weight, requires_grad=False)
        self.network, self.dtype = network.eval(), dtype

    def forward(self, x: Tensor) -> Tensor:
        """Map an image (b, c, z, y, x) to class scores (b, classes, z, y, x)."""
        # In 16 bit, oneDNN takes one channel of a single plane in channels-last order for something else and reads
        # memory that is not its own (torch 2.13): the scores of 2D images were noise.
        form = torch.contiguous_format if x.shape[1] == x.shape[2] == 1 else CHANNELS_LAST
        scores: Tensor = self.network(x.to(dtype=self.dtype, memory_format=form))
        return scores
