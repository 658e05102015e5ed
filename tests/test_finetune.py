"""`i3dzoo finetune` and what follows it, on generated clips in the shape of HMDB51."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from i3dzoo.checkpoint import read_checkpoint
from i3dzoo.checksums import sha256
from i3dzoo.cli import main
from i3dzoo.training import state
from i3dzoo.training.journal import read_lines
from i3dzoo.training.metrics import evaluate_logits
from i3dzoo.training.predictions import read_predictions

from .test_cli import run
from .training_runs import finetune, launch, three_motions

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


def test_stopped_within_an_epoch(data: Path, rgb_scratch: Path, tmp_path: Path) -> None:
    """What was evaluated in the middle of an epoch is told by its step.

    Videos that the index calls unusable are left out, and named once.
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
    assert re.search(r"best top-1 [\d.]+ % after step 1\n", result.stderr)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--set", "optim.learning_rate=1"], 1, "unknown key optim.learning_rate"),
        (["--data", "nothing"], 1, "nothing: no such index; i3dzoo prepare makes one"),
        (["--freeze", "until:Mixed_9z"], 1, "network.freeze is 'until:Mixed_9z'; expected none"),
        (["--split", "none"], 1, "without a split all its videos are trained on; name others"),
        (["--keep", "some"], 2, "--keep some: expected last, best, or last,best"),
        (["x=y"], 2, "KEY=VALUE replaces keys of a TAO spec; those of a recipe: --set"),
    ],
)
def test_refusals(
    data: Path,
    rgb_scratch: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    message: str,
) -> None:
    """What cannot be trained is refused in a sentence, and no run is begun."""
    common = ["x", "--from", rgb_scratch, "-o", tmp_path / "run", "--device", "cpu"]
    with pytest.raises(SystemExit) as caught:
        main(["finetune", *map(str, common), "--data", str(data), *words])
    assert caught.value.code == code
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--split", "2"], "the run has split 1 and cannot go on with 2; give the run's own"),
        (["--keep", "best"], "the run has --keep best,last and cannot go on with best"),
        (["--set", "augment.frames=9"], "the run has augment.frames 16 and cannot go on with 9"),
        (["--data", "OTHER"], "has training videos 30 of digest [0-9a-f]{16} and cannot go on"),
        (["--from", "BEST"], "has rgb model of digest [0-9a-f]{16} and cannot go on with"),
    ],
)
def test_another_run_is_not_resumed(
    trained: Path,
    data: Path,
    rgb_scratch: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    """Another split, data, model, recipe or keeping is refused by name, and the record stays."""
    other = data / "other.jsonl"
    text = (data / "index.jsonl").read_text("utf-8")
    other.write_text(text.replace("_goo_0.avi", "_goo_x.avi"), "utf-8")
    before = (trained / "run.json").read_bytes()
    options = ["--data", data, "--recipe", "smoke", "-o", trained, "--device", "cpu", "--resume"]
    options += [{"OTHER": other, "BEST": trained / "best.safetensors"}.get(w, w) for w in words]
    options += [] if "--from" in words else ["--from", rgb_scratch]
    with pytest.raises(SystemExit) as caught:
        main(["finetune", "hmdb51", *map(str, options)])
    assert caught.value.code == 1
    assert re.search(message, " ".join(capsys.readouterr().err.split()))
    assert (trained / "run.json").read_bytes() == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"command": 1, "started": ""}'])
def test_a_damaged_record(
    trained: Path,
    data: Path,
    rgb_scratch: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
) -> None:
    """A run.json that cannot be read is named, with what to do."""
    (tmp_path / "checkpoints").mkdir()
    found = state.latest(trained)
    assert found is not None
    (tmp_path / "checkpoints" / found.name).symlink_to(found)
    (tmp_path / "run.json").write_text(text)
    options = ["--data", data, "--from", rgb_scratch, "--recipe", "smoke", "-o", tmp_path]
    with pytest.raises(SystemExit) as caught:
        main(["finetune", "hmdb51", *map(str, options), "--device", "cpu", "--resume"])
    assert caught.value.code == 1
    assert f"i3dzoo: {tmp_path / 'run.json'}: is no record of a run (" in capsys.readouterr().err


@pytest.mark.parametrize("keep", ["last,best", "best", "last"])
def test_resumed_where_the_result_is_missing(
    trained: Path, data: Path, rgb_scratch: Path, tmp_path: Path, keep: str
) -> None:
    """A run that was killed before it kept its result, or lost it, gives the last and measures it.

    With `--keep last` that is a kill between the last checkpoint and the end.
    """
    folder = shutil.copytree(trained, tmp_path / "run")
    for half in (".best.safetensors.x8_2.part", "checkpoints/.step.x9_3.part"):
        (folder / half).write_bytes(b"half")
    for name in ("best.safetensors", "last.safetensors", "predictions.jsonl"):
        (folder / name).unlink()
    path = state.latest(folder)
    assert path is not None
    content = torch.load(path, weights_only=True)
    content["fixed"]["--keep"] = ",".join(sorted(keep.split(",")))
    torch.save(content, path)
    common = ("--recipe", "smoke", "-o", folder, "--keep", keep, "--resume")
    result = finetune("hmdb51", "--data", data, "--from", rgb_scratch, *common)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{folder / 'last.safetensors'}\n"
    assert f"Next: i3dzoo evaluate {folder / 'last.safetensors'} --data {data}" in result.stderr
    assert json.loads((folder / "run.json").read_text("utf-8"))["result"] == "last.safetensors"
    found = read_predictions(folder / "predictions.jsonl")
    assert found.run.model == sha256(folder / "last.safetensors")
    assert len(found.videos) == 12
    assert not list(folder.rglob(".*.part"))


@pytest.fixture(scope="module")
def single(
    trained: Path, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """What one process writes into a folder and prints, with all that can be asked for."""
    folder = tmp_path_factory.mktemp("evaluate")
    result = run(
        "evaluate", trained / "best.safetensors", "--data", data, "--device", "cpu",
        "--workers", "0", "-o", folder, "--results", folder / "results.json", "--parquet",
        "--confusion", folder / "confusion.png", "--split", "all", "--json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    documents = json.loads(result.stdout)
    assert [document["split"] for document in documents] == ["1", "2", "3"]
    return folder, documents[0]


class TestEvaluate:
    def test_all_that_is_written(self, single: tuple[Path, dict[str, Any]], trained: Path) -> None:
        """Predictions twice, the matrix as numbers and as a picture; all as training measured."""
        folder, document = single
        (lines,) = folder.glob("best-*_center_split1.jsonl")
        (table,) = folder.glob("*_split1.parquet")
        found, known = read_predictions(lines), read_predictions(trained / "predictions.jsonl")
        assert sorted(found.videos) == sorted(known.videos)
        row = [found.videos.index(video) for video in known.videos]
        np.testing.assert_allclose(found.logits[row], known.logits, rtol=1e-4, atol=1e-4)
        logits = parquet.read_table(table)["logits"].to_pylist()
        np.testing.assert_array_equal(np.array(logits, "f4"), found.logits)
        metrics = evaluate_logits(found.logits, found.labels)
        assert document["confusion"] == metrics.confusion.tolist()
        assert document["interval"] == pytest.approx(metrics.interval)
        assert document["mean_class"] == pytest.approx(metrics.mean_class)
        with Image.open(folder / "confusion_split3.png") as picture:
            assert min(picture.size) > 200

    def test_push_takes_the_results(
        self, single: tuple[Path, dict[str, Any]], trained: Path
    ) -> None:
        """What evaluate wrote stands on the card of what finetune made, in percents."""
        folder, document = single
        result = run(
            "push", trained / "best.safetensors", "alice/motions", "--dry-run", "--results",
            folder / "results.json",
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        percent = f"{100 * document['top1']:.1f}"
        assert f"| HMDB51 | test 1, center | {percent} | 100.0 | 12 |" in result.stdout
        assert "| HMDB51 | test 3, center | " in result.stdout
        assert "confusion_matrix.png" in result.stdout  # finetune drew it beside the file

    def test_two_processes_count_no_video_twice(
        self, single: tuple[Path, dict[str, Any]], trained: Path, data: Path, tmp_path: Path
    ) -> None:
        """Two processes give the numbers of one, one file, and no parts."""
        result = launch(
            "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "i3dzoo",
            "evaluate", trained / "best.safetensors", "--data", data, "--device", "cpu",
            "--workers", "0", "-o", tmp_path, "--json",
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        (document,) = json.loads(result.stdout)
        assert document["videos"] == 12
        assert document["confusion"] == single[1]["confusion"]
        (path,) = tmp_path.iterdir()
        (alone,) = single[0].glob("*_split1.jsonl")
        found, expected = read_predictions(path), read_predictions(alone)
        row = [found.videos.index(video) for video in expected.videos]
        np.testing.assert_allclose(found.logits[row], expected.logits, rtol=1e-4, atol=1e-4)

    def test_streams_are_fused_from_saved_predictions(
        self, single: tuple[Path, dict[str, Any]], tmp_path: Path
    ) -> None:
        """Two files of predictions are enough, and nothing is run."""
        (path,) = single[0].glob("*_split1.jsonl")
        flow = tmp_path / "flow.jsonl"
        text = path.read_text("utf-8").splitlines()
        header = json.loads(text[0]) | {"model": "f" * 64}
        flow.write_text("\n".join([json.dumps(header), *text[1:]]) + "\n")
        result = run("evaluate", path, flow, "--json")
        (document,) = json.loads(result.stdout)
        assert document["top1"] == single[1]["top1"]
        assert document["loss"] != single[1]["loss"]  # logits are doubled
