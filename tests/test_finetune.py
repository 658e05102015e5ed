"""The real commands on generated videos: finetune, resume, evaluate, a TAO spec, the report."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from i3dzoo.checkpoint import read_checkpoint
from i3dzoo.hub.results import read_results
from i3dzoo.training import state
from i3dzoo.training.journal import read_lines
from i3dzoo.training.metrics import evaluate_logits
from i3dzoo.training.predictions import read_predictions
from i3dzoo.video.motions import MOTIONS, render

from .test_cli import run

CLASSES = {"fall_floor": "still", "cartwheel": "turning clockwise fast", "run": "growing fast"}
SMALL = ["augment.frames=12", "augment.resize=64", "augment.crop=64"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames in TAO's layout, train/ and test/, of three motions under names of HMDB51."""
    root = tmp_path_factory.mktemp("motions")
    motions = {motion.name: motion for motion in MOTIONS}
    for role, count, seed in (("train", 8, 1), ("test", 4, 2)):
        for label, name in CLASSES.items():
            for number in range(count):
                folder = root / role / label / f"clip{number}" / "rgb"
                folder.mkdir(parents=True)
                frames, _ = render(motions[name], (seed, number), 12, 64, 80)
                for index, frame in enumerate(frames, 1):
                    Image.fromarray(frame).save(folder / f"{index:06d}.png")
    return root


def spec(data: Path, weights: Path, path: Path, text: str) -> Path:
    """Write NVIDIA's spec with its paths changed and nothing else."""
    replaced = {
        "/workspace/action_recognition/i3d_pretrained/rgb_imagenet_kinetics.pt": str(weights),
        "/raid/HMDB51_splitted_org/train": str(data / "train"),
        "/raid/HMDB51_splitted_org/test": str(data / "test"),
        "./exp0_20__/rgb_3d_hmdb": str(path.parent / "results"),
    }
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return path


def finetune(*arguments: object, settings: list[str]) -> subprocess.CompletedProcess[str]:
    """Run `i3dzoo finetune` on the CPU."""
    words = [word for setting in settings for word in ("--set", setting)]
    return run("finetune", *arguments, *words, "--device", "cpu")


@pytest.mark.real_data
def test_a_tao_spec_runs_and_resumes(
    data: Path, rgb_scratch: Path, test_data: Path, tmp_path: Path
) -> None:
    """TAO's spec with only its paths changed runs, is stopped, goes on, and is measured."""
    text = (test_data / "tao" / "train_rgb_3d_64_i3d.yaml").read_text("utf-8")
    path = spec(data, rgb_scratch, tmp_path / "spec.yaml", text)
    settings = [
        *SMALL,
        "augment.train_crop=center",
        "loop.batch_size=8",
        "loop.workers=0",
        "loop.epochs=4",
        "network.batchnorm=frozen",
        "network.dropout=0",
        "optim.lr=0.0005",
        "optim.head_lr_scale=10",
    ]
    folder = tmp_path / "results"
    begun = finetune("-e", path, settings=[*settings, "loop.max_steps=3"])
    assert begun.returncode == 0, begun.stderr
    again = finetune("-e", path, settings=settings)
    assert again.returncode == 1
    assert "holds a run; pass --resume" in again.stderr
    result = finetune("-e", path, "--resume", settings=settings)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{folder / 'best.safetensors'}\n"
    losses = [line["loss"] for line in read_lines(folder / "metrics.jsonl") if "loss" in line]
    assert len(losses) == 12

    metadata = read_checkpoint(folder / "best.safetensors").metadata
    assert metadata.labels is not None
    assert metadata.labels[:2] == ("throw", "push")  # the order of the spec's label map
    assert metadata.input.mean == (0.485, 0.456, 0.406)
    assert metadata.input.frames == 12
    assert "fine-tuned on train" in metadata.history[-1]

    found = read_predictions(folder / "predictions.jsonl")
    assert len(found.videos) == 12
    top1 = evaluate_logits(found.logits, found.labels).top1
    position, _ = state.load(state.latest(folder) or folder)
    assert position.best == pytest.approx(top1)
    report = (folder / "report.html").read_text("utf-8")
    assert "cartwheel" in report
    for name in ("curves.png", "confusion.png"):  # which push takes along
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 300

    measured = run(
        "evaluate", folder / "best.safetensors", "--data", data / "test", "--split", "none",
        "--device", "cpu", "--json", "-o", tmp_path / "predictions",
    )  # fmt: skip
    assert measured.returncode == 0, measured.stderr
    (document,) = json.loads(measured.stdout)
    assert document["top1"] == pytest.approx(top1)
    assert document["videos"] == 12
    (tmp_path / "results.json").write_text(measured.stdout)
    (result_of_card,) = read_results(tmp_path / "results.json", "hmdb51")  # as push reads it
    assert result_of_card.top1 == pytest.approx(100 * top1, abs=0.01)

    broken = next((data / "test" / "run").iterdir())
    shutil.rmtree(broken / "rgb")
    (broken / "rgb").mkdir()
    part = run(
        "evaluate", folder / "best.safetensors", "--data", data / "test", "--split", "none",
        "--device", "cpu", "--json", "-o", tmp_path / "part", "--on-bad-video", "skip",
    )  # fmt: skip
    (document,) = json.loads(part.stdout)
    assert (document["videos"], list(document["bad_videos"])) == (11, [f"run/{broken.name}"])
    assert f"run/{broken.name}: left out: " in part.stderr


def test_refusals(data: Path, rgb_scratch: Path, tmp_path: Path) -> None:
    """What cannot be trained is refused in a sentence, and no run is begun."""
    folder = tmp_path / "run"
    common = ["finetune", "x", "--from", rgb_scratch, "-o", folder, "--device", "cpu"]
    unknown = run(*common, "--data", data / "train", "--set", "optim.learning_rate=1")
    assert unknown.returncode == 1
    assert "unknown key optim.learning_rate" in unknown.stderr
    missing = run(*common, "--data", tmp_path / "nothing")
    assert missing.returncode == 1
    assert "nothing" in missing.stderr.splitlines()[-1]
    frozen = run(*common, "--data", data / "train", "--freeze", "until:Mixed_9z")
    assert frozen.returncode == 1
    assert not folder.exists()
