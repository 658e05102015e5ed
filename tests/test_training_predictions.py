"""Predictions on disk: exact, resumed after any cut, refused when of another run; fusion."""

import dataclasses
import json
import resource
from pathlib import Path

import numpy as np
import pytest

from i3dzoo.errors import (
    FormatError,
    MappingError,
    MissingFileError,
    OutputError,
    ShapeError,
)
from i3dzoo.training.predictions import (
    Prediction,
    Predictions,
    PredictionWriter,
    Run,
    fuse,
    read_predictions,
    write_parquet,
)

RUN = Run("a" * 64, "center", "1")


def make(count: int, classes: int = 4, seed: int = 0) -> list[Prediction]:
    """Random predictions of as many videos."""
    random = np.random.default_rng(seed)
    return [
        Prediction(f"wave/{at}.avi", at % classes, random.normal(size=classes).astype("f4"), at + 1)
        for at in range(count)
    ]


def save(path: Path, predictions: list[Prediction], run: Run = RUN) -> Path:
    """Write predictions to a file, leaving out those that it holds."""
    with PredictionWriter(path, run) as writer:
        for prediction in predictions:
            if prediction.video not in writer.done:
                writer.write(prediction)
    return path


def test_logits_come_back_to_the_bit(tmp_path: Path) -> None:
    """What is read is what was written, extreme numbers and odd names included."""
    odd = np.array([np.finfo("f4").max, np.finfo("f4").tiny, 1e-45, -0.0], dtype="f4")
    names = ['wave/ä "quoted"\n.avi', "wave/\udcff.avi"]
    written = [*make(20), *(Prediction(name, 0, odd) for name in names)]
    found = read_predictions(save(tmp_path / "p.jsonl", written))
    assert found.run == RUN
    assert found.videos == tuple(one.video for one in written)
    expected = np.array([one.logits for one in written])
    np.testing.assert_array_equal(found.logits.view("u4"), expected.view("u4"))
    np.testing.assert_array_equal(found.labels, [one.label for one in written])
    np.testing.assert_array_equal(found.clips, [one.clips for one in written])


def test_resumes_after_a_cut_at_any_byte(tmp_path: Path) -> None:
    """Cut anywhere, the file is taken up and ends as one that was never cut."""
    predictions = make(3, classes=2)
    whole = save(tmp_path / "whole.jsonl", predictions).read_bytes()
    path = tmp_path / "cut.jsonl"
    ends = [len(whole) - len(whole.split(b"\n", at)[-1]) for at in range(1, 5)]
    near = {end + step for end in ends for step in (-2, -1, 0, 1)}
    for size in sorted({0, 1, 30, *near} & set(range(len(whole)))):
        path.write_bytes(whole[:size])
        with PredictionWriter(path, RUN) as writer:
            assert len(writer.done) == max(whole[:size].count(b"\n") - 1, 0)
        save(path, predictions)
        assert path.read_bytes() == whole


def test_reading_leaves_out_the_cut_line(tmp_path: Path) -> None:
    """A reader sees the whole lines of a file that is being written, and changes nothing."""
    path = save(tmp_path / "p.jsonl", make(3))
    cut = path.read_bytes()[:-5]
    path.write_bytes(cut)
    assert len(read_predictions(path).videos) == 2
    assert path.read_bytes() == cut


@pytest.mark.parametrize("key", ["model", "protocol", "split", "data"])
def test_another_run_is_refused(tmp_path: Path, key: str) -> None:
    """Predictions of another model, protocol, split or data are left as they are."""
    path = save(tmp_path / "p.jsonl", make(2))
    before = path.read_bytes()
    other = dataclasses.replace(RUN, **{key: "b" * 64})
    with pytest.raises(OutputError, match=rf"holds predictions of {RUN}; expected {other}; name"):
        PredictionWriter(path, other)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not predictions\n", "line 1 is no header of predictions"),
        ("precious notes", "is no file of predictions"),
        ('{"a": 1}\n', "line 1 is no header of predictions"),
        ("[]\n", "line 1 is no header of predictions"),
        ("HEADER{\n", "line 2 is damaged"),
        ('HEADER{"video": 1, "label": 0, "clips": 1, "logits": [1]}\n', "wrong type"),
        ('HEADER{"video": "a", "label": 0, "clips": 1, "logits": [[1]]}\n', "no list of numbers"),
        ('HEADER{"video": "a", "label": -1, "clips": 1, "logits": [1]}\n', "label is negative"),
        ('HEADER{"video": "a", "label": 0, "clips": 1}\n', "line 2 is damaged: 'logits'"),
    ],
)
def test_damage_is_named_and_nothing_is_overwritten(
    tmp_path: Path, text: str, message: str
) -> None:
    """A file of something else, or with a damaged line in the middle, is an error and survives."""
    header = {"i3dzoo": "predictions", "version": 1, **dataclasses.asdict(RUN)}
    path = tmp_path / "p.jsonl"
    path.write_text(text.replace("HEADER", json.dumps(header) + "\n"))
    before = path.read_bytes()
    with pytest.raises(FormatError, match=message):
        PredictionWriter(path, RUN)
    with pytest.raises(FormatError, match=message):
        read_predictions(path)
    assert path.read_bytes() == before


def test_a_video_counts_once(tmp_path: Path) -> None:
    """The same video cannot be written twice, nor read twice."""
    (prediction,) = make(1)
    path = tmp_path / "p.jsonl"
    with PredictionWriter(path, RUN) as writer:
        writer.write(prediction)
        with pytest.raises(MappingError, match=r"holds wave/0\.avi already; each video counts"):
            writer.write(prediction)
    with path.open("ab") as file:
        file.write(path.read_bytes().splitlines(keepends=True)[1])
    with pytest.raises(MappingError, match=r"wave/0\.avi: is predicted twice"):
        read_predictions(path)


def test_other_classes_are_refused(tmp_path: Path) -> None:
    """A prediction with another number of logits is refused."""
    with PredictionWriter(tmp_path / "p.jsonl", RUN) as writer:
        writer.write(make(1)[0])
        with pytest.raises(ShapeError, match="other has 3 logits; expected 4"):
            writer.write(Prediction("other", 0, np.zeros(3, "f4")))


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """A line that does not fit is an error; afterwards the file is taken up where it was cut."""
    path = tmp_path / "p.jsonl"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    predictions = make(10)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400, hard))
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            save(path, predictions)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.stat().st_size <= 400
    assert len(read_predictions(save(path, predictions)).videos) == 10


def test_missing_and_empty_files(tmp_path: Path) -> None:
    """A file that is not there, and one with nothing in it, are told apart."""
    with pytest.raises(MissingFileError, match="there is no such file"):
        read_predictions(tmp_path / "p.jsonl")
    (tmp_path / "p.jsonl").touch()
    with pytest.raises(FormatError, match="is empty"):
        read_predictions(tmp_path / "p.jsonl")


def test_parquet(tmp_path: Path) -> None:
    """A parquet file holds the same, and says whose predictions these are."""
    parquet = pytest.importorskip("pyarrow.parquet")
    predictions = Predictions.of(RUN, make(7))
    path = write_parquet(predictions, tmp_path / "p.parquet")
    table = parquet.read_table(path)
    assert json.loads(table.schema.metadata[b"i3dzoo"]) == dataclasses.asdict(RUN)
    assert table["video"].to_pylist() == list(predictions.videos)
    assert table["prediction"].to_pylist() == predictions.logits.argmax(1).tolist()
    found = np.array(table["logits"].to_pylist(), dtype="f4")
    np.testing.assert_array_equal(found, predictions.logits)
    with pytest.raises(OutputError, match="exists already; pass --force"):
        write_parquet(predictions, path)


class TestFuse:
    def test_logits_are_summed_by_video(self) -> None:
        """The streams' logits of a video are summed, in whatever order the videos come."""
        rgb, flow = make(9), make(9, seed=1)
        both = fuse(
            Predictions.of(RUN, rgb),
            Predictions.of(Run("f" * 64, "center", "1"), reversed(flow)),
        )
        for at, (one, other) in enumerate(zip(rgb, flow, strict=True)):
            assert both.videos[at] == one.video
            np.testing.assert_array_equal(both.logits[at], one.logits + other.logits)
        assert both.run == Run("a" * 64 + "+" + "f" * 64, "center", "1")

    def test_other_videos_are_named(self) -> None:
        """Streams of different videos are refused, with the missing ones named."""
        five, nine = Predictions.of(RUN, make(5)), Predictions.of(RUN, make(9))
        names = r"4 videos are missing from the {} stream: wave/5.avi, wave/6.avi, wave/7.avi, …"
        with pytest.raises(MappingError, match=names.format("second")):
            fuse(nine, five)
        with pytest.raises(MappingError, match=names.format("first")):
            fuse(five, nine)

    def test_contradictions_are_refused(self) -> None:
        """Different splits, classes or labels are refused."""
        one = Predictions.of(RUN, make(3))
        split = dataclasses.replace(one, run=dataclasses.replace(RUN, split="2"))
        with pytest.raises(MappingError, match="of the splits 1 and 2"):
            fuse(one, split)
        with pytest.raises(ShapeError, match="4 and 5 classes"):
            fuse(one, dataclasses.replace(one, logits=np.zeros((3, 5), "f4")))
        with pytest.raises(MappingError, match=r"wave/1\.avi: is of class 1 .* of class 3 in the"):
            fuse(one, dataclasses.replace(one, labels=np.array([0, 3, 2])))
        with pytest.raises(MappingError, match="both streams are predictions of the model aaaa"):
            fuse(one, one)
