"""BatchNorm and ReLU in Triton: one pass for the statistics, one to normalise, two backward.

Activations are channels-last, so that they are matrices of positions and channels; a matrix may be
a slice of a wider one. Statistics are float32, of half precision too, and the results are the same
to the bit in every run.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from i3dzoo.kernels import dispatch
from i3dzoo.kernels.max_pool import Window, pool_backward, pool_forward

_TILE = 2048  # values that a program reads at once
_PROGRAMS = 1056  # for sums: 8 for each of the processors of an H100
_CHUNKS = 1024


def can_batch_norm(x: Tensor, norm: nn.Module) -> bool:
    """Whether `batch_norm_relu` accepts an input and a BatchNorm, and a gradient may be needed."""
    return (
        torch.is_grad_enabled()
        and is_plain(norm)
        and x.shape[1] % 8 == 0
        and dispatch.use_triton(x)
    )


def is_plain(norm: nn.Module) -> bool:
    """Whether a BatchNorm is PyTorch's own, with all that I3D's have; not one over several GPUs."""
    return (
        type(norm) is nn.BatchNorm3d
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
    )


def batch_norm_relu(x: Tensor, norm: nn.BatchNorm3d, window: Window | None = None) -> Tensor:
    """Normalise [B, C, T, H, W] that `can_batch_norm` accepts, and rectify.

    The running statistics are updated as PyTorch does, or used if the BatchNorm is in eval mode.
    With the `window` of a max pool, the result is pooled, and only that is written.
    """
    y: Tensor = _BatchNormRelu.apply(x, norm.weight, norm.bias, norm, window)  # type: ignore[no-untyped-call] # PyTorch's
    return y


class _BatchNormRelu(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        _gamma: Tensor,
        _beta: Tensor,
        norm: nn.BatchNorm3d,
        window: Window | None,
    ) -> Tensor:
        (stats,) = statistics(rows_of(x), [norm])
        ctx.is_training, ctx.window = norm.training, window
        if window is None:
            y = dispatch.empty(x.shape, x)
            normalise(rows_of(x), rows_of(y), stats)
            ctx.save_for_backward(x, stats)
        else:
            y, taps, inputs = pool_forward(x, window, keep=True, stats=stats)
            ctx.save_for_backward(x, stats, taps, inputs)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, stats, *pooled = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last_3d)
        grad_x = dispatch.empty(x.shape, x)
        rows = x.numel() // x.shape[1] if ctx.is_training else 0
        if not pooled:
            grads = gradient(rows_of(x), rows_of(grad), rows_of(grad_x), stats, rows)
        else:
            # what the maxima do not see has no gradient, so the sums are over the maxima
            taps, inputs = pooled
            grads, factors = _sums(rows_of(inputs), rows_of(grad), stats, rows)
            pool_backward(grad, taps, grad_x, ctx.window, normalised=(x, stats, factors))
        return grad_x, grads[0], grads[1], None, None


def rows_of(x: Tensor) -> Tensor:
    """Return [B, C, T, H, W] in channels-last order as a matrix [B * T * H * W, C]."""
    return x.permute(0, 2, 3, 4, 1).reshape(-1, x.shape[1])


def statistics(x: Tensor, norms: Sequence[nn.BatchNorm3d]) -> list[Tensor]:
    """Return [4, C] for each BatchNorm of neighbouring channels of a matrix [rows, channels].

    These are the mean, 1 / standard deviation, and the scale and shift that normalise.
    """
    from i3dzoo.kernels import _batch_norm_triton

    dtype = dispatch.accumulator(x.dtype)
    rows, channels = x.shape
    if any(norm.training for norm in norms):
        if rows == 1:
            raise ValueError("BatchNorm needs more than one value of a channel in training")
        shape = _Chunks(rows, channels)
        partial = x.new_empty((shape.chunks, 2, channels), dtype=dtype)
        with dispatch.current_device(x):
            _batch_norm_triton.statistics[shape.grid](
                x, partial, rows, x.stride(0) // 8, channels // 8, shape.chunk_rows, *shape.tile,
                dispatch.triton_dtype(dtype),
            )  # fmt: skip
    results = []
    first = 0
    for norm in norms:
        count = norm.num_features
        if norm.training:
            stats = x.new_empty((4, count), dtype=dtype)
            with dispatch.current_device(x):
                _batch_norm_triton.finish_statistics[(-(-count // 8),)](
                    partial[:, :, first:], norm.weight, norm.bias, norm.running_mean,
                    norm.running_var, norm.num_batches_tracked, stats, rows, channels, count,
                    shape.chunk_rows, shape.chunks, norm.momentum, norm.eps, shape.bound, 8,
                    dispatch.triton_dtype(dtype),
                )  # fmt: skip
        else:
            stats = _running_statistics(norm, dtype)
        results.append(stats)
        first += count
    return results


def _running_statistics(norm: nn.BatchNorm3d, dtype: torch.dtype) -> Tensor:
    assert norm.running_mean is not None  # noqa: S101 # `is_plain`, for mypy
    assert norm.running_var is not None  # noqa: S101
    mean = norm.running_mean.to(dtype)
    deviation = (norm.running_var.to(dtype) + norm.eps).rsqrt()
    scale = norm.weight.detach().to(dtype) * deviation
    return torch.stack([mean, deviation, scale, norm.bias.detach().to(dtype) - mean * scale])


def normalise(x: Tensor, y: Tensor, stats: Tensor) -> None:
    """Write relu(x * scale + shift); `x` and `y` are matrices [rows, channels]."""
    from i3dzoo.kernels._batch_norm_triton import normalise

    rows, channels = x.shape
    grid, blocks, tile = _tiles(rows, channels)
    with dispatch.current_device(x):
        normalise[grid](
            x, y, stats, rows, x.stride(0) // 8, y.stride(0) // 8, channels // 8, blocks, *tile
        )


def gradient(x: Tensor, grad: Tensor, grad_x: Tensor, stats: Tensor, rows: int) -> Tensor:
    """Write the gradient of the input; return those of gamma and beta, [2, channels].

    Args:
        x: The input of the BatchNorm, a matrix [rows, channels].
        grad: The gradient of the output of the ReLU.
        grad_x: Receives the gradient of `x`.
        stats: Those of `statistics`.
        rows: From how many values of a channel the statistics were computed; 0 if they were given.
    """
    from i3dzoo.kernels._batch_norm_triton import gradient

    grads, factors = _sums(x, grad, stats, rows)
    grid, blocks, tile = _tiles(*x.shape)
    with dispatch.current_device(x):
        gradient[grid](
            x, grad, grad_x, stats, factors, x.shape[0], x.stride(0) // 8, grad.stride(0) // 8,
            grad_x.stride(0) // 8, x.shape[1] // 8, blocks, *tile,
        )  # fmt: skip
    return grads


def _sums(x: Tensor, grad: Tensor, stats: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Return the gradients of gamma and beta, and what the gradient of the input needs of them."""
    from i3dzoo.kernels import _batch_norm_triton

    shape = _Chunks(*x.shape)
    channels = x.shape[1]
    partial = stats.new_empty((shape.chunks, 2, channels))
    grads, factors = stats.new_empty((2, channels)), stats.new_empty((2, channels))
    with dispatch.current_device(x):
        _batch_norm_triton.gradient_sums[shape.grid](
            x, grad, stats, partial, x.shape[0], x.stride(0) // 8, grad.stride(0) // 8,
            channels // 8, shape.chunk_rows, *shape.tile, dispatch.triton_dtype(stats.dtype),
        )  # fmt: skip
        _batch_norm_triton.finish_gradient[(-(-channels // 8),)](
            partial, stats, grads, factors, max(rows, 1), channels, shape.chunks, shape.bound, 8
        )
    return grads, factors if rows else factors.zero_()


class _Chunks:
    """How the rows of a matrix are divided among programs that sum by channel."""

    def __init__(self, rows: int, channels: int) -> None:
        _, blocks, self.tile = _tiles(rows, channels)
        tiles = -(-rows // self.tile[0])
        each = -(-tiles // min(_CHUNKS, -(-_PROGRAMS // blocks)))
        self.chunk_rows = each * self.tile[0]
        self.chunks = -(-rows // self.chunk_rows)
        self.bound = 1 << (self.chunks - 1).bit_length()
        self.grid = (self.chunks, blocks)


def _tiles(rows: int, channels: int) -> tuple[tuple[int], int, tuple[int, int]]:
    """Return the grid, the number of blocks of channels, and the tile of a program."""
    lanes = min(64, 1 << (channels - 1).bit_length())
    tile = (_TILE // lanes, lanes)
    blocks = -(-channels // lanes)
    return (-(-rows // tile[0]) * blocks,), blocks, tile
