"""Decide whether a tensor takes the kernels of this package or PyTorch's own."""

import contextlib
import functools
import importlib.util
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_enabled = True


def set_enabled(enabled: bool) -> None:
    """Use the kernels of this package from now on, or only PyTorch's own, for comparisons."""
    global _enabled
    _enabled = enabled


def use_kernels(x: Tensor) -> bool:
    """Whether the kernels are enabled and fit a tensor: on a GPU, outside tracing and compiling."""
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call] # a public function
    return _enabled and x.is_cuda and not torch.compiler.is_compiling() and not tracing


def use_triton(x: Tensor) -> bool:
    """Whether the Triton kernels fit a tensor: floats in channels-last order, on a GPU that has it.

    `x` is [B, C, T, H, W]; float64 is PyTorch's.
    """
    return (
        use_kernels(x)
        and x.dtype in (torch.float16, torch.bfloat16, torch.float32)
        and x.is_contiguous(memory_format=torch.channels_last_3d)
        and has_triton(x.device)
    )


@functools.cache
def has_triton(device: torch.device) -> bool:
    """Whether a GPU runs Triton kernels; tries once, and warns if they fail."""
    if torch.cuda.get_device_capability(device) < (7, 0) or not importlib.util.find_spec("triton"):
        return False
    try:
        try_kernels(device)
    except Exception as error:  # of the compiler, of the driver, of another version of Triton
        first_line = str(error).strip().partition("\n")[0][:200]
        warnings.warn(
            f"i3dzoo's GPU kernels do not run here ({type(error).__name__}: {first_line}); "
            "PyTorch's own take longer",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


def try_kernels(device: torch.device) -> None:
    """Run two small kernels, which need a compiler and what Triton's language has of late."""
    from i3dzoo.kernels import _batch_norm_triton, _max_pool_triton

    x, y, inputs = (torch.ones((16, 8), device=device) for _ in range(3))
    stats = torch.ones((4, 8), device=device)
    taps = torch.empty((16, 8), dtype=torch.uint8, device=device)
    with current_device(x):
        _batch_norm_triton.normalise[(1,)](x, y, stats, 16, 1, 1, 1, 1, 16, 8)
        window = (1, 1, 16, 0, 0, 0, 1, *(1,) * 6)
        _max_pool_triton.max_pool_forward[(1, 1, 1)](
            y, x, taps, inputs, stats, 1, 1, 16, 8, *window, True, True, 1, 16, 8
        )
    if float(x.sum()) != 3.0 * x.numel():
        raise RuntimeError("a result is wrong")


def current_device(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Launch kernels on the GPU of a tensor; a tensor on a CPU is for Triton's interpreter."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """Return the type of sums and statistics of values of a type."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def triton_dtype(dtype: torch.dtype) -> Any:
    """Return Triton's name of a type."""
    import triton.language as tl

    return getattr(tl, str(dtype).removeprefix("torch."))


def empty(shape: Sequence[int], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return an uninitialised [B, C, T, H, W] in channels-last order, on the device of another."""
    return torch.empty(
        tuple(shape),
        dtype=dtype or like.dtype,
        device=like.device,
        memory_format=torch.channels_last_3d,
    )
