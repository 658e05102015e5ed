"""`i3dzoo evaluate` as a user meets it: what is mixed, what is refused, and in which words."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from i3dzoo.checkpoint import Checkpoint, write_checkpoint
from i3dzoo.cli import main
from i3dzoo.metadata import Input, Metadata, Source
from i3dzoo.model import InceptionI3d

from .video_data import CLASSES, small_prepared

Capture = pytest.CaptureFixture[str]


def write_model(path: Path, labels: tuple[str, ...] | None = CLASSES, classes: int = 3) -> Path:
    """Write a canonical file with random weights that takes small clips."""
    torch.manual_seed(0)
    spec = Input(resize=48, crop=32, frames=9, fps=None)
    metadata = Metadata("rgb", classes, labels, spec, Source("canonical", "0" * 64))
    tensors = {
        name: tensor.numpy()
        for name, tensor in InceptionI3d(num_classes=classes).state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    return write_checkpoint(path, Checkpoint(tensors, metadata))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the classes of the data."""
    return write_model(tmp_path_factory.mktemp("model") / "small.safetensors")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve generated videos, of which each split tests three."""
    return small_prepared(tmp_path_factory.mktemp("data")).path


def run(capsys: Capture, *arguments: object) -> tuple[int, str, str]:
    """Run the command on the CPU; return its exit code, standard output and standard error."""
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "--device", "cpu", "--workers", "0", *map(str, arguments)])
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, " ".join(captured.err.split())


def run_json(capsys: Capture, *arguments: object) -> list[dict[str, Any]]:
    """Run the command with --json and parse all of its standard output."""
    code, out, errors = run(capsys, *arguments, "--json")
    assert code == 0, errors
    documents: list[dict[str, Any]] = json.loads(out)
    return documents


def test_data_sets_share_a_folder(capsys: Capture, model: Path, data: Path, tmp_path: Path) -> None:
    """Predictions of other videos under the same model and split are neither taken nor mixed."""
    other = data.with_name("swapped.jsonl")
    text = data.read_text("utf-8").replace('"test"', '"x"').replace('"train"', '"test"')
    other.write_text(text.replace('"x"', '"train"'), "utf-8")
    counts = [
        run_json(capsys, model, "--data", each, "-o", tmp_path)[0]["videos"]
        for each in (data, other, data)
    ]
    assert counts == [3, 6, 3]
    assert len(list(tmp_path.iterdir())) == 2


def test_predictions_have_their_own_split(
    capsys: Capture, model: Path, data: Path, tmp_path: Path
) -> None:
    """A file of predictions is measured once, as of its split, and as of no other."""
    run_json(capsys, model, "--data", data, "--split", 2, "-o", tmp_path)
    (path,) = tmp_path.iterdir()
    for options in ((), ("--split", 2)):
        (document,) = run_json(capsys, path, *options)
        assert (document["split"], document["videos"]) == ("2", 3)
    for other in ("3", "all"):
        code, _, errors = run(capsys, path, "--split", other)
        assert code == 2
        assert f"--split {other}: {path} holds predictions of split 2; leave --split out" in errors


def test_models_that_cannot_be_measured(
    capsys: Capture, model: Path, data: Path, tmp_path: Path
) -> None:
    """Two of one stream, and one of other classes than the data's, are refused beforehand."""
    nameless = write_model(tmp_path / "five.safetensors", None, 5)
    common = ("--data", data, "-o", tmp_path / "out")
    assert run(capsys, model, model, *common)[2].endswith(
        "both models are of the rgb stream; of two, one is RGB and one flow"
    )
    assert (
        f"{nameless}: has 5 classes without names, and {data} has 3; name them by"
        in run(capsys, nameless, *common)[2]
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--batch-size=0", "--workers=-1"])
def test_options_out_of_range(capsys: Capture, model: Path, data: Path, option: str) -> None:
    """A number that means nothing is refused by the option's name."""
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", str(model), "--data", str(data), option])
    assert stop.value.code == 2
    assert option.partition("=")[0] in capsys.readouterr().err


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("linked", [True, False])
def test_a_deleted_video(
    capsys: Capture, model: Path, tmp_path: Path, workers: int, linked: bool
) -> None:
    """One sentence says that the video is not there, whichever process looked for it."""
    path = small_prepared(tmp_path).path
    video = path.parent / "videos" / "wave" / "wave_clip_1.avi"
    video.unlink()
    if linked:
        video.symlink_to(tmp_path / "nowhere")
    options = ("--data", path, "-o", tmp_path / "out", "--workers", workers)
    code, _, errors = run(capsys, model, *options)
    reason = (
        f"is a link to {tmp_path / 'nowhere'}, which is not there" if linked else "is not there"
    )
    assert code == 1
    assert errors.endswith(f"i3dzoo: {video}: {reason}"), errors


def test_no_video_can_be_read(capsys: Capture, model: Path, tmp_path: Path) -> None:
    """Where all are left out, that is said, and no number is made of nothing."""
    path = small_prepared(tmp_path).path
    for video in (path.parent / "videos").rglob("*.avi"):
        video.unlink()
    options = ("--data", path, "-o", tmp_path / "out", "--on-bad-video", "skip")
    code, out, errors = run(capsys, model, *options)
    assert (code, out) == (1, "")
    assert "wave_clip_1.avi: left out: " in errors
    assert "i3dzoo: no video of split 1 could be read, so there is nothing to measure" in errors
