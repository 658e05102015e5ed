"""Run TensorRT engines on a real GPU, with a stand-in for TensorRT itself.

`benchmarks/gpu_export.py` runs real engines.
"""
# ruff: noqa: D102, N802 - TensorRT's methods

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from i3dzoo.engines.tensorrt_library import gpu
from i3dzoo.engines.tensorrt_session import TensorRTSession
from i3dzoo.errors import DeviceError, ShapeError

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

SHAPE = (2, 3, 1_000_003)


class Doubling:
    """A TensorRT whose engine returns its input times two, and the context of that engine.

    Args:
        capturable: Whether the engine can be captured in a CUDA graph.
    """

    __version__ = "8.6.0"
    Logger = type("Logger", (), {"ERROR": 1, "__init__": lambda *_: None})
    TensorIOMode = SimpleNamespace(INPUT="in")
    num_io_tensors = 2

    def __init__(self, capturable: bool = True) -> None:
        self.capturable = capturable
        self.addresses: dict[str, int] = {}

    def Runtime(self, _: Any) -> Any:
        return SimpleNamespace(deserialize_cuda_engine=lambda plan: self if plan else None)

    def create_execution_context(self) -> "Doubling":
        return Doubling(self.capturable)

    def set_input_shape(self, name: str, shape: Any) -> bool:
        return name == "x" and shape == SHAPE

    def get_tensor_name(self, index: int) -> str:
        return "xy"[index]

    def get_tensor_shape(self, _: str) -> Any:
        return SHAPE

    def get_tensor_dtype(self, _: str) -> Any:
        return SimpleNamespace(name="FLOAT")

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name == "x" else "out"

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        x, y = (self._tensor(name) for name in "xy")
        with torch.cuda.stream(torch.cuda.ExternalStream(stream)):  # type: ignore[no-untyped-call] # PyTorch's
            if not self.capturable:
                torch.cuda.current_stream().synchronize()
            torch.mul(x, 2, out=y)
        return True

    def _tensor(self, name: str) -> torch.Tensor:
        memory = {"shape": SHAPE, "typestr": "<f4", "data": (self.addresses[name], False)}
        interface = SimpleNamespace(__cuda_array_interface__=memory | {"version": 3})
        return torch.as_tensor(interface, device="cuda")


def session(trt: Doubling, plan: bytes = b"plan", shape: Any = SHAPE) -> TensorRTSession:
    """Return a session of the engine."""
    return TensorRTSession(trt, plan, {"x": shape})


def clip(seed: int) -> Any:
    """Return an input."""
    return np.random.default_rng(seed).standard_normal(SHAPE, dtype="f4")


@on_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("capturable", [True, False])
def test_batches_come_back_in_order(capturable: bool) -> None:
    """Every batch returns its own output, with a CUDA graph and without."""
    runner = session(Doubling(capturable))
    assert runner.captured is capturable
    clips = [clip(seed) for seed in range(5)]
    outputs = list(runner.run_all({"x": x} for x in clips))
    assert len(outputs) == len(clips)
    for output, x in zip(outputs, clips, strict=True):
        np.testing.assert_array_equal(output["y"], 2 * x)
    np.testing.assert_array_equal(runner.run({"x": clips[1]})["y"], 2 * clips[1])


@on_gpu
@pytest.mark.gpu
def test_two_batches_are_in_flight() -> None:
    """The first output comes only after the third batch was taken."""
    taken: list[int] = []

    def batches() -> Iterator[dict[str, Any]]:
        for seed in range(4):
            taken.append(seed)
            yield {"x": clip(seed)}

    outputs = session(Doubling()).run_all(batches())
    np.testing.assert_array_equal(next(outputs)["y"], 2 * clip(0))
    assert taken == [0, 1, 2]
    assert len(list(outputs)) == 3


@on_gpu
@pytest.mark.gpu
def test_errors() -> None:
    """An engine that cannot be loaded, and inputs of other shapes and types, are refused."""
    with pytest.raises(DeviceError, match=r"TensorRT 8\.6\.0 cannot load the engine"):
        session(Doubling(), b"")
    with pytest.raises(ShapeError, match=r"not built for x of shape \[1, 3\]"):
        session(Doubling(), shape=(1, 3))
    runner = session(Doubling())
    with pytest.raises(ShapeError, match=r"x is torch\.float32 \[2, 3, 1\]; .*\[2, 3, 1000003\]"):
        runner.run({"x": clip(0)[..., :1]})
    with pytest.raises(ShapeError, match=r"x is torch\.float64 .* takes torch\.float32"):
        runner.run({"x": clip(0).astype("f8")})


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_no_gpu() -> None:
    """Without CUDA in PyTorch, or without a GPU, the message names the reason and a remedy."""
    with pytest.raises(DeviceError, match=r"PyTorch .*; use the checkpoint or an \.onnx file"):
        gpu()
