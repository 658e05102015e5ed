"""`i3dzoo prepare`."""

from collections.abc import Callable, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from i3dzoo.cli._console import device_option, json_option, print_json, say, show, suggest
from i3dzoo.cli._prepare_videos import flow_device, videos
from i3dzoo.cli.progress import show_progress

if TYPE_CHECKING:
    from i3dzoo.video.prepare import Prepared
    from i3dzoo.video.splits import DatasetName

_MAX_PRINTED = 10  # names of missing or unusable clips


@click.group()
def command() -> None:
    """Prepare a dataset for training and evaluation.

    \b
    Examples:
      i3dzoo prepare hmdb51 downloads/ data/hmdb51
      i3dzoo prepare hmdb51 hmdb51_org.rar data/hmdb51 --splits test_train_splits.rar
      i3dzoo prepare hmdb51 clips/ data/tao --layout tao --flow tvl1 --fps 25
      i3dzoo prepare ucf101 UCF101.rar data/ucf101 --splits ucfTrainTestlist/
      i3dzoo prepare videos clips/ data/mine
      i3dzoo prepare generated data/motions --per-class 10
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines


command.add_command(videos)


def _rate(ctx: click.Context, param: click.Parameter, value: str) -> float | None:
    if value == "native":
        return None
    try:
        rate = float(value)
    except ValueError:
        rate = 0.0
    if not 0 < rate <= 1000:
        raise click.BadParameter(
            f"expected a number from 0 to 1000, or native; found {value!r}", ctx, param
        )
    return rate


_path = click.Path(path_type=Path)
_OPTIONS = [
    click.argument("source", metavar="SRC", type=_path),
    click.argument("out", metavar="OUT", type=_path),
    click.option("--splits", type=_path, help="Folder or archive of the official split lists."),
    click.option(
        "--layout",
        type=click.Choice(["videos", "frames", "tao"]),
        default="videos",
        show_default=True,
        help="Keep video files, extract JPEG frames, or extract frames in NVIDIA TAO's layout.",
    ),
    click.option(
        "--fps",
        metavar="FPS|native",
        default="native",
        show_default=True,
        callback=_rate,
        help="Frame rate of extracted frames and of flow.",
    ),
    click.option(
        "--short-side",
        type=click.IntRange(min=0, max=8192),
        default=256,
        show_default=True,
        help="Short side of extracted frames and of flow, in pixels; 0 keeps the original size.",
    ),
    click.option(
        "--flow",
        type=click.Choice(["tvl1", "farneback", "torch"]),
        help="Compute optical flow: TV-L1 as in the paper, Farneback (fast), or TV-L1 on a GPU.",
    ),
    click.option(
        "--flow-store",
        type=click.Choice(["jpg", "npy"]),
        default="jpg",
        show_default=True,
        help="Store flow as images in u/ and v/, or as one lossless array per clip.",
    ),
    device_option,
    click.option(
        "--jobs",
        type=click.IntRange(min=1),
        help="Number of processes.  [default: number of processors]",
    ),
    click.option(
        "--allow-missing", is_flag=True, help="Exit with code 0 even if clips are missing."
    ),
    json_option,
]


def _options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that HMDB51 and UCF101 share to a command."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@dataclass(frozen=True)
class _Options:
    source: Path
    out: Path
    splits: Path | None
    layout: Literal["videos", "frames", "tao"]
    fps: float | None
    short_side: int
    flow: Literal["tvl1", "farneback", "torch"] | None
    flow_store: Literal["jpg", "npy"]
    device: str
    jobs: int | None
    allow_missing: bool
    as_json: bool


@command.command()
@_options
def hmdb51(**options: Any) -> None:
    """Find, check and index HMDB51: 51 classes, 6,766 clips, 3,570 + 1,530 in each split.

    SRC is a folder with the clips at any depth, or their .rar files (hmdb51_org.rar, or one per
    class). Extracting needs 7z, unrar or bsdtar. The split lists are searched in SRC too. Run the
    command again to resume it. OUT/index.jsonl lists the clips, OUT/missing.txt the missing ones.

    \b
    Examples:
      i3dzoo prepare hmdb51 downloads/ data/hmdb51
      i3dzoo prepare hmdb51 clips/ data/hmdb51 --splits testTrainMulti_7030_splits/
      i3dzoo prepare hmdb51 clips/ data/tao --layout tao --flow tvl1 --fps 25
      i3dzoo prepare hmdb51 clips/ data/flow --flow torch --flow-store npy
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    _prepare("hmdb51", _Options(**options))


@command.command()
@_options
def ucf101(**options: Any) -> None:
    """Find, check and index UCF101: 101 classes, 13,320 clips, three splits.

    SRC is a folder with the clips at any depth, or UCF101.rar. The split lists are classInd.txt,
    trainlist01.txt, testlist01.txt and so on.

    \b
    Examples:
      i3dzoo prepare ucf101 UCF101/ data/ucf101 --splits ucfTrainTestlist/
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    _prepare("ucf101", _Options(**options))


@command.command()
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--splits",
    type=click.Path(path_type=Path),
    help="Folder of the official split lists, for the names of the clips.  [default: generated "
    "names]",
)
@click.option(
    "--per-class",
    metavar="N|all",
    default="10",
    show_default=True,
    help="Clips per class; all takes every clip of the official lists.",
)
@click.option("--classes", metavar="A,B,...", help="Classes of HMDB51.  [default: all 51]")
@click.option(
    "--size", metavar="WxH", default="80x60", show_default=True, help="Size of a frame in pixels."
)
@click.option(
    "--frames",
    type=click.IntRange(min=2),
    default=40,
    show_default=True,
    help="Frames of a clip.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of textures and motions.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Number of processes.  [default: number of processors]",
)
@json_option
def generated(
    out: Path, splits: Path | None, per_class: str, classes: str | None, size: str, **options: Any
) -> None:
    """Generate test clips in the structure of HMDB51: each class is a motion of random textures.

    A single frame does not reveal the class. OUT is a SRC for `i3dzoo prepare hmdb51`.

    \b
    Examples:
      i3dzoo prepare generated data/motions --per-class 10
      i3dzoo prepare generated data/three --classes brush_hair,fencing,kick_ball
      i3dzoo prepare generated data/full --splits testTrainMulti_7030_splits/ --per-class all
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    count = None if per_class == "all" else int(per_class) if per_class.isdecimal() else 0
    if count == 0 or (count is None and splits is None):
        raise click.UsageError(
            f"--per-class {per_class}: expected a number of 1 or more, or 'all' with --splits"
        )
    if classes is not None and splits is not None:
        raise click.UsageError("--classes cannot be used with --splits, which lists the classes")
    from i3dzoo.video.generate import Shape, choose, generate, invent
    from i3dzoo.video.splits import read_splits

    width, _, height = size.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise click.UsageError(f"--size {size}: expected WIDTHxHEIGHT, such as 80x60")
    shape = Shape(int(height), int(width), options["frames"], options["seed"])
    lists = (
        invent(count or 1, (classes or "").split(",") if classes else ())
        if splits is None
        else choose(read_splits(splits, "hmdb51"), count)
    )
    with show_progress() as progress:
        new_clips = generate(out, lists, shape, options["jobs"], progress)
    counts = {"classes": len(lists.classes), "clips": len(lists.clips), "made": new_clips}
    say(f"{counts['clips']:,} clips of {counts['classes']} classes, {new_clips:,} of them new")
    suggest(f"i3dzoo prepare hmdb51 {out} {out}-prepared")
    if options["as_json"]:
        print_json({"folder": click.format_filename(out), **counts})
    else:
        show(click.format_filename(out))


def _prepare(dataset: "DatasetName", options: _Options) -> None:
    from i3dzoo.video.extract import Settings
    from i3dzoo.video.prepare import prepare

    device, jobs = flow_device(options.flow, options.device, options.jobs)
    settings = Settings(
        options.layout,
        options.fps,
        options.short_side or None,
        options.flow,
        options.flow_store,
        device,
    )
    if settings.layout == "videos" and settings.fps and not settings.flow:
        say(f"--fps {settings.fps:g} applies to frames and flow; the videos keep their own rate")
    with show_progress() as progress:
        prepared = prepare(
            dataset,
            options.source,
            options.out,
            settings,
            splits=options.splits,
            jobs=jobs,
            progress=progress,
        )
    if options.as_json:
        print_json(_document(prepared))
    _report(prepared, options.allow_missing)
    if not options.as_json:
        show(click.format_filename(prepared.path))
    if prepared.missing and not options.allow_missing:
        raise SystemExit(1)


def _report(prepared: "Prepared", allow_missing: bool) -> None:
    from i3dzoo.video.splits import OFFICIAL

    index, missing = prepared.index, prepared.missing
    title = OFFICIAL[index.dataset].title if index.dataset in OFFICIAL else index.dataset
    say(
        f"{title}: {len(index.classes)} classes, {len(index.entries):,} clips, "
        f"{prepared.made:,} new, {prepared.kept:,} from before"
    )
    for split in (1, 2, 3):
        roles = [entry.roles[split - 1] for entry in index.entries]
        say(f"  split {split}: {roles.count('train'):,} train, {roles.count('test'):,} test")
    if prepared.differences:
        say(f"The split lists differ from the official ones: {'; '.join(prepared.differences[:2])}")
    for what, entries in (("damaged", prepared.damaged), ("unusable", prepared.bad)):
        if entries:
            say(f"{_clips_are(entries)} {what}:")
        for entry in entries[:_MAX_PRINTED]:
            say(f"  {entry.file}: {entry.error or '; '.join(entry.warnings)}")
    if missing:
        say(f"{_clips_are(missing)} missing, listed in {index.root / 'missing.txt'}:")
        for clip in missing[:_MAX_PRINTED]:
            say(f"  {clip.label}/{clip.file}")
        if not allow_missing:
            say("Add them and run the command again, or use --allow-missing")
    flow = " --from flow_imagenet" if index.flow else ""
    suggest(f"i3dzoo finetune {index.dataset} --data {index.root} --from rgb_imagenet{flow}")


def _clips_are(clips: Sized) -> str:
    return f"{len(clips):,} clips are" if len(clips) != 1 else "1 clip is"


def _document(prepared: "Prepared") -> dict[str, Any]:
    import msgspec

    index = prepared.index
    return {
        "index": click.format_filename(prepared.path),
        "dataset": index.dataset,
        "layout": index.layout,
        "flow": None if index.flow is None else msgspec.to_builtins(index.flow),
        "classes": len(index.classes),
        "clips": len(index.entries),
        "made": prepared.made,
        "kept": prepared.kept,
        "splits": [
            {
                role: sum(entry.roles[split] == role for entry in index.entries)
                for role in ("train", "test")
            }
            for split in range(3)
        ],
        "differences": list(prepared.differences),
        "missing": [f"{clip.label}/{clip.file}" for clip in prepared.missing],
        "unusable": [{"file": e.file, "error": e.error} for e in prepared.bad],
        "damaged": [{"file": e.file, "warnings": list(e.warnings)} for e in prepared.damaged],
    }
