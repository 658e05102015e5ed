"""What the network does otherwise on a GPU: the same numbers, forth and back."""

import pytest
import torch
import torch.nn.functional as F

from i3dzoo import kernels
from i3dzoo.architecture import POOLS, same_padding
from i3dzoo.model import InceptionI3d

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
KERNELS = sorted({*POOLS.values(), ((3, 3, 3), (1, 1, 1))})
SHAPES = [(2, 192, 8, 28, 28), (1, 70, 5, 9, 45), (1, 8, 6, 7, 7)]
# each is compiled for itself, which takes seconds: not every shape in every number format
CASES = [
    *((shape, *each, torch.float16) for shape in SHAPES for each in KERNELS),
    *((SHAPES[1], *KERNELS[0], dtype) for dtype in (torch.bfloat16, torch.float32)),
]


@pytest.mark.parametrize(
    ("channels", "size"), [(3, (9, 32, 33)), (2, (16, 30, 21)), (3, (11, 17, 16))]
)
def test_folded_convolution(channels: int, size: tuple[int, int, int]) -> None:
    """Cells of 2x2x2 give what the strided convolution gives, and the same gradient."""
    x = torch.randn(2, channels, *size, dtype=torch.float64)
    weight = torch.randn(5, channels, 7, 7, 7, dtype=torch.float64, requires_grad=True)
    pads = [side for n in reversed(size) for side in same_padding(n, 7, 2)]
    expected = F.conv3d(F.pad(x, pads), weight, stride=2)
    found = kernels.folded_conv(x, weight)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad(found, weight, upstream)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, weight, upstream)[0])


def test_a_cpu_does_it_plainly() -> None:
    """Neither way is taken for tensors on a CPU."""
    x = torch.zeros(1, 3, 9, 32, 32).contiguous(memory_format=torch.channels_last_3d)
    assert not kernels.can_pool(x)
    assert not kernels.can_fold(x, 2)


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize(("shape", "kernel", "stride", "dtype"), CASES)
def test_max_pool(
    shape: tuple[int, ...],
    kernel: tuple[int, int, int],
    stride: tuple[int, int, int],
    dtype: torch.dtype,
) -> None:
    """Maxima are PyTorch's to the bit; of equal ones the first gets the gradient, as there."""
    x = torch.randn(shape, device="cuda").relu().to(dtype)  # with many equal values
    x = x.contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    sizes = list(zip(shape[2:], kernel, stride, strict=True))
    before = [same_padding(n, k, s)[0] for n, k, s in sizes]
    assert kernels.can_pool(x)
    found = kernels.max_pool(x, kernel, stride, before, [-(-n // s) for n, _, s in sizes])
    expected = F.max_pool3d(x.double(), kernel, stride, before, ceil_mode=True)
    assert torch.equal(found.double(), expected)
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    upstream = torch.randn_like(found)
    (gradient,) = torch.autograd.grad(found, x, upstream)
    (exact,) = torch.autograd.grad(expected, x, upstream.double())
    torch.testing.assert_close(gradient, exact, rtol=2 * torch.finfo(dtype).eps, atol=1e-5)
    with torch.no_grad():
        again = kernels.max_pool(x, kernel, stride, before, found.shape[2:])
    assert torch.equal(again, found)


@GPU
@pytest.mark.gpu
def test_they_can_be_turned_off() -> None:
    """To compare, a GPU can be left to PyTorch's own ways."""
    x = torch.zeros(1, 8, 9, 8, 8, device="cuda").contiguous(memory_format=torch.channels_last_3d)
    kernels.use(False)
    assert not kernels.can_pool(x)
    assert not kernels.can_fold(x, 2)
    kernels.use(True)
    assert kernels.can_pool(x)
    assert kernels.can_fold(x, 2)


@GPU
@pytest.mark.gpu
def test_max_pool_keeps_nan() -> None:
    """A NaN is not hidden by a larger number."""
    x = torch.ones(1, 8, 3, 3, 3, device="cuda").contiguous(memory_format=torch.channels_last_3d)
    x[0, 0, 1, 1, 1] = torch.nan
    found = kernels.max_pool(x, (3, 3, 3), (1, 1, 1), (1, 1, 1), (3, 3, 3))
    assert found[0, 0].isnan().all()
    assert not found[0, 1:].isnan().any()


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize("size", [(17, 224, 224), (10, 115, 130)])
def test_the_network(size: tuple[int, int, int]) -> None:
    """Logits and gradients are those of the CPU, whatever the order of memory.

    Where two values of a pool's window are all but equal, rounding says which gets the gradient:
    float32 on the CPU itself is up to 0.5 % from float64.
    """
    torch.manual_seed(0)
    network = InceptionI3d(7).double().eval()
    x = torch.randn(2, 3, *size)
    expected = network(x.double())
    expected.square().sum().backward()
    weights = [p.grad.cpu() for p in network.parameters() if p.grad is not None]
    torch.backends.cudnn.allow_tf32 = False
    network.zero_grad()
    network.float().cuda().to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload] # torch's types lack 3d
    found = network(x.cuda())
    torch.testing.assert_close(found.cpu(), expected.float(), rtol=1e-4, atol=1e-6)
    found.square().sum().backward()
    gradients = [p.grad.cpu() for p in network.parameters() if p.grad is not None]
    for gradient, weight in zip(gradients, weights, strict=True):
        assert (gradient - weight).norm() <= 2e-2 * weight.norm() + 1e-9
