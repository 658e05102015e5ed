"""Compute I3D as the common PyTorch ports do, with our parameters: a baseline.

Before every convolution and every pool, the input is copied into a padded tensor for TensorFlow's
SAME padding. Sizes and padding are computed in Python in each call. Memory is contiguous, and
nothing is fused. This was written from that description on the modules of `i3dzoo.network.i3d`, so
that both sides have the same weights.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from i3dzoo.network.architecture import ENDPOINTS, HEAD, POOLS, same_padding
from i3dzoo.network.i3d import I3D, ConvUnit, Mixed

__all__ = ["CommonPort"]


def padded(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Copy into a larger tensor with zeros around, as SAME has it."""
    sizes = zip(x.shape[2:], kernel, stride, strict=True)
    pads = [same_padding(size, k, s) for size, k, s in sizes]
    return F.pad(x, [side for pair in reversed(pads) for side in pair])


def pool(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Max-pool a padded copy."""
    return F.max_pool3d(padded(x, kernel, stride), tuple(kernel), tuple(stride))


def unit(module: ConvUnit, x: Tensor) -> Tensor:
    """Convolve a padded copy, normalise, rectify."""
    conv = module.conv
    x = F.conv3d(padded(x, conv.kernel_size, conv.stride), conv.weight, None, conv.stride)
    return F.relu(module.bn(x), inplace=True)


def block(module: Mixed, x: Tensor) -> Tensor:
    """Run the four branches one after the other, and join them."""
    found = []
    for branch in (module.Branch_0, module.Branch_1, module.Branch_2, module.Branch_3):
        y = pool(x, (3, 3, 3), (1, 1, 1)) if branch is module.Branch_3 else x
        for each in branch:
            y = unit(each, y)
        found.append(y)
    return torch.cat(found, dim=1)


class CommonPort(nn.Module):
    """I3D, computed as the common ports do.

    Args:
        network: Whose parameters are used; not copied.
    """

    def __init__(self, network: I3D) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, T, H, W] to logits [B, classes], averaged over time."""
        for name in ENDPOINTS:
            if name in POOLS:
                x = pool(x, *POOLS[name])
                continue
            module: Any = self.network.get_submodule(name)
            x = block(module, x) if isinstance(module, Mixed) else unit(module, x)
        x = self.network.dropout(F.avg_pool3d(x, (2, 7, 7), 1))
        logits: Tensor = self.network.get_submodule(f"{HEAD}.conv")(x)
        return logits.squeeze(4).squeeze(3).mean(2)
