"""The first convolution on windows of pixels, as one that suits tensor cores.

It has stride 2 and 3 input channels, which leave tensor cores mostly idle. Two outputs next to each
other along W see 9 pixels in a row. With 3 channels these are 27 numbers, padded to 32, and two
rows of them are 64 input channels. The two outputs are 128 output channels of a convolution with
7x4x1 taps and stride 2x1x1.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from i3dzoo.kernels import dispatch

_EDGE = 7
_PIXELS = 9  # that two outputs see
_LANES = 32
_GROUPS = 16  # windows that a program writes


def can_window_conv(x: Tensor, stride: int, edge: int) -> bool:
    """Whether `window_conv` should run: on a GPU, for 7x7x7 with stride 2, outside of tracing.

    The clip must not need a gradient, which only costs time otherwise.
    """
    suits = stride == 2 and edge == _EDGE and x.shape[1] * _PIXELS <= _LANES
    return suits and not x.requires_grad and dispatch.use_kernels(x)


def window_conv(x: Tensor, weight: Tensor, padding: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """Convolve [B, C, T, H, W] with [O, C, 7, 7, 7] and stride 2; C is at most 3.

    Args:
        x: The clip.
        weight: The weight.
        padding: The padding before T, H and W.
        sizes: T', H' and W' of the result.

    Returns:
        [B, O, T', H', W'], in channels-last order.
    """
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    frames, pairs, groups = 2 * (sizes[0] - 1) + _EDGE, sizes[1] + 3, -(-sizes[2] // 2)
    write = _windows if x.is_cuda and dispatch.has_triton(x.device) else _windows_of_pytorch
    given = write(x, frames, pairs, groups, padding).permute(0, 4, 1, 2, 3)
    y = F.conv3d(given, _pack(weight.to(x.dtype)), stride=(2, 1, 1))
    y = y.permute(0, 2, 3, 4, 1).reshape(len(x), *sizes[:2], 2 * groups, len(weight))
    return y[:, :, :, : sizes[2]].permute(0, 4, 1, 2, 3)


def _windows(x: Tensor, frames: int, pairs: int, groups: int, padding: Sequence[int]) -> Tensor:
    """Return windows [B, frames, pairs, groups, 64] in Triton."""
    from i3dzoo.kernels._window_triton import windows

    batch, channels, *shape = x.shape
    y = x.new_empty((batch, frames, pairs, groups, 2 * _LANES))
    with dispatch.current_device(x):
        windows[(batch * frames * pairs, -(-groups // _GROUPS))](
            x, y, *shape, groups, frames, pairs, *x.stride(), *padding, channels, _GROUPS
        )
    return y


def _windows_of_pytorch(
    x: Tensor, frames: int, pairs: int, groups: int, padding: Sequence[int]
) -> Tensor:
    """Return the same windows as `_windows`."""
    batch, channels, *shape = x.shape
    ends = (frames, 2 * pairs, 4 * (groups - 1) + _PIXELS)
    pads = []
    for end, before, size in zip(reversed(ends), reversed(padding), reversed(shape), strict=True):
        pads += [before, end - before - size]
    x = F.pad(x, pads).permute(0, 2, 3, 4, 1).flatten(3)
    x = F.pad(x.unfold(3, _PIXELS * channels, 4 * channels), (0, _LANES - _PIXELS * channels))
    x = x.reshape(batch, frames, pairs, 2, groups, _LANES).transpose(3, 4)
    return x.reshape(batch, frames, pairs, groups, 2 * _LANES)


def _pack(weight: Tensor) -> Tensor:
    """Return the weight [2 * O, 64, 7, 4, 1] for windows."""
    out, channels = weight.shape[:2]
    weight = F.pad(weight, (0, 0, 0, 1)).permute(0, 2, 3, 4, 1)  # an eighth row of zeros
    both = [F.pad(weight, (0, 0, 2 * number, 2 - 2 * number)).flatten(3) for number in range(2)]
    packed = F.pad(torch.stack(both), (0, _LANES - _PIXELS * channels))
    packed = packed.reshape(2, out, _EDGE, 4, 2, _LANES).permute(0, 1, 4, 5, 2, 3)
    packed = packed.reshape(2 * out, 2 * _LANES, _EDGE, 4, 1)
    return packed.contiguous(memory_format=torch.channels_last_3d)
