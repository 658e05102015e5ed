"""`i3dzoo finetune -e` and `evaluate -e`: training and evaluating by TAO specs."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from helpers.cli import call
from helpers.tao_data import CLASSES
from helpers.training_runs import finetune

from i3dzoo import formats
from i3dzoo.checkpoints import convert, converter
from i3dzoo.checkpoints.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from i3dzoo.checkpoints.head import change_head
from i3dzoo.checkpoints.streams import change_stream
from i3dzoo.cli.evaluate import command as evaluate_command
from i3dzoo.cli.finetune import command as finetune_command
from i3dzoo.errors import DeviceError, RecipeError
from i3dzoo.evaluation.metrics import evaluate_logits
from i3dzoo.evaluation.prediction_file import read_predictions
from i3dzoo.tao.spec import load_tao
from i3dzoo.tao.task import choose_gpus, tao_job
from i3dzoo.training import checkpointing
from i3dzoo.training.metric_logger import read_metric_lines

# what a CPU can do in seconds; all else is the spec's
SMALL = [
    "--freeze", "until:Mixed_5b", "--set", "augment.frames=9", "--set", "augment.resize=64",
    "--set", "augment.crop=64", "--set", "loop.workers=0", "--set", "loop.epochs=2",
]  # fmt: skip


@pytest.mark.real_data
def test_a_spec_with_only_its_paths_changed(
    data: Path, rgb_scratch: Path, test_data: Path, tmp_path: Path
) -> None:
    """NVIDIA's spec trains with the batch of eight GPUs on one device, and is resumed."""
    text = (test_data / "tao" / "train_rgb_3d_64_i3d.yaml").read_text("utf-8")
    folder, path = tmp_path / "results", tmp_path / "spec.yaml"
    replaced = {
        "/workspace/action_recognition/i3d_pretrained/rgb_imagenet_kinetics.pt": rgb_scratch,
        "/raid/HMDB51_splitted_org/train": data / "train",
        "/raid/HMDB51_splitted_org/test": data / "test",
        "./exp0_20__/rgb_3d_hmdb": folder,
    }
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, str(new))
    path.write_text(text)
    first = finetune("-e", path, *SMALL, "--set", "loop.max_steps=1")
    assert first.returncode == 0, first.stderr
    assert "spec.yaml: encryption_key has no effect" in first.stderr
    assert (
        "the batch of 64 is meant for 8 GPUs with 8 clips each; it stays the same, in 8 parts on "
        "one device"
    ) in first.stderr
    again = finetune("-e", path, *SMALL)
    assert again.returncode == 1
    assert "contains a run; resume it with --resume" in again.stderr
    latest = checkpointing.latest(folder)
    result = finetune("-e", path, f"resume_training_checkpoint_path={latest}", *SMALL)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{folder / 'best.safetensors'}\n"
    assert f"--data {data / 'test'} --split none" in result.stderr
    lines = read_metric_lines(folder / "metrics.jsonl")
    assert [line["step"] for line in lines if line["kind"] == "step"] == [1, 2]

    metadata = read_checkpoint(folder / "best.safetensors").metadata
    assert metadata.labels is not None
    assert metadata.labels[:2] == ("throw", "push")  # the order of the spec's label map
    assert metadata.input.mean == (0.485, 0.456, 0.406)
    assert metadata.history[-1].dataset == "train"
    document = json.loads((folder / "run.json").read_text("utf-8"))
    recipe = document["recipe"]
    assert "loop.max_steps=1" in document["command"]
    assert f"resume_training_checkpoint_path={latest}" in document["resumed"][0]
    assert recipe["loop"]["cudnn_deterministic"] is True
    assert (recipe["loop"]["batch_size"], recipe["loop"]["accumulate"]) == (64, 8)
    assert recipe["schedule"]["steps"] == [12, 25]
    assert len(read_predictions(folder / "predictions.jsonl").videos) == 6


FOLDERS = {"train": "train", "val": "test"}
JOINT_SPEC = """
model:
  {model_type: joint, backbone: i3d, input_type: 3d, sample_strategy: consecutive,
   rgb_seq_length: 12, of_seq_length: 9, input_height: 64, input_width: 64, dropout_ratio: 0}
dataset:
  label_map: {run: 0, cartwheel: 1, fall_floor: 2}
  batch_size: 6
  workers: 0
  augmentation_config: {crop_smaller_edge: 64, val_center_crop: true, of_input_mean: [0.25, 0.5]}
train: {num_epochs: 1, optim: {lr: 0.001}}
"""


def joint_spec(data: Path, folder: Path, **pretrained: Path) -> Path:
    """Write a spec of two streams with different clips, in TAO's newer names."""
    paths = {f"{key}_pretrained_model_path": str(path) for key, path in pretrained.items()}
    document = yaml.safe_load(JOINT_SPEC)
    document["model"] |= paths
    document["dataset"] |= {f"{key}_dataset_dir": str(data / name) for key, name in FOLDERS.items()}
    document["results_dir"] = str(folder / "results")
    path = folder / "joint.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_a_joint_spec(data: Path, genuine: Checkpoint, tmp_path: Path) -> None:
    """RGB and flow are trained together with different clips, and evaluated by summed logits.

    The predictions of the run are the sums of the predictions of its two files.
    """
    flow = change_head(change_stream(genuine, 2), 3)
    weights = {
        "rgb": write_checkpoint(tmp_path / "rgb.safetensors", genuine),
        "of": write_checkpoint(tmp_path / "flow.safetensors", flow),
    }
    path = joint_spec(data, tmp_path, **weights)
    result = finetune("-e", path, "--freeze", "until:Mixed_5b", "--keep", "best")
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "results"
    files = [folder / "best_rgb.safetensors", folder / "best_flow.safetensors"]
    assert result.stdout.splitlines() == list(map(str, files))
    rgb, of = (read_checkpoint(file).metadata for file in files)
    assert (rgb.stream, rgb.input.frames, rgb.input.mean) == ("rgb", 12, (0.485, 0.456, 0.406))
    assert (of.stream, of.input.frames, of.input.mean) == ("flow", 9, (0.25, 0.5))
    assert rgb.labels == of.labels == ("run", "cartwheel", "fall_floor")
    step = rgb.history[-1]
    assert (step.operation, step.evaluated_with, step.protocol) == ("finetune", "flow", "center")
    assert not (folder / "checkpoints").exists()
    assert not (folder / "last_rgb.safetensors").exists()
    again = finetune("-e", path, "--resume")
    assert "contains a finished run without a checkpoint (--keep best)" in again.stderr
    document = json.loads((folder / "run.json").read_text("utf-8"))
    assert document["stream"] == "joint"
    assert document["augment"]["flow"]["frames"] == 9
    page = (folder / "report.html").read_text("utf-8")
    assert f"i3dzoo evaluate {files[0]} {files[1]} --data" in page

    measured = call(
        "evaluate", *files, "--data", data / "test", "--split", "none", "--device", "cpu",
        "--json", "-o", tmp_path / "predictions", "--workers", "0",
    )  # fmt: skip
    assert measured.returncode == 0, measured.stderr
    predictions = read_predictions(folder / "predictions.jsonl")
    assert json.loads(measured.stdout)[0]["top1"] == pytest.approx(
        evaluate_logits(predictions.logits, predictions.labels).top1
    )
    parts = [read_predictions(file) for file in sorted((tmp_path / "predictions").glob("*.jsonl"))]
    places = [[part.videos.index(video) for video in predictions.videos] for part in parts]
    summed = sum(part.logits[place] for part, place in zip(parts, places, strict=True))
    np.testing.assert_allclose(predictions.logits, summed, rtol=1e-3, atol=1e-3)


def test_what_a_stream_begins_with(data: Path, genuine: Checkpoint, tmp_path: Path) -> None:
    """A head that fits the label map is kept; without a model, the weights are random."""
    three = write_checkpoint(tmp_path / "three.safetensors", change_head(genuine, 3))
    path = joint_spec(data, tmp_path, rgb=three)
    job, recipe, notes = tao_job(load_tao(path), ["optim.lr=0.5"])
    assert recipe.optim.lr == 0.5
    initial = job.checkpoints["rgb"]
    assert initial.metadata.labels == ("run", "cartwheel", "fall_floor")
    head = "Logits.Conv3d_0c_1x1.conv.weight"
    np.testing.assert_array_equal(initial.tensors[head], read_checkpoint(three).tensors[head])
    assert notes == ("no pretrained flow model is set: training starts from random weights",)
    again, _, _ = tao_job(load_tao(path))
    name = "Conv3d_1a_7x7.conv.weight"
    assert job.checkpoints["flow"].tensors[name].shape == (64, 2, 7, 7, 7)
    np.testing.assert_array_equal(
        job.checkpoints["flow"].tensors[name], again.checkpoints["flow"].tensors[name]
    )
    _, _, notes = tao_job(load_tao(path, ["model.rgb_pretrained_num_classes=400"]))
    assert f"pretrained_num_classes is 400, but {three} has 3 classes, which are used" in notes
    with pytest.raises(
        RecipeError, match=r"three\.safetensors: expected a flow model, found a rgb"
    ):
        tao_job(load_tao(path, [f"model.of_pretrained_model_path={three}"]))


@pytest.mark.real_data
def test_evaluating_by_a_spec(
    data: Path, genuine: Checkpoint, test_data: Path, tmp_path: Path
) -> None:
    """The spec defines the input and the label map of TAO's file.

    A video without frames stops it, or is named and counted.
    """
    videos = shutil.copytree(data / "test", tmp_path / "videos")
    (videos / "run" / "empty" / "rgb").mkdir(parents=True)
    text = (test_data / "tao" / "train_rgb_3d_64_i3d.yaml").read_text("utf-8")
    tensors = change_head(genuine, 51, seed=3).tensors
    layout = converter.table("piergiaj")
    weights = tmp_path / "tao.pt"
    formats.write(layout.format, weights, convert.from_canonical("", tensors, layout).tensors, {})
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    words = [
        f"model={weights}", f"test_dataset_dir={videos}", "video_eval_mode=conv",
        "video_num_segments=2", "model.rgb_seq_length=9", "dataset.output_shape=[64, 64]",
        "dataset.augmentation_config.crop_smaller_edge=64", f"results_dir={tmp_path / 'out'}",
    ]  # fmt: skip
    command = ["evaluate", "-e", path, *words, "--device", "cpu", "--workers", "0", "--json"]
    stopped = call(*command)
    assert stopped.returncode == 1
    assert "1 of 7 videos cannot be used, the first is run/empty" in stopped.stderr
    result = call(*command, "--on-bad-video", "skip")
    assert result.returncode == 0, result.stderr
    assert "run/empty: left out: " in result.stderr
    assert "video_num_segments has no effect" not in result.stderr
    (document,) = json.loads(result.stdout)
    assert (document["protocol"], document["split"], document["videos"]) == ("multi:2x1", "none", 6)
    assert list(document["bad_videos"]) == ["run/empty"]
    assert document["labels"][:2] == ["throw", "push"]
    totals = np.array(document["confusion"]).sum(1)
    assert {document["labels"][at]: totals[at] for at in totals.nonzero()[0]} == dict.fromkeys(
        CLASSES, 2
    )
    assert [file.suffix for file in (tmp_path / "out").iterdir()] == [".jsonl"]
    usage = CliRunner().invoke(evaluate_command, ["-e", str(path), "--protocol", "paper"])
    assert "--protocol cannot be used with -e" in usage.output


def test_the_gpus_of_a_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process uses the GPUs of the spec that exist; it is an error if none exists."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(DeviceError, match="gpu_ids is 4, 5, but there are 2 GPUs, 0 to 1"):
        choose_gpus((4, 5), "auto")
    for device in ("cpu", "cuda:1"):  # which have priority
        assert choose_gpus((4, 5), device) == ""
        assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert choose_gpus(tuple(range(8)), "auto") == ""
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert "CUDA_VISIBLE_DEVICES is set and has priority" in choose_gpus((1,), "cuda")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert "2 processes were started" in choose_gpus((1,), "cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert choose_gpus((4,), "auto") == ""


def test_options_that_a_spec_says_itself(tmp_path: Path) -> None:
    """Options that the spec defines are refused."""
    for words in (["--data", "x"], ["--from", "x"], ["--recipe", "tao"], ["--split", "1"]):
        result = CliRunner().invoke(finetune_command, ["-e", str(tmp_path / "spec.yaml"), *words])
        assert result.exit_code == 2
        assert f"{words[0]} cannot be used with -e" in result.output
