"""The kernels of training equal PyTorch, forward and backward, on a GPU or in Triton's interpreter.

`make kernels` runs them on a CPU. Every output is NaN before a kernel writes it.
"""

import importlib.util
import os
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from i3dzoo import kernels
from i3dzoo.kernels import dispatch
from i3dzoo.kernels.batch_norm import _BatchNormRelu
from i3dzoo.kernels.max_pool import pool_backward, pool_forward
from i3dzoo.kernels.window_conv import _windows, _windows_of_pytorch
from i3dzoo.network import i3d
from i3dzoo.network.architecture import DEEPMIND, POOLS, Unit, Variant, output_size, pad_axis
from i3dzoo.network.i3d import ConvUnit, Mixed

GPU = torch.cuda.is_available()
INTERPRETER = importlib.util.find_spec("triton") and os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cuda" if GPU else "cpu")
# float64 has no NaN-keeping maximum on GPUs
EXACT = torch.float32 if GPU else torch.float64
POOL = ((3, 3, 3), (1, 1, 1))
KERNELS = sorted({*POOLS.values(), POOL})
CASES = [
    *((*kernel, (3, 5, 6), "same") for kernel in KERNELS),
    ((3, 3, 3), (2, 2, 2), (4, 5, 7), "symmetric"),
    ((3, 3, 3), (2, 2, 2), (4, 5, 4), "ceil"),
    ((3, 3, 3), (1, 1, 1), (10, 2, 1), "same"),
]
pytestmark = [
    pytest.mark.skipif(not (GPU or INTERPRETER), reason="there is no GPU; make kernels"),
    pytest.mark.gpu,
    # of the interpreter
    pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors on a CPU take the kernels, too, and every buffer is NaN before a kernel writes it."""
    original = dispatch.empty

    def empty(shape: Sequence[int], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        buffer = original(shape, like, dtype)
        return buffer.fill_(77 if dtype == torch.uint8 else torch.nan)

    monkeypatch.setattr(dispatch, "empty", empty)
    if not GPU:
        monkeypatch.setattr(
            dispatch,
            "use_triton",
            lambda x: x.is_contiguous(memory_format=torch.channels_last_3d),
        )
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = tf32


def values(*shape: int, dtype: torch.dtype = EXACT) -> Tensor:
    """Return random [B, C, T, H, W] in channels-last order, of which a mean is not zero."""
    generator = torch.Generator().manual_seed(sum(shape))
    x = torch.randn(shape, generator=generator) * 2 + 1
    x = x.to(DEVICE, dtype)
    return x.contiguous(memory_format=torch.channels_last_3d) if x.ndim == 5 else x


def norm_of(channels: int, is_training: bool, dtype: torch.dtype = EXACT) -> nn.BatchNorm3d:
    """Return a BatchNorm with statistics; some of its scales are negative, and one is 0."""
    generator = torch.Generator().manual_seed(channels)
    norm = nn.BatchNorm3d(channels, eps=1e-3).to(DEVICE, dtype).train(is_training)
    with torch.no_grad():
        for value in (norm.weight, norm.bias, norm.running_mean):
            value.copy_(torch.randn(channels, generator=generator))
        norm.weight[1] = 0
        norm.running_var.copy_(torch.rand(channels, generator=generator) + 0.5)
    return norm


def gradients(output: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradients of a random function of the output."""
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(output.shape, generator=generator).half().to(output)
    return list(torch.autograd.grad(output, list(inputs), weights))


def check(actual: Tensor, expected: Tensor, tolerance: float | None = None) -> None:
    """Compare as a part of the norm."""
    assert actual.shape == expected.shape
    if tolerance is None:
        tolerance = 2e-5 if GPU else 1e-6  # epsilon is float32
    error = (actual.double() - expected.double()).norm()
    assert error <= tolerance * expected.double().norm() + 1e-9  # NaN is not


def window_of(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Any
) -> tuple[int, ...]:
    """Return the window of a pool as the kernels take it."""
    axes = list(zip(x.shape[2:], kernel, stride, strict=True))
    before = [pad_axis(padding, *axis, pool=True)[0] for axis in axes]
    return (
        *(output_size(padding, *axis, pool=True) for axis in axes),
        *before,
        *kernel,
        *stride,
    )


@pytest.mark.parametrize(("kernel", "stride", "size", "padding"), CASES)
def test_max_pool(
    kernel: tuple[int, int, int],
    stride: tuple[int, int, int],
    size: tuple[int, int, int],
    padding: Any,
) -> None:
    """Maxima equal PyTorch's to the bit; the first of equal values gets the gradient."""
    # of channels that fill no block
    channels, dtype = (70, torch.float32) if padding == "ceil" else (8, torch.float16)
    x = values(2, channels, *size, dtype=dtype).mul(2).round().requires_grad_()
    window = window_of(x, kernel, stride, padding)
    y = kernels.max_pool(x, kernel, stride, window[3:6], window[:3])
    ceil = padding != "symmetric"
    expected = F.max_pool3d(x.float(), kernel, stride, window[3:6], ceil_mode=ceil)
    assert torch.equal(y.float(), expected)
    (gradient,), (exact,) = gradients(y, [x]), gradients(expected, [x])
    torch.testing.assert_close(gradient, exact.to(dtype), rtol=2e-3, atol=1e-6)


def test_max_pool_adds_to_a_gradient() -> None:
    """A block adds the gradient of its pool to that of its convolutions."""
    x = values(1, 8, 3, 4, 5)
    window = window_of(x, *POOL, "same")
    y, taps, _ = pool_forward(x, window, keep=True)
    alone, sum_ = torch.zeros_like(x), x.clone()
    pool_backward(y, taps, alone, window)
    pool_backward(y, taps, sum_, window, add=True)
    torch.testing.assert_close(sum_, alone + x)


@pytest.mark.parametrize("kernel", [POOLS["MaxPool3d_2a_3x3"], POOL])
def test_nan(kernel: Any) -> None:
    """A NaN wins over any number, in pools, with BatchNorm, and in a ReLU."""
    x = torch.ones(1, 8, 3, 3, 3, device=DEVICE).contiguous(memory_format=torch.channels_last_3d)
    x[0, 0, 1, 1, 1] = torch.nan
    window = window_of(x, *kernel, "same")
    norm = norm_of(8, False, torch.float32)
    for y in (
        kernels.max_pool(x, *kernel, window[3:6], window[:3])[:, :, 1, :2, :2],
        kernels.batch_norm_relu(x, norm)[:, :, 1, 1:2, 1:2],
        kernels.batch_norm_relu(x, norm, window)[:, :, 1, :2, :2],
    ):
        assert y[0, 0, 0, 0].isnan() or y[0, 0].isnan().all()
        assert not y[0, 1:].isnan().any()


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize(
    ("shape", "pool"),
    [
        ((2, 8, 3, 4, 5), None),
        ((3, 24, 3, 7, 9), None),
        ((1, 72, 2, 3, 1), None),
        ((2, 8, 2, 5, 6), POOLS["MaxPool3d_2a_3x3"]),
        ((1, 72, 3, 4, 3), POOLS["MaxPool3d_4a_3x3"]),
    ],
)
def test_batch_norm_relu(shape: tuple[int, ...], pool: Any, is_training: bool) -> None:
    """Outputs, gradients and running statistics equal those of PyTorch's own."""
    x = values(*shape).requires_grad_()
    norm, reference = norm_of(shape[1], is_training), norm_of(shape[1], is_training).double()
    window = None if pool is None else window_of(x, *pool, "same")
    y = kernels.batch_norm_relu(x, norm, window)
    expected = F.relu(reference(x.double()))
    if window is not None:
        expected = F.max_pool3d(expected, *pool, window[3:6], ceil_mode=True)
    check(y, expected)
    inputs = gradients(y, [x, norm.weight, norm.bias])
    exact = gradients(expected, [x, reference.weight, reference.bias])
    for actual, wanted in zip(inputs, exact, strict=True):
        check(actual, wanted, 1e-4 if GPU else None)
    for name, value in reference.named_buffers():
        check(norm.get_buffer(name), value)
    assert norm.num_batches_tracked.item() == is_training


@pytest.mark.parametrize("pool", [None, POOLS["MaxPool3d_2a_3x3"]])
def test_batch_norm_relu_in_half_precision(pool: Any) -> None:
    """Half precision rounds inputs and outputs; statistics are float32, of large means too."""
    x = (values(2, 16, 3, 6, 8) + 200).half().requires_grad_()
    norm, reference = norm_of(16, True, torch.float32), norm_of(16, True, torch.float32).double()
    window = None if pool is None else window_of(x, *pool, "same")
    y = kernels.batch_norm_relu(x, norm, window)
    assert y.dtype == torch.float16
    expected = F.relu(reference(x.double()))
    if window is not None:
        expected = F.max_pool3d(expected, *pool, window[3:6], ceil_mode=True)
    check(y, expected, 1e-3)
    inputs = gradients(y, [x, norm.weight, norm.bias])
    exact = gradients(expected, [x, reference.weight, reference.bias])
    for actual, wanted in zip(inputs, exact, strict=True):
        check(actual, wanted, 2e-3)
    check(norm.running_var, reference.running_var, 1e-4)


@pytest.mark.skipif(GPU, reason="the kernels of pools have no float64 on a GPU")
@pytest.mark.parametrize("pool", [None, POOLS["MaxPool3d_2a_3x3"]])
@pytest.mark.parametrize("is_training", [True, False])
def test_gradcheck(is_training: bool, pool: Any) -> None:
    """The gradients are those of finite differences, in float64."""
    torch.manual_seed(0)
    x = values(1, 8, 1, 3, 4).requires_grad_()
    norm = norm_of(8, is_training)
    with torch.no_grad():
        norm.weight.fill_(0.5)  # at 0, a pool has no derivative
    window = None if pool is None else window_of(x, *pool, "same")

    def run(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        norm.weight, norm.bias = nn.Parameter(gamma), nn.Parameter(beta)
        y: Tensor = _BatchNormRelu.apply(x, gamma, beta, norm, window)
        return y

    inputs = (x, norm.weight.detach().requires_grad_(), norm.bias.detach().requires_grad_())
    assert torch.autograd.gradcheck(run, inputs, eps=1e-5, atol=1e-5, fast_mode=True)


def small_block(padding: Any = "same") -> Mixed:
    """Return a block with few channels."""
    block = Mixed.__new__(Mixed)
    nn.Module.__init__(block)
    block.padding = padding
    variant = Variant(padding=padding)
    sizes = [[(16, 8, 1)], [(16, 16, 1), (16, 24, 3)], [(16, 8, 1), (8, 8, 3)], [(16, 16, 1)]]
    torch.manual_seed(0)
    branches = [
        nn.Sequential(*(ConvUnit(Unit("", *size), size[0], variant) for size in units))
        for units in sizes
    ]
    block.Branch_0, block.Branch_1, block.Branch_2, block.Branch_3 = branches
    return block.to(DEVICE).to(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("dtype", [EXACT, torch.float16])
def test_block(is_training: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block equals PyTorch's operators: output, gradients and running statistics."""
    block, reference = small_block(), small_block().double()
    block.train(is_training).to(torch.float32 if dtype == torch.float16 else dtype)
    reference.train(is_training)
    x = values(2, 16, 3, 4, 5, dtype=dtype).relu().requires_grad_()
    if dtype == torch.float16:
        with torch.autocast(DEVICE.type, torch.float16):
            y = block(x)
    else:
        y = block(x)
    assert type(y.grad_fn).__name__ == "_BlockBackward"
    monkeypatch.setattr(i3d.kernels, "can_run_block", lambda *_: False)
    monkeypatch.setattr(i3d.kernels, "can_batch_norm", lambda *_: False)
    monkeypatch.setattr(i3d.kernels, "can_max_pool", lambda *_: False)
    expected = reference(x.double())
    tolerance = 3e-3 if dtype == torch.float16 else 1e-4 if GPU else None
    check(y, expected, tolerance)
    actual = gradients(y, [x, *block.parameters()])
    wanted = gradients(expected, [x, *reference.parameters()])
    if dtype == torch.float16:  # rounding turns over a ReLU here and there
        actual, wanted = ([torch.cat([v.flatten() for v in values])] for values in (actual, wanted))
    for value, exact in zip(actual, wanted, strict=True):
        check(value, exact, 5e-2 if dtype == torch.float16 else tolerance)
    for name, value in reference.named_buffers():
        check(block.get_buffer(name), value, tolerance)


def test_block_that_computes_its_activations_again() -> None:
    """With activation checkpointing, the gradients are the same to the bit."""
    block = small_block().to(EXACT)
    x = values(1, 16, 2, 3, 4).requires_grad_()
    expected = gradients(block(x), [x, *block.parameters()])
    again = checkpoint(block, x, use_reentrant=False)
    for actual, wanted in zip(gradients(again, [x, *block.parameters()]), expected, strict=True):
        assert torch.equal(actual, wanted)


def test_frozen_parts_of_a_block() -> None:
    """What needs no gradient gets none, and the rest gets the same."""
    block = small_block().to(EXACT)
    x = values(1, 16, 2, 3, 4)
    everything = gradients(block(x.clone().requires_grad_()), list(block.parameters()))
    some = [value for number, value in enumerate(block.parameters()) if number % 3]
    for value in block.parameters():
        value.requires_grad_(any(value is other for other in some))
    kept = [value for number, value in enumerate(everything) if number % 3]
    for actual, wanted in zip(gradients(block(x), some), kept, strict=True):
        assert torch.equal(actual, wanted)


@pytest.mark.parametrize(
    ("channels", "size", "padding"),
    [(3, (9, 10, 13), "same"), (2, (4, 9, 12), "symmetric"), (3, (5, 17, 11), "ceil")],
)
def test_windows(channels: int, size: tuple[int, int, int], padding: Any) -> None:
    """The first convolution on windows that Triton writes, of any strides."""
    clip = values(2, channels, *size, dtype=torch.float32)
    before = [pad_axis(padding, n, 7, 2, pool=False)[0] for n in size]
    sizes = [output_size(padding, n, 7, 2, pool=False) for n in size]
    ends = (2 * sizes[0] + 5, sizes[1] + 3, -(-sizes[2] // 2), before)
    for x in (clip, clip.contiguous(), clip.half()):
        assert torch.equal(_windows(x, *ends), _windows_of_pytorch(x, *ends))


def test_try_kernels() -> None:
    """The trial before the first use succeeds where the kernels do."""
    dispatch.try_kernels(DEVICE)


def test_unit_with_its_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network fuses the first units with the pools that follow, unless they are wanted."""
    torch.manual_seed(0)
    unit = ConvUnit(Unit("", 8, 16, 3), 8, DEEPMIND).to(DEVICE, EXACT)
    unit.to(memory_format=torch.channels_last_3d)
    x = values(1, 8, 2, 5, 6)
    pool = POOLS["MaxPool3d_3a_3x3"]
    pooled = unit(x, pool)
    monkeypatch.setattr(i3d.kernels, "can_batch_norm", lambda *_: False)
    check(pooled, i3d.max_pool(unit(x), *pool))
