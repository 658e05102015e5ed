"""What the network does otherwise on a GPU, for speed; the numbers are the same.

Max-pooling is Triton's: PyTorch's own `max_pool3d` takes many times what the bytes that it moves
would take, and adds gradients in an order of chance. Here every output is written once, and every
gradient gathered. The first convolution has three channels, which fill no tensor core, and stride
2: it is computed as one of stride 1 on cells of 2x2x2 pixels, which have 24.
"""

import functools
import importlib.util
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from i3dzoo.architecture import same_padding

__all__ = ["can_fold", "can_pool", "folded_conv", "max_pool", "use"]

_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_wanted = True


def use(wanted: bool) -> None:
    """Go these ways from now on, or only PyTorch's own, to compare."""
    global _wanted
    _wanted = wanted


def can_pool(x: Tensor) -> bool:
    """Whether `max_pool` takes a tensor: on a GPU, in channels-last order, outside of tracing."""
    return (
        _eager_on_gpu(x)
        and x.dtype in _DTYPES
        and x.is_contiguous(memory_format=torch.channels_last_3d)
        and _has_triton(x.device)
    )


def _eager_on_gpu(x: Tensor) -> bool:
    if not (_wanted and x.is_cuda) or torch.compiler.is_compiling():
        return False
    return not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call] # public, says its documentation


@functools.cache
def _has_triton(device: torch.device) -> bool:
    if importlib.util.find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= (7, 0)  # Triton compiles for no older ones


def can_fold(x: Tensor, stride: int) -> bool:
    """Whether `folded_conv` ought to be used: on a GPU, for stride 2, outside of tracing."""
    return stride == 2 and _eager_on_gpu(x)


def folded_conv(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve with stride 2 and SAME padding.

    Args:
        x: [B, C, T, H, W].
        weight: [O, C, K, K, K], K odd.

    Returns:
        [B, O, ceil(T / 2), ceil(H / 2), ceil(W / 2)], in channels-last order.
    """
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))  # before it is copied, not after
    batch, channels, *sizes = x.shape
    out, _, edge = weight.shape[:3]
    cells = (edge + 1) // 2
    pads = []
    for size in reversed(sizes):
        before = same_padding(size, edge, 2)[0]
        # to whole cells: the kernel has a row of zeros more than it had
        pads += [before, 2 * (-(-size // 2) + cells - 1) - size - before]
    x = F.pad(x, pads)
    time, height, width = (size // 2 for size in x.shape[2:])
    x = x.reshape(batch, channels, time, 2, height, 2, width, 2).permute(0, 2, 4, 6, 1, 3, 5, 7)
    x = x.reshape(batch, time, height, width, 8 * channels).permute(0, 4, 1, 2, 3)
    weight = F.pad(weight, [0, 1] * 3).reshape(out, channels, cells, 2, cells, 2, cells, 2)
    weight = weight.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(out, 8 * channels, *[cells] * 3)
    return F.conv3d(x, weight.contiguous(memory_format=torch.channels_last_3d))


def max_pool(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    before: Sequence[int],
    size: Sequence[int],
) -> Tensor:
    """Max-pool; windows see only what lies within the input.

    The gradient goes to the first of equal values, as PyTorch's does, and NaN is never passed over.

    Args:
        x: [B, C, T, H, W] that `can_pool` accepts.
        kernel: Along T, H and W.
        stride: Along T, H and W.
        before: What the first window lies before the edge, along T, H and W.
        size: Of the result, along T, H and W.

    Returns:
        [B, C, *size], in channels-last order, of the same dtype.
    """
    about = (*kernel, *stride), tuple(before), tuple(size)
    if torch.is_grad_enabled() and x.requires_grad:
        pooled: Tensor = _MaxPool.apply(x, *about)  # type: ignore[no-untyped-call] # torch has no types here
        return pooled
    return _forward(x, *about, keep=False)[0]


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, window: Any, before: Any, size: Any) -> Tensor:
        y, taps = _forward(x, window, before, size, keep=True)
        ctx.save_for_backward(taps)
        ctx.about = window, before, x.shape
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (taps,) = ctx.saved_tensors
        return _backward(grad, taps, *ctx.about), None, None, None


def _forward(
    x: Tensor, window: Any, before: Any, size: Any, *, keep: bool
) -> tuple[Tensor, Tensor]:
    """Return the maxima and, if they are to be kept, which tap of its window each came from."""
    from i3dzoo._triton import max_pool_forward

    batch, channels = x.shape[:2]
    y = _empty((batch, channels, *size), x, x.dtype)
    taps = _empty(y.shape, x, torch.uint8) if keep else y
    grid, blocks = _grid(batch, channels, *size)
    with torch.cuda.device(x.device):
        max_pool_forward[grid](
            x, y, taps, *x.shape[2:], channels, *size, *before, *window, keep, *blocks
        )
    return y, taps


def _backward(grad: Tensor, taps: Tensor, window: Any, before: Any, shape: Any) -> Tensor:
    from i3dzoo._triton import max_pool_backward

    grad = grad.contiguous(memory_format=torch.channels_last_3d)
    batch, channels, *size = shape
    found = _empty(shape, grad, grad.dtype)
    grid, blocks = _grid(batch, channels, *size)
    with torch.cuda.device(grad.device):
        max_pool_backward[grid](
            grad, taps, found, *size, channels, *taps.shape[2:], *before, *window, *blocks
        )
    return found


def _empty(shape: Any, like: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty(
        tuple(shape), dtype=dtype, device=like.device, memory_format=torch.channels_last_3d
    )


def _grid(
    batch: int, channels: int, time: int, height: int, width: int
) -> tuple[tuple[int, int, int], tuple[int, int]]:
    """Return programs, a row of some columns and channels each, and how many of those."""
    columns = min(32, 1 << (width - 1).bit_length())
    lanes = 64 if columns >= 16 else 128
    return (batch * time * height, -(-width // columns), -(-channels // lanes)), (columns, lanes)
