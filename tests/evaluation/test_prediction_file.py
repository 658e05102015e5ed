"""Files of predictions: exact, resumed after a cut at any byte, refused if another run's."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from helpers.disk import full_disk
from helpers.predictions import HEADER, make_predictions
from helpers.processes import holding

from i3dzoo.distributed import ProcessGroup
from i3dzoo.errors import FormatError, MappingError, MissingFileError, OutputError, ShapeError
from i3dzoo.evaluation.prediction_file import (
    PredictionWriter,
    complete_predictions,
    read_predictions,
)
from i3dzoo.evaluation.predictions import PredictionHeader, VideoPrediction


def save(path: Path, predictions: list[VideoPrediction], header: PredictionHeader = HEADER) -> Path:
    """Write predictions to a file that may have some of them."""
    with PredictionWriter(path, header) as writer:
        writer.write_missing(predictions)
    return path


def test_logits_come_back_to_the_bit(tmp_path: Path) -> None:
    """A file reads back exactly, with extreme numbers and odd names."""
    odd = np.array([np.finfo("f4").max, np.finfo("f4").tiny, 1e-45, -0.0], dtype="f4")
    names = ['wave/ä "quoted"\n.avi', "wave/\udcff.avi"]
    written = [*make_predictions(20), *(VideoPrediction(name, 0, odd) for name in names)]
    predictions = read_predictions(save(tmp_path / "p.jsonl", written))
    assert predictions.header == HEADER
    assert predictions.videos == tuple(row.video for row in written)
    expected = np.array([row.logits for row in written])
    np.testing.assert_array_equal(predictions.logits.view("u4"), expected.view("u4"))
    assert predictions.labels.tolist() == [row.label for row in written]
    assert predictions.clips.tolist() == [row.clips for row in written]


def test_logits_beyond_float32_are_infinite(tmp_path: Path) -> None:
    """A number that float32 does not have is infinity, which the metrics explain."""
    path = save(tmp_path / "p.jsonl", make_predictions(1, classes=2))
    header, line, _ = path.read_bytes().split(b"\n")
    document = {**json.loads(line), "logits": [1e300, -1e300]}
    path.write_bytes(header + b"\n" + json.dumps(document).encode() + b"\n")
    assert read_predictions(path).logits.tolist() == [[float("inf"), float("-inf")]]


def test_resumes_after_a_cut_at_any_byte(tmp_path: Path) -> None:
    """A file that is cut off anywhere is completed, and equals one that was never cut."""
    predictions = make_predictions(3, classes=2)
    whole = save(tmp_path / "whole.jsonl", predictions).read_bytes()
    path = tmp_path / "cut.jsonl"
    ends = [len(whole) - len(whole.split(b"\n", at)[-1]) for at in range(1, 5)]
    near = {end + step for end in ends for step in (-2, -1, 0, 1)}
    for size in sorted({0, 1, 30, *near} & set(range(len(whole)))):
        path.write_bytes(whole[:size])
        with PredictionWriter(path, HEADER) as writer:
            assert len(writer.done) == max(whole[:size].count(b"\n") - 1, 0)
        save(path, predictions)
        assert path.read_bytes() == whole


def test_incomplete_files(tmp_path: Path) -> None:
    """A reader leaves out a cut line and does not change the file; others are errors."""
    path = save(tmp_path / "p.jsonl", make_predictions(3))
    cut = path.read_bytes()[:-5]
    path.write_bytes(cut)
    assert len(read_predictions(path).videos) == 2
    assert path.read_bytes() == cut
    with pytest.raises(MissingFileError, match="does not exist"):
        read_predictions(tmp_path / "other.jsonl")
    path.write_bytes(b"")
    with pytest.raises(FormatError, match="found an empty file"):
        read_predictions(path)


@pytest.mark.parametrize("key", ["model", "protocol", "split", "data"])
def test_another_run_is_refused(tmp_path: Path, key: str) -> None:
    """Predictions of another model, protocol, split or dataset are not changed."""
    path = save(tmp_path / "p.jsonl", make_predictions(2))
    before = path.read_bytes()
    other = msgspec.structs.replace(HEADER, **{key: "b" * 64})
    with pytest.raises(OutputError, match=rf"of {other}, found those of {HEADER}; name another"):
        PredictionWriter(path, other)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not predictions\n", r"line 1 .*is not valid JSON"),
        ("precious notes", "not a file of predictions"),
        ('{"a": 1}\n', r"line 1 .*\(a: unknown key"),
        ("[]\n", "line 1 .*found a list"),
        ("HEADER{\n", "line 2 is damaged"),
        ("HEADER" + "[" * 10_000 + "\n", "line 2 is damaged"),
        ('HEADER{"video": 1, "label": 0, "clips": 1, "logits": [1]}\n', "expected a text"),
        ('HEADER{"video": "a", "label": 0, "clips": 1, "logits": [[1]]}\n', "a list of numbers"),
        ('HEADER{"video": "a", "label": -1, "clips": 1, "logits": [1]}\n', "a label of 0 or more"),
        ('HEADER{"video": "a", "label": 0, "clips": 1}\n', "line 2 .*'logits'"),
        ('HEADER{"video": "a", "label": 2147483648, "clips": 1, "logits": [1]}\n', "at most 2147"),
    ],
)
def test_damage_is_named_and_nothing_is_overwritten(
    tmp_path: Path, text: str, message: str
) -> None:
    """A file of something else, or with a damaged line, is an error and is not changed."""
    path = tmp_path / "p.jsonl"
    path.write_text(text.replace("HEADER", json.dumps(msgspec.to_builtins(HEADER)) + "\n"))
    before = path.read_bytes()
    with pytest.raises(FormatError, match=message):
        PredictionWriter(path, HEADER)
    with pytest.raises(FormatError, match=message):
        read_predictions(path)
    assert path.read_bytes() == before


def test_videos_that_do_not_fit_the_file(tmp_path: Path) -> None:
    """The same video cannot be written or read twice, nor one with another number of logits."""
    (prediction,) = make_predictions(1)
    path = tmp_path / "p.jsonl"
    with PredictionWriter(path, HEADER) as writer:
        writer.write(prediction)
        with pytest.raises(MappingError, match=r"wave/0\.avi has two predictions"):
            writer.write(prediction)
        with pytest.raises(ShapeError, match="other: expected 4 logits, found 3"):
            writer.write(VideoPrediction("other", 0, np.zeros(3, "f4")))
    with path.open("ab") as file:
        file.write(path.read_bytes().splitlines(keepends=True)[1])
    with pytest.raises(MappingError, match=r"wave/0\.avi has two predictions"):
        read_predictions(path)


def test_a_full_disk(tmp_path: Path) -> None:
    """A line that does not fit is an error; the file can be completed afterwards."""
    path = tmp_path / "p.jsonl"
    predictions = make_predictions(10)
    with full_disk(400), pytest.raises(OutputError, match="cannot be written"):
        save(path, predictions)
    assert path.stat().st_size <= 400
    assert len(read_predictions(save(path, predictions)).videos) == 10


@pytest.mark.skipif(os.name != "posix", reason="there are no such locks")
def test_another_evaluation(tmp_path: Path) -> None:
    """A file that another process is completing is refused, and stays as it is."""
    path = save(tmp_path / "x.jsonl", make_predictions(3))
    before = path.read_bytes()
    with (
        holding("exclusive", path) as process,
        pytest.raises(OutputError, match=rf"x\.jsonl: process {process.pid} on"),
    ):
        complete_predictions(path, HEADER, lambda _: iter([]), ProcessGroup())
    assert path.read_bytes() == before


def test_parts_of_killed_processes_are_used(tmp_path: Path) -> None:
    """Predictions that other processes made before a kill are not made again or counted twice.

    There are parts of two other processes; the file has one of their predictions already.
    """
    predictions = make_predictions(12)
    path = save(tmp_path / "x.jsonl", predictions[:3])
    save(tmp_path / "x.jsonl.1.part", predictions[2:5])
    (tmp_path / "x.jsonl.2.part").touch()
    save(tmp_path / "y.jsonl", [])
    calls: list[set[str]] = []

    def predict(done: set[str]) -> Iterator[VideoPrediction]:
        calls.append(set(done))
        return (row for row in predictions if row.video not in done)

    result = complete_predictions(path, HEADER, predict, ProcessGroup())
    assert calls == [{row.video for row in predictions[:5]}]
    assert sorted(result.videos) == sorted(row.video for row in predictions)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.jsonl", "y.jsonl"]
    again = complete_predictions(path, HEADER, lambda _: iter([]), ProcessGroup())
    assert again.videos == result.videos
