"""`i3dzoo features`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from i3dzoo.cli._console import device_option, engine_option, json_option, print_json, say

if TYPE_CHECKING:
    from i3dzoo.engines import Engine

_ABOUT = "features.json"  # beside the features: what they are of
_KINDS = ("npy", "npz", "safetensors")


@click.command()
@click.argument("videos", metavar="VIDEO...", nargs=-1)
@click.option("--list", "listed", type=click.File(), help="A file of more videos, one a line.")
@click.option(
    "--model",
    required=True,
    help="A zoo name, a checkpoint of any layout, an exported file, or USER/NAME.",
)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="A folder.")
@click.option(
    "--endpoint",
    default="pooled",
    show_default=True,
    help="pooled (1024 numbers, before the head), or a layer such as Mixed_4f, averaged.",
)
@click.option("--mean", is_flag=True, help="One vector a video, instead of one a window.")
@click.option(
    "--clips",
    type=click.IntRange(min=1),
    help="Windows spread over the video.  [default: from end to end]",
)
@click.option(
    "--stride", type=click.IntRange(min=1), help="Frames between windows.  [default: their length]"
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(_KINDS),
    default="npy",
    show_default=True,
    help="npz and safetensors hold the windows' seconds, too.",
)
@device_option
@engine_option
@json_option
def command(videos: tuple[str, ...], model: str, output: Path, **options: Any) -> None:
    """Write the features of videos: float32 [windows, channels] of each, in a file of its own.

    Files are named after the videos. Those that are there already are kept, so that the same
    command goes on where it was stopped; a video that fails is reported and the others go on.

    \b
    Examples:
      i3dzoo features *.mp4 --model rgb_imagenet -o features
      i3dzoo features clip.mp4 --model rgb_imagenet -o features --endpoint Mixed_4f --mean
      i3dzoo features --list videos.txt --model i3d.onnx -o features --format npz
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    if options["listed"] is not None:
        videos += tuple(line.strip() for line in options["listed"] if line.strip())
    if not videos:
        raise click.UsageError("no video is named")
    if options["clips"] and options["stride"]:
        raise click.UsageError("--clips spreads windows, and --stride lays them; give one of both")
    targets = _targets(videos, output, options["kind"])
    from i3dzoo.engines import load_engine
    from i3dzoo.loading import find

    path = find(model)
    engine = load_engine(path, options["engine"], options["device"])
    _claim(output, path, targets, options)
    rows = _extract(engine, targets, options)
    failed = sum("error" in row for row in rows)
    if options["as_json"]:
        print_json({"model": model, "endpoint": options["endpoint"], "videos": rows})
    else:
        click.echo(output)
    if failed:
        say(f"{failed} of {len(videos)} videos failed")
        sys.exit(1)


def _targets(videos: tuple[str, ...], output: Path, kind: str) -> dict[Path, str]:
    """Return the video of each file to be."""
    targets: dict[Path, str] = {}
    for video in videos:
        target = output / f"{Path(video).stem}.{kind}"
        if target in targets:
            raise click.UsageError(
                f"{targets[target]} and {video} would both be written to {target}; write one of "
                "them to another folder"
            )
        targets[target] = video
    return targets


def _claim(output: Path, model: Path, targets: dict[Path, str], options: dict[str, Any]) -> None:
    """Say in the folder what its features are and of which videos; refuse one that holds others."""
    from i3dzoo._files import atomic_write, make_folder, output_error
    from i3dzoo.errors import OutputError
    from i3dzoo.loading import digest

    keys = ("endpoint", "mean", "clips", "stride")
    about = {"model_sha256": digest(model)} | {key: options[key] for key in keys}
    make_folder(output)
    path = output / _ABOUT
    try:
        found = json.loads(path.read_bytes()) if path.exists() else dict(about)
        known = dict(found.pop("videos", {}))
    except (ValueError, TypeError, AttributeError) as error:
        raise OutputError(f"{path}: is no description of features; remove it") from error
    except OSError as error:
        raise output_error(path, error) from error
    # a run that wrote none claims nothing
    if found != about and any(next(output.glob(f"*.{kind}"), None) for kind in _KINDS):
        raise OutputError(
            f"{output}: holds other features ({path.name} says which); name another folder"
        )
    videos = {target.name: _identity(Path(video)) for target, video in targets.items()}
    for target, video in targets.items():
        identity = videos[target.name]
        if target.exists() and known.get(target.name, identity) != identity:
            raise OutputError(
                f"{target}: is of another video than {video}; remove it, or name another folder"
            )
    with atomic_write(path) as file:
        file.write(json.dumps(about | {"videos": known | videos}, indent=1).encode())


def _identity(video: Path) -> str:
    """Return a digest of a video's size and first MiB; of a folder's frames, by name and size."""
    import hashlib

    from i3dzoo.video._frames import frames_digest

    if not video.is_file():
        return frames_digest(video)
    with video.open("rb") as file:
        return hashlib.sha256(b"%d " % video.stat().st_size + file.read(1 << 20)).hexdigest()


def _extract(
    engine: "Engine", targets: dict[Path, str], options: dict[str, Any]
) -> list[dict[str, Any]]:
    from i3dzoo.cli._progress import watch
    from i3dzoo.errors import I3DZooError
    from i3dzoo.features import extract, write_features

    rows: list[dict[str, Any]] = []
    with watch(counted=True) as progress:
        progress.start("videos", len(targets))
        for number, (target, video) in enumerate(targets.items(), 1):
            row: dict[str, Any] = {"video": video, "path": str(target)}
            if not target.exists():
                try:
                    found = extract(
                        engine,
                        video,
                        **{key: options[key] for key in ("endpoint", "mean", "clips", "stride")},
                    )
                except I3DZooError as error:
                    progress.say(f"{video}: {error}")
                    rows.append({"video": video, "error": str(error)})
                    continue
                write_features(target, found)
                row |= {"shape": list(found.vectors.shape), "notes": list(found.notes)}
            rows.append(row)
            progress.update(number)
    return rows
