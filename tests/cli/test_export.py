"""`i3dzoo export` on the command line."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from helpers.cli import run, succeed
from helpers.exported import noisy
from helpers.video_files import numbered, write_video

from i3dzoo.checkpoints.checkpoint import Checkpoint, write_checkpoint
from i3dzoo.engines.base import load_engine

Capture = pytest.CaptureFixture[str]
Export = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def file(rgb: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An RGB network of 5 classes as a canonical file."""
    return write_checkpoint(tmp_path_factory.mktemp("file") / "x.safetensors", rgb)


@pytest.fixture
def export(capsys: Capture, file: Path) -> Export:
    """A function that exports the file with options."""
    return partial(run, capsys, "export", file)


def test_onnx_on_a_video(export: Export, tmp_path: Path) -> None:
    """The errors on a video are printed, and the path is the last line of output."""
    path, video = tmp_path / "x.onnx", write_video(tmp_path / "a.mov", numbered(60, 90, 120))
    code, out, err = export("--to", "onnx", "-o", path, "--clip", video, "--dynamic", "all")
    assert (code, out) == (0, f"{path}\n"), err
    assert err.count("largest difference") == 3
    assert err.count("same top-1") == 3
    assert f"onnxruntime compared with PyTorch on {video}:" in err
    assert "  3 of 3 comparisons with PyTorch\n" in err  # progress
    assert f"Next: i3dzoo predict VIDEO --model {path}" in err


def test_json(export: Export, tmp_path: Path) -> None:
    """--json prints the file and the comparison; --frames and --crop set the size of clips."""
    path = tmp_path / "x.onnx"
    sizes = ("--frames", 9, "--crop", 32)
    code, out, _ = export("--to", "onnx", "-o", path, *sizes, "--features", "--json")
    assert code == 0
    document = json.loads(out)
    assert document["nodes"] < 200
    assert document["parity"]["cases"][1]["shapes"] == {"input_rgb": [2, 3, 9, 32, 32]}
    metadata = load_engine(path).metadata
    assert metadata is not None
    assert metadata.input.resize == 36


def test_tao(export: Export, tmp_path: Path) -> None:
    """The lines of a spec that load the file are printed."""
    path = tmp_path / "tao.pt"
    code, out, err = export("--to", "tao", "-o", path)
    assert (code, out) == (0, f"{path}\n"), err
    assert f'  rgb_pretrained_model_path: "{path}"\n' in err
    assert "  rgb_pretrained_num_classes: 5\n" in err
    assert "    action 4: 4\n" in err


@pytest.mark.parametrize(
    ("classes", "arguments", "hint"),
    [
        (5, ("--pixels", "48x40"), "docs/guides/export.md lists"),
        (0, (), "i3dzoo features VIDEO --model"),
    ],
)
def test_next_step(
    capsys: Capture, tmp_path: Path, classes: int, arguments: tuple[str, ...], hint: str
) -> None:
    """The next step is a command that takes the file."""
    file = write_checkpoint(tmp_path / "x.safetensors", noisy("rgb", classes))
    path = tmp_path / "x.onnx"
    _, err = succeed(capsys, "export", file, "--to", "onnx", "-o", path, *arguments)
    (line,) = (line for line in err.splitlines() if line.startswith("Next: "))
    assert hint in line


@pytest.mark.parametrize(
    ("target", "suffixes"), [("onnx", ".onnx"), ("tensorrt", ".engine or .plan or .trt")]
)
def test_suffixes(export: Export, tmp_path: Path, target: str, suffixes: str) -> None:
    """A name by which other commands would not choose the engine is refused."""
    path = tmp_path / "x.bin"
    code, _, err = export("--to", target, "-o", path)
    assert code == 1
    assert f"{path}: expected a name that ends in {suffixes}" in err


def test_failures_leave_nothing(export: Export, tmp_path: Path) -> None:
    """An error is one line, exit code 1, and no file."""
    code, out, err = export("--to", "onnx", "-o", tmp_path / "x.onnx", "--atol", "1e-12")
    assert (code, out) == (1, "")
    assert err.startswith("i3dzoo: ")
    assert "was not written: onnxruntime differs from PyTorch" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "onnx", "--dynamic", "depth"], "expected all, or some of frames"),
        (["--to", "onnx", "--pixels", "320"], "expected WIDTHxHEIGHT"),
        (["--to", "onnx", "--precision", "tf32"], "--precision tf32 applies to TensorRT"),
        (["--to", "onnx", "--precision", "bf16", "--opset", "13"], "pass --opset 22"),
        (["--to", "onnx", "--shapes", "1,2,3"], "--shapes does not apply to the target onnx"),
        (["--to", "onnx", "--timing-cache", "x"], "--timing-cache does not apply"),
        (["--to", "onnx", "--refit", "x.engine"], "--refit does not apply to the target onnx"),
        (["--to", "onnx", "--workspace", "0"], "expected GiB, such as 4"),
        (["--to", "tensorrt", "--workspace", "nan"], "expected GiB, such as 4"),
        (["--to", "tensorrt", "--workspace", "1e30"], "expected GiB, such as 4"),
        (["--to", "tensorrt", "--refit", "x", "--shapes", "1"], "leave --shapes out"),
        (["--to", "onnx", "--opset", "0"], "0 is not in the range x>=13"),
        (["--to", "torchscript", "--opset", "14"], "export to onnx or tensorrt"),
        (["--to", "torchscript", "--features"], "--features does not apply"),
        (["--to", "torchscript", "--precision", "fp16"], "--precision does not apply"),
        (["--to", "pt2", "--dynamic", "frames"], "--dynamic does not apply to the target pt2"),
        (["--to", "pt2", "--flow", "x"], "--flow does not apply to the target pt2"),
        (["--to", "tao", "--flow", "x"], "--flow does not apply to the target tao"),
        (["--to", "tao", "--steps"], "--steps does not apply to the target tao"),
        (["--to", "tao", "--atol", "1"], "--atol does not apply to the target tao"),
        (["--to", "onnx", "--seed", "-1"], "-1 is not in the range x>=0"),
        (["--to", "onnx", "--pixels", "9999999x9999999"], "such as 320x240, each at most 8192"),
        (["--to", "onnx", "--clip", "gone.mp4"], "'gone.mp4' does not exist"),
    ],
)
def test_wrong_usage(export: Export, tmp_path: Path, arguments: list[str], message: str) -> None:
    """Options that do not apply, or contradict each other, are usage errors."""
    code, _, err = export("-o", tmp_path / "x", *arguments)
    assert code == 2
    assert message in " ".join(err.split())
    assert list(tmp_path.iterdir()) == []
