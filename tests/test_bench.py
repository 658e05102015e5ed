"""`i3dzoo bench`: real engines in their own processes, failures that stop nothing, the picture."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from i3dzoo.bench import Job, Row, available, draw, measure
from i3dzoo.checkpoint import write_checkpoint
from i3dzoo.cli import main
from i3dzoo.errors import MetadataError

from .exported import noisy


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of 5 classes."""
    return write_checkpoint(tmp_path_factory.mktemp("bench") / "x.safetensors", noisy("rgb", 5))


def test_table_and_picture(capsys: pytest.CaptureFixture[str], file: Path, tmp_path: Path) -> None:
    """Every engine that is here is measured, and agrees with PyTorch."""
    plot = tmp_path / "bench.png"
    arguments = ["--crop", 32, "--frames", 9, "--runs", 2, "--batch", 1, "--batch", 2, "--json"]
    quick = [engine for engine in available() if engine != "torch-compiled"]
    arguments += [word for engine in quick for word in ("--engine", engine)]
    with pytest.raises(SystemExit) as stop:
        main(["bench", str(file), "--plot", str(plot), *map(str, arguments)])
    assert stop.value.code == 0
    rows = [Row(**row) for row in json.loads(capsys.readouterr().out)["rows"]]
    assert {row.engine for row in rows} == set(quick) >= {"torch", "onnxruntime"}
    for row in rows:
        assert row.failure is None
        assert row.clips_per_second == pytest.approx(1e3 * row.batch / (row.p50_ms or 0))
        assert (row.p99_ms or 0) >= (row.p50_ms or 0) > 0
        assert (row.memory_mb or 0) > 50  # the weights alone are
        assert row.error is not None
        assert row.error < 1e-4 or row.precision != "fp32"
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_compiled(file: Path) -> None:
    """PyTorch's compiler is among the engines where there is a compiler, and agrees."""
    if "torch-compiled" not in available():
        pytest.skip("there is no C++ compiler, or no Triton beside the GPU")
    clips = {"batches": (1,), "runs": 1, "frames": 9, "crop": 32}
    jobs = [Job(file, engine, **clips) for engine in ("torch", "torch-compiled")]  # type: ignore[arg-type] # of a dict
    _, row = measure(jobs)
    assert row.failure is None
    assert row.error is not None
    assert row.error < 1e-4


def test_what_fails_is_said(file: Path) -> None:
    """An engine that cannot run gives its reason in its place, and the next one its numbers."""
    clips = {"batches": (1,), "runs": 1, "frames": 9, "crop": 32}
    jobs = [
        Job(file, "onnxruntime", "bf16", **clips),  # type: ignore[arg-type] # of a dict
        Job(file, "onnxruntime", **clips),  # type: ignore[arg-type] # of a dict
    ]
    told: list[Row] = []
    failed, good = measure(jobs, told.append)
    assert told == [failed, good]
    assert failed.clips_per_second is None
    assert "onnxruntime cannot load it" in (failed.failure or "")
    assert good.failure is None
    assert good.error is not None
    assert 0 < good.error < 1e-4


def test_without_a_head(tmp_path: Path) -> None:
    """Features are compared where there are no logits."""
    trunk = write_checkpoint(tmp_path / "x.safetensors", noisy("rgb", 0))
    (row,) = measure([Job(trunk, "onnxruntime", runs=1, frames=9, crop=32)])
    assert row.failure is None
    assert row.error is not None
    assert row.error < 1e-4


def test_nothing_but_failures(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Logits that are not finite are a failure, and a bench without any numbers is one."""
    checkpoint = noisy("rgb", 5)
    key = "Logits.Conv3d_0c_1x1.conv.weight"
    tensors = dict(checkpoint.tensors) | {key: np.full_like(checkpoint.tensors[key], 3e38)}
    file = write_checkpoint(
        tmp_path / "x.safetensors", dataclasses.replace(checkpoint, tensors=tensors)
    )
    arguments = ["--engine", "torch", "--frames", "9", "--crop", "32", "--runs", "1", "--json"]
    with pytest.raises(SystemExit) as stop:
        main(["bench", str(file), *arguments])
    captured = capsys.readouterr()
    assert stop.value.code == 1
    assert json.loads(captured.out)["rows"][0]["failure"] == "logits are not finite"
    assert "no engine gave numbers" in captured.err


def test_errors_are_of_float32(file: Path, tmp_path: Path) -> None:
    """It is measured against though it was not asked for; a file that is missing has no errors."""
    (half,) = measure([Job(file, "onnxruntime", "fp16", runs=1, frames=9, crop=32)])
    assert half.error is not None
    assert 1e-4 < half.error < 1e-1
    (broken,) = measure([Job(tmp_path / "x.safetensors", "onnxruntime", frames=9, crop=32)])
    assert broken.error is None
    assert "there is no such file" in (broken.failure or "")


def test_nothing_to_draw(tmp_path: Path) -> None:
    """Without numbers there is no picture."""
    with pytest.raises(MetadataError, match="no engine gave numbers"):
        draw([Row("torch", "fp32", 1, failure="broken")], tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, which has them")
def test_kernels_need_a_gpu(file: Path) -> None:
    """Without a GPU our kernels are not among the engines, and asked for they say why."""
    assert "torch-kernels" not in available()
    (row,) = measure([Job(file, "torch-kernels", frames=9, crop=32)])
    assert row.failure == "the kernels of i3dzoo run on GPUs, and PyTorch finds none here"
