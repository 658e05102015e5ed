"""`i3dzoo prepare`."""

from collections.abc import Callable, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from i3dzoo.cli._console import json_option, print_json, say

if TYPE_CHECKING:
    from i3dzoo.video.prepare import Prepared
    from i3dzoo.video.splits import DatasetName

_SHOWN = 10  # names of missing or bad clips that are printed


@click.group()
def command() -> None:
    """Make a dataset ready for training and evaluation.

    \b
    Examples:
      i3dzoo prepare hmdb51 downloads/ data/hmdb51
      i3dzoo prepare hmdb51 hmdb51_org.rar data/hmdb51 --splits test_train_splits.rar
      i3dzoo prepare hmdb51 clips/ data/tao --layout tao --flow tvl1 --fps 25
      i3dzoo prepare ucf101 UCF101.rar data/ucf101 --splits ucfTrainTestlist/
      i3dzoo prepare generated data/motions --per-class 10
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines


def _rate(ctx: click.Context, param: click.Parameter, value: str) -> float | None:
    if value == "native":
        return None
    try:
        rate = float(value)
    except ValueError:
        rate = 0.0
    if not 0 < rate <= 1000:
        raise click.BadParameter(f"{value!r} is neither 0 to 1000 nor 'native'", ctx, param)
    return rate


_path = click.Path(path_type=Path)
_OPTIONS = [
    click.argument("source", metavar="SRC", type=_path),
    click.argument("out", metavar="OUT", type=_path),
    click.option("--splits", type=_path, help="Folder or archive of the official lists."),
    click.option(
        "--layout",
        type=click.Choice(["videos", "frames", "tao"]),
        default="videos",
        show_default=True,
        help="Video files; folders of JPEGs; or NVIDIA TAO's folders.",
    ),
    click.option(
        "--fps",
        metavar="FPS|native",
        default="native",
        show_default=True,
        callback=_rate,
        help="Rate of extracted frames and of flow.",
    ),
    click.option(
        "--short-side",
        type=click.IntRange(min=0, max=8192),
        default=256,
        show_default=True,
        help="Of extracted frames and of flow, in pixels; 0 keeps their own size.",
    ),
    click.option(
        "--flow",
        type=click.Choice(["tvl1", "farneback", "torch"]),
        help="Compute optical flow: as the paper; fast; TV-L1 on a GPU.",
    ),
    click.option(
        "--flow-store",
        type=click.Choice(["jpg", "npy"]),
        default="jpg",
        show_default=True,
        help="Images in u/ and v/, or one lossless array a clip.",
    ),
    click.option("--device", default="auto", show_default=True, help="Of --flow torch."),
    click.option(
        "--jobs", type=click.IntRange(min=1), help="Processes.  [default: one a processor]"
    ),
    click.option("--allow-missing", is_flag=True, help="Succeed though clips are missing."),
    json_option,
]


def _options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command what preparing HMDB51 and UCF101 have in common."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@command.command()
@_options
def hmdb51(**options: Any) -> None:
    """Find, check and index HMDB51: 51 classes, 6,766 clips, 3,570 + 1,530 in each split.

    SRC is a folder that holds the clips anywhere, or their .rar files (hmdb51_org.rar, or one a
    class); extracting needs 7z, unrar or bsdtar. The lists are looked for in SRC too. Run again,
    the command goes on where it stopped. OUT/index.jsonl says what there is, OUT/missing.txt what
    there is not.

    \b
    Examples:
      i3dzoo prepare hmdb51 downloads/ data/hmdb51
      i3dzoo prepare hmdb51 clips/ data/hmdb51 --splits testTrainMulti_7030_splits/
      i3dzoo prepare hmdb51 clips/ data/tao --layout tao --flow tvl1 --fps 25
      i3dzoo prepare hmdb51 clips/ data/flow --flow torch --flow-store npy
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    _prepare("hmdb51", options)


@command.command()
@_options
def ucf101(**options: Any) -> None:
    """Find, check and index UCF101: 101 classes, 13,320 clips, three splits.

    SRC is a folder that holds the clips anywhere, or UCF101.rar; the lists are classInd.txt,
    trainlist01.txt, testlist01.txt and so on.

    \b
    Examples:
      i3dzoo prepare ucf101 UCF101/ data/ucf101 --splits ucfTrainTestlist/
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    _prepare("ucf101", options)


@command.command()
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--splits",
    type=click.Path(path_type=Path),
    help="Folder of the official lists, whose names the clips get.  [default: made up]",
)
@click.option(
    "--per-class",
    metavar="N|all",
    default="10",
    show_default=True,
    help="Clips of each class; all of the official lists.",
)
@click.option("--classes", metavar="A,B,...", help="Some of HMDB51's classes.  [default: all 51]")
@click.option("--size", metavar="WxH", default="80x60", show_default=True)
@click.option("--frames", type=click.IntRange(min=2), default=40, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--jobs", type=click.IntRange(min=1), help="Processes.  [default: one a processor]")
@json_option
def generated(
    out: Path, splits: Path | None, per_class: str, classes: str | None, size: str, **options: Any
) -> None:
    """Generate clips in the shape of HMDB51, for tests: classes are motions of random textures.

    A single frame says nothing of the class. OUT is what `i3dzoo prepare hmdb51` takes as SRC.

    \b
    Examples:
      i3dzoo prepare generated data/motions --per-class 10
      i3dzoo prepare generated data/three --classes brush_hair,fencing,kick_ball
      i3dzoo prepare generated data/full --splits testTrainMulti_7030_splits/ --per-class all
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    from i3dzoo._parallel import cores
    from i3dzoo.cli._progress import watch
    from i3dzoo.video.generate import Shape, choose, generate, invent
    from i3dzoo.video.splits import read_splits

    count = None if per_class == "all" else int(per_class) if per_class.isdecimal() else 0
    if count == 0 or (count is None and splits is None):
        raise click.UsageError(
            f"--per-class {per_class}: expected 1 or more, or 'all' together with --splits"
        )
    if classes is not None and splits is not None:
        raise click.UsageError("--classes is for names that are made up, without --splits")
    width, _, height = size.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise click.UsageError(f"--size {size}: expected WIDTHxHEIGHT, such as 80x60")
    shape = Shape(int(height), int(width), options["frames"], options["seed"])
    lists = (
        invent(count or 1, (classes or "").split(",") if classes else ())
        if splits is None
        else choose(read_splits(splits, "hmdb51"), count)
    )
    with watch(counted=True) as progress:
        made = generate(out, lists, shape, options["jobs"] or cores(), progress)
    counts = {"classes": len(lists.classes), "clips": len(lists.clips), "made": made}
    say(f"{counts['clips']:,} clips of {counts['classes']} classes, {made:,} made now")
    say(f"Next: i3dzoo prepare hmdb51 {out} {out}-prepared")
    if options["as_json"]:
        print_json({"folder": click.format_filename(out), **counts})
    else:
        click.echo(click.format_filename(out))


def _prepare(dataset: "DatasetName", options: dict[str, Any]) -> None:
    from i3dzoo._parallel import cores
    from i3dzoo.cli._progress import watch
    from i3dzoo.video.extract import Settings
    from i3dzoo.video.prepare import prepare

    device, jobs = options["device"], options["jobs"] or cores()
    if options["flow"] == "torch":
        import torch

        cuda = torch.cuda.is_available()
        device = ("cuda" if cuda else "cpu") if device == "auto" else device
        jobs = options["jobs"] or 1  # one process fills a GPU
    settings = Settings(
        options["layout"],
        options["fps"],
        options["short_side"] or None,
        options["flow"],
        options["flow_store"],
        device,
    )
    if settings.layout == "videos" and settings.fps and not settings.flow:
        say(f"--fps {settings.fps:g} is of frames and flow; the videos keep their own rate")
    with watch(counted=True) as progress:
        prepared = prepare(
            dataset,
            options["source"],
            options["out"],
            settings,
            splits=options["splits"],
            jobs=jobs,
            progress=progress,
        )
    if options["as_json"]:
        print_json(_document(prepared))
    _report(prepared, options["allow_missing"])
    if not options["as_json"]:
        click.echo(click.format_filename(prepared.path))
    if prepared.missing and not options["allow_missing"]:
        raise SystemExit(1)


def _report(prepared: "Prepared", allow_missing: bool) -> None:
    from i3dzoo.video.splits import OFFICIAL

    index, missing = prepared.index, prepared.missing
    title = OFFICIAL[index.dataset].title if index.dataset in OFFICIAL else index.dataset
    say(
        f"{title}: {len(index.classes)} classes, {len(index.entries):,} clips, "
        f"{prepared.made:,} prepared now, {prepared.kept:,} before"
    )
    for split in (1, 2, 3):
        roles = [entry.roles[split - 1] for entry in index.entries]
        say(f"  split {split}: {roles.count('train'):,} train, {roles.count('test'):,} test")
    if prepared.differences:
        say(f"The lists are not the official ones: {'; '.join(prepared.differences[:2])}")
    for what, entries in (("damaged", prepared.damaged), ("unusable", prepared.bad)):
        if entries:
            say(f"{_clips_are(entries)} {what}:")
        for entry in entries[:_SHOWN]:
            say(f"  {entry.file}: {entry.error or '; '.join(entry.warnings)}")
    if missing:
        say(f"{_clips_are(missing)} missing, named in {index.root / 'missing.txt'}:")
        for clip in missing[:_SHOWN]:
            say(f"  {clip.label}/{clip.file}")
        if not allow_missing:
            say("Add them and run the command again, or pass --allow-missing")
    flow = " --from flow_imagenet" if index.flow else ""
    say(f"Next: i3dzoo finetune {index.dataset} --data {index.root} --from rgb_imagenet{flow}")


def _clips_are(clips: Sized) -> str:
    return f"{len(clips):,} clips are" if len(clips) != 1 else "1 clip is"


def _document(prepared: "Prepared") -> dict[str, Any]:
    index = prepared.index
    return {
        "index": click.format_filename(prepared.path),
        "dataset": index.dataset,
        "layout": index.layout,
        "flow": index.flow,
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
