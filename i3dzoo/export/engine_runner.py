"""Running TensorRT engines: pinned buffers, one CUDA graph a batch, copies under computation.

Bytes in, bytes out, and no import but NumPy's and the standard library's, so that a bare Python
beside the GPU can use it too.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from i3dzoo.errors import DeviceError, ShapeError
from i3dzoo.export.cuda import Buffer, Graph, Stream

__all__ = ["EngineRunner"]

Shapes = dict[str, tuple[int, ...]]


class EngineRunner:
    """An engine on the GPU.

    Args:
        trt: The module `tensorrt` or `tensorrt_rtx_bindings`.
        data: The engine.
        shapes: Of the inputs, by name; they stay the same, so that everything is set up once.
        slots: Batches in flight: with two, one is copied while the other is computed.

    Attributes:
        outputs: Shapes of the outputs, by name.
        captured: Whether a CUDA graph is used; without, kernels are launched one by one.

    Raises:
        DeviceError: There is no GPU, or it cannot run the engine.
        ShapeError: The engine was not built for these shapes.
    """

    def __init__(self, trt: Any, data: bytes, shapes: Shapes, slots: int = 2) -> None:
        self._log = trt.Logger(trt.Logger.ERROR)
        first = Stream()  # before TensorRT looks for a context
        self._runtime = trt.Runtime(self._log)
        if hasattr(self._runtime, "engine_host_code_allowed"):
            self._runtime.engine_host_code_allowed = True  # version-compatible engines carry code
        self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise DeviceError(
                f"TensorRT {trt.__version__} cannot load the engine on this GPU; build it here"
            )
        streams = [first, *(Stream() for _ in range(slots - 1))]
        self._slots = [_Slot(trt, self._engine, shapes, stream) for stream in streams]
        self.outputs = self._slots[0].outputs
        self.captured = self._slots[0].graph is not None

    def run(self, inputs: Mapping[str, Any]) -> dict[str, bytes]:
        """Run one batch and wait for it.

        Args:
            inputs: A buffer of bytes for each input, by name.

        Raises:
            ShapeError: A buffer has another size than its input.
        """
        slot = self._slots[0]
        slot.start(inputs)
        return slot.finish()

    def stream(self, batches: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, bytes]]:
        """Run batches one after another and yield their outputs in order.

        While one is computed, the next is copied to the GPU and the one before it back.
        """
        flying: deque[_Slot] = deque()
        idle = deque(self._slots)
        for inputs in batches:
            if not idle:
                done = flying.popleft()
                yield done.finish()
                idle.append(done)
            slot = idle.popleft()
            slot.start(inputs)
            flying.append(slot)
        for slot in flying:
            yield slot.finish()

    def close(self) -> None:
        """Give the memory on the GPU back."""
        for slot in self._slots:
            slot.close()


class _Slot:
    """What one batch in flight needs: a stream, a context, buffers, and a graph of its work."""

    def __init__(self, trt: Any, engine: Any, shapes: Shapes, stream: Stream) -> None:
        self._stream = stream
        self._context = engine.create_execution_context()
        if self._context is None:
            raise DeviceError("the GPU has not enough memory for the engine")
        self._in: dict[str, Buffer] = {}
        self._out: dict[str, Buffer] = {}
        self.outputs: Shapes = {}
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise ShapeError(f"the engine was not built for {name} of shape {list(shape)}")
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            shape = tuple(self._context.get_tensor_shape(name))
            size = engine.get_tensor_dtype(name).itemsize
            for axis in shape:
                size *= axis
            buffer = Buffer(int(size))
            if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
                self._in[name] = buffer
            else:
                self._out[name] = buffer
                self.outputs[name] = shape
            self._context.set_tensor_address(name, buffer.device)
        self.graph = self._capture()

    def start(self, inputs: Mapping[str, Any]) -> None:
        for name, buffer in self._in.items():
            given = memoryview(inputs[name])
            if given.nbytes != buffer.size:
                raise ShapeError(f"{name} has {given.nbytes} bytes; the engine takes {buffer.size}")
            buffer.fill(given)
        if self.graph is None:
            self._enqueue()
        else:
            self.graph.launch(self._stream)

    def finish(self) -> dict[str, bytes]:
        self._stream.synchronize()
        return {name: bytes(buffer.host) for name, buffer in self._out.items()}

    def close(self) -> None:
        if self.graph is not None:
            self.graph.close()
        for buffer in (*self._in.values(), *self._out.values()):
            buffer.close()

    def _enqueue(self) -> None:
        for buffer in self._in.values():
            buffer.upload(self._stream)
        if not self._context.execute_async_v3(self._stream.handle.value):
            raise DeviceError("the engine failed; see TensorRT's own message above")
        for buffer in self._out.values():
            buffer.download(self._stream)

    def _capture(self) -> Graph | None:
        self._enqueue()  # the first run sets up what a graph may not
        self._stream.synchronize()
        try:
            self._stream.begin_capture()
            self._enqueue()
            return self._stream.end_capture()
        except DeviceError:
            # engines with steps on the host cannot be captured, and run as well without
            return None
