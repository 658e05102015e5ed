"""The GPU kernels equal PyTorch's results, forward and backward."""

import pytest
import torch
import torch.nn.functional as F

from i3dzoo import kernels
from i3dzoo.kernels.batch_norm import is_plain
from i3dzoo.network.architecture import (
    DEEPMIND,
    POOLS,
    Padding,
    Variant,
    output_size,
    pad_axis,
    same_padding,
)
from i3dzoo.network.i3d import I3D

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
KERNELS = sorted({*POOLS.values(), ((3, 3, 3), (1, 1, 1))})
SHAPES = [(2, 192, 8, 28, 28), (1, 70, 5, 9, 45), (1, 8, 6, 7, 7)]
# compiling each case takes seconds, so not every shape is tested in every dtype
CASES = [
    *((shape, *each, torch.float16) for shape in SHAPES for each in KERNELS),
    *((SHAPES[1], *KERNELS[0], dtype) for dtype in (torch.bfloat16, torch.float32)),
]


@pytest.mark.parametrize("padding", ["same", "symmetric", "ceil"])
@pytest.mark.parametrize(
    ("channels", "size"), [(3, (9, 32, 33)), (2, (16, 30, 21)), (3, (11, 17, 16))]
)
def test_window_conv(channels: int, size: tuple[int, int, int], padding: Padding) -> None:
    """Windows of pixels give the results and gradients of the strided convolution."""
    x = torch.randn(2, channels, *size, dtype=torch.float64)
    weight = torch.randn(5, channels, 7, 7, 7, dtype=torch.float64, requires_grad=True)
    pads = [side for n in reversed(size) for side in pad_axis(padding, n, 7, 2, pool=False)]
    expected = F.conv3d(F.pad(x, pads), weight, stride=2)
    before = [pad_axis(padding, n, 7, 2, pool=False)[0] for n in size]
    sizes = [output_size(padding, n, 7, 2, pool=False) for n in size]
    output = kernels.window_conv(x, weight, before, sizes)
    torch.testing.assert_close(output, expected)
    upstream = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad(output, weight, upstream)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, weight, upstream)[0])


def test_cpu() -> None:
    """Tensors on a CPU use PyTorch's own kernels."""
    x = torch.zeros(1, 3, 9, 32, 32).contiguous(memory_format=torch.channels_last_3d)
    assert not kernels.can_max_pool(x)
    assert not kernels.can_window_conv(x, 2, 7)
    assert not kernels.can_batch_norm(x, torch.nn.BatchNorm3d(3))


def test_batch_norm_over_several_gpus() -> None:
    """A BatchNorm that computes its statistics over several GPUs stays PyTorch's."""
    norm = torch.nn.BatchNorm3d(8)
    assert is_plain(norm)
    assert not is_plain(torch.nn.SyncBatchNorm.convert_sync_batchnorm(norm))
    assert not is_plain(torch.nn.BatchNorm3d(8, affine=False))


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize(("shape", "kernel", "stride", "dtype"), CASES)
def test_max_pool(
    shape: tuple[int, ...],
    kernel: tuple[int, int, int],
    stride: tuple[int, int, int],
    dtype: torch.dtype,
) -> None:
    """Maxima equal PyTorch's to the bit; the first of equal values gets the gradient."""
    x = torch.randn(shape, device="cuda").relu().to(dtype)  # with many equal values
    x = x.contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    sizes = list(zip(shape[2:], kernel, stride, strict=True))
    before = [same_padding(n, k, s)[0] for n, k, s in sizes]
    assert kernels.can_max_pool(x)
    output = kernels.max_pool(x, kernel, stride, before, [-(-n // s) for n, _, s in sizes])
    expected = F.max_pool3d(x.double(), kernel, stride, before, ceil_mode=True)
    assert torch.equal(output.double(), expected)
    assert output.is_contiguous(memory_format=torch.channels_last_3d)
    upstream = torch.randn_like(output)
    (gradient,) = torch.autograd.grad(output, x, upstream)
    (exact,) = torch.autograd.grad(expected, x, upstream.double())
    torch.testing.assert_close(gradient, exact, rtol=2 * torch.finfo(dtype).eps, atol=1e-5)
    with torch.no_grad():
        again = kernels.max_pool(x, kernel, stride, before, output.shape[2:])
    assert torch.equal(again, output)


@GPU
@pytest.mark.gpu
def test_set_enabled() -> None:
    """For comparisons, PyTorch's own kernels can be used on a GPU."""
    x = torch.zeros(1, 8, 9, 8, 8, device="cuda").contiguous(memory_format=torch.channels_last_3d)
    kernels.set_enabled(False)
    assert not kernels.can_max_pool(x)
    assert not kernels.can_window_conv(x[:, :3], 2, 7)
    kernels.set_enabled(True)
    assert kernels.can_max_pool(x)
    assert kernels.can_window_conv(x[:, :3], 2, 7)


@GPU
@pytest.mark.gpu
def test_max_pool_keeps_nan() -> None:
    """A NaN wins over any number."""
    x = torch.ones(1, 8, 3, 3, 3, device="cuda").contiguous(memory_format=torch.channels_last_3d)
    x[0, 0, 1, 1, 1] = torch.nan
    output = kernels.max_pool(x, (3, 3, 3), (1, 1, 1), (1, 1, 1), (3, 3, 3))
    assert output[0, 0].isnan().all()
    assert not output[0, 1:].isnan().any()


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize(
    ("size", "variant"),
    [
        ((17, 224, 224), DEEPMIND),
        ((10, 115, 130), DEEPMIND),
        ((17, 115, 130), Variant(padding="symmetric", pooling="global")),
        ((17, 115, 130), Variant(padding="ceil", pooling="global")),
    ],
)
def test_network(size: tuple[int, int, int], variant: Variant) -> None:
    """Logits and gradients equal those of the CPU.

    Rounding decides which of two almost equal values in a window gets the gradient: float32 on the
    CPU itself differs by up to 0.5 % from float64.
    """
    torch.manual_seed(0)
    network = I3D(7, variant=variant).double().eval()
    x = torch.randn(2, 3, *size)
    expected = network(x.double())
    expected.square().sum().backward()
    weights = [p.grad.cpu() for p in network.parameters() if p.grad is not None]
    torch.backends.cudnn.allow_tf32 = False
    network.zero_grad()
    network.float().cuda().to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload] # torch's types lack 3d
    output = network(x.cuda())
    torch.testing.assert_close(output.cpu(), expected.float(), rtol=1e-4, atol=1e-6)
    output.square().sum().backward()
    gradients = [p.grad.cpu() for p in network.parameters() if p.grad is not None]
    for gradient, weight in zip(gradients, weights, strict=True):
        assert (gradient - weight).norm() <= 2e-2 * weight.norm() + 1e-9
