"""`i3dzoo predict`: output, messages, exit codes."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.checkpoints import write_random
from helpers.cli import run
from helpers.video_files import numbered, write_video

from i3dzoo.checkpoints.checkpoint import read_checkpoint, write_checkpoint
from i3dzoo.checkpoints.metadata import Input
from i3dzoo.checkpoints.streams import change_dtype

Capture = pytest.CaptureFixture[str]
Predict = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A canonical file with random weights, three classes and small clips."""
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    spec = Input(resize=40, crop=32, frames=16)
    return write_random(path, spec, ("[bold]wave[/bold]", "clap", "run"))


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A two-second video at 30 fps."""
    return write_video(tmp_path / "a.mov", numbered(60), fps=30)


@pytest.fixture
def predict(capsys: Capture, model: Path) -> Predict:
    """Runs the command on the model; returns its exit code, standard output and standard error."""
    return lambda *arguments: run(capsys, "predict", "--model", model, *arguments)


def document_of(result: tuple[int, str, str]) -> dict[str, Any]:
    """Parse all of the standard output of a command that succeeded, strictly."""
    code, out, _ = result
    assert code == 0
    document: dict[str, Any] = json.loads(out, parse_constant=pytest.fail)
    return document


class TestTable:
    def test_top_k(self, predict: Predict, video: Path) -> None:
        """The table is on standard output, the sampling on standard error."""
        code, out, err = predict(video, "--top-k", 2)
        assert code == 0
        lines = out.strip().splitlines()
        assert lines[0] == str(video)
        assert len(lines) == 3
        assert all("%" in line and "█" in line for line in lines[1:])
        assert "a.mov: 60 frames at 30 fps (2.0 s), resampled to 50 at 25 fps\n" in err
        assert "a.mov: the centre clip of 16 frames, 0.7 to 1.3 s\n" in err
        assert "--plot timeline.png" in err

    def test_labels_are_not_markup(self, predict: Predict, video: Path) -> None:
        """A label with brackets is printed as it is."""
        assert "[bold]wave[/bold]" in predict(video)[1]

    def test_timeline(self, predict: Predict, video: Path) -> None:
        """A timeline prints the most probable class of each segment."""
        code, out, err = predict(video, "--timeline")
        assert code == 0
        assert "over time, seconds" in out
        assert "0.0 - " in out
        assert "windows of 16 frames over the whole video" in err

    def test_one_bad_video(self, predict: Predict, video: Path) -> None:
        """A video that fails is named, the others are printed, and the exit code is 1."""
        gone = video.with_name("gone.mp4")
        code, out, err = predict(gone, video)
        assert code == 1
        assert str(video) in out
        assert f"i3dzoo: {gone}: " in err
        assert "1 of 2 videos failed" in err
        assert "Traceback" not in err


class TestJson:
    def test_document(self, predict: Predict, model: Path, video: Path) -> None:
        """One document holds the scores, the sampling and the model's input."""
        document = document_of(predict(video, "--json", "--clips", 2))
        assert document["model"] == str(model)
        assert document["input"]["crop"] == 32
        (entry,) = document["videos"]
        assert entry["path"] == str(video)
        assert (entry["frames"], entry["fps"]) == (60, 30)
        assert len(entry["clips"]) == 2
        assert sum(score["probability"] for score in entry["top"]) == pytest.approx(1)
        assert set(entry["top"][0]) == {"label", "index", "probability", "logit"}

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_half_precision(self, predict: Predict, model: Path, video: Path, dtype: Any) -> None:
        """Weights in half precision run on a CPU, with nearly the same results."""
        half = change_dtype(read_checkpoint(model), dtype)
        path = write_checkpoint(video.with_name("half.safetensors"), half)
        common = (video, "--device", "cpu", "--json", "--model")
        documents = [document_of(predict(*common, file)) for file in (path, model)]
        rounded, exact = (document["videos"][0]["top"] for document in documents)
        assert [score["label"] for score in rounded] == [score["label"] for score in exact]
        logits = [score["logit"] for score in exact]
        assert [score["logit"] for score in rounded] == pytest.approx(logits, abs=0.01)

    def test_timeline(self, predict: Predict, video: Path) -> None:
        """The timeline holds steps for the strongest classes, and segments."""
        document = document_of(predict(video, "--json", "--timeline", "--top-k", 2))
        timeline = document["videos"][0]["timeline"]
        assert timeline["unit"] == "s"
        assert len(timeline["labels"]) == 2
        assert all(len(step["probabilities"]) == 2 for step in timeline["steps"])
        assert timeline["segments"][-1]["end"] == pytest.approx(2)

    def test_failure_is_in_the_document(self, predict: Predict, video: Path) -> None:
        """A bad video has its error in the document, which is still one document."""
        code, out, _ = predict(video, video.with_name("gone"), "--json")
        assert code == 1
        good, bad = json.loads(out)["videos"]
        assert "error" not in good
        assert str(video.with_name("gone")) in bad["error"]

    def test_frames_without_a_rate(self, predict: Predict, tmp_path: Path) -> None:
        """Unknown seconds are null."""
        np.save(tmp_path / "a.npy", numbered(20))
        entry = document_of(predict(tmp_path / "a.npy", "--json"))["videos"][0]
        assert (entry["fps"], entry["duration"]) == (None, None)
        assert entry["clips"] == [{"start": None, "end": None}]


class TestPlot:
    def test_path_is_the_last_line(self, predict: Predict, video: Path, tmp_path: Path) -> None:
        """The picture is written and its path is the last line; --force replaces it."""
        pytest.importorskip("matplotlib")
        plot = tmp_path / "line.png"
        code, out, _ = predict(video, "--plot", plot)
        assert code == 0
        assert out.splitlines()[-1] == str(plot)
        assert plot.read_bytes().startswith(b"\x89PNG")
        code, out, err = predict(video, "--plot", plot)
        assert (code, out) == (1, "")
        assert str(plot) in err
        assert "--force" in err
        document = document_of(predict(video, "--json", "--plot", plot, "--force"))
        assert document["videos"][0]["plot"] == str(plot)

    def test_matplotlib_is_missing(
        self, predict: Predict, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without the extra, the message names it before anything is computed."""
        for name in ("matplotlib", "matplotlib.figure"):
            monkeypatch.setitem(sys.modules, name, None)
        code, out, err = predict(video, "--plot", tmp_path / "a.png")
        assert (code, out) == (1, "")
        assert err == "i3dzoo: plots need Matplotlib: pip install 'i3dzoo[plot]'\n"


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--clips", "0"], "'0' is neither a positive number nor 'whole'"),
            (["--clips", "some"], "'some' is neither a positive number nor 'whole'"),
            (["--fps", "-3"], "'-3' is neither a positive number nor 'native'"),
            (["--fps", "nan"], "'nan' is neither a positive number nor 'native'"),
            (["--clips", "3", "--timeline"], "leave --clips out"),
            (["b.mp4", "--plot", "a.png"], "--plot draws one video"),
        ],
    )
    def test_wrong_options(self, capsys: Capture, arguments: list[str], message: str) -> None:
        """Wrong options exit with 2 before a model is loaded."""
        code, out, err = run(capsys, "predict", "a.mp4", "--model", "none", *arguments)
        assert (code, out) == (2, "")
        assert message in " ".join(err.split())

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
    def test_no_cuda(self, predict: Predict, video: Path) -> None:
        """A missing device is a usage error with a remedy."""
        code, _, err = predict(video, "--device", "cuda")
        assert code == 2
        assert "use --device cpu" in err

    def test_unknown_model(self, capsys: Capture, video: Path) -> None:
        """A model that is neither a file nor in the zoo exits with 1."""
        code, out, err = run(capsys, "predict", video, "--model", "nothing")
        assert (code, out) == (1, "")
        assert err.startswith("i3dzoo: nothing: ")


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("clip", "label", "least"),
    [
        ("R6llTwEh07w.mp4", "using segway", 0.999),
        ("v_SoccerJuggling_g23_c01.avi", "juggling soccer ball", 0.99),
    ],
)
def test_real_clips(
    capsys: Capture, test_data: Path, rgb_scratch: Path, clip: str, label: str, least: float
) -> None:
    """The genuine weights predict the action in real clips with the default options."""
    document = document_of(
        run(capsys, "predict", test_data / "clips" / clip, "--model", rgb_scratch, "--json")
    )
    best = document["videos"][0]["top"][0]
    assert best["label"] == label
    assert best["probability"] > least
