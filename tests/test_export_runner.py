"""Running engines, with a driver and a TensorRT of our own: what is done, and in which order.

Real ones run in `benchmarks/gpu_export.py`, on a GPU.
"""
# ruff: noqa: N802, N815 - names of CUDA and TensorRT

import ctypes
from collections import defaultdict
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from i3dzoo.errors import DeviceError, ShapeError
from i3dzoo.export import cuda
from i3dzoo.export.engine_runner import EngineRunner

SHAPE = (2, 3, 1_000_003)  # more than one thread copies at once, and no whole number of pieces

Work = Callable[[], object]


class _Driver:
    """CUDA's, whose memory is the host's; nothing is done before a stream is waited for."""

    def __init__(self, captures: bool = True) -> None:
        self.memory: dict[int, Any] = {}
        self.queues: dict[int, list[Work]] = defaultdict(list)
        self.graphs: dict[int, list[Work]] = {}
        self.captures, self.capturing = captures, False
        self.log: list[str] = []

    def __call__(self, name: str, *arguments: Any) -> None:
        self.log.append(name)
        known = getattr(self, name.removesuffix("_v2").removesuffix("Async"), None)
        if known is not None:
            known(*arguments)

    def add(self, stream: int, work: Work) -> None:
        self.queues[stream].append(work)

    def cuStreamCreate(self, handle: Any, flags: int) -> None:
        assert flags == 1
        handle._obj.value = self.log.count("cuStreamCreate")

    def cuStreamSynchronize(self, stream: Any) -> None:
        assert not self.capturing
        for work in self.queues.pop(stream.value, []):
            work()

    def cuStreamBeginCapture(self, stream: Any, mode: int) -> None:
        assert mode == 2
        assert not self.queues[stream.value]
        self.capturing = True
        if not self.captures:
            self.capturing = False
            raise DeviceError("operation not permitted when stream is capturing")

    def cuStreamEndCapture(self, stream: Any, graph: Any) -> None:
        self.capturing = False
        graph._obj.value = 100 + len(self.graphs)
        self.graphs[graph._obj.value] = self.queues.pop(stream.value)

    def cuGraphInstantiateWithFlags(self, ready: Any, graph: Any, flags: Any) -> None:
        assert flags.value == 0
        ready._obj.value = graph.value

    def cuGraphLaunch(self, graph: Any, stream: Any) -> None:
        for work in self.graphs[graph.value]:
            self.add(stream.value, work)

    def cuMemAlloc(self, address: Any, size: Any) -> None:
        memory = ctypes.create_string_buffer(size.value)
        address._obj.value = ctypes.addressof(memory)
        self.memory[address._obj.value] = memory

    def cuMemHostAlloc(self, address: Any, size: Any, flags: int) -> None:
        assert flags == 0
        self.cuMemAlloc(address, size)

    def cuMemFree(self, address: Any) -> None:
        del self.memory[address.value]

    cuMemFreeHost = cuMemFree

    def cuMemcpyHtoD(self, target: Any, source: Any, size: Any, stream: Any) -> None:
        to, start, count = target.value, source.value, size.value
        self.add(stream.value, lambda: ctypes.memmove(to, start, count))

    cuMemcpyDtoH = cuMemcpyHtoD


class _Doubling:
    """A TensorRT whose one engine doubles what it is given, and its context."""

    __version__ = "8.6.0"
    Logger = type("Logger", (), {"ERROR": 1, "__init__": lambda *_: None})
    TensorIOMode = SimpleNamespace(INPUT="in")
    num_io_tensors = 2

    def __init__(self, driver: _Driver) -> None:
        self.driver = driver
        self.addresses: dict[str, int] = {}

    def Runtime(self, _: Any) -> Any:
        return SimpleNamespace(deserialize_cuda_engine=lambda data: self if data else None)

    def create_execution_context(self) -> "_Doubling":
        return _Doubling(self.driver)

    def set_input_shape(self, name: str, shape: Any) -> bool:
        return name == "x" and shape == SHAPE

    def get_tensor_name(self, index: int) -> str:
        return "xy"[index]

    def get_tensor_shape(self, _: str) -> Any:
        return SHAPE

    def get_tensor_dtype(self, _: str) -> Any:
        return np.dtype("f4")

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name == "x" else "out"

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        count = int(np.prod(SHAPE))
        x, y = (
            np.frombuffer((ctypes.c_float * count).from_address(self.addresses[name]), "f4")
            for name in "xy"
        )
        self.driver.add(stream, lambda: np.multiply(x, 2, out=y))
        return True


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., EngineRunner]]:
    """Return what makes a runner beside a driver."""

    def runner(driver: _Driver, data: bytes = b"engine", shape: Any = SHAPE) -> EngineRunner:
        monkeypatch.setattr(cuda, "_call", driver)
        cuda.gpu.cache_clear()
        return EngineRunner(_Doubling(driver), data, {"x": shape})

    yield runner
    cuda.gpu.cache_clear()


def clip(seed: int) -> Any:
    """Return an input."""
    return np.random.default_rng(seed).standard_normal(SHAPE, dtype="f4")


@pytest.mark.parametrize("captures", [True, False])
def test_every_batch_is_its_own(make: Callable[..., EngineRunner], captures: bool) -> None:
    """Batches come back in order and whole, two in flight, by a graph or kernel by kernel."""
    driver = _Driver(captures)
    runner = make(driver)
    assert runner.captured is captures
    assert runner.outputs == {"y": SHAPE}
    clips = [clip(seed) for seed in range(5)]
    found = list(runner.stream({"x": each} for each in clips))
    assert len(found) == len(clips)
    for outputs, each in zip(found, clips, strict=True):
        assert outputs["y"] == (2 * each).tobytes()
    assert runner.run({"x": clips[1]})["y"] == (2 * clips[1]).tobytes()
    assert driver.log.count("cuGraphLaunch") == (6 if captures else 0)
    runner.close()
    assert driver.memory == {}


def test_two_are_in_flight(make: Callable[..., EngineRunner]) -> None:
    """The first is waited for only when a third has to have its place."""
    driver = _Driver()
    runner = make(driver)
    waited = []

    def batches() -> Iterator[dict[str, Any]]:
        for seed in range(3):
            waited.append(driver.log.count("cuStreamSynchronize"))
            yield {"x": clip(seed)}

    before = driver.log.count("cuStreamSynchronize")
    assert len(list(runner.stream(batches()))) == 3
    assert waited == [before, before, before]


def test_what_does_not_fit(make: Callable[..., EngineRunner]) -> None:
    """An engine that cannot be loaded, and inputs of other shapes and sizes, are sentences."""
    with pytest.raises(DeviceError, match=r"TensorRT 8\.6\.0 cannot load the engine on this GPU"):
        make(_Driver(), b"")
    with pytest.raises(ShapeError, match=r"was not built for x of shape \[1, 3\]"):
        make(_Driver(), shape=(1, 3))
    runner = make(_Driver())
    with pytest.raises(ShapeError, match="x has 24000068 bytes; the engine takes 24000072"):
        runner.run({"x": clip(0).ravel()[:-1]})
