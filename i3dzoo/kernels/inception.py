"""An Inception block as one differentiable function that copies no activations.

The 1x1x1 convolutions that read the same input are one product. Each branch normalises into its
channels of the block's output, and takes its gradients from there, so nothing is concatenated.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from i3dzoo.kernels import batch_norm, dispatch
from i3dzoo.kernels.batch_norm import rows_of
from i3dzoo.kernels.max_pool import Window, pool_backward, pool_forward


class Unit(Protocol):
    """A convolution and its BatchNorm."""

    conv: nn.Conv3d
    bn: nn.BatchNorm3d


_REDUCE = (0, 1, 3)  # the units that read the block's input


def can_run_block(x: Tensor, units: Sequence[Unit]) -> bool:
    """Whether `inception_block` accepts an input and units, and a gradient may be needed."""
    return (
        torch.is_grad_enabled()
        and dispatch.use_triton(x)
        and all(type(unit.conv) is nn.Conv3d and batch_norm.is_plain(unit.bn) for unit in units)
    )


def inception_block(x: Tensor, units: Sequence[Unit], window: Window) -> Tensor:
    """Map [B, in, T, H, W] that `can_run_block` accepts to [B, out, T, H, W].

    Args:
        x: The input, in channels-last order.
        units: The six units, each with its `conv` and `bn`: branch 0, the two of branch 1, the two
            of branch 2, and branch 3.
        window: That of the max pool of branch 3.
    """
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    norms = [unit.bn for unit in units]
    weights = [unit.conv.weight for unit in units]
    affine = [value for norm in norms for value in (norm.weight, norm.bias)]
    with torch.autocast(x.device.type, enabled=False):
        y: Tensor = _Block.apply(x, norms, window, *weights, *affine)  # type: ignore[no-untyped-call] # PyTorch's
    return y


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, norms: list[nn.BatchNorm3d], window: Window, *tensors: Tensor
    ) -> Tensor:
        weights = [weight.to(x.dtype) for weight in tensors[:6]]
        sizes = [len(weight) for weight in weights]
        reduce = torch.cat([weights[number] for number in _REDUCE])
        reduced = _convolve(x, reduce)
        columns = torch.split(rows_of(reduced), [sizes[number] for number in _REDUCE], 1)
        stats0, stats1, stats3 = batch_norm.statistics(
            rows_of(reduced), [norms[number] for number in _REDUCE]
        )
        y = dispatch.empty((len(x), sizes[0] + sizes[2] + sizes[4] + sizes[5], *x.shape[2:]), x)
        parts = torch.split(rows_of(y), [sizes[0], sizes[2], sizes[4], sizes[5]], 1)
        batch_norm.normalise(columns[0], parts[0], stats0)
        inputs = []
        for column, stats in ((columns[1], stats1), (columns[2], stats3)):
            inputs.append(dispatch.empty((len(x), column.shape[1], *x.shape[2:]), x))
            batch_norm.normalise(column, rows_of(inputs[-1]), stats)
        pooled, taps, _ = pool_forward(x, window, keep=True)
        inputs.append(pooled)
        outputs, all_stats = [], [stats0, stats1, stats3]
        for number, given, part in zip((2, 4, 5), inputs, parts[1:], strict=True):
            outputs.append(_convolve(given, weights[number]))
            all_stats += batch_norm.statistics(rows_of(outputs[-1]), [norms[number]])
            batch_norm.normalise(rows_of(outputs[-1]), part, all_stats[-1])
        ctx.save_for_backward(
            x,
            reduce,
            reduced,
            taps,
            *inputs,
            *outputs,
            *all_stats,
            *(weights[n] for n in (2, 4, 5)),
        )
        ctx.window, ctx.sizes = window, sizes
        ctx.is_training = [norm.training for norm in norms]
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, reduce, reduced, taps, *saved = ctx.saved_tensors
        inputs, outputs, stats, weights = saved[:3], saved[3:6], saved[6:12], saved[12:]
        sizes = ctx.sizes
        needs_x, needs = ctx.needs_input_grad[0], ctx.needs_input_grad[3:9]
        count = x.numel() // x.shape[1]
        rows = [count if is_training else 0 for is_training in ctx.is_training]
        grad = rows_of(grad.contiguous(memory_format=torch.channels_last_3d))
        parts = torch.split(grad, [sizes[0], sizes[2], sizes[4], sizes[5]], 1)
        grads: list[Tensor | None] = [None] * 6
        affine: list[Tensor] = [grad] * 6
        inner: list[Tensor | None] = []
        for place, number in enumerate((2, 4, 5)):
            output = outputs[place]
            grad_output = dispatch.empty(output.shape, output)
            affine[number] = batch_norm.gradient(
                rows_of(output), parts[place + 1], rows_of(grad_output), stats[3 + place],
                rows[number],
            )  # fmt: skip
            grad_input, grads[number] = _convolve_backward(
                grad_output, inputs[place], weights[place], needs_x or number != 5, needs[number]
            )
            inner.append(grad_input)
        grad_reduced = dispatch.empty(reduced.shape, reduced)
        splits = [sizes[number] for number in _REDUCE]
        targets = torch.split(rows_of(grad_reduced), splits, 1)
        columns = torch.split(rows_of(reduced), splits, 1)
        for place, number in enumerate(_REDUCE):
            given = parts[0] if place == 0 else rows_of(_dense(inner[place - 1]))
            affine[number] = batch_norm.gradient(
                columns[place], given, targets[place], stats[place], rows[number]
            )
        grad_x, grad_reduce = _convolve_backward(
            grad_reduced, x, reduce, needs_x, any(needs[number] for number in _REDUCE)
        )
        if grad_reduce is not None:
            for number, part in zip(_REDUCE, torch.split(grad_reduce, splits), strict=True):
                grads[number] = part
        if grad_x is not None:
            pool_backward(_dense(inner[2]), taps, grad_x, ctx.window, add=True)
        return grad_x, None, None, *grads, *(row for pair in affine for row in pair)


def _dense(x: Tensor | None) -> Tensor:
    assert x is not None  # noqa: S101 # its gradient was asked for; for mypy
    return x.contiguous(memory_format=torch.channels_last_3d)


def _is_product(x: Tensor, weight: Tensor) -> bool:
    """Whether a convolution is faster as a product of matrices: 1x1x1, in half precision."""
    return weight.shape[2] == 1 and x.dtype in (torch.float16, torch.bfloat16)


def _convolve(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve with stride 1 and SAME padding; all are in channels-last order."""
    if _is_product(x, weight):
        y = dispatch.empty((len(x), len(weight), *x.shape[2:]), x)
        torch.mm(rows_of(x), weight.flatten(1).t(), out=rows_of(y))
        return y
    return _dense(F.conv3d(x, weight, padding=weight.shape[2] // 2))


def _convolve_backward(
    grad: Tensor, x: Tensor, weight: Tensor, needs_x: bool, needs_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of the input and of the weight of `_convolve`."""
    grad_x: Tensor | None = None
    grad_weight: Tensor | None = None
    if _is_product(x, weight):
        if needs_x:
            grad_x = dispatch.empty(x.shape, x)
            torch.mm(rows_of(grad), weight.flatten(1), out=rows_of(grad_x))
        if needs_weight:
            product = rows_of(grad).t() @ rows_of(x)
            grad_weight = product.as_strided(weight.shape, weight.stride())
    elif needs_x or needs_weight:
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad, x, weight, None, [1] * 3, [weight.shape[2] // 2] * 3, [1] * 3, False, [0] * 3, 1,
            [needs_x, needs_weight, False],
        )  # fmt: skip
        grad_x = None if grad_x is None else _dense(grad_x)
    return grad_x, grad_weight
