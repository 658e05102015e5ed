"""The few calls of CUDA's driver that an engine needs, by ctypes: no toolkit and no torch.

Source: docs.nvidia.com/cuda/cuda-driver-api; names with `_v2` are what its header maps the plain
names to.
"""

import ctypes
import functools
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from i3dzoo.errors import DeviceError

__all__ = ["Buffer", "Event", "Gpu", "Graph", "Stream", "gpu"]

_Handle = ctypes.c_void_p
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_PIECE = 4 << 20  # bytes that one thread copies at a time
_RELAXED = 2  # CU_STREAM_CAPTURE_MODE_RELAXED: TensorRT may allocate while it is captured


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        name: As the driver calls it.
        capability: Compute capability, such as `9.0`.
    """

    name: str
    capability: str

    def __str__(self) -> str:
        return f"{self.name} ({self.capability})"


@functools.cache
def gpu() -> Gpu:
    """Return the first GPU, after making its primary context current.

    Raises:
        DeviceError: There is no driver, or no GPU.
    """
    _call("cuInit", 0)
    device = ctypes.c_int()
    _call("cuDeviceGet", ctypes.byref(device), 0)
    name = ctypes.create_string_buffer(128)
    _call("cuDeviceGetName", name, 128, device)
    version = []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int()
        _call("cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
        version.append(value.value)
    context = _Handle()
    _call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    _call("cuCtxSetCurrent", context)
    return Gpu(name.value.decode(), "{}.{}".format(*version))


class Stream:
    """Work in order; work of different streams may overlap."""

    def __init__(self) -> None:
        gpu()
        self.handle = _Handle()
        _call("cuStreamCreate", ctypes.byref(self.handle), 1)  # does not wait for stream 0

    def synchronize(self) -> None:
        """Wait until all of its work is done."""
        _call("cuStreamSynchronize", self.handle)

    def begin_capture(self) -> None:
        """From now on, record work instead of doing it."""
        _call("cuStreamBeginCapture_v2", self.handle, _RELAXED)

    def end_capture(self) -> "Graph":
        """Return what was recorded, ready to be launched as one.

        Raises:
            DeviceError: Something cannot be recorded.
        """
        graph, ready = _Handle(), _Handle()
        _call("cuStreamEndCapture", self.handle, ctypes.byref(graph))
        _call("cuGraphInstantiateWithFlags", ctypes.byref(ready), graph, ctypes.c_ulonglong(0))
        _call("cuGraphDestroy", graph)
        return Graph(ready)


@dataclass(frozen=True)
class Graph:
    """Recorded work."""

    handle: _Handle

    def launch(self, stream: Stream) -> None:
        """Do it all."""
        _call("cuGraphLaunch", self.handle, stream.handle)

    def close(self) -> None:
        """Give its memory back."""
        _call("cuGraphExecDestroy", self.handle)


class Event:
    """A moment in a stream."""

    def __init__(self) -> None:
        self.handle = _Handle()
        _call("cuEventCreate", ctypes.byref(self.handle), 0)

    def record(self, stream: Stream) -> None:
        """Set the moment to when the stream's work so far is done."""
        _call("cuEventRecord", self.handle, stream.handle)

    def milliseconds_since(self, start: "Event") -> float:
        """Wait for this moment and return how long after `start` it is."""
        _call("cuEventSynchronize", self.handle)
        value = ctypes.c_float()
        _call("cuEventElapsedTime", ctypes.byref(value), start.handle, self.handle)
        return value.value


class Buffer:
    """Memory on the GPU, and as much pinned memory here, between which copies do not stop others.

    Args:
        size: Bytes.
    """

    def __init__(self, size: int) -> None:
        gpu()
        self.size = size
        device = ctypes.c_uint64()
        _call("cuMemAlloc_v2", ctypes.byref(device), ctypes.c_size_t(size))
        self.device = device.value
        self._pinned = _Handle()
        _call("cuMemHostAlloc", ctypes.byref(self._pinned), ctypes.c_size_t(size), 0)
        self.host = memoryview((ctypes.c_ubyte * size).from_address(self._pinned.value or 0)).cast(
            "B"
        )

    def fill(self, data: Any) -> None:
        """Copy a buffer of as many bytes here, by several threads: one is slower than the GPU."""
        source, target = np.frombuffer(data, "u1"), np.frombuffer(self.host, "u1")
        starts = range(0, self.size, _PIECE)
        pieces = [slice(start, start + _PIECE) for start in starts]
        for _ in _copiers().map(lambda piece: np.copyto(target[piece], source[piece]), pieces):
            pass

    def upload(self, stream: Stream) -> None:
        """Copy from here to the GPU, in the stream's order."""
        arguments = ctypes.c_uint64(self.device), self._pinned, ctypes.c_size_t(self.size)
        _call("cuMemcpyHtoDAsync_v2", *arguments, stream.handle)

    def download(self, stream: Stream) -> None:
        """Copy from the GPU to here, in the stream's order."""
        arguments = self._pinned, ctypes.c_uint64(self.device), ctypes.c_size_t(self.size)
        _call("cuMemcpyDtoHAsync_v2", *arguments, stream.handle)

    def close(self) -> None:
        """Give the memory back."""
        _call("cuMemFree_v2", ctypes.c_uint64(self.device))
        _call("cuMemFreeHost", self._pinned)


@functools.cache
def _copiers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(16, os.cpu_count() or 1), "i3dzoo-copy")


@functools.cache
def _driver() -> ctypes.CDLL:
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise DeviceError(
            f"there is no NVIDIA driver here ({name} cannot be loaded), and TensorRT engines run "
            "on NVIDIA GPUs only; take the checkpoint that it was made from, or an .onnx file"
        ) from error


def _call(name: str, *arguments: object) -> None:
    status = getattr(_driver(), name)(*arguments)
    if status:
        text = ctypes.c_char_p()
        _driver().cuGetErrorString(status, ctypes.byref(text))
        reason = text.value.decode() if text.value else f"error {status}"
        raise DeviceError(f"the GPU's driver failed in {name}: {reason}")
