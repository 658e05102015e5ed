"""Max pooling in Triton: every output is written once, and every gradient is gathered."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from i3dzoo.kernels import dispatch

Window = tuple[int, ...]
"""Size of the result, padding before, kernel and stride, each along T, H and W."""

_CHUNK = 8  # steps of a pool with stride 1 that a program computes


def can_max_pool(x: Tensor) -> bool:
    """Whether `max_pool` accepts a tensor: on a GPU, in channels-last order, outside of tracing."""
    return dispatch.use_triton(x)


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
    return pool_forward(x, window, keep=False)[0]


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, window: Window) -> Tensor:
        y, taps, _ = pool_forward(x, window, keep=True)
        ctx.save_for_backward(taps)
        ctx.window, ctx.shape = window, x.shape
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (taps,) = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last_3d)
        grad_x = dispatch.empty(ctx.shape, grad)
        pool_backward(grad, taps, grad_x, ctx.window)
        return grad_x, None


def pool_forward(
    x: Tensor, window: Window, *, keep: bool, stats: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the maxima, the position of each in its window, and the inputs there.

    With `stats` of `i3dzoo.kernels.batch_norm`, inputs are normalised and rectified before they are
    pooled. Positions are only computed with `keep`, inputs with `stats`.
    """
    from i3dzoo.kernels._max_pool_triton import max_pool_forward

    batch, channels, *size = x.shape
    y = dispatch.empty((batch, channels, *window[:3]), x)
    taps = dispatch.empty(y.shape, x, torch.uint8) if keep else y
    inputs = y if stats is None else dispatch.empty(y.shape, x)
    is_rolling = stats is None and window[6] == 3 and window[9] == 1
    chunk = _CHUNK if is_rolling else 1
    chunks = -(-window[0] // chunk)
    grid, blocks = _grid(batch * chunks * window[1], window[2], channels)
    with dispatch.current_device(x):
        max_pool_forward[grid](
            x, y, taps, inputs, x if stats is None else stats, *size, channels, *window[:6],
            chunks, *window[6:], keep, stats is not None, chunk, *blocks,
        )  # fmt: skip
    return y, taps, inputs


def pool_backward(
    grad: Tensor,
    taps: Tensor,
    grad_x: Tensor,
    window: Window,
    *,
    add: bool = False,
    normalised: tuple[Tensor, Tensor, Tensor] | None = None,
) -> None:
    """Write the gradient of the input to `grad_x`, or add it to what is there.

    `normalised` has the input, `stats` and `factors` of a BatchNorm that was computed on the way.
    """
    from i3dzoo.kernels._max_pool_triton import max_pool_backward

    batch, channels, *size = grad_x.shape
    cells = [
        (edge - 1 + before) // stride + 1
        for edge, before, stride in zip(size, window[3:6], window[9:], strict=True)
    ]
    grid, blocks = _grid(batch * cells[0] * cells[1], cells[2], channels)
    with dispatch.current_device(grad):
        max_pool_backward[grid](
            grad, taps, grad_x, *(normalised or (grad, grad, grad)), *size, channels,
            *window[:6], *cells[:2], *window[6:], add, normalised is not None,
            dispatch.triton_dtype(dispatch.accumulator(grad.dtype)), *blocks,
        )  # fmt: skip


def _grid(rows: int, width: int, channels: int) -> tuple[tuple[int, int, int], tuple[int, int]]:
    """Return the grid of programs, and the columns and channels that each computes in a row."""
    columns = min(16, 1 << (width - 1).bit_length())
    lanes = 64 if columns >= 16 else 128
    return (rows, -(-width // columns), -(-channels // lanes)), (columns, lanes)
