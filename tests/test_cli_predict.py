"""`i3dzoo predict` as a user meets it: output, remarks, exit codes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from i3dzoo.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from i3dzoo.cli import main
from i3dzoo.metadata import Input, Metadata, Source
from i3dzoo.model import InceptionI3d
from i3dzoo.surgery import change_dtype

from .video_files import numbered, write_video

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A canonical file with random weights, three classes and small clips."""
    torch.manual_seed(0)
    labels = ("[bold]wave[/bold]", "clap", "run")
    spec = Input(resize=40, crop=32, frames=16)
    metadata = Metadata("rgb", 3, labels, spec, Source("canonical", "0" * 64))
    tensors = {
        name: tensor.numpy()
        for name, tensor in InceptionI3d(num_classes=3).state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    return write_checkpoint(path, Checkpoint(tensors, metadata))


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A two-second video at 30 fps."""
    return write_video(tmp_path / "a.mov", numbered(60), fps=30)


def run(capsys: Capture, *arguments: object) -> tuple[int, str, str]:
    """Run the command; return its exit code, standard output and standard error."""
    with pytest.raises(SystemExit) as stop:
        main(["predict", *map(str, arguments)])
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


def run_json(capsys: Capture, *arguments: object) -> dict[str, Any]:
    """Run the command with --json and parse all of its standard output, strictly."""
    code, out, _ = run(capsys, *arguments, "--json")
    assert code == 0
    document: dict[str, Any] = json.loads(out, parse_constant=pytest.fail)
    return document


class TestTable:
    def test_top_k(self, capsys: Capture, model: Path, video: Path) -> None:
        """The table is on standard output; what was sampled is on standard error."""
        code, out, err = run(capsys, video, "--model", model, "--top-k", 2)
        assert code == 0
        lines = out.strip().splitlines()
        assert lines[0] == str(video)
        assert len(lines) == 3
        assert all("%" in line and "█" in line for line in lines[1:])
        assert "a.mov: 60 frames at 30 fps (2.0 s), resampled to 50 at 25 fps\n" in err
        assert "a.mov: the centre clip of 16 frames, 0.7 to 1.3 s\n" in err
        assert "--plot timeline.png" in err

    def test_labels_are_not_markup(self, capsys: Capture, model: Path, video: Path) -> None:
        """A label with brackets is printed as it is."""
        assert "[bold]wave[/bold]" in run(capsys, video, "--model", model)[1]

    def test_timeline(self, capsys: Capture, model: Path, video: Path) -> None:
        """A timeline prints who comes first from when to when."""
        code, out, err = run(capsys, video, "--model", model, "--timeline")
        assert code == 0
        assert "over time, seconds" in out
        assert "0.0 - " in out
        assert "windows of 16 frames over the whole video" in err

    def test_one_bad_video(self, capsys: Capture, model: Path, video: Path) -> None:
        """The good ones are printed, the bad one is named, and the exit code is 1."""
        gone = video.with_name("gone.mp4")
        code, out, err = run(capsys, gone, video, "--model", model)
        assert code == 1
        assert str(video) in out
        assert f"i3dzoo: {gone}: no such file or folder\n" in err
        assert "1 of 2 videos failed" in err
        assert "Traceback" not in err


class TestJson:
    def test_document(self, capsys: Capture, model: Path, video: Path) -> None:
        """One document holds the scores, what was sampled and the model's input."""
        document = run_json(capsys, video, "--model", model, "--clips", 2)
        assert document["model"] == str(model)
        assert document["input"]["crop"] == 32
        (entry,) = document["videos"]
        assert entry["path"] == str(video)
        assert (entry["frames"], entry["fps"]) == (60, 30)
        assert len(entry["clips"]) == 2
        assert sum(score["probability"] for score in entry["top"]) == pytest.approx(1)
        assert set(entry["top"][0]) == {"label", "index", "probability", "logit"}

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_half_precision(self, capsys: Capture, model: Path, video: Path, dtype: Any) -> None:
        """Rounded weights are computed with on a CPU, too, and give nearly the same."""
        half = change_dtype(read_checkpoint(model), dtype)
        path = write_checkpoint(video.with_name("half.safetensors"), half)
        found, exact = (
            run_json(capsys, video, "--model", each, "--device", "cpu")["videos"][0]["top"]
            for each in (path, model)
        )
        assert [score["label"] for score in found] == [score["label"] for score in exact]
        logits = [score["logit"] for score in exact]
        assert [score["logit"] for score in found] == pytest.approx(logits, abs=0.01)

    def test_timeline(self, capsys: Capture, model: Path, video: Path) -> None:
        """The timeline holds steps for the strongest classes, and segments."""
        document = run_json(capsys, video, "--model", model, "--timeline", "--top-k", 2)
        timeline = document["videos"][0]["timeline"]
        assert timeline["unit"] == "s"
        assert len(timeline["labels"]) == 2
        assert all(len(step["probabilities"]) == 2 for step in timeline["steps"])
        assert timeline["segments"][-1]["end"] == pytest.approx(2)

    def test_failure_is_in_the_document(self, capsys: Capture, model: Path, video: Path) -> None:
        """A bad video has its error in the document, which is still one document."""
        code, out, _ = run(capsys, video, video.with_name("gone"), "--model", model, "--json")
        assert code == 1
        good, bad = json.loads(out)["videos"]
        assert "error" not in good
        assert bad["error"].endswith("gone: no such file or folder")

    def test_frames_without_a_rate(self, capsys: Capture, model: Path, tmp_path: Path) -> None:
        """Seconds that are unknown are null."""
        np.save(tmp_path / "a.npy", numbered(20))
        entry = run_json(capsys, tmp_path / "a.npy", "--model", model)["videos"][0]
        assert (entry["fps"], entry["duration"]) == (None, None)
        assert entry["clips"] == [{"start": None, "end": None}]


class TestPlot:
    def test_path_is_the_last_line(
        self, capsys: Capture, model: Path, video: Path, tmp_path: Path
    ) -> None:
        """The picture is written and its path is the last line; --force replaces it."""
        pytest.importorskip("matplotlib")
        plot = tmp_path / "line.png"
        code, out, _ = run(capsys, video, "--model", model, "--plot", plot)
        assert code == 0
        assert out.splitlines()[-1] == str(plot)
        assert plot.read_bytes().startswith(b"\x89PNG")
        code, out, err = run(capsys, video, "--model", model, "--plot", plot)
        assert (code, out) == (1, "")
        assert err == f"i3dzoo: {plot}: exists already; pass --force to replace it\n"
        document = run_json(capsys, video, "--model", model, "--plot", plot, "--force")
        assert document["videos"][0]["plot"] == str(plot)

    def test_matplotlib_is_missing(
        self,
        capsys: Capture,
        model: Path,
        video: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Without the extra, the message names it before anything is computed."""
        monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
        code, out, err = run(capsys, video, "--model", model, "--plot", tmp_path / "a.png")
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
        """Options that make no sense exit with 2 and say why, before a model is loaded."""
        code, out, err = run(capsys, "a.mp4", "--model", "none", *arguments)
        assert (code, out) == (2, "")
        assert message in " ".join(err.split())

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
    def test_no_cuda(self, capsys: Capture, model: Path, video: Path) -> None:
        """A device that is not there is said so."""
        code, _, err = run(capsys, video, "--model", model, "--device", "cuda")
        assert code == 2
        assert "try --device cpu" in err

    def test_unknown_model(self, capsys: Capture, video: Path) -> None:
        """A model that is neither a file nor in the zoo exits with 1."""
        code, out, err = run(capsys, video, "--model", "nothing")
        assert (code, out) == (1, "")
        assert err.startswith("i3dzoo: nothing: is neither a file nor a zoo model")


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("clip", "label", "least"),
    [
        ("arm_wrestling.mp4", "arm wrestling", 0.999),
        ("R6llTwEh07w.mp4", "using segway", 0.999),
        ("v_CricketShot_g04_c01_rgb.gif", "playing cricket", 0.99),
        ("v_SoccerJuggling_g23_c01.avi", "juggling soccer ball", 0.99),
    ],
)
def test_real_clips(
    capsys: Capture, test_data: Path, rgb_scratch: Path, clip: str, label: str, least: float
) -> None:
    """The genuine weights name the action in real clips, by the defaults of the command."""
    document = run_json(capsys, test_data / "clips" / clip, "--model", rgb_scratch)
    best = document["videos"][0]["top"][0]
    assert best["label"] == label
    assert best["probability"] > least
