"""`i3dzoo finetune` on generated clips."""

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.cli import run
from helpers.training_runs import finetune, losses, three_motions

import i3dzoo
from i3dzoo.checkpoints.checkpoint import read_checkpoint
from i3dzoo.digests import sha256
from i3dzoo.errors import OutputError, RecipeError, TrainingError
from i3dzoo.evaluation.metrics import evaluate_logits
from i3dzoo.evaluation.prediction_file import read_predictions
from i3dzoo.training import checkpointing
from i3dzoo.video.index_file import read_index, write_index

Attempt = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generate and prepare three motions with 10 + 4 clips each, named as classes of HMDB51."""
    return three_motions(tmp_path_factory.mktemp("motions"))


@pytest.fixture(scope="module")
def trained(data: Path, rgb_scratch: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run with the recipe `smoke`, from the published weights."""
    folder = tmp_path_factory.mktemp("smoke") / "run"
    result = finetune(
        "hmdb51", "--data", data, "--from", rgb_scratch, "--recipe", "smoke", "-o", folder
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{folder / 'best.safetensors'}\n"
    assert "epoch 6 of 6: validation loss" in result.stderr
    assert f"Next: i3dzoo evaluate {folder / 'best.safetensors'} --data {data}" in result.stderr
    return folder


@pytest.fixture
def attempt(data: Path, rgb_scratch: Path, capsys: pytest.CaptureFixture[str]) -> Attempt:
    """Return a function that runs the command; it returns the exit code and the error."""

    def attempt(folder: Path, *words: object) -> tuple[int, str]:
        start = [] if "--from" in words else ["--from", rgb_scratch]
        options = ["--data", data, *start, "-o", folder, "--recipe", "smoke", "--device", "cpu"]
        code, _, error = run(capsys, "finetune", "hmdb51", *options, *words)
        return code, " ".join(error.split())

    return attempt


def test_it_learns(trained: Path) -> None:
    """The loss falls to less than half, and the accuracy on unseen clips is above chance."""
    steps = losses(trained)
    assert len(steps) == 18
    assert np.mean(steps[-3:]) < 0.5 * np.mean(steps[:3])
    predictions = read_predictions(trained / "predictions.jsonl")
    metrics = evaluate_logits(predictions.logits, predictions.labels)
    assert metrics.videos == 12
    assert metrics.top1 >= 1 / 3 + 0.25  # chance, and a margin
    latest = checkpointing.latest(trained)
    assert latest is not None
    assert checkpointing.load(latest)[0].best_top1 == pytest.approx(metrics.top1)


def test_the_file_records_its_origin(trained: Path) -> None:
    """The file records the base model, the dataset, the recipe, the accuracy and the input."""
    metadata = read_checkpoint(trained / "best.safetensors").metadata
    assert metadata.labels == ("brush_hair", "fencing", "kick_ball")
    assert (metadata.base, metadata.zoo) == ("rgb_scratch", None)
    assert (metadata.input.frames, metadata.input.crop) == (16, 64)
    step = metadata.history[-1]
    assert (step.operation, step.dataset, step.split) == ("finetune", "hmdb51", "1")
    assert step.base_model == "rgb_scratch"
    assert step.recipe is not None
    assert step.recipe.startswith("Under a minute")
    assert 0 < step.metrics["top1"] <= 1


def test_the_report_shows_it_all(trained: Path) -> None:
    """The report has curves, confusion, classes, frames, environment and command."""
    page = (trained / "report.html").read_text("utf-8")
    for text in ("Curves over epochs", "Most confused", "Accuracy of each class", "kick_ball"):
        assert text in page
    for text in ("data:image/jpeg;base64,", "pytorch", "i3dzoo finetune hmdb51 --data"):
        assert text in page
    assert "No frames:" not in page
    assert any((trained / "tensorboard").iterdir())


def test_stopped_within_an_epoch(data: Path, rgb_scratch: Path, tmp_path: Path) -> None:
    """An evaluation within an epoch is reported by its step.

    Videos that the index marks as unusable are left out, and named once.
    """
    index, lines = data / "unusable.jsonl", (data / "index.jsonl").read_text("utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    bad = [entry for entry in entries[1:] if entry["roles"][0] == "train"][:7]
    for entry in bad:
        entry["error"] = "is no video"
    index.write_text("".join(json.dumps(entry) + "\n" for entry in entries), "utf-8")
    words = ["--recipe", "smoke", "--set", "augment.frames=9", "--set", "loop.max_steps=1"]
    common = ("--data", index, "--from", rgb_scratch, "-o", tmp_path / "run", *words)
    result = finetune("hmdb51", *common, "--on-bad-video", "skip", "--json")
    assert result.returncode == 0, result.stderr
    assert "step 1: validation loss" in result.stderr
    assert result.stderr.count(": left out: ") == 7
    document = json.loads(result.stdout)
    assert document["best_epoch"] == 0.5
    assert list(document["bad_videos"]) == [entry["file"] for entry in bad]
    result = finetune("hmdb51", *common, "--on-bad-video", "skip", "--resume")
    assert re.search(r"best top-1 [\d.]+% after step 1\n", result.stderr)


def test_from_python(data: Path, rgb_scratch: Path, tmp_path: Path) -> None:
    """`i3dzoo.finetune` does what the command does, and returns the files and the accuracy."""
    folder = tmp_path / "run"
    settings = {"augment.frames": 9, "loop.max_steps": 1}
    result = i3dzoo.finetune(
        data, rgb_scratch, folder=folder, recipe="smoke", settings=settings, device="cpu"
    )
    assert result.files == (folder / "best.safetensors",)
    assert result.position.step == 1
    assert read_checkpoint(result.files[0]).metadata.input.frames == 9
    assert json.loads((folder / "run.json").read_text("utf-8"))["recipe"]["loop"]["max_steps"] == 1
    with pytest.raises(OutputError, match="contains a run; resume it with"):
        i3dzoo.finetune(data, rgb_scratch, folder=folder, recipe="smoke", device="cpu")
    with pytest.raises(RecipeError, match=r"keep: expected .*, found .*worst"):
        i3dzoo.finetune(data, rgb_scratch, keep=["worst"])


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--set", "optim.learning_rate=1"], 1, "optim.learning_rate: unknown key"),
        (
            ["--data", "nothing"],
            1,
            "nothing: no such file or folder; expected a folder <class>/",
        ),
        (["--freeze", "until:Mixed_9z"], 1, "network.freeze: expected none, trunk, or until:"),
        (["--split", "none"], 1, "name other videos for the evaluation with --test-data"),
        (["--keep", "some"], 2, "'some' is not one of 'last,best'"),
        (["x=y"], 2, "KEY=VALUE replaces keys of a TAO spec; for a recipe, use --set"),
    ],
)
def test_refusals(
    attempt: Attempt, tmp_path: Path, words: list[str], code: int, message: str
) -> None:
    """A wrong option is refused in a sentence, and no run begins."""
    exit_code, error = attempt(tmp_path / "run", *words)
    assert exit_code == code
    assert message in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "before", "after"),
    [
        (["--split", "2"], "split 1", "split 2"),
        (["--keep", "best"], "keep best,last", "keep best"),
        (["--set", "augment.frames=9"], "augment.frames 16", "augment.frames 9"),
        (["--data", "OTHER"], "training videos digest [0-9a-f]{64}", "training videos digest"),
        (["--from", "BEST"], "rgb model digest [0-9a-f]{64}", "rgb model digest"),
    ],
)
def test_another_run_is_not_resumed(
    attempt: Attempt, trained: Path, data: Path, words: list[str], before: str, after: str
) -> None:
    """A changed split, dataset, model, setting or --keep is refused by name."""
    other = data / "other.jsonl"
    text = (data / "index.jsonl").read_text("utf-8")
    other.write_text(text.replace("_goo_0.avi", "_goo_x.avi"), "utf-8")
    record = (trained / "run.json").read_bytes()
    paths = {"OTHER": other, "BEST": trained / "best.safetensors"}
    code, error = attempt(trained, "--resume", *[paths.get(word, word) for word in words])
    assert code == 1
    assert re.search(f"the run has {before}, and it cannot be resumed with {after}", error)
    assert (trained / "run.json").read_bytes() == record


@pytest.mark.parametrize("text", ["", "{", "[]", '{"command": 1, "started": ""}'])
def test_a_damaged_record(attempt: Attempt, trained: Path, tmp_path: Path, text: str) -> None:
    """A run.json that cannot be read is named, with advice."""
    (tmp_path / "checkpoints").symlink_to(trained / "checkpoints")
    (tmp_path / "run.json").write_text(text)
    code, error = attempt(tmp_path, "--resume")
    assert code == 1
    assert f"i3dzoo: {tmp_path / 'run.json'}: " in error
    assert "remove the file to resume without its contents" in error


@pytest.mark.parametrize("keep", ["last,best", "best", "last"])
def test_resumed_where_the_result_is_missing(
    trained: Path, data: Path, rgb_scratch: Path, tmp_path: Path, keep: str
) -> None:
    """A resumed run without its best weights keeps the last weights, and evaluates them.

    With `--keep last`, this is a kill between the last checkpoint and the end.
    """
    folder = shutil.copytree(trained, tmp_path / "run")
    for name in (".best.safetensors.x8_2.part", "checkpoints/.step.x9_3.part"):
        (folder / name).write_bytes(b"half")
    for name in ("best.safetensors", "last.safetensors", "predictions.jsonl"):
        (folder / name).unlink()
    path = checkpointing.latest(folder)
    assert path is not None
    content = torch.load(path, weights_only=True)
    content["fixed"]["keep"] = ",".join(sorted(keep.split(",")))
    torch.save(content, path)
    common = ("--recipe", "smoke", "-o", folder, "--keep", keep, "--resume")
    result = finetune("hmdb51", "--data", data, "--from", rgb_scratch, *common)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{folder / 'last.safetensors'}\n"
    assert f"Next: i3dzoo evaluate {folder / 'last.safetensors'} --data {data}" in result.stderr
    assert json.loads((folder / "run.json").read_text("utf-8"))["result"] == "last.safetensors"
    predictions = read_predictions(folder / "predictions.jsonl")
    assert predictions.header.model == sha256(folder / "last.safetensors")
    assert len(predictions.videos) == 12
    assert not list(folder.rglob(".*.part"))


def test_data_without_one_of_several_classes(data: Path, rgb_file: Path, tmp_path: Path) -> None:
    """Data of a single class, and multi-label data, are refused before training."""
    index = read_index(data)
    own = tuple(entry for entry in index.entries if entry.label == index.classes[0])
    several = tuple(entry.replace(label="", labels=index.classes[:2]) for entry in own)
    options: dict[str, Any] = {"folder": tmp_path / "run", "recipe": "smoke", "device": "cpu"}
    one = dataclasses.replace(index, classes=index.classes[:1], entries=own)
    for changed, message in (
        (one, rf"one class \({index.classes[0]}\).*videos of another class"),
        (dataclasses.replace(index, entries=several), "several classes.*one class"),
    ):
        folder = tmp_path / str(len(changed.classes))
        folder.mkdir()
        write_index(dataclasses.replace(changed, root=folder))
        with pytest.raises(TrainingError, match=message):
            i3dzoo.finetune(folder, rgb_file, **options)
