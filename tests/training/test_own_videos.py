"""Fine-tuning and evaluating on videos of one's own, without an index."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.cli import run, succeed
from helpers.training_runs import finetune

import i3dzoo
from i3dzoo.checkpoints.checkpoint import read_checkpoint
from i3dzoo.errors import OptionError
from i3dzoo.report.run_folder import read_run
from i3dzoo.training.auto_recipe import choose_recipe
from i3dzoo.training.recipe import load_recipe
from i3dzoo.video import read_index
from i3dzoo.video.generate import CLIPS_FOLDER
from i3dzoo.video.summary import Summary

# What makes an automatic recipe cheap enough for a test.
CHEAP = [
    "--set", "augment.frames=9", "--set", "augment.resize=32", "--set", "augment.crop=32",
    "--set", "loop.epochs=1", "--set", "loop.workers=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def clips(motions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three class folders with one class that has fewer videos than the others."""
    source = motions.parent / "source" / CLIPS_FOLDER
    folder = shutil.copytree(source, tmp_path_factory.mktemp("own") / "clips")
    for video in sorted((folder / "fencing").iterdir())[2:]:
        video.unlink()
    return folder


@pytest.fixture(scope="module")
def trained(clips: Path, rgb_scratch: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run without a recipe."""
    folder = tmp_path_factory.mktemp("own") / "run"
    result = finetune("mine", "--data", clips, "--from", rgb_scratch, "-o", folder, *CHEAP)
    assert result.returncode == 0, result.stderr
    for fact in (
        "12 videos of 3 classes, 2 to 5 in each",
        "chance is 33.3%",
        "recipe cpu",
        "no GPU",
    ):
        assert fact in result.stderr
    assert f"--data {folder / 'data'}" in result.stderr
    return folder


def test_one_command(trained: Path, clips: Path) -> None:
    """The run has the index, the split and the weights; unbalanced classes are weighted."""
    index = read_index(trained / "data")
    assert index.videos == clips
    assert (len(index.select(1, "train")), len(index.select(1, "val"))) == (9, 3)
    assert {entry.label for entry in index.select(1, "val")} == set(index.classes)
    record = read_run(trained)
    assert record.recipe["optim"]["class_weights"] == "balanced"
    assert (record.source.training_videos, record.source.test_videos) == (9, 3)
    metadata = read_checkpoint(trained / "best.safetensors").metadata
    assert metadata.labels == ("brush_hair", "fencing", "kick_ball")
    assert "data:image/jpeg;base64," in (trained / "report.html").read_text("utf-8")


def test_resume_keeps_recipe_and_split(trained: Path, clips: Path, rgb_scratch: Path) -> None:
    """A resumed run has the recipe that was chosen, and another split is refused."""
    common = ("mine", "--data", clips, "--from", rgb_scratch, "-o", trained, "--resume")
    result = finetune(*common, "--set", "loop.workers=0")
    assert result.returncode == 0, result.stderr
    assert read_run(trained).recipe["augment"]["frames"] == 9
    result = finetune(*common, "--val-fraction", "0.5")
    assert result.returncode == 1
    assert "is split with val_fraction 0.2; expected 0.5" in result.stderr


def test_evaluate(
    trained: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The split of the run, a folder and a list of the same videos are evaluated."""
    model, common = trained / "best.safetensors", ("--device", "cpu", "--workers", 0, "--json")
    options = ("-o", tmp_path / "predictions", *common)
    out, err = succeed(capsys, "evaluate", model, "--data", trained / "data", *options)
    assert json.loads(out)[0]["videos"] == 3
    assert "the validation videos are evaluated" in err
    assert "was trained on" not in err
    out, err = succeed(capsys, "evaluate", model, "--data", clips, *options)
    assert "trained on 9 of these 12 videos; to evaluate it on the others only, use" in err
    (whole,) = json.loads(out)
    assert (whole["videos"], whole["split"]) == (12, "none")
    # a list with the numbers of the model's classes
    numbers = {"brush_hair": 0, "fencing": 1, "kick_ball": 2}
    rows = [f"{path.name},{numbers[path.parent.name]}" for path in sorted(clips.glob("*/*"))]
    (tmp_path / "list.csv").write_text("\n".join(["video,label_id", *rows]))
    out, _ = succeed(
        capsys, "evaluate", model, "--data", tmp_path / "list.csv", "--root", clips, *options
    )
    (listed,) = json.loads(out)
    assert (listed["videos"], listed["top1"]) == (12, whole["top1"])


def test_data_that_cannot_be_used(
    clips: Path, rgb_scratch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unreadable video is an error that names the remedy; so is a folder without classes."""
    copy = shutil.copytree(clips, tmp_path / "clips")
    (copy / "fencing" / "bad.mp4").write_bytes(b"no video" * 99)
    start = ("--from", rgb_scratch, "-o", tmp_path / "run", "--device", "cpu")
    code, _, err = run(capsys, "finetune", "mine", "--data", copy, *start)
    assert code == 1
    assert "fencing/bad.mp4" in err
    assert "--on-bad-video skip" in err
    code, _, err = run(capsys, "finetune", "mine", "--data", clips / "fencing", *start)
    assert code == 1
    assert "no class folders" in err


def test_options_of_folders(trained: Path, rgb_scratch: Path) -> None:
    """Options that would not change a prepared dataset are refused."""
    with pytest.raises(OptionError, match=r"data: is prepared, and --labels.*leave them out"):
        i3dzoo.finetune(trained / "data", rgb_scratch, folder="run", group_by="g")


def summary(**classes: int) -> Summary:
    """Return the summary of a dataset with so many videos of each class."""
    count = sum(classes.values())
    return Summary(classes, {"train": count}, {}, None, {}, {}, 1 / len(classes), 0.5)


def test_recipe_for_the_size_and_the_device() -> None:
    """Small data has small batches with smaller rates; a CPU trains a part, for a few epochs."""
    large, few = summary(a=4000, b=4000), summary(a=4, b=6)
    recipe, notes = choose_recipe(large, gpu=True)
    assert recipe == load_recipe("small")
    assert "recipe small" in notes[0]
    recipe, _ = choose_recipe(few, gpu=True)
    assert (recipe.loop.batch_size, recipe.loop.epochs) == (5, 100)
    assert recipe.optim.lr == pytest.approx(0.005 * 5 / 16)
    recipe, notes = choose_recipe(few, gpu=False)
    assert recipe.network.freeze == "until:Mixed_4f"
    assert recipe.loop.epochs * 10 <= 150
    assert "--recipe small" in notes[1]
    assert recipe.optim.class_weights == "none"
    recipe, notes = choose_recipe(summary(a=4, b=8), gpu=False)
    assert recipe.optim.class_weights == "balanced"
    assert "4 to 8 videos" in notes[-1]
