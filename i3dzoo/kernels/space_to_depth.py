"""A convolution with stride 2 as one with stride 1 on blocks of 2x2x2 pixels.

The first convolution has 3 input channels, which leave tensor cores mostly idle; 8 pixels side by
side in the channels make it 24.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from i3dzoo.kernels.dispatch import use_kernels


def can_space_to_depth(x: Tensor, stride: int) -> bool:
    """Whether `space_to_depth_conv` should run: on a GPU, for stride 2, outside of tracing."""
    return stride == 2 and use_kernels(x)


def space_to_depth_conv(x: Tensor, weight: Tensor, padding: Sequence[int]) -> Tensor:
    """Convolve [B, C, T, H, W] with [O, C, K, K, K], K odd, with stride 2 and SAME padding.

    Returns [B, O, ceil(T / 2), ceil(H / 2), ceil(W / 2)], in channels-last order. `padding` is the
    SAME padding before T, H and W.
    """
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))  # before it is copied, not after
    out, _, edge = weight.shape[:3]
    blocks = (edge + 1) // 2  # the kernel gets a row of zeros to fill its last block
    pads = []
    for size, before in zip(reversed(x.shape[2:]), reversed(padding), strict=True):
        pads += [before, 2 * (-(-size // 2) + blocks - 1) - size - before]
    x = F.pad(x, pads)
    batch, channels, *sizes = x.shape
    time, height, width = (size // 2 for size in sizes)
    x = x.reshape(batch, channels, time, 2, height, 2, width, 2).permute(0, 2, 4, 6, 1, 3, 5, 7)
    x = x.reshape(batch, time, height, width, 8 * channels).permute(0, 4, 1, 2, 3)
    weight = F.pad(weight, [0, 1] * 3).reshape(out, channels, blocks, 2, blocks, 2, blocks, 2)
    weight = weight.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(out, 8 * channels, *[blocks] * 3)
    return F.conv3d(x, weight.contiguous(memory_format=torch.channels_last_3d))
