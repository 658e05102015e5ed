"""Exported files and checkpoints in the engines that run them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.cli import run
from helpers.exported import onnx_engine, small
from helpers.video_files import numbered, write_video
from PIL import Image

import i3dzoo
from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.engines.base import load_engine
from i3dzoo.errors import MetadataError
from i3dzoo.evaluation.prediction_file import read_predictions
from i3dzoo.onnx.options import ExportOptions
from i3dzoo.predict import predict_video

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def onnx_file(rgb: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network as ONNX, with any number of frames and steps."""
    path = tmp_path_factory.mktemp("onnx") / "x.onnx"
    return i3dzoo.export(rgb, path, "onnx", dynamic=("frames",), steps=True).path


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A video of 60 frames."""
    return write_video(tmp_path / "a.mov", numbered(60, 90, 120))


def test_same_prediction(rgb_file: Path, onnx_file: Path, video: Path) -> None:
    """PyTorch, an .onnx file, and a checkpoint in onnxruntime agree, also over time."""
    engines = [load_engine(rgb_file), load_engine(onnx_file), load_engine(rgb_file, "onnxruntime")]
    expected, *others = [predict_video(engine, video, timeline=True) for engine in engines]
    assert expected.timeline is not None
    for other in others:
        np.testing.assert_allclose(other.logits, expected.logits, atol=1e-4)
        assert [s.label for s in other.top] == [s.label for s in expected.top]
        assert other.timeline is not None
        np.testing.assert_allclose(
            other.timeline.probabilities, expected.timeline.probabilities, atol=1e-4
        )


def test_on_the_command_line(capsys: Capture, rgb_file: Path, onnx_file: Path, video: Path) -> None:
    """Predict takes an .onnx file as a model, and onnxruntime as the engine of a checkpoint."""
    tables = [
        run(capsys, "predict", video, "--model", rgb_file),
        run(capsys, "predict", video, "--model", onnx_file),
        run(capsys, "predict", video, "--model", rgb_file, "--engine", "onnxruntime"),
    ]
    assert [code for code, _, _ in tables] == [0, 0, 0]
    assert tables[0][1] == tables[1][1] == tables[2][1]


def test_evaluate(capsys: Capture, rgb_file: Path, onnx_file: Path, tmp_path: Path) -> None:
    """Evaluate measures an .onnx file and a checkpoint in onnxruntime as it does PyTorch."""
    for label in ("action 1", "action 3"):
        folder = tmp_path / "data" / label / "clip" / "rgb"
        folder.mkdir(parents=True)
        for number, frame in enumerate(numbered(20, 40, 48)):
            Image.fromarray(frame).save(folder / f"{number:06d}.png")
    common = ("--data", tmp_path / "data", "--split", "none", "--workers", 0, "-o", tmp_path)
    runs = [
        run(capsys, "evaluate", rgb_file, *common),
        run(capsys, "evaluate", rgb_file, "--engine", "onnxruntime", *common),
        run(capsys, "evaluate", onnx_file, *common, "--protocol", "tao"),
    ]
    assert [code for code, _, _ in runs] == [0, 0, 0], runs
    names = ("x-????????-????????_center", "x-????????-????????_onnxruntime_center", "x-*_tao")
    expected, *others = (
        read_predictions(next(tmp_path.glob(f"{name}_splitnone.jsonl"))) for name in names
    )
    for other in others:
        assert other.videos == expected.videos
        np.testing.assert_allclose(other.logits, expected.logits, atol=1e-4)


@pytest.mark.parametrize("frames", [5, 12])
def test_timeline_of_a_short_video(rgb: Checkpoint, tmp_path: Path, frames: int) -> None:
    """A model of clips of a fixed length gets a looped video; the timeline ends with the video."""
    short = write_video(tmp_path / "a.mov", numbered(frames, 40, 48))
    engine = onnx_engine([small(rgb, 32, 24)], ExportOptions(steps=True))
    prediction = predict_video(engine, short, timeline=True)
    assert "looped" in prediction.notes[-1]
    assert prediction.timeline is not None
    assert prediction.timeline.ends[-1] == pytest.approx(prediction.info.duration)
    assert len(prediction.timeline.probabilities) == 1


def test_timeline_without_steps(rgb: Checkpoint, video: Path) -> None:
    """A model without steps has no timeline, and the error says how to get one."""
    engine = onnx_engine([rgb], ExportOptions())
    with pytest.raises(MetadataError, match="export it with --steps"):
        predict_video(engine, video, timeline=True)
    assert len(predict_video(engine, video).top) == 5


@pytest.mark.parametrize(
    ("model", "engine", "message"),
    [
        ("onnx", "torch", "runs in onnxruntime, not in torch"),
        ("onnx", "tensorrt", "runs in onnxruntime, not in tensorrt"),
        ("file", "tensorrt", "not a TensorRT engine; build one with i3dzoo export"),
    ],
)
def test_engines_that_do_not_fit(
    rgb_file: Path, onnx_file: Path, model: str, engine: Any, message: str
) -> None:
    """A file that an engine cannot run is refused."""
    with pytest.raises(MetadataError, match=message):
        load_engine(rgb_file if model == "file" else onnx_file, engine)
