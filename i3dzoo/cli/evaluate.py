"""`i3dzoo evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from i3dzoo.cli._console import json_option, print_json, say

if TYPE_CHECKING:
    from i3dzoo.engines import Engine
    from i3dzoo.training.predictions import Predictions
    from i3dzoo.video import BadVideo


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--data", type=click.Path(path_type=Path), help="Folder that `prepare` made.")
@click.option(
    "--split", type=click.Choice(["1", "2", "3", "all", "none"]), default="1", show_default=True
)
@click.option(
    "--protocol",
    default="center",
    show_default=True,
    help="center, tao, paper, or multi:CLIPSxCROPS such as multi:10x3.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder of predictions.")
@click.option("--batch-size", default=8, show_default=True, help="Views at once.")
@click.option("--workers", default=2, show_default=True, help="Processes that decode videos.")
@click.option(
    "--on-bad-video", type=click.Choice(["error", "skip"]), default="error", show_default=True
)
@click.option("--device", type=click.Choice(["auto", "cpu"]), default="auto", show_default=True)
@click.option(
    "--engine",
    type=click.Choice(["auto", "torch", "onnxruntime", "tensorrt"]),
    default="auto",
    show_default=True,
    help="What runs it; auto takes what the file is for.",
)
@json_option
def command(**options: Any) -> None:
    """Measure MODELS on a test split; of two, one RGB and one flow, the logits are summed.

    A model is a checkpoint of any layout, an .onnx file or a TensorRT engine, or a file of
    predictions that an earlier evaluation wrote. Each video counts once. Predictions are kept as
    they are made: the same command goes on where it was stopped. --split none takes all videos, as
    of a folder in TAO's layout.

    \b
    Examples:
      i3dzoo evaluate runs/hmdb51/best.safetensors --data data/hmdb51
      i3dzoo evaluate rgb.safetensors flow.safetensors --data data/hmdb51 --protocol paper
      i3dzoo evaluate rgb.jsonl flow.jsonl
      i3dzoo evaluate hmdb51.onnx --data data/hmdb51
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    from i3dzoo.training.metrics import evaluate_logits
    from i3dzoo.training.predictions import fuse

    if len(options["models"]) > 2:
        raise click.UsageError("one model or two are evaluated")
    folder = options["output"] or Path()
    splits = ("1", "2", "3") if options["split"] == "all" else (options["split"],)
    documents = []
    for split in splits:
        bad: dict[str, str] = {}
        found = [_predictions(model, split, folder, options, bad) for model in options["models"]]
        fused = found[0] if len(found) == 1 else fuse(*found)
        metrics = evaluate_logits(fused.logits, fused.labels)
        document = {
            "i3dzoo": "evaluation",
            "dataset": _dataset(options["data"]),
            "split": fused.run.split,
            "protocol": fused.run.protocol,
            **metrics.to_dict(),
            "bad_videos": bad,
        }
        documents.append(document)
        if not options["as_json"]:
            low, high = metrics.interval
            click.echo(
                f"split {document['split']}, {document['protocol']}: {metrics.videos} videos, "
                f"top-1 {100 * metrics.top1:.2f} % ({100 * low:.1f} to {100 * high:.1f}), "
                f"top-5 {100 * metrics.top5:.2f} %, mean class {100 * metrics.mean_class:.2f} %"
            )
            if bad:
                say(f"{len(bad)} videos of the split cannot be read and are not among these")
    if options["as_json"]:
        print_json(documents)
        return
    if len(documents) > 1:
        mean = sum(document["top1"] for document in documents) / len(documents)
        click.echo(f"mean of {len(documents)} splits: top-1 {100 * mean:.2f} %")
    say("Next: i3dzoo evaluate RGB.jsonl FLOW.jsonl fuses the predictions of two streams")


def _dataset(data: Path | None) -> str | None:
    """Return what the index calls the data, if there is one."""
    from i3dzoo.video.index import INDEX_NAME, read_index

    return read_index(data).dataset if data and (data / INDEX_NAME).exists() else None


def _predictions(
    model: str, split: str, folder: Path, options: dict[str, Any], bad: dict[str, str]
) -> "Predictions":
    """Read predictions, or make those that are not there yet; bad videos go to `bad`."""
    from i3dzoo.training.predictions import read_predictions

    if model.endswith(".jsonl"):
        return read_predictions(model)
    if options["data"] is None:
        raise click.UsageError("--data is missing")
    from i3dzoo.checksums import sha256
    from i3dzoo.engines import load_engine
    from i3dzoo.loading import find
    from i3dzoo.training.predictions import Run

    path = find(model)
    run = Run(sha256(path), options["protocol"], split)
    ran = "" if options["engine"] in ("auto", "torch") else f"_{options['engine']}"
    name = f"{path.stem}{ran}_{options['protocol'].replace(':', '-')}_split{split}.jsonl"
    engine = load_engine(path, options["engine"], options["device"])
    folder.mkdir(parents=True, exist_ok=True)
    _predict(engine, folder / name, run, options, bad)
    say(f"predictions: {folder / name}")
    return read_predictions(folder / name)


def _predict(
    engine: "Engine", path: Path, run: Any, options: dict[str, Any], bad: dict[str, str]
) -> None:
    from i3dzoo.cli._progress import watch
    from i3dzoo.engines import device_of
    from i3dzoo.errors import MetadataError
    from i3dzoo.evaluate import parse_protocol, predict_videos
    from i3dzoo.training.data import VideoClips, open_streams
    from i3dzoo.training.predictions import PredictionWriter

    metadata = engine.metadata
    if metadata is None or not metadata.num_classes:
        raise MetadataError("the model has no head, so there is nothing to evaluate; convert it")
    datasets = open_streams(
        options["data"],
        {metadata.stream: metadata.input},
        None if run.split == "none" else int(run.split),
        None if run.split == "none" else "test",
        parse_protocol(run.protocol),
        on_bad_video=options["on_bad_video"],
    )
    clips = VideoClips(datasets, metadata.labels)
    with PredictionWriter(path, run) as writer, watch(counted=True) as progress:

        def skipped(video: "BadVideo") -> None:
            if video.file not in bad:
                progress.say(f"{video.file}: left out: {video.reason}")
            bad[video.file] = video.reason

        progress.start("videos", len(clips.labels))
        for prediction in predict_videos(
            lambda clips: engine.step_logits(clips[metadata.stream]).mean(1),
            datasets,
            labels=clips.labels,
            device=device_of(engine),
            batch_size=options["batch_size"],
            workers=options["workers"],
            done=writer.done,
            skipped=skipped,
        ):
            writer.write(prediction)
            progress.update(len(writer.done))
