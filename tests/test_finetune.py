"""`i3dzoo finetune` and what follows it, on generated clips in the shape of HMDB51."""

import re
from pathlib import Path

import numpy as np
import pytest

from i3dzoo.checkpoint import read_checkpoint
from i3dzoo.training import state
from i3dzoo.training.journal import read_lines
from i3dzoo.training.metrics import evaluate_logits
from i3dzoo.training.predictions import read_predictions

from .training_runs import finetune, three_motions

CHANCE = 1 / 3
MARGIN = 0.25


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three motions under names of HMDB51, 10 + 4 clips of each, generated and prepared."""
    return three_motions(tmp_path_factory.mktemp("motions"))


@pytest.fixture(scope="module")
def trained(data: Path, rgb_scratch: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run by the recipe `smoke`, from the genuine weights."""
    folder = tmp_path_factory.mktemp("smoke") / "run"
    result = finetune(
        "hmdb51", "--data", data, "--from", rgb_scratch, "--recipe", "smoke", "-o", folder
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{folder / 'best.safetensors'}\n"
    assert "epoch 6 of 6: validation loss" in result.stderr
    assert f"Next: i3dzoo evaluate {folder / 'best.safetensors'} --data {data}" in result.stderr
    return folder


def test_it_learns(trained: Path) -> None:
    """The loss falls to less than half, and unseen clips are told apart far better than chance."""
    losses = [line["loss"] for line in read_lines(trained / "metrics.jsonl") if "loss" in line]
    assert len(losses) == 18
    assert np.mean(losses[-3:]) < 0.5 * np.mean(losses[:3])
    found = read_predictions(trained / "predictions.jsonl")
    metrics = evaluate_logits(found.logits, found.labels)
    assert metrics.videos == 12
    assert metrics.top1 >= CHANCE + MARGIN
    latest = state.latest(trained)
    assert latest is not None
    assert state.load(latest)[0].best == pytest.approx(metrics.top1)


def test_the_file_says_how_it_was_made(trained: Path) -> None:
    """From what, on what, by which recipe, to which accuracy; and what clips it takes."""
    metadata = read_checkpoint(trained / "best.safetensors").metadata
    assert metadata.labels == ("brush_hair", "fencing", "kick_ball")
    assert (metadata.base, metadata.zoo) == ("rgb_scratch", None)
    assert (metadata.input.frames, metadata.input.crop) == (16, 64)
    assert re.search(
        r"fine-tuned on hmdb51 split 1 by 'Under a minute .*', top-1 0\.\d+ \(center\)",
        metadata.history[-1],
    )


def test_the_report_shows_it_all(trained: Path) -> None:
    """Curves, confusion, classes, the worst clips with their frames, environment and command."""
    page = (trained / "report.html").read_text("utf-8")
    for text in (
        "Curves over epochs",
        "Confused most",
        "Accuracy of each class",
        "kick_ball",
        "data:image/jpeg;base64,",
        "PyTorch",
        "i3dzoo finetune hmdb51 --data",
    ):
        assert text in page
    assert "No frames:" not in page
    assert any((trained / "tensorboard").iterdir())


def test_refusals(data: Path, rgb_scratch: Path, tmp_path: Path) -> None:
    """What cannot be trained is refused in a sentence, and no run is begun."""
    folder = tmp_path / "run"
    common = ["x", "--from", rgb_scratch, "-o", folder]
    unknown = finetune(*common, "--data", data, "--set", "optim.learning_rate=1")
    assert unknown.returncode == 1
    assert "unknown key optim.learning_rate" in unknown.stderr
    missing = finetune(*common, "--data", tmp_path / "nothing")
    assert missing.returncode == 1
    assert "nothing" in missing.stderr.splitlines()[-1]
    frozen = finetune(*common, "--data", data, "--freeze", "until:Mixed_9z")
    assert frozen.returncode == 1
    same = finetune(*common, "--data", data, "--split", "none")
    assert same.returncode == 1
    assert "without a split all its videos are trained on" in same.stderr
    assert not folder.exists()
    usage = finetune(*common, "--data", data, "--keep", "some")
    assert usage.returncode == 2
    assert "--keep some: expected last, best, or last,best" in usage.stderr
