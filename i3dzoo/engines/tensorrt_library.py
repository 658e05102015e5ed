"""The installed TensorRT, and the GPU that it runs on."""

import importlib
from dataclasses import dataclass
from typing import Any, Final

import torch

from i3dzoo.errors import DependencyError, DeviceError
from i3dzoo.records import Record

RTX: Final = "tensorrt-rtx"
MODULES: Final = {"tensorrt": "tensorrt", "tensorrt_rtx": RTX, "tensorrt_rtx_bindings": RTX}


class Gpu(Record, frozen=True):
    """A GPU: the driver's name of it, and its compute capability, such as `9.0`."""

    name: str
    capability: str

    def __str__(self) -> str:
        return f"{self.name} ({self.capability})"


def gpu() -> Gpu:
    """Return PyTorch's current GPU; raise DeviceError if there is none, or no CUDA."""
    if not torch.cuda.is_available():
        reason = (
            f"PyTorch {torch.__version__} is built without CUDA"
            if torch.version.cuda is None
            else "PyTorch finds no NVIDIA GPU"
        )
        raise DeviceError(
            f"{reason}, and TensorRT engines run on a GPU through PyTorch's CUDA; use the "
            "checkpoint or an .onnx file, or install PyTorch with CUDA beside a GPU"
        )
    return Gpu(torch.cuda.get_device_name(), "{}.{}".format(*torch.cuda.get_device_capability()))


def gpu_or_none() -> Gpu | None:
    """Return PyTorch's current GPU, or None if there is none."""
    try:
        return gpu()
    except DeviceError:
        return None


@dataclass(frozen=True)
class Library:
    """The installed package of TensorRT, and its module."""

    name: str
    version: str
    module: Any

    @property
    def typed(self) -> bool:
        """Whether precision is the types in the graph (9 and later), not flags of the builder."""
        return hasattr(self.module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def library() -> Library:
    """Return the installed TensorRT; `tensorrt` comes before `tensorrt-rtx`."""
    for name, package in MODULES.items():
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        return Library(package, module.__version__, module)
    raise DependencyError(
        "TensorRT engines need TensorRT: pip install 'i3dzoo[tensorrt]', or the tensorrt package "
        "for your GPU"
    )


def check_gpu(library: str, what: str) -> Gpu:
    """Return the GPU, if a library supports it; `what` is the engine or option, for the message."""
    here = gpu()
    if library == RTX and here.capability.startswith(("9.", "10.")):
        raise DeviceError(
            f"{what}: {RTX} runs on compute capability 7.5, 8.x and 12.x, and this GPU is {here}; "
            "build with the full tensorrt package here"
        )
    return here


def logger(trt: Any) -> Any:
    """Return a logger that prints nothing and keeps the last error, for messages."""

    class Logger(trt.ILogger):  # type: ignore[misc] # the module is found at run time
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.last = message

    return Logger()
