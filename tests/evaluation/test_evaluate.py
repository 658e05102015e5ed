"""`i3dzoo evaluate` and `push` after `finetune`, on generated clips."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.cli import call
from helpers.processes import as_ranks
from PIL import Image
from pyarrow import parquet

from i3dzoo.evaluation.metrics import evaluate_logits
from i3dzoo.evaluation.prediction_file import read_predictions
from i3dzoo.evaluation.predictions import Predictions

Evaluated = tuple[Path, Predictions, dict[str, Any]]


@pytest.fixture(scope="module")
def evaluated(
    finetuned: Path, motions: Path, tmp_path_factory: pytest.TempPathFactory
) -> Evaluated:
    """Return the folder that one process writes, the predictions of split 1, and its numbers."""
    folder = tmp_path_factory.mktemp("evaluate")
    result = call(
        "evaluate", finetuned / "best.safetensors", "--data", motions, "--device", "cpu",
        "--workers", "0", "-o", folder, "--results", folder / "results.json", "--parquet",
        "--confusion", folder / "confusion.png", "--split", "all", "--json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    documents = json.loads(result.stdout)
    assert [document["split"] for document in documents] == ["1", "2", "3"]
    (path,) = folder.glob("best-*_center_split1.jsonl")
    return folder, read_predictions(path), documents[0]


def assert_same_logits(predictions: Predictions, expected: Predictions) -> None:
    """Assert that the videos and their logits are the same, in any order."""
    assert sorted(predictions.videos) == sorted(expected.videos)
    row = [predictions.videos.index(video) for video in expected.videos]
    np.testing.assert_allclose(predictions.logits[row], expected.logits, rtol=1e-4, atol=1e-4)


def test_all_that_is_written(evaluated: Evaluated, finetuned: Path) -> None:
    """Predictions twice, the matrix as numbers and as a picture; all as training measured."""
    folder, predictions, document = evaluated
    assert_same_logits(predictions, read_predictions(finetuned / "predictions.jsonl"))
    (table,) = folder.glob("*_split1.parquet")
    logits = parquet.read_table(table)["logits"].to_pylist()
    np.testing.assert_array_equal(np.array(logits, "f4"), predictions.logits)
    metrics = evaluate_logits(predictions.logits, predictions.labels)
    assert document["confusion"] == metrics.confusion.tolist()
    assert document["interval"] == pytest.approx(metrics.interval)
    assert document["mean_class"] == pytest.approx(metrics.mean_class)
    with Image.open(folder / "confusion_split3.png") as picture:
        assert min(picture.size) > 200


def test_push_takes_the_results(evaluated: Evaluated, finetuned: Path) -> None:
    """The card of a fine-tuned model shows the results of evaluate, in percent."""
    folder, _, document = evaluated
    result = call(
        "push", finetuned / "best.safetensors", "alice/motions", "--dry-run", "--results",
        folder / "results.json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    percent = f"{100 * document['top1']:.1f}"
    assert f"| HMDB51 | test 1, center | {percent} | 100.0 | 3 |" in result.stdout
    assert "| HMDB51 | test 3, center | " in result.stdout
    assert "confusion_matrix.png" in result.stdout  # finetune drew it beside the file


def test_two_processes_count_no_video_twice(
    evaluated: Evaluated, finetuned: Path, motions: Path, tmp_path: Path
) -> None:
    """Two processes give the numbers of one, one file, and no parts."""
    result, other = as_ranks(
        call, "evaluate", finetuned / "best.safetensors", "--data", motions, "--device", "cpu",
        "--workers", "0", "-o", tmp_path, "--json",
    )  # fmt: skip
    assert (result.returncode, other.returncode) == (0, 0), result.stderr
    assert other.stdout == ""
    (document,) = json.loads(result.stdout)
    assert document["videos"] == 3  # an odd number, which two processes cannot share evenly
    assert document["confusion"] == evaluated[2]["confusion"]
    (path,) = tmp_path.iterdir()
    assert_same_logits(read_predictions(path), evaluated[1])


def test_streams_are_fused_from_saved_predictions(evaluated: Evaluated, tmp_path: Path) -> None:
    """Two files of predictions are enough, and no network runs."""
    (path,) = evaluated[0].glob("*_split1.jsonl")
    header, *lines = path.read_text("utf-8").splitlines(keepends=True)
    flow = tmp_path / "flow.jsonl"
    flow.write_text(json.dumps(json.loads(header) | {"model": "f" * 64}) + "\n" + "".join(lines))
    (document,) = json.loads(call("evaluate", path, flow, "--json").stdout)
    assert document["top1"] == evaluated[2]["top1"]
    assert document["loss"] != evaluated[2]["loss"]  # the logits are doubled
