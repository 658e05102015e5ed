"""`i3dzoo bench`: real engines in processes of their own, failures, the plot."""

import dataclasses
import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.cli import run
from helpers.exported import noisy
from helpers.processes import CONTEXT

from i3dzoo import bench
from i3dzoo.bench import Benchmark, Measurement, available_engines, measure
from i3dzoo.checkpoints.checkpoint import write_checkpoint
from i3dzoo.errors import MetadataError
from i3dzoo.report.plots import plot_benchmark

CLIPS: Any = {"runs": 1, "frames": 9, "crop": 32}


def assert_agrees(row: Measurement) -> None:
    """The engine ran, and its outputs are those of PyTorch."""
    assert row.failure is None
    assert row.error is not None
    assert row.error < 1e-4


@pytest.fixture(autouse=True)
def quick_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the processes of engines from one that has imported PyTorch, except in one test."""
    contexts = {"spawn": CONTEXT, "fork": multiprocessing.get_context("fork")}
    monkeypatch.setattr(multiprocessing, "get_context", contexts.__getitem__)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with 5 classes."""
    return write_checkpoint(tmp_path_factory.mktemp("bench") / "x.safetensors", noisy("rgb", 5))


def test_measurements_and_plot(
    capsys: pytest.CaptureFixture[str], file: Path, tmp_path: Path
) -> None:
    """Every available engine is measured, and agrees with PyTorch."""
    plot = tmp_path / "bench.png"
    arguments = ["--crop", 32, "--frames", 9, "--runs", 2, "--batch", 1, "--batch", 2, "--json"]
    quick = [engine for engine in available_engines() if engine != "torch-compiled"]
    arguments += [word for engine in quick for word in ("--engine", engine)]
    code, out, _ = run(capsys, "bench", file, "--plot", plot, *arguments)
    assert code == 0
    rows = [Measurement(**row) for row in json.loads(out)["rows"]]
    assert {row.engine for row in rows} == set(quick) >= {"torch", "onnxruntime"}
    for row in rows:
        assert row.failure is None
        assert row.clips_per_second == pytest.approx(1e3 * row.batch / (row.p50_ms or 0))
        assert (row.p99_ms or 0) >= (row.p50_ms or 0) > 0
        assert (row.memory_mb or 0) > 20  # the weights alone take 25 MB in half precision
        assert row.error is not None
        assert row.error < 1e-4 or row.precision != "fp32"
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_compiled(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile agrees with PyTorch."""
    monkeypatch.undo()  # its compilers wait for ever in a forked process
    if "torch-compiled" not in available_engines():
        pytest.skip("there is no C++ compiler, or no Triton beside the GPU")
    engines = ("torch", "torch-compiled")
    _, row = measure([Benchmark(file, engine, **CLIPS) for engine in engines])
    assert_agrees(row)


def test_failure(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that fails has its reason, and does not stop the next one."""
    monkeypatch.undo()
    precisions: Any = ("bf16", "fp32")
    benchmarks = [Benchmark(file, "onnxruntime", precision, **CLIPS) for precision in precisions]
    failed, good = measure(benchmarks)
    assert failed.clips_per_second is None
    assert "onnxruntime cannot load it" in (failed.failure or "")
    assert_agrees(good)
    assert good.error


def test_without_a_head(tmp_path: Path) -> None:
    """Without a head, features are compared."""
    trunk = write_checkpoint(tmp_path / "x.safetensors", noisy("rgb", 0))
    (row,) = measure([Benchmark(trunk, "onnxruntime", **CLIPS)])
    assert_agrees(row)


def test_every_engine_fails(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Logits that are not finite are a failure; the command fails if every engine does."""
    checkpoint = noisy("rgb", 5)
    key = "Logits.Conv3d_0c_1x1.conv.weight"
    tensors = dict(checkpoint.tensors) | {key: np.full_like(checkpoint.tensors[key], 3e38)}
    file = write_checkpoint(
        tmp_path / "x.safetensors", dataclasses.replace(checkpoint, tensors=tensors)
    )
    arguments = ["--engine", "torch", "--frames", "9", "--crop", "32", "--runs", "1", "--json"]
    code, out, err = run(capsys, "bench", file, *arguments)
    assert code == 1
    assert json.loads(out)["rows"][0]["failure"] == "the logits are not finite"
    assert "every engine failed" in err


def test_errors_are_from_float32(file: Path, tmp_path: Path) -> None:
    """Errors are differences from float32, also if only fp16 is measured."""
    (half,) = measure([Benchmark(file, "onnxruntime", "fp16", **CLIPS)])
    assert half.error is not None
    assert 1e-4 < half.error < 1e-1
    (broken,) = measure([Benchmark(tmp_path / "x.safetensors", "onnxruntime", **CLIPS)])
    assert broken.error is None
    assert "there is no such file" in (broken.failure or "")


def test_nothing_to_draw(tmp_path: Path) -> None:
    """Without numbers there is no plot."""
    with pytest.raises(MetadataError, match="every engine failed"):
        plot_benchmark([Measurement("torch", "fp32", 1, failure="broken")], tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_kernels_need_a_gpu(file: Path) -> None:
    """The kernels of i3dzoo need a GPU."""
    assert "torch-kernels" not in available_engines()
    (row,) = measure([Benchmark(file, "torch-kernels", **CLIPS)])
    assert row.failure == "torch-kernels needs a CUDA device, not cpu"


def test_ctrl_c_is_left_to_the_parent() -> None:
    """The process of an engine would print a traceback of its own; this process ends it."""
    before = signal.getsignal(signal.SIGINT)
    process = multiprocessing.get_context("fork").Process(target=_exit_with_sigint_handler)
    bench._start(process)
    process.join()
    assert process.exitcode == 9
    assert signal.getsignal(signal.SIGINT) is before


def _exit_with_sigint_handler() -> None:
    os._exit(9 if signal.getsignal(signal.SIGINT) is signal.SIG_IGN else 1)
