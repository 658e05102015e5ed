"""Precisions, engine by engine; every engine of a checkpoint returns the same numbers."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.exported import onnx_engine
from torch import Tensor

from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.engines import choose, openvino
from i3dzoo.engines import torch as torch_engine
from i3dzoo.engines.base import as_engine, load_engine
from i3dzoo.errors import MetadataError, OptionError, ShapeError, UnknownNameError
from i3dzoo.onnx.model import build_model
from i3dzoo.onnx.options import ExportOptions
from i3dzoo.pretrained import InceptionI3d, build

CPU = pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")


def clips(batch: int, *size: int) -> Tensor:
    """Return clips of noise."""
    return torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def error(output: Tensor, expected: Tensor) -> float:
    """Return the difference as a part of the norm."""
    return float((output - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_engines_agree(rgb: Checkpoint, rgb_file: Path, name: Any) -> None:
    """Logits and the features of every endpoint are PyTorch's in float64, for clips of any size."""
    exact = build(rgb).double()
    engine = load_engine(rgb_file, name)
    assert (engine.name, engine.precision) == (name, "fp32")
    for x in (clips(1, 16, 32, 32), clips(2, 9, 45, 37)):
        with torch.inference_mode():
            assert error(engine.step_logits(x), exact.step_logits(x.double())) < 1e-5
            assert error(engine.features(x), exact.features(x.double())) < 1e-5
    with torch.inference_mode():
        expected = exact.endpoints(x.double())
    for endpoint in ("Conv3d_1a_7x7", "Mixed_4f"):
        (features,) = engine.stream([x], endpoint)
        assert error(features, expected[endpoint].mean((2, 3, 4))) < 1e-5
    with pytest.raises(UnknownNameError, match="no endpoint 'Mixed_9z'"):
        engine.check_endpoint("Mixed_9z")
    with pytest.raises(ShapeError, match=r"input_rgb has shape \[1, 2, 16, 32, 32\]"):
        engine.step_logits(clips(1, 16, 32, 32)[:, :2])


def test_signals_after_openvino(rgb_file: Path) -> None:
    """An engine of OpenVINO that another thread drops leaves signals as they were."""
    code = """
import gc, signal, sys, threading
from i3dzoo.engines.base import load_engine
engines = [load_engine(sys.argv[1], "openvino", "cpu")]
thread = threading.Thread(target=lambda: (engines.clear(), gc.collect()))
thread.start()
thread.join()
signal.signal(signal.SIGINT, lambda *_: print("handled"))
signal.raise_signal(signal.SIGINT)
"""
    words = [sys.executable, "-c", code, rgb_file]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "handled\n"), result.stderr


def test_openvino_runs_exports(rgb: Checkpoint, tmp_path: Path) -> None:
    """An .onnx file runs in OpenVINO on request, if it is one of i3dzoo."""
    path = tmp_path / "x.onnx"
    path.write_bytes(build_model([rgb], ExportOptions(steps=True)).SerializeToString())
    x = clips(1, 16, 32, 32)
    engine = load_engine(path, "openvino")
    assert isinstance(engine, openvino.OpenVINOEngine)
    torch.testing.assert_close(engine.step_logits(x), load_engine(path).step_logits(x))
    with pytest.raises(UnknownNameError, match="returns the endpoint pooled, not Mixed_4f"):
        engine.check_endpoint("Mixed_4f")
    with pytest.raises(OptionError, match=r"x\.onnx: was exported in fp32, so .* in bf16"):
        load_engine(path, precision="bf16")
    assert load_engine(path, precision="fp32").name == "onnxruntime"
    path.write_bytes(b"\x08\x07")
    with pytest.raises(MetadataError, match="has no description by i3dzoo"):
        load_engine(path, "openvino")


@CPU
@pytest.mark.parametrize(
    ("engine", "precision", "message"),
    [
        ("auto", "fp16", "device cpu, PyTorch computes in fp32 or bf16, not in fp16"),
        ("torch", "tf32", "device cpu, PyTorch computes in fp32 or bf16, not in tf32"),
        (
            "fused",
            "tf32",
            "the engine fused computes in fp16 or bf16, not in tf32; use --engine torch",
        ),
        ("fused", "fp16", "needs Triton and an NVIDIA GPU"),
        ("onnxruntime", "bf16", "runs checkpoints in fp32 on a CPU, not in bf16; export"),
        ("openvino", "fp16", "openvino computes in fp32 or bf16, not in fp16"),
    ],
)
def test_refusals(rgb_file: Path, engine: Any, precision: Any, message: str) -> None:
    """What an engine cannot compute in is refused in one sentence, with what it can."""
    with pytest.raises(OptionError, match=re.escape(message)):
        load_engine(rgb_file, engine, precision=precision)


@pytest.mark.parametrize(
    ("engine", "missing"),
    [
        ("openvino", openvino.has_bf16() and "this CPU has bfloat16"),
        ("torch", torch_engine.has_bf16() and "this CPU has bfloat16"),
    ],
)
def test_no_bf16(
    rgb_file: Path, monkeypatch: pytest.MonkeyPatch, engine: Any, missing: str | bool
) -> None:
    """Where bf16 would be float32, or slower than float32, it is refused."""
    if missing:
        pytest.skip(str(missing))
    monkeypatch.delenv(choose.VARIABLE)
    for name in (engine, "auto"):
        with pytest.raises(OptionError, match="this CPU has no instructions for bfloat16"):
            load_engine(rgb_file, name, "cpu", precision="bf16")


def test_bf16_on_a_cpu(rgb_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """bf16 returns float32 logits with an error, and takes the engines that have it."""
    x = clips(1, 9, 32, 32)
    exact = load_engine(rgb_file, "torch", "cpu").step_logits(x)
    engines: list[Any] = ["openvino"] if openvino.has_bf16() else []
    monkeypatch.setattr(torch_engine, "has_bf16", lambda: True)
    for name in ("torch", *engines):
        engine = load_engine(rgb_file, name, "cpu", precision="bf16")
        assert (engine.name, engine.precision) == (name, "bf16")
        logits = engine.step_logits(x)
        assert logits.dtype == torch.float32
        assert 1e-4 < error(logits, exact) < 5e-2


@CPU
def test_optimize(rgb: Checkpoint) -> None:
    """On a CPU, the optimised network is a copy in channels-last order, in float32 or bf16."""
    network = build(rgb).train()
    x = clips(1, 16, 32, 32)
    optimized = network.optimize()
    assert isinstance(optimized, InceptionI3d)
    assert not optimized.training
    assert network.training
    assert optimized.metadata == network.metadata
    weight = optimized.get_parameter("Conv3d_2c_3x3.conv.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert not weight.requires_grad
    expected = network.eval()(x).detach()
    torch.testing.assert_close(optimized(x), expected, rtol=1e-4, atol=1e-5)
    half = network.optimize(torch.bfloat16)
    assert as_engine(half).precision == "bf16"  # type: ignore[arg-type] # a network on a CPU
    assert 1e-4 < error(half(x).float(), expected) < 5e-2
    with pytest.raises(OptionError, match=r"expected torch\.float32 or torch\.bfloat16 on the dev"):
        network.optimize(torch.float16)


def test_exports_keep_their_precision(rgb: Checkpoint) -> None:
    """The precision of an exported file is that of its weights."""
    assert onnx_engine([rgb], ExportOptions(precision="fp16")).precision == "fp16"
