"""`i3dzoo predict`: folders, patterns and lists of videos; tables and labelled videos."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.checkpoints import write_random
from helpers.cli import run
from helpers.video_files import numbered, write_video

from i3dzoo.checkpoints.metadata import Input

Capture = pytest.CaptureFixture[str]
Predict = Callable[..., tuple[int, str, str]]
LABELS = ("wave, left", "żółw", "run")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A canonical file with random weights, three classes and small clips."""
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    return write_random(path, Input(resize=40, crop=32, frames=16), LABELS)


@pytest.fixture
def predict(capsys: Capture, model: Path) -> Predict:
    """Runs the command on the model; returns its exit code, standard output and standard error."""
    return lambda *arguments: run(capsys, "predict", "--model", model, *arguments)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two folders with a video each, and a file that is none."""
    for name in ("clips/a/x.mov", "clips/b/y.MOV"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        write_video(path, numbered(20))
    (tmp_path / "clips/a/notes.txt").write_text("no video")
    return tmp_path / "clips"


def test_folders_patterns_and_lists(predict: Predict, clips: Path, tmp_path: Path) -> None:
    """A folder, a pattern and a list stand for their videos."""
    expected = [str(clips / "a/x.mov"), str(clips / "b/y.MOV")]
    (tmp_path / "list.txt").write_text("\n".join(expected))
    for words in ((clips,), (f"{clips}/*/[xy].*",), ("--list", tmp_path / "list.txt")):
        code, out, _ = predict(*words, "--json")
        assert code == 0
        assert [video["path"] for video in json.loads(out)["videos"]] == expected
    code, _, err = predict(f"{clips}/*.webm")
    assert code == 1
    assert "*.webm: no file matches this pattern" in err
    code, _, err = predict()
    assert code == 2
    assert "a VIDEO is missing" in err


def test_tables(predict: Predict, clips: Path, tmp_path: Path) -> None:
    """CSV has a line for each class of a video and for each failure; JSON lines one for a video."""
    (clips / "b/bad.avi").write_bytes(b"no video" * 99)
    table, lines = tmp_path / "t.csv", tmp_path / "t.jsonl"
    code, out, err = predict(clips, "-o", table, "--top-k", 2)
    assert (code, out.strip()) == (1, str(table))
    assert "1 of 3 videos failed" in err
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["path"]).name for row in rows] == [
        "x.mov",
        "x.mov",
        "bad.avi",
        "y.MOV",
        "y.MOV",
    ]
    assert [row["rank"] for row in rows] == ["1", "2", "", "1", "2"]
    assert {row["label"] for row in rows if row["label"]} <= set(LABELS)
    assert float(rows[0]["probability"]) >= float(rows[1]["probability"])
    assert "not a video" in rows[2]["error"]
    predict(clips, "-o", lines)
    documents = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
    assert documents[0]["top"][0]["label"] == rows[0]["label"]
    assert "error" in documents[1]
    code, _, err = predict(clips, "-o", table)
    assert code == 1
    assert "exists already; pass --force" in err
    code, _, err = predict(clips, "-o", tmp_path / "t.xlsx")
    assert code == 1
    assert "one of .csv, .jsonl, .json; found .xlsx" in err


def test_table_over_time(predict: Predict, clips: Path, tmp_path: Path) -> None:
    """With a timeline, CSV has a line for each segment, from the start to the end of the video."""
    code, _, _ = predict(clips / "a/x.mov", "--timeline", "-o", tmp_path / "t.csv")
    assert code == 0
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert (float(rows[0]["start"]), float(rows[-1]["end"])) == (0.0, 0.8)


def test_labelled_video(predict: Predict, tmp_path: Path) -> None:
    """Every frame is there at its time; only the bottom left has text, over the frames' colours."""
    times = [0, 40, 80, *range(200, 200 + 20 * 40, 40)]
    video = write_video(tmp_path / "a.mov", numbered(23, 121, 161) // 2, milliseconds=times)
    out = tmp_path / "labelled.mp4"
    code, printed, _ = predict(video, "--video", out)
    assert (code, printed.strip().splitlines()[-1]) == (0, str(out))
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        frames = [
            (float(frame.pts * stream.time_base), frame.to_ndarray(format="rgb24"))
            for frame in container.decode(stream)
        ]
    np.testing.assert_allclose([time for time, _ in frames], np.array(times) / 1000, atol=1e-3)
    picture = frames[-1][1]
    assert picture.shape == (122, 162, 3)
    assert picture[:40].std((0, 1)).max() < 3  # one colour, as in the source
    assert picture[-50:, :80].max() > 200  # white letters
    code, _, err = predict(video, "--video", out)
    assert code == 1
    assert "exists already" in err
    code, _, err = predict(video, video, "--video", tmp_path / "x.mp4")
    assert code == 2
    assert "--video draws one video" in err
    code, _, err = predict(video, "--video", tmp_path / "x.gif")
    assert code == 1
    assert ".mp4, .mkv, .mov; found .gif" in err
