"""`i3dzoo evaluate` as a user runs it, and the same from Python."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.checkpoints import write_random
from helpers.cli import fail, run, succeed
from helpers.video_data import CLASSES, small_prepared
from sklearn.metrics import average_precision_score

import i3dzoo
from i3dzoo.checkpoints.checkpoint import read_checkpoint
from i3dzoo.checkpoints.metadata import Input
from i3dzoo.errors import OptionError
from i3dzoo.hub import About, prepare
from i3dzoo.hub.results import read_results

Capture = pytest.CaptureFixture[str]
EVALUATE = ("evaluate", "--device", "cpu", "--workers", "0")


def write_model(path: Path, labels: tuple[str, ...] | None = CLASSES, classes: int = 3) -> Path:
    """Write a canonical file with random weights that takes small clips."""
    return write_random(path, Input(resize=48, crop=32, frames=9, fps=None), labels, classes)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with the classes of the data."""
    return write_model(tmp_path_factory.mktemp("model") / "small.safetensors")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve generated videos; each split tests three."""
    return small_prepared(tmp_path_factory.mktemp("data")).path


def run_json(capsys: Capture, *arguments: object) -> list[dict[str, Any]]:
    """Run the command with --json, and parse all of its standard output."""
    out, _ = succeed(capsys, *EVALUATE, *arguments, "--json")
    documents: list[dict[str, Any]] = json.loads(out)
    return documents


def test_python_does_what_the_command_does(
    capsys: Capture, model: Path, data: Path, tmp_path: Path
) -> None:
    """`i3dzoo.evaluate` returns the numbers that the command prints, for each split."""
    documents = run_json(capsys, model, "--data", data, "--split", "all", "-o", tmp_path / "a")
    options: dict[str, Any] = {"output": tmp_path / "b", "workers": 0, "device": "cpu"}
    evaluations = i3dzoo.evaluate(model, data, split="all", **options)
    assert [evaluation.to_dict() for evaluation in evaluations] == [
        {**document, "labels": tuple(document["labels"])} for document in documents
    ]
    assert [evaluation.predictions.header.split for evaluation in evaluations] == ["1", "2", "3"]
    names = [sorted(path.name for path in (tmp_path / folder).iterdir()) for folder in "ab"]
    assert names[0] == names[1]
    (everything,) = i3dzoo.evaluate(model, data, split=None, **options)
    assert everything.metrics.videos == 12
    with pytest.raises(OptionError, match="expected one model, or an RGB and a flow model"):
        i3dzoo.evaluate([], data)


def test_files_of_the_results(capsys: Capture, model: Path, data: Path, tmp_path: Path) -> None:
    """--results, --parquet and --confusion write their files, one for each split where needed."""
    pytest.importorskip("matplotlib")
    pytest.importorskip("pyarrow")
    results = tmp_path / "results.json"
    options = ("--split", "all", "--results", results, "--parquet", "-o", tmp_path / "out")
    options += ("--confusion", tmp_path / "matrix.png")
    out, errors = succeed(capsys, *EVALUATE, model, "--data", data, *options)
    splits = [line.partition(":")[0] for line in out.splitlines()]
    assert splits == [*(f"split {n}, center" for n in (1, 2, 3)), "mean of 3 splits"]
    assert f"i3dzoo push {model} USER/NAME --results {results}" in errors
    splits = [result.split or "" for result in read_results(results)]
    assert splits == [f"test {n}, center" for n in (1, 2, 3)]
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 3
    pictures = sorted(path.name for path in tmp_path.glob("matrix*"))
    assert pictures == [f"matrix_split{n}.png" for n in (1, 2, 3)]


def test_datasets_share_a_folder(capsys: Capture, model: Path, data: Path, tmp_path: Path) -> None:
    """Predictions of other videos with the same model and split are not used or mixed."""
    other = data.with_name("swapped.jsonl")
    text = data.read_text("utf-8").replace('"test"', '"x"').replace('"train"', '"test"')
    other.write_text(text.replace('"x"', '"train"'), "utf-8")
    counts = [
        run_json(capsys, model, "--data", path, "-o", tmp_path)[0]["videos"]
        for path in (data, other, data)
    ]
    assert counts == [3, 6, 3]
    assert len(list(tmp_path.iterdir())) == 2


def test_predictions_have_their_own_split(
    capsys: Capture, model: Path, data: Path, tmp_path: Path
) -> None:
    """A file of predictions is evaluated once, as its own split; other splits are refused."""
    run_json(capsys, model, "--data", data, "--split", 2, "-o", tmp_path)
    (path,) = tmp_path.iterdir()
    for options in ((), ("--split", 2)):
        (document,) = run_json(capsys, path, *options)
        assert (document["split"], document["videos"]) == ("2", 3)
    for other in ("3", "all", "none"):
        code, _, errors = run(capsys, *EVALUATE, path, "--split", other)
        assert code == 2
        assert f"{path}: expected predictions of split {other}, found those of split 2" in errors


def test_models_that_cannot_be_evaluated(
    capsys: Capture, model: Path, data: Path, tmp_path: Path
) -> None:
    """Two models of one stream, and a model with other classes than the data, are refused."""
    nameless = write_model(tmp_path / "five.safetensors", None, 5)
    common = ("--data", data, "-o", tmp_path / "out")
    code, _, errors = run(capsys, *EVALUATE, model, model, *common)
    assert code == 2
    assert "both models are of the rgb stream" in errors
    errors = run(capsys, *EVALUATE, nameless, *common)[2]
    assert f"{nameless}: expected the 3 classes of {data}, found 5 classes without" in errors
    assert "--labels" in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--batch-size=0",), "--batch-size"),
        (("--workers=-1",), "--workers"),
        (("--split", "4"), "--split"),
        (("a", "b", "c"), "expected one model, or an RGB and a flow model"),
        (("a.safetensors",), "a.safetensors: expected data to evaluate the model on; add --data"),
        (("-e", "spec.yaml", "--protocol", "tao"), "--protocol cannot be used with -e"),
    ],
)
def test_wrong_usage(capsys: Capture, options: tuple[str, ...], message: str) -> None:
    """Options out of range, missing or contradictory are named, with exit code 2."""
    code, _, errors = run(capsys, "evaluate", *options)
    assert code == 2
    assert message in errors


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("linked", [True, False])
def test_a_deleted_video(
    capsys: Capture, model: Path, tmp_path: Path, workers: int, linked: bool
) -> None:
    """One sentence says that the video does not exist, whichever process looked for it."""
    path = small_prepared(tmp_path).path
    video = path.parent / "videos" / "wave" / "wave_clip_1.avi"
    video.unlink()
    if linked:
        video.symlink_to(tmp_path / "nowhere")
    options = ("--data", path, "-o", tmp_path / "out", "--workers", workers)
    code, _, errors = run(capsys, *EVALUATE, model, *options)
    assert code == 1
    (error,) = [line for line in errors.splitlines() if line.startswith("i3dzoo: ")]
    assert error.startswith(f"i3dzoo: {video}")
    assert "does not exist" in error
    assert (str(tmp_path / "nowhere") in error) == linked


def test_no_video_can_be_read(capsys: Capture, model: Path, tmp_path: Path) -> None:
    """If all videos are skipped, there are no numbers, and the error says why."""
    path = small_prepared(tmp_path).path
    for video in (path.parent / "videos").rglob("*.avi"):
        video.unlink()
    options = ("--data", path, "-o", tmp_path / "out", "--on-bad-video", "skip")
    errors = fail(capsys, *EVALUATE, model, *options)
    assert "wave_clip_1.avi: left out: " in errors
    assert "i3dzoo: no video of split 1 could be read" in errors


def test_multi_label(capsys: Capture, data: Path, tmp_path: Path) -> None:
    """A multi-label model is evaluated by mAP, from predictions too; the card has the number."""
    plain = write_model(tmp_path / "plain.safetensors")
    model = tmp_path / "multi.safetensors"
    succeed(capsys, "convert", plain, model, "--multi-label", "--quiet")
    table = tmp_path / "test.csv"
    videos = [f"{label}_clip_{number}" for label in CLASSES for number in range(2)]
    rows = [f"{video},c{row % 3:03} 0.0 1.0;{CLASSES[1]}" for row, video in enumerate(videos)]
    table.write_text("\n".join(["id,actions", *rows, "nothing_in_it,"]))
    options = ("--data", data, "--annotations", table, "-o", tmp_path / "predictions")
    (document,) = run_json(capsys, model, *options, "--results", tmp_path / "results.json")
    (file,) = (tmp_path / "predictions").iterdir()
    logits, targets = [], []
    for line in map(json.loads, file.read_text().splitlines()[1:]):
        logits.append(line["logits"])
        targets.append([number in line["label"] for number in range(3)])
    expected = average_precision_score(targets, logits, average=None)
    assert document["per_class"] == pytest.approx(list(expected))
    assert document["mean_ap"] == pytest.approx(expected.mean())
    assert (document["videos"], document["split"]) == (6, "none")
    (again,) = run_json(capsys, file)
    assert again["per_class"] == document["per_class"]
    (result,) = read_results(tmp_path / "results.json")
    assert result.mean_ap == pytest.approx(100 * expected.mean(), abs=0.01)
    about = About(licence="MIT", results=tmp_path / "results.json")
    folder = tmp_path / "package"
    folder.mkdir()
    package = prepare(read_checkpoint(model), folder, about)
    assert "| mAP % |" in package.card
    assert "several of which a clip can have at once" in package.card
    assert "logits.sigmoid()" in package.card
    config = json.loads((folder / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"


def test_multi_label_refused(capsys: Capture, model: Path, data: Path, tmp_path: Path) -> None:
    """A model and data of which one is multi-label and the other is not."""
    multi = tmp_path / "multi.safetensors"
    succeed(capsys, "convert", model, multi, "--multi-label", "--quiet")
    table = tmp_path / "test.csv"
    table.write_text(f"id,actions\nwave_clip_0,{CLASSES[0]}\nlost,{CLASSES[1]}\n")
    code, _, err = run(capsys, *EVALUATE, multi, "--data", data)
    assert code == 2
    assert "multi-label; add --annotations" in err
    annotated = ("--data", data, "--annotations", table, "-o", tmp_path / "p")
    code, _, err = run(capsys, *EVALUATE, model, *annotated)
    assert code == 2
    assert "convert --multi-label" in err
    code, _, err = run(capsys, *EVALUATE, multi, *annotated, "--split", "1")
    assert code == 2
    assert "leave --split out" in err
    assert "lost (there is no video of this name)" in fail(capsys, *EVALUATE, multi, *annotated)
    code, _, err = run(
        capsys,
        *EVALUATE,
        multi,
        *annotated,
        "--on-bad-video",
        "skip",
        "--confusion",
        tmp_path / "c",
    )
    assert code == 2
    assert "--confusion" in err
