"""Weights of half precision whose errors cancel within each kernel."""

import pytest
import torch

from i3dzoo.network.rounding import round_kernels


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_are_kept(dtype: torch.dtype) -> None:
    """Each number is one of the two beside its weight, and sums are far closer than by rounding."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 5, 3, 3, 3, generator=generator, dtype=torch.float64) * 0.05
    weight[0, 0] = 0
    weight[0, 1] *= 1e-7  # subnormal in float16
    rounded = round_kernels(weight, dtype)
    assert torch.equal(rounded, rounded.to(dtype).double())
    nearest = weight.to(dtype).double()
    unit = torch.finfo(dtype).eps * weight.abs().clamp_min(torch.finfo(dtype).smallest_normal)
    assert ((rounded - weight).abs() <= unit).all()
    moved = rounded != nearest
    assert 0 < moved.double().mean() < 0.2
    lost, lost_before = (
        (weight - values).sum((2, 3, 4)).abs().mean() for values in (rounded, nearest)
    )
    assert lost < 0.1 * lost_before


def test_single_weights_are_rounded_to_the_nearest() -> None:
    """A kernel of 1x1x1 has nothing to cancel an error with."""
    weight = torch.rand(3, 4, 1, 1, 1, dtype=torch.float64)
    assert torch.equal(round_kernels(weight, torch.float16), weight.half().double())
