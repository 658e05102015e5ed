"""`i3dzoo predict`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from i3dzoo.cli._console import device_option, engine_option, json_option, print_json, say

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from i3dzoo.engines import Engine
    from i3dzoo.predict import Failure, Prediction, Timeline

_BAR = 24  # characters of a full bar
_MOST_SEGMENTS = 40


def _number_or(word: str, number: type[int] | type[float]) -> Any:
    """Return a callback for an option that is a positive number or one word."""

    def parse(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
        if value is None or value == word:
            return value
        try:
            found = number(value)
        except ValueError:
            found = number(0)
        if not 0 < found < float("inf"):
            raise click.BadParameter(
                f"{value!r} is neither a positive number nor {word!r}", ctx, param
            )
        return found

    return parse


@click.command()
@click.argument("videos", metavar="VIDEO...", nargs=-1, required=True)
@click.option(
    "--model",
    required=True,
    help="A zoo name, a checkpoint of any layout, an exported file, or USER/NAME.",
)
@click.option("--verify", is_flag=True, help="Hash a Hub repository's files again before use.")
@click.option("--top-k", type=click.IntRange(min=1), default=5, show_default=True)
@click.option(
    "--clips",
    metavar="N|whole",
    callback=_number_or("whole", int),
    help="Clips spread over the video, logits averaged; or all its frames at once.  [default: 1]",
)
@click.option("--timeline", is_flag=True, help="Run over the whole video and show what is when.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    help="Draw the timeline (PNG, PDF, SVG); for one video.",
)
@click.option(
    "--fps",
    metavar="FPS|native",
    callback=_number_or("native", float),
    help="Sample at this rate, or take every frame.  [default: as the model was trained]",
)
@device_option
@engine_option
@click.option("--force", is_flag=True, help="Replace the plot if it exists.")
@json_option
def command(
    videos: tuple[str, ...], model: str, plot: Path | None, device: str, **options: Any
) -> None:
    """Name the action in videos.

    A VIDEO is a video file, a GIF, a folder of frames sorted by name, or a .npy array uint8
    [T, H, W, 3]. Frames are sampled, resized, cropped and scaled as the model's own file says. The
    middle of the video is classified unless --clips or --timeline ask for more.

    \b
    Examples:
      i3dzoo predict clip.mp4 --model rgb_scratch
      i3dzoo predict clip.avi --model mine.safetensors --clips 5 --top-k 3
      i3dzoo predict clip.gif --model rgb_scratch --plot timeline.png
      i3dzoo predict clip.mp4 --model i3d.onnx
      i3dzoo predict *.mp4 --model rgb_scratch --json > actions.json
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    timeline = options["timeline"] or plot is not None
    if timeline and options["clips"] is not None:
        raise click.UsageError("a timeline runs over the whole video; leave --clips out")
    if plot is not None:
        _check_plot(plot, videos, options["force"])
    network = _load(model, device, options["engine"], options["verify"])
    results = _predict(network, videos, options, timeline)
    failed = sum(not hasattr(result, "top") for result in results)
    picture = None
    if plot is not None and not failed:
        from i3dzoo.plot import plot_timeline

        top_k, force = options["top_k"], options["force"]
        picture = plot_timeline(results[0], plot, top_k=top_k, force=force)  # type: ignore[arg-type] # none failed
    if options["as_json"]:
        print_json(_document(model, network, results, options["top_k"], picture))
    else:
        if not timeline and len(results) > failed:
            say("Next: the same with --timeline, or --plot timeline.png, shows what happens when")
        if picture is not None:
            click.echo(picture)
    if failed:
        if len(videos) > 1:
            say(f"{failed} of {len(videos)} videos failed")
        sys.exit(1)


def _check_plot(plot: Path, videos: tuple[str, ...], force: bool) -> None:
    from i3dzoo.plot import check_plot

    if len(videos) > 1:
        raise click.UsageError("--plot draws one video; run it once for each")
    check_plot(plot, force)


def _load(name: str, device: str, engine: str, verify: bool) -> "Engine":
    import torch

    from i3dzoo import loading, zoo
    from i3dzoo.cli._progress import watch
    from i3dzoo.engines import load_engine

    if device == "cuda" and not torch.cuda.is_available():
        raise click.UsageError("there is no CUDA device that PyTorch can use; try --device cpu")
    if name in zoo.names():
        with watch() as progress:
            zoo.pull(name, progress=progress)
    if verify:
        loading.find(name, verify=True)
    return load_engine(name, engine, device)  # type: ignore[arg-type] # click checked the choices


def _predict(
    network: "Engine", videos: tuple[str, ...], options: dict[str, Any], timeline: bool
) -> "list[Prediction | Failure]":
    """Predict all videos, and print each as it is done unless one JSON document is wanted."""
    from i3dzoo.predict import Failure, predict_videos

    bar = _Bar(videos)
    results = []
    try:
        for result in predict_videos(
            network,
            videos,
            clips=options["clips"] or 1,
            top_k=options["top_k"],
            timeline=timeline,
            fps=options["fps"] or "model",
            progress=bar.update,
        ):
            bar.hide()
            results.append(result)
            if isinstance(result, Failure):
                say(f"i3dzoo: {result.error}")
            elif not options["as_json"]:
                _print(result)
            bar.next()
    finally:
        bar.hide()  # also when interrupted: a bar hides the terminal's cursor
    return results


class _Bar:
    """A bar over all runs of all videos, on terminals only, gone while a table is printed."""

    def __init__(self, videos: Sequence[str]) -> None:
        self.videos = videos
        self.number = 0
        self.shown: tuple[Progress, TaskID] | None = None
        if len(videos) > 1:
            self.show(0)

    def update(self, done: int, total: int) -> None:
        if len(self.videos) > 1 or total > 1:
            self.show(done / total)

    def show(self, part: float) -> None:
        if self.number == len(self.videos) or not sys.stderr.isatty():
            return
        if self.shown is None:
            from rich.console import Console
            from rich.markup import escape
            from rich.progress import Progress

            progress = Progress(console=Console(stderr=True), transient=True)
            name = escape(Path(self.videos[self.number]).name)
            progress.start()
            self.shown = progress, progress.add_task(name, total=len(self.videos))
        progress, task = self.shown
        progress.update(task, completed=self.number + part)

    def hide(self) -> None:
        if self.shown is not None:
            self.shown[0].stop()
        self.shown = None

    def next(self) -> None:
        self.number += 1
        if len(self.videos) > 1:
            self.show(0)


def _print(result: "Prediction") -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    for note in result.notes:
        say(f"{result.path.name}: {note}")
    rows = [(f"{score.probability:7.2%}", score.label, score.probability) for score in result.top]
    _print_rows(console, click.format_filename(result.path), rows)
    if result.timeline is not None:
        segments = result.timeline.segments()
        unit = "seconds" if result.timeline.unit == "s" else "frames"
        digits = 1 if result.timeline.unit == "s" else 0
        rows = [
            (f"{part.start:6.{digits}f} - {part.end:<6.{digits}f}", part.label, part.probability)
            for part in segments[:_MOST_SEGMENTS]
        ]
        _print_rows(console, f"over time, {unit}", rows)
        if len(segments) > _MOST_SEGMENTS:
            say(f"... and {len(segments) - _MOST_SEGMENTS} more; --json has all of them")


def _print_rows(console: "Console", title: str, rows: list[tuple[str, str, float]]) -> None:
    from rich.table import Table
    from rich.text import Text

    full = "█" if "utf" in console.encoding.lower() else "#"
    console.print(Text(title, style="bold"), soft_wrap=True)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for left, label, probability in rows:
        bar = Text((full * round(probability * _BAR)).ljust(_BAR), style="cyan")
        percent = [] if left.endswith("%") else [Text(f"{probability:4.0%}")]
        table.add_row(Text(left, style="bold"), *percent, bar, Text(label))
    console.print(table)
    console.print()


def _document(
    name: str,
    network: "Engine",
    results: "Sequence[Prediction | Failure]",
    top_k: int,
    picture: Path | None,
) -> dict[str, Any]:
    import dataclasses

    from i3dzoo.predict import Failure

    metadata = network.metadata
    videos: list[dict[str, Any]] = []
    for result in results:
        path = click.format_filename(result.path)
        if isinstance(result, Failure):
            videos.append({"path": path, "error": str(result.error)})
            continue
        entry = {
            "path": path,
            "top": [dataclasses.asdict(score) for score in result.top],
            "frames": result.info.frames,
            "fps": result.info.fps,
            "duration": result.info.duration,
            "clips": [{"start": start, "end": end} for start, end in result.clips],
            "notes": list(result.notes),
        }
        if result.timeline is not None:
            entry["timeline"] = _timeline_document(result.timeline, top_k)
        if picture is not None:
            entry["plot"] = click.format_filename(picture)
        videos.append(entry)
    return {
        "model": name,
        "zoo": metadata.zoo if metadata else None,
        "input": dataclasses.asdict(metadata.input) if metadata else None,
        "videos": videos,
    }


def _timeline_document(timeline: "Timeline", top_k: int) -> dict[str, Any]:
    import dataclasses

    classes = timeline.strongest(top_k)
    return {
        "unit": timeline.unit,
        "labels": [timeline.labels[index] for index in classes],
        "steps": [
            {
                "start": float(start),
                "end": float(end),
                "probabilities": [float(row[index]) for index in classes],
            }
            for start, end, row in zip(
                timeline.starts, timeline.ends, timeline.probabilities, strict=True
            )
        ],
        "segments": [dataclasses.asdict(segment) for segment in timeline.segments()],
    }
