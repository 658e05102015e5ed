"""Round the weights of convolutions to half precision so that their errors do not add up."""

from typing import Final

import torch
from torch import Tensor

_MOVES: Final = 8  # weights of a kernel that are rounded the other way, at most


def round_kernels(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Round weights so that the sum of each kernel is kept as far as possible.

    A kernel reads neighbouring positions of one channel, whose values are alike, so that its output
    is off by about the error of its sum. A few weights that lie almost in the middle of two numbers
    are rounded to the other one, until the errors of a kernel cancel.

    Args:
        weight: Float64 [out, in, T, H, W].
        dtype: `torch.float16` or `torch.bfloat16`.

    Returns:
        Float64 numbers of this type, the same shape; each is next to its weight.
    """
    flat = weight.flatten(2)
    rounded = flat.to(dtype).to(flat.dtype)
    limits = torch.finfo(dtype)
    exponent = torch.frexp(rounded.abs().clamp_min(limits.smallest_normal)).exponent - 1
    unit = torch.ldexp(torch.full_like(flat, limits.eps), exponent)
    for _ in range(_MOVES):
        rest = (flat - rounded).sum(2, keepdim=True)
        moved = rounded + unit * rest.sign()
        gain = rest.abs() - (rest - (moved - rounded)).abs()
        cost = (flat - moved).abs() - (flat - rounded).abs()
        possible = (gain > 0) & ((flat - moved).abs() <= unit)
        best = (cost / gain).where(possible, torch.inf).min(2, keepdim=True)
        kept = rounded.gather(2, best.indices)
        chosen = moved.gather(2, best.indices).where(best.values.isfinite(), kept)
        rounded.scatter_(2, best.indices, chosen)
    return rounded.view_as(weight)
