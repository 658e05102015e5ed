"""Run TensorRT engines on `torch.cuda`: pinned buffers, CUDA graphs, and copies during computation.

Source: docs.nvidia.com/deeplearning/tensorrt, "Performing Inference" and "CUDA Graphs".
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from i3dzoo.arrays import Array
from i3dzoo.errors import DeviceError, ShapeError

Shapes = dict[str, tuple[int, ...]]

_DTYPES: Final = {"FLOAT": torch.float32, "UINT8": torch.uint8}
"""PyTorch's names of the types that the inputs and outputs of i3dzoo's exports have."""


class TensorRTSession:
    """An engine on the GPU, set up once for inputs of fixed shapes.

    Args:
        trt: The module `tensorrt` or `tensorrt_rtx_bindings`.
        plan: The serialized engine.
        shapes: Shape of each input, by name.
        slots: Batches in flight: with two, one is copied while the other is computed.

    Attributes:
        captured: Whether a batch is one CUDA graph; otherwise its kernels are launched one by one.

    Raises:
        DeviceError: The GPU cannot run the engine.
        ShapeError: The engine was not built for these shapes.
    """

    def __init__(self, trt: Any, plan: bytes, shapes: Shapes, slots: int = 2) -> None:
        streams = [_stream() for _ in range(slots)]  # first: TensorRT needs a CUDA context
        self._log = trt.Logger(trt.Logger.ERROR)
        self._runtime = trt.Runtime(self._log)
        if hasattr(self._runtime, "engine_host_code_allowed"):
            self._runtime.engine_host_code_allowed = True  # version-compatible engines carry code
        self.engine = self._runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            raise DeviceError(
                f"TensorRT {trt.__version__} cannot load the engine on this GPU; build it here"
            )
        self._slots = [_Slot(trt, self.engine, shapes, stream) for stream in streams]
        self.captured = self._slots[0].graph is not None

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch and wait for it; raise ShapeError if a shape or type does not fit."""
        self._slots[0].start(inputs)
        return self._slots[0].finish()

    def run_all(self, batches: Iterable[Mapping[str, Array]]) -> Iterator[dict[str, Array]]:
        """Run batches in order; the next is prepared and copied while one is computed."""
        running: deque[_Slot] = deque()
        idle = deque(self._slots)
        for inputs in batches:
            if not idle:
                slot = running.popleft()
                yield slot.finish()
                idle.append(slot)
            slot = idle.popleft()
            slot.start(inputs)
            running.append(slot)
        for slot in running:
            yield slot.finish()


def _stream() -> torch.cuda.Stream:
    return torch.cuda.Stream()  # type: ignore[no-untyped-call] # PyTorch's


class _Buffer(NamedTuple):
    """Memory on the GPU, and pinned memory of the same shape on the host."""

    host: Tensor
    device: Tensor


class _Slot:
    """The stream, context, buffers and CUDA graph of one batch in flight."""

    def __init__(self, trt: Any, engine: Any, shapes: Shapes, stream: torch.cuda.Stream) -> None:
        self._stream = stream
        self._context = engine.create_execution_context()
        if self._context is None:
            raise DeviceError("the GPU has not enough memory for the engine")
        self._inputs: dict[str, _Buffer] = {}
        self._outputs: dict[str, _Buffer] = {}
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise ShapeError(f"the engine was not built for {name} of shape {list(shape)}")
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            shape = tuple(self._context.get_tensor_shape(name))
            dtype = _DTYPES[engine.get_tensor_dtype(name).name]
            buffer = _Buffer(
                torch.empty(shape, dtype=dtype, pin_memory=True),
                torch.empty(shape, dtype=dtype, device="cuda"),
            )
            is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            (self._inputs if is_input else self._outputs)[name] = buffer
            self._context.set_tensor_address(name, buffer.device.data_ptr())
        self.graph = self._capture()

    def start(self, inputs: Mapping[str, Array]) -> None:
        """Copy a batch to pinned memory, and let the GPU begin."""
        for name, (host, _) in self._inputs.items():
            given = torch.from_numpy(np.require(inputs[name], requirements=["C", "W"]))
            if (given.shape, given.dtype) != (host.shape, host.dtype):
                raise ShapeError(
                    f"{name} is {given.dtype} {list(given.shape)}; the engine takes {host.dtype} "
                    f"{list(host.shape)}"
                )
            host.copy_(given)  # in several threads: one is slower than the GPU
        with torch.cuda.stream(self._stream):
            if self.graph is None:
                self._enqueue()
            else:
                self.graph.replay()

    def finish(self) -> dict[str, Array]:
        """Wait for the batch and return its outputs."""
        self._stream.synchronize()
        return {name: buffer.host.numpy().copy() for name, buffer in self._outputs.items()}

    def _enqueue(self) -> None:
        for host, device in self._inputs.values():
            device.copy_(host, non_blocking=True)
        if not self._context.execute_async_v3(self._stream.cuda_stream):
            raise DeviceError("TensorRT could not run the engine; see its message above")
        for host, device in self._outputs.values():
            host.copy_(device, non_blocking=True)

    def _capture(self) -> torch.cuda.CUDAGraph | None:
        with torch.cuda.stream(self._stream):
            self._enqueue()  # the first run sets up what cannot be captured
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            # relaxed: TensorRT may allocate memory during the capture
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="relaxed"):
                self._enqueue()
        except RuntimeError:  # engines with steps on the host cannot be captured, and run without
            return None
        return graph
