"""The rules by which `auto` chooses the engine of a checkpoint, from what a machine has."""

import importlib.util
import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal

import torch

from i3dzoo.engines.torch import has_bf16
from i3dzoo.errors import OptionError
from i3dzoo.kernels.tiles import TIMED_ON
from i3dzoo.network.fused import MINIMUM
from i3dzoo.onnx.options import Precision

VARIABLE: Final = "I3DZOO_ENGINE"
"""The environment variable with the engine that `auto` takes for checkpoints."""

OnGpu = Literal["torch", "fused"]
OnCpu = Literal["torch", "onnxruntime", "openvino"]

_MODULES: Final[dict[OnCpu, tuple[str, ...]]] = {
    "openvino": ("openvino", "onnx"),
    "onnxruntime": ("onnxruntime", "onnx"),
    "torch": (),
}


@dataclass(frozen=True)
class GPU:
    """A GPU that PyTorch finds; AMD's have compute capabilities too, with another meaning."""

    name: str
    capability: tuple[int, int]
    nvidia: bool = True


def current_gpu() -> GPU:
    """Return the GPU that PyTorch runs on."""
    nvidia = torch.version.hip is None
    return GPU(torch.cuda.get_device_name(), torch.cuda.get_device_capability(), nvidia)


def is_installed(*modules: str) -> bool:
    """Whether all of these modules can be imported."""
    return all(importlib.util.find_spec(module) is not None for module in modules)


def choose_on_gpu(gpu: GPU, triton: bool, precision: Precision | None) -> tuple[OnGpu, str]:
    """Return the engine for a GPU, and a remark on it, which can be empty.

    Args:
        gpu: The GPU.
        triton: Whether Triton is installed.
        precision: The precision that the user wants, if any.
    """
    if precision not in (None, "fp16", "bf16"):
        return "torch", ""
    if not gpu.nvidia:
        reason = f"{gpu.name} is not a GPU of NVIDIA"
    elif gpu.capability < MINIMUM:
        major, minor = gpu.capability
        least = ".".join(map(str, MINIMUM))
        reason = f"{gpu.name} has compute capability {major}.{minor}, expected {least} or more"
    elif not triton:
        reason = "Triton is not installed"
    elif gpu.capability == TIMED_ON:
        return "fused", ""
    else:
        return "fused", f"the engine fused was not timed on {gpu.name}; PyTorch is --engine torch"
    remedy = "" if precision else "; --precision fp16 is faster, and less exact"
    return "torch", f"PyTorch runs the network instead of the engine fused: {reason}{remedy}"


def cpu_candidates(here: Collection[OnCpu], precision: Precision | None) -> tuple[OnCpu, ...]:
    """Return the engines that may run a checkpoint on a CPU, the likely fastest first.

    Args:
        here: The engines that run on this CPU.
        precision: The precision that the user wants; None is float32.
    """
    in_bf16: tuple[OnCpu, ...] = ("openvino", "torch")
    possible = in_bf16 if precision == "bf16" else tuple(_MODULES)
    return tuple(name for name in possible if name in here)


def engines_here(precision: Precision | None) -> set[OnCpu]:
    """Return the engines whose packages are installed, and which have this precision here."""
    here: set[OnCpu] = {name for name, modules in _MODULES.items() if is_installed(*modules)}
    if precision == "bf16" and not has_bf16():
        here.remove("torch")
    if precision == "bf16" and "openvino" in here:
        from i3dzoo.engines import openvino

        return here if openvino.has_bf16() else here - {"openvino"}
    return here


def preferred() -> OnCpu | OnGpu | None:
    """Return the engine in the environment variable `I3DZOO_ENGINE`, if it is set.

    Raises:
        OptionError: It is not an engine for checkpoints.
    """
    name = os.environ.get(VARIABLE) or "auto"
    known: tuple[OnCpu | OnGpu, ...] = ("torch", "fused", "onnxruntime", "openvino")
    if name != "auto" and name not in known:
        raise OptionError(
            f"the environment variable {VARIABLE}: expected auto, {', '.join(known[:-1])} or "
            f"{known[-1]}, found {name!r}"
        )
    return next((engine for engine in known if engine == name), None)
