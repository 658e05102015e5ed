"""Predictions in memory, as parquet, and fused over two streams."""

import dataclasses
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from helpers.predictions import HEADER, make_predictions

from i3dzoo.errors import MappingError, OutputError, ShapeError
from i3dzoo.evaluation.predictions import PredictionHeader, Predictions, fuse, write_parquet


def test_parquet(tmp_path: Path) -> None:
    """A parquet file has the same predictions, and the header in its metadata."""
    parquet = pytest.importorskip("pyarrow.parquet")
    predictions = Predictions.of(HEADER, make_predictions(7))
    path = write_parquet(predictions, tmp_path / "p.parquet")
    table = parquet.read_table(path)
    assert json.loads(table.schema.metadata[b"i3dzoo"]) == msgspec.structs.asdict(HEADER)
    assert table["video"].to_pylist() == list(predictions.videos)
    assert table["prediction"].to_pylist() == predictions.logits.argmax(1).tolist()
    logits = np.array(table["logits"].to_pylist(), dtype="f4")
    np.testing.assert_array_equal(logits, predictions.logits)
    with pytest.raises(OutputError, match="exists already; pass --force"):
        write_parquet(predictions, path)


def test_logits_of_two_streams_are_summed_by_video() -> None:
    """The logits of a video are summed, in whatever order the videos are."""
    rgb, flow = make_predictions(9), make_predictions(9, seed=1)
    other = PredictionHeader("f" * 64, "center", "1")
    both = fuse(Predictions.of(HEADER, rgb), Predictions.of(other, reversed(flow)))
    assert both.videos == tuple(row.video for row in rgb)
    for logits, a, b in zip(both.logits, rgb, flow, strict=True):
        np.testing.assert_array_equal(logits, a.logits + b.logits)
    assert both.header == PredictionHeader("a" * 64 + "+" + "f" * 64, "center", "1")


def test_streams_that_do_not_fit() -> None:
    """Other videos are named; different splits, classes or labels, and one model, are refused."""
    five, nine = (Predictions.of(HEADER, make_predictions(count)) for count in (5, 9))
    names = r"4 videos are missing from the {} stream: wave/5.avi, wave/6.avi, wave/7.avi, …"
    split = dataclasses.replace(five, header=HEADER.replace(split="2"))
    classes = dataclasses.replace(five, logits=np.zeros((5, 5), "f4"))
    labels = dataclasses.replace(five, labels=np.array([0, 3, 2, 3, 0]))
    for a, b, error, message in (
        (nine, five, MappingError, names.format("second")),
        (five, nine, MappingError, names.format("first")),
        (five, split, MappingError, r"same split .* found 1 and 2"),
        (five, classes, ShapeError, r"same number of classes .* found 4 and 5"),
        (five, labels, MappingError, r"label of wave/1\.avi .* found 1 and 3"),
        (five, five, MappingError, "found those of the model aaaaaaaaaaaa twice"),
    ):
        with pytest.raises(error, match=message):
            fuse(a, b)
