"""`i3dzoo tao action_recognition`: NVIDIA's train template from training to export."""

import contextlib
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from helpers.cli import run
from helpers.tao_data import CLASSES

from i3dzoo.checkpoints.checkpoint import read_checkpoint
from i3dzoo.evaluation.prediction_file import read_predictions
from i3dzoo.tao.spec import read_tao
from i3dzoo.tao.task import log_to_wandb

SMALL = [
    "model.backbone=i3d", "model.input_type=3d", "model.rgb_seq_length=9", "model.input_width=32",
    "model.input_height=32", "dataset.augmentation_config.crop_smaller_edge=40",
    "dataset.batch_size=6", "dataset.workers=0",
    f"dataset.label_map={{{', '.join(f'{name}: {i}' for i, name in enumerate(CLASSES))}}}",
]  # fmt: skip


@pytest.fixture(scope="module")
def template(test_data: Path) -> Path:
    """Return NVIDIA's train template of TAO 7."""
    return test_data / "tao7" / "spec_template_train.yaml"


def statuses(path: Path) -> list[str]:
    """Return the status of each line of status.json, and check the other keys."""
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for line in lines:
        assert {"date", "time", "status", "verbosity", "message"} <= line.keys()
    return [line["status"] for line in lines]


@pytest.mark.real_data
def test_from_training_to_export(
    template: Path, data: Path, rgb_scratch: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The four tasks run by one template with overrides, and leave what TAO leaves."""
    results = tmp_path / "results"

    def tao(task: str, *words: object) -> list[str]:
        code, output, error = run(
            capsys, "tao", "action_recognition", task, "-e", template, "-r", results, "-k", "key",
            *SMALL, *words, "--device", "cpu",
        )  # fmt: skip
        assert code == 0, error
        assert "-k has no effect" in error
        return output.splitlines()

    train = [
        f"dataset.train_dataset_dir={data / 'train'}", f"dataset.val_dataset_dir={data / 'test'}",
        f"model.rgb_pretrained_model_path={rgb_scratch}", "train.num_epochs=1",
    ]  # fmt: skip
    folder = results / "train"
    assert tao("train", *train) == [str(folder / "ar_model_latest.pth")]
    assert (folder / "ar_model_latest.pth").resolve().name == "model_epoch_000_step_00002.pth"
    assert tao("train", *train, "train.num_epochs=2") == [str(folder / "ar_model_latest.pth")]
    latest = folder / "ar_model_latest.pth"
    assert latest.resolve().name == "model_epoch_001_step_00004.pth"  # resumed by itself
    running = ["RUNNING"] * 2
    assert statuses(folder / "status.json") == ["STARTED", *running, "SUCCESS"] * 2
    state = torch.load(latest, weights_only=True)["state_dict"]
    assert all(key.startswith("model.") for key in state)
    ours = read_checkpoint(folder / "last.safetensors").tensors
    theirs = read_checkpoint(latest).tensors
    assert all((tensor == theirs[name]).all() for name, tensor in ours.items())

    lines = tao("evaluate", f"evaluate.checkpoint={latest}",
                f"evaluate.test_dataset_dir={data / 'test'}")  # fmt: skip
    assert [line.split()[0] for line in lines[1:4]] == list(CLASSES)
    (predictions,) = (results / "evaluate").glob("*.jsonl")
    kept = read_predictions(predictions)
    best = kept.logits.argmax(axis=1)
    right = best == kept.labels
    assert len(right) == 6
    assert lines[5] == f"Total accuracy: {round(100 * np.mean(right), 3)}"

    videos_of_one_class = data / "test" / next(iter(CLASSES))
    lines = tao("inference", f"inference.checkpoint={latest}",
                f"inference.inference_dataset_dir={videos_of_one_class}")  # fmt: skip
    predicted = {video: list(CLASSES)[i] for video, i in zip(kept.videos, best, strict=True)}
    expected = [
        f"{videos_of_one_class / name} : ['{predicted[f'{videos_of_one_class.name}/{name}']}']"
        for name in ("clip0", "clip1")
    ]
    assert lines == expected
    code, output, error = run(
        capsys, "predict", "-e", template, *SMALL, f"inference.checkpoint={latest}",
        f"inference.inference_dataset_dir={videos_of_one_class}", "--device", "cpu", "--json",
    )  # fmt: skip
    assert code == 0, error
    top = [video["top"][0]["label"] for video in json.loads(output)["videos"]]
    assert [f"['{label}']" for label in top] == [line.rpartition(" : ")[2] for line in lines]

    exported = tmp_path / "i3d.onnx"
    assert tao("export", f"export.checkpoint={latest}",
               f"export.onnx_file={exported.with_suffix('.etlt')}") == [str(exported)]  # fmt: skip
    with pytest.raises(AssertionError, match="exists already"):
        tao("export", f"export.checkpoint={latest}", f"export.onnx_file={exported}")
    code, output, error = run(
        capsys, "export", "-e", template, *SMALL, f"export.checkpoint={latest}",
        f"export.onnx_file={exported}", "model.sample_strategy=consecutive",
        "--force", "--deepstream", tmp_path / "ds",
    )  # fmt: skip
    assert (code, output) == (0, f"{exported}\n"), error
    assert "--optShapes=input_rgb:4x3x9x32x32" in error
    assert len(list((tmp_path / "ds").iterdir())) == 3
    (network_input,) = onnx.load(exported).graph.input
    assert network_input.name == "input_rgb"
    assert statuses(results / "export" / "status.json")[:2] == ["STARTED", "SUCCESS"]


@pytest.mark.real_data
def test_failures(
    template: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A task that fails ends with exit code 1 and a last line of status.json that says why."""
    code, _, error = run(
        capsys, "tao", "action_recognition", "evaluate", "-e", template, "-r", tmp_path, *SMALL,
        "evaluate.checkpoint=missing.pth", f"evaluate.test_dataset_dir={data / 'test'}",
        "--device", "cpu",
    )  # fmt: skip
    assert code == 1
    assert "missing.pth" in error
    lines = (tmp_path / "evaluate" / "status.json").read_text("utf-8").splitlines()
    assert statuses(tmp_path / "evaluate" / "status.json") == ["STARTED", "FAILURE"]
    assert "missing.pth" in json.loads(lines[-1])["message"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "-e", "s.yaml", "--model", "rgb_scratch"], "--model, --clips"),
        (["predict", "-e", "s.yaml", "--timeline"], "cannot be used with -e"),
        (["predict", "clip.mp4"], "--model is missing; or pass a TAO spec with -e"),
        (["predict", "--model", "rgb_scratch"], "a VIDEO is missing"),
        (["export", "-e", "s.yaml", "-o", "x.onnx"], "--output cannot be used with -e"),
        (["export", "rgb_scratch", "--to", "onnx"], "expected one MODEL, --to and -o"),
        (["export", "a", "--to", "tao", "-o", "a.pt", "--deepstream", "d"], "applies to --to onnx"),
        (["tao", "action_recognition", "train"], "Missing option '-e'"),
    ],
)
def test_usage(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    """Options that contradict a spec, or are missing, are errors of usage."""
    code, _, error = run(capsys, *words)
    assert code == 2
    assert message in error


class FakeWandb(types.ModuleType):
    """Stands for the package wandb, and records what is passed to it."""

    def __init__(self, key: str | None) -> None:
        super().__init__("wandb")
        self.api = types.SimpleNamespace(api_key=key)
        self.arguments: dict[str, object] = {}

    @contextlib.contextmanager
    def init(self, **arguments: object) -> Iterator[None]:
        """Record the arguments."""
        self.arguments = arguments
        yield


@pytest.mark.real_data
@pytest.mark.parametrize("key", [None, "secret"])
def test_wandb(template: Path, monkeypatch: pytest.MonkeyPatch, key: str | None) -> None:
    """The run is logged to Weights & Biases if someone is logged in; otherwise a note says so."""
    wandb = FakeWandb(key)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    spec = read_tao(template, SMALL)
    with contextlib.ExitStack() as stack:
        note = log_to_wandb(spec, stack)
    assert ("nobody is logged in" in note) == (key is None)
    assert wandb.arguments == ({} if key is None else spec.wandb)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with contextlib.ExitStack() as stack:
        assert "wandb is not installed" in log_to_wandb(spec, stack)
