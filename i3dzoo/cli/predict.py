"""`i3dzoo predict`."""

import contextlib
import dataclasses
import math
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from i3dzoo.cli._console import (
    cell,
    decoder_option,
    device_option,
    engine_option,
    json_option,
    key_option,
    precision_option,
    print_json,
    read_list,
    say,
    show,
    show_table,
)
from i3dzoo.cli._description import remark_description
from i3dzoo.cli._parameters import MODEL
from i3dzoo.cli.progress import show_progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from i3dzoo.devices import Device
    from i3dzoo.engines.base import Engine, EngineName
    from i3dzoo.onnx.options import Precision
    from i3dzoo.predict import Prediction, Timeline
    from i3dzoo.video import BadVideo

_BAR = 24  # characters of a full bar
_MAX_SEGMENTS = 40


def _number_or(word: str, number: type[int] | type[float]) -> Any:
    """Return the type of an option that is a positive number or one word."""

    def parse(value: str) -> Any:
        with contextlib.suppress(ValueError):
            if value == word or 0 < number(value) < math.inf:
                return value if value == word else number(value)
        raise click.BadParameter(f"{value!r} is neither a positive number nor {word!r}")

    return parse


@click.command()
@click.argument("videos", metavar="[VIDEO... | KEY=VALUE...]", nargs=-1)
@click.option(
    "--list", "list_file", help="File with more videos, one per line; - is standard input."
)
@click.option(
    "--model",
    type=MODEL,
    metavar="MODEL",
    help="A zoo name, a checkpoint of any layout, an exported file, or USER/NAME.",
)
@click.option(
    "-e", "--spec", type=click.Path(path_type=Path), help="TAO spec that names model and videos."
)
@key_option("model")
@click.option("--verify", is_flag=True, help="Fail if a cached Hub file is corrupt.")
@click.option(
    "--top-k",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Number of classes to show, the most probable first.",
)
@click.option(
    "--clips",
    metavar="N|whole",
    type=_number_or("whole", int),
    help="Number of clips whose logits are averaged; whole takes all frames as one clip.  "
    "[default: 1]",
)
@click.option("--timeline", is_flag=True, help="Predict over time, on the whole video.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    help="Draw the timeline (PNG, PDF, SVG) of one video.",
)
@click.option(
    "--video",
    "labelled",
    metavar="OUT.mp4",
    type=click.Path(path_type=Path),
    help="Write one video with the classes drawn on it, over time.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Write the results to a file: .csv, .jsonl or .json.",
)
@click.option(
    "--fps",
    metavar="FPS|native",
    type=_number_or("native", float),
    help="Frame rate to sample at, or every frame.  [default: the rate the model was trained at]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    help="Number of clips in a batch.  [default: depends on the device]",
)
@device_option
@engine_option
@precision_option
@decoder_option
@click.option("--force", is_flag=True, help="Replace the files if they exist.")
@json_option
def command(
    videos: tuple[str, ...],
    list_file: str | None,
    model: str | None,
    spec: Path | None,
    verify: bool,
    plot: Path | None,
    labelled: Path | None,
    output: Path | None,
    device: "Device",
    engine: "EngineName",
    precision: "Precision | None",
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Predict the action in videos.

    A VIDEO is a video file, a GIF, a folder of numbered frames, or a .npy or .npz array: uint8 [T,
    H, W, 3], or float32 [1, T, 224, 224, 3] from -1 to 1; or a folder of videos, or a pattern.
    Frames are sampled, resized, cropped and scaled as the model's metadata says. The centre clip of
    the video is classified unless --clips or --timeline is given. With -e, the videos of a TAO spec
    are predicted as TAO's inference does; KEY=VALUE replaces keys of the spec.

    \b
    Examples:
      i3dzoo predict clip.mp4 --model rgb_scratch
      i3dzoo predict clip.avi --model mine.safetensors --clips 5 --top-k 3
      i3dzoo predict clip.gif --model rgb_scratch --plot timeline.png
      i3dzoo predict clip.mp4 --model i3d.onnx
      i3dzoo predict clip.mp4 --model rgb_scratch --video labelled.mp4
      i3dzoo predict clips/ --model rgb_scratch -o actions.csv
      i3dzoo predict 'clips/**/*.mp4' --list more.txt --model rgb_scratch -o actions.jsonl
      i3dzoo predict -e infer_rgb.yaml inference.checkpoint=best.safetensors
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    options["timeline"] |= plot is not None or labelled is not None
    if options["timeline"] and options["clips"] is not None:
        raise click.UsageError("a timeline covers the whole video; leave --clips out")
    chosen = {name: value for name, value in options.items() if value is not None}
    if spec is not None:
        if (
            model is not None
            or list_file
            or options["timeline"]
            or options["decoder"] != "auto"
            or {"clips", "fps", "batch_size"} & chosen.keys()
        ):
            raise click.UsageError(
                "--model, --clips, --fps, --list, --batch-size, --decoder and --timeline cannot be "
                "used with -e, because the spec defines them; replace the key of the spec with "
                "KEY=VALUE"
            )
        from i3dzoo.tao.inference import load_inference

        _check_outputs(1, plot, labelled, output, force)
        with show_progress() as progress:
            inference = load_inference(
                spec,
                videos,
                engine=engine,
                device=device,
                precision=precision,
                progress=progress,
            )
        network, videos = inference.engine, tuple(map(str, inference.videos))
        model = inference.spec.inference.checkpoint
        predict: Any = partial(inference.run, options["top_k"])
    else:
        if model is None or not (videos or list_file):
            missing = "--model" if model is None else "a VIDEO"
            raise click.UsageError(f"{missing} is missing; or pass a TAO spec with -e")
        from i3dzoo.predict import predict_videos
        from i3dzoo.video.inputs import expand_videos

        videos = expand_videos((*videos, *(read_list(list_file) if list_file else ())))
        _check_outputs(len(videos), plot, labelled, output, force)
        network = _load(model, verify, engine, device, precision)
        predict = partial(predict_videos, network, videos, **chosen)
    results = _predict(predict, as_json or output is not None)
    documents = [
        _document(video, result, options["top_k"])
        for video, result in zip(videos, results, strict=True)
    ]
    failed = sum("error" in document for document in documents)
    if plot is not None and not failed:
        from i3dzoo.report.plots import plot_timeline

        plot_timeline(results[0], plot, top_k=options["top_k"], force=force)  # type: ignore[arg-type] # none failed
        documents[0]["plot"] = click.format_filename(plot)
    if labelled is not None and not failed:
        from i3dzoo.report.labelled_video import write_labelled_video

        write_labelled_video(results[0], labelled, force=force)  # type: ignore[arg-type] # none failed
        documents[0]["video"] = click.format_filename(labelled)
    if output is not None:
        from i3dzoo.cli._prediction_table import write_table

        write_table(output, documents)
    if as_json:
        metadata = network.metadata
        described = {
            "model": model,
            "zoo": metadata and metadata.zoo,
            "input": metadata and metadata.input.to_dict(),
            "scores": metadata and metadata.scores,
        }
        print_json(described | {"videos": documents})
    elif written := [path for path in (output, *((plot, labelled) if not failed else ())) if path]:
        for path in written:
            show(path)
    elif len(videos) > failed and not options["timeline"]:
        say("Next: add --timeline, or --plot timeline.png, to predict over time")
    if failed:
        if len(videos) > 1:
            say(f"{failed} of {len(videos)} videos failed")
        sys.exit(1)


def _check_outputs(
    count: int,
    plot: Path | None,
    labelled: Path | None,
    output: Path | None,
    force: bool,
) -> None:
    """Check the arguments and the files to write before long work."""
    if not count:
        raise click.UsageError("the list is empty; name at least one video")
    for path, option in ((plot, "--plot"), (labelled, "--video")):
        if path is not None and count > 1:
            raise click.UsageError(f"{option} draws one video; run the command once for each")
    if plot is not None:
        from i3dzoo.report.canvas import check_plot

        check_plot(plot, force)
    if labelled is not None:
        from i3dzoo.report.labelled_video import check_labelled_video

        check_labelled_video(labelled, force)
    if output is not None:
        from i3dzoo.cli._prediction_table import check_table

        check_table(output, force)


def _load(
    model: str,
    verify: bool,
    engine: "EngineName",
    device: "Device",
    precision: "Precision | None",
) -> "Engine":
    from i3dzoo.engines.base import load_engine
    from i3dzoo.fetch.find import find

    with show_progress() as progress:
        path = find(model, verify=verify, progress=progress)
        network = load_engine(path, engine, device, precision=precision, progress=progress)
    if network.metadata:
        remark_description(path, network.metadata)
    return network


def _predict(
    predict: "Callable[..., Iterator[Prediction | BadVideo]]", quiet: bool
) -> "list[Prediction | BadVideo]":
    """Predict all videos, and print each when it is done unless `quiet`."""
    from i3dzoo.video import BadVideo

    results = []
    with show_progress() as progress:
        for result in predict(progress=progress):
            results.append(result)
            if isinstance(result, BadVideo):
                progress.message(f"i3dzoo: {result.reason}")
            elif not quiet:
                progress.stop()  # a bar would be mixed with the table on a terminal
                _print(result)
    return results


def _print(result: "Prediction") -> None:
    for note in result.notes:
        say(f"{result.path.name}: {note}")
    rows = [(f"{score.probability:7.2%}", score.label, score.probability) for score in result.top]
    _print_rows(click.format_filename(result.path), rows)
    if result.timeline is None:
        return
    segments = result.timeline.segments()
    unit, digits = ("seconds", 1) if result.timeline.unit == "s" else ("frames", 0)
    rows = [
        (f"{part.start:6.{digits}f} - {part.end:<6.{digits}f}", part.label, part.probability)
        for part in segments[:_MAX_SEGMENTS]
    ]
    _print_rows(f"over time, {unit}", rows)
    if len(segments) > _MAX_SEGMENTS:
        say(f"... and {len(segments) - _MAX_SEGMENTS} more; --json lists all of them")


def _print_rows(title: str, rows: list[tuple[str, str, float]]) -> None:
    from rich.table import Table
    from rich.text import Text

    full = "█" if "utf" in (getattr(sys.stdout, "encoding", None) or "").lower() else "#"
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for left, label, probability in rows:
        bar = Text((full * round(probability * _BAR)).ljust(_BAR), style="cyan")
        percent = [] if left.endswith("%") else [Text(f"{probability:4.0%}")]
        table.add_row(Text(left, style="bold"), *percent, bar, cell(label))
    show_table(table, title)
    show("")


def _document(video: str, result: "Prediction | BadVideo", top_k: int) -> dict[str, Any]:
    from i3dzoo.video import BadVideo

    path = click.format_filename(video)
    if isinstance(result, BadVideo):
        return {"path": path, "error": result.reason}
    timeline = result.timeline
    return {
        "path": path,
        "top": [dataclasses.asdict(score) for score in result.top],
        "frames": result.info.frames,
        "fps": result.info.fps,
        "duration": result.info.duration,
        "clips": [{"start": start, "end": end} for start, end in result.clips],
        "notes": list(result.notes),
    } | ({"timeline": _timeline_document(timeline, top_k)} if timeline else {})


def _timeline_document(timeline: "Timeline", top_k: int) -> dict[str, Any]:
    classes = timeline.strongest(top_k)
    edges = zip(timeline.starts.tolist(), timeline.ends.tolist(), strict=True)
    rows = timeline.probabilities[:, classes].tolist()
    return {
        "unit": timeline.unit,
        "labels": [timeline.labels[index] for index in classes],
        "steps": [
            {"start": start, "end": end, "probabilities": row}
            for (start, end), row in zip(edges, rows, strict=True)
        ],
        "segments": [dataclasses.asdict(segment) for segment in timeline.segments()],
    }
