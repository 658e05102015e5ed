"""`i3dzoo prepare videos`."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from i3dzoo.cli._console import device_option, json_option, print_json, say, show, suggest
from i3dzoo.cli.progress import show_progress

_path = click.Path(path_type=Path)

_SOURCE_OPTIONS = (
    click.option(
        "--labels",
        metavar="SET|FILE",
        help="Class names in the order of the logits; the numbers in a list refer to it.  "
        "[default: the names in the data, in alphabetical order]",
    ),
    click.option(
        "--root",
        type=_path,
        help="Folder that the paths in a list are relative to.  [default: the list's folder]",
    ),
    click.option(
        "--val-fraction",
        type=click.FloatRange(min=0, max=1, max_open=True),
        default=0.2,
        show_default=True,
        help="Fraction of each class to use for validation, if the data has no validation or test "
        "part.",
    ),
    click.option(
        "--group-by",
        metavar="REGEX",
        help="Keep videos together in the split if this pattern matches the same text in their "
        "paths, such as clips of one source: '_g[0-9]+'.",
    ),
)


def source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how folders and lists of videos are read."""
    for option in reversed(_SOURCE_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("source", metavar="SRC", type=_path)
@click.argument("out", metavar="OUT", type=_path)
@source_options
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Seed of the split.")
@click.option(
    "--flow",
    type=click.Choice(["tvl1", "farneback", "torch"]),
    help="Compute optical flow: TV-L1 as in the paper, Farneback (fast), or TV-L1 on a GPU.",
)
@click.option(
    "--flow-store",
    type=click.Choice(["jpg", "npy"]),
    default="jpg",
    show_default=True,
    help="Store flow as images in u/ and v/, or as one lossless array per video.",
)
@click.option("--fps", type=click.FloatRange(0, 1000, min_open=True), help="Frame rate of flow.")
@click.option(
    "--short-side",
    type=click.IntRange(min=0, max=8192),
    default=256,
    show_default=True,
    help="Short side of flow in pixels; 0 keeps the size of the video.",
)
@device_option
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Number of processes.  [default: number of processors]",
)
@json_option
def videos(source: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Check videos of your own, split them, and write an index; nothing is copied.

    SRC is a folder <class>/<video>, with train/, val/ and test/ above the classes if you have them;
    a folder with metadata.csv or train.csv; or a list of videos and classes: CSV, TSV, JSON lines,
    parquet, or lines `path label`; or hf://datasets/USER/NAME on the Hub. Run the command again to
    add new videos.

    \b
    Examples:
      i3dzoo prepare videos clips/ data/mine
      i3dzoo prepare videos clips/ data/mine --val-fraction 0.3 --group-by '_g[0-9]+'
      i3dzoo prepare videos clips.csv data/mine --root videos/
      i3dzoo prepare videos train_list.txt data/mine --labels classes.txt
      i3dzoo prepare videos clips/ data/mine --flow tvl1 --fps 25
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    from i3dzoo.fetch.data import find_data
    from i3dzoo.video.extract import Settings
    from i3dzoo.video.index import SplitSettings
    from i3dzoo.video.prepare_videos import prepare_videos
    from i3dzoo.video.summary import summarise

    flow = options["flow"]
    device, jobs = flow_device(flow, options["device"], options["jobs"])
    settings = Settings(
        "videos", options["fps"], options["short_side"] or None, flow, options["flow_store"], device
    )
    split = SplitSettings(
        val_fraction=options["val_fraction"], seed=options["seed"], group_by=options["group_by"]
    )
    with show_progress() as progress:
        prepared = prepare_videos(
            find_data(source, progress),
            out,
            settings,
            labels=options["labels"],
            root=options["root"],
            split=split,
            jobs=jobs,
            progress=progress,
        )
    summary = summarise(prepared.index)
    say(f"videos indexed: {prepared.made:,} now, {prepared.kept:,} before")
    say(str(summary))
    if as_json:
        path = click.format_filename(prepared.path)
        counts = {"made": prepared.made, "kept": prepared.kept}
        print_json({"index": path, **counts, **summary.to_dict()})
    else:
        suggest(shlex.join(["i3dzoo", "finetune", "mine", "--data", str(out), *_models(flow)]))
        show(click.format_filename(prepared.path))


def flow_device(flow: str | None, device: str, jobs: int | None) -> tuple[str, int | None]:
    """Return the device and the number of processes that compute optical flow."""
    if flow != "torch" and device == "auto":
        return device, jobs
    from i3dzoo.devices import choose_device

    device = str(choose_device(device))
    return device, jobs or (1 if flow == "torch" else None)  # one process uses the whole GPU


def _models(flow: str | None) -> list[str]:
    return ["--from", "rgb_imagenet", *(["--from", "flow_imagenet"] if flow else [])]
