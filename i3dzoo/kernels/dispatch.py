"""Decide whether a tensor takes the kernels of this package or PyTorch's own."""

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
