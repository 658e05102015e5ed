"""Max pooling in Triton: every output is written once, and every gradient is gathered."""

import functools
import importlib.util
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from i3dzoo.kernels.dispatch import use_kernels


def can_max_pool(x: Tensor) -> bool:
    """Whether `max_pool` accepts a tensor: on a GPU, in channels-last order, outside of tracing."""
    return (
        use_kernels(x)
        and x.dtype in (torch.float16, torch.bfloat16, torch.float32)
        and x.is_contiguous(memory_format=torch.channels_last_3d)
        and _has_triton(x.device)
    )


@functools.cache
def _has_triton(device: torch.device) -> bool:
    supported = torch.cuda.get_device_capability(device) >= (7, 0)
    return supported and importlib.util.find_spec("triton") is not None


def max_pool(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    size: Sequence[int],
) -> Tensor:
    """Max-pool [B, C, T, H, W] that `can_max_pool` accepts; windows ignore what lies outside.

    The gradient goes to the first of equal values, as in PyTorch, and NaN wins over any number.

    Args:
        x: The input.
        kernel: Along T, H and W.
        stride: Along T, H and W.
        padding: How far the first window begins before the edge, along T, H and W.
        size: Size of the result along T, H and W.

    Returns:
        [B, C, *size], in channels-last order, of the same dtype.
    """
    window = (*size, *padding, *kernel, *stride)
    if torch.is_grad_enabled() and x.requires_grad:
        pooled: Tensor = _MaxPool.apply(x, window)  # type: ignore[no-untyped-call] # PyTorch's
        return pooled
    return _forward(x, window, keep=False)[0]


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, window: tuple[int, ...]) -> Tensor:
        y, taps = _forward(x, window, keep=True)
        ctx.save_for_backward(taps)
        ctx.window, ctx.shape = window, x.shape
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        from i3dzoo.kernels._max_pool_triton import max_pool_backward

        (taps,) = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last_3d)
        _, channels, *size = ctx.shape
        grad_x = _empty(ctx.shape, grad, grad.dtype)
        grid, blocks = _grid(ctx.shape)
        with torch.cuda.device(grad.device):
            max_pool_backward[grid](grad, taps, grad_x, *size, channels, *ctx.window, *blocks)
        return grad_x, None


def _forward(x: Tensor, window: tuple[int, ...], *, keep: bool) -> tuple[Tensor, Tensor]:
    """Return the maxima and, with `keep`, the position of each in its window."""
    from i3dzoo.kernels._max_pool_triton import max_pool_forward

    batch, channels, *size = x.shape
    y = _empty((batch, channels, *window[:3]), x, x.dtype)
    taps = _empty(y.shape, x, torch.uint8) if keep else y
    grid, blocks = _grid(y.shape)
    with torch.cuda.device(x.device):
        max_pool_forward[grid](x, y, taps, *size, channels, *window, keep, *blocks)
    return y, taps


def _empty(shape: Sequence[int], like: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty(
        tuple(shape), dtype=dtype, device=like.device, memory_format=torch.channels_last_3d
    )


def _grid(shape: Sequence[int]) -> tuple[tuple[int, int, int], tuple[int, int]]:
    """Return the grid of programs, and the columns and channels that each computes in a row."""
    batch, channels, time, height, width = shape
    columns = min(32, 1 << (width - 1).bit_length())
    lanes = 64 if columns >= 16 else 128
    return (batch * time * height, -(-width // columns), -(-channels // lanes)), (columns, lanes)
