"""`i3dzoo features`."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from i3dzoo.cli._console import (
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
from i3dzoo.cli._feature_options import given_settings, setting_options
from i3dzoo.cli._parameters import FEATURE_PRESET, MODEL
from i3dzoo.cli.progress import TerminalProgress, show_progress

if TYPE_CHECKING:
    from i3dzoo.devices import Device
    from i3dzoo.engines.base import Engine, EngineName
    from i3dzoo.features import FeatureFile, FeatureSettings
    from i3dzoo.onnx.options import Precision
    from i3dzoo.video.pipeline import DecoderName


@click.command()
@click.argument("videos", metavar="VIDEO...", nargs=-1)
@click.option(
    "--list", "list_file", help="File with more videos, one per line; - is standard input."
)
@click.option(
    "--model",
    required=True,
    multiple=True,
    type=MODEL,
    metavar="MODEL",
    help="A zoo name, a checkpoint of any layout, an exported file, or USER/NAME; an RGB and a "
    "flow model for both streams.",
)
@key_option("model")
@click.option("-o", "--output", help="A folder, or an address such as s3://bucket/features.")
@click.option(
    "--preset",
    type=FEATURE_PRESET,
    metavar="PRESET",
    help="Settings of a research field: a name from i3dzoo presets ls, or a YAML file. The "
    "options below override them.",
)
@setting_options
@click.option(
    "--flow-folder",
    type=click.Path(path_type=Path),
    help="Folder to keep optical flow in, or to read it from with --flow frames.",
)
@click.option(
    "--keep-folders",
    is_flag=True,
    help="Keep the folders of the videos: a/x.mp4 becomes a/x.npy.  [default: only if two videos "
    "have the same name]",
)
@click.option(
    "--on-bad-video",
    type=click.Choice(["report", "skip", "error"]),
    default="report",
    show_default=True,
    help="A video that cannot be read: report it and exit with 1 at the end, report it and exit "
    "with 0, or stop.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    help="Number of windows in a batch.  [default: depends on the device]",
)
@click.option(
    "--shard",
    metavar="NUMBER/COUNT",
    help="Extract one of COUNT parts of the list, such as 3/16. Processes of torchrun "
    "divide it further.",
)
@click.option("--explain", is_flag=True, help="Print the frames of each row; compute nothing.")
@device_option
@engine_option
@precision_option
@decoder_option
@json_option
def command(
    videos: tuple[str, ...],
    list_file: str | None,
    model: tuple[str, ...],
    output: str | None,
    preset: str | None,
    flow_folder: Path | None,
    keep_folders: bool,
    on_bad_video: str,
    batch_size: int | None,
    shard: str | None,
    explain: bool,
    device: "Device",
    engine: "EngineName",
    precision: "Precision | None",
    decoder: "DecoderName",
    as_json: bool,
    **options: Any,
) -> None:
    """Extract the features of videos: a file [rows, channels] per video, and a JSON file beside it.

    Files are named after the videos. The JSON file records the settings, and the frames that each
    row was computed from. Videos that already have features are skipped, so the same command
    resumes an interrupted run. Any number of commands can write to one folder; each video is
    extracted once.

    \b
    Examples:
      i3dzoo features *.mp4 --model rgb_imagenet -o features
      i3dzoo features *.mp4 --model rgb_imagenet -o features --window 16 --stride 4 --fps 25
      i3dzoo features *.mp4 --model rgb_imagenet --model flow_imagenet -o features --preset anet
      i3dzoo features clip.mp4 --model rgb_imagenet --preset ms-tcn --streams rgb --explain
      i3dzoo features --list videos.txt --model i3d.onnx -o features --format npz
      i3dzoo features --list videos.txt --model rgb_imagenet -o s3://bucket/x --shard 3/16
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    if list_file is not None:
        videos += read_list(list_file)
    from i3dzoo.video.inputs import expand_videos

    videos = expand_videos(videos)
    if not videos:
        raise click.UsageError("name at least one video")
    if output is None and not explain:
        raise click.UsageError("name a folder with -o, or print the rows with --explain")
    from i3dzoo.distributed import Shard, use_own_gpu
    from i3dzoo.features import Extractor, extract_to_folder, feature_names, settings_with
    from i3dzoo.fetch.find import digest

    part = Shard() if shard is None else Shard.parse(shard)

    settings = settings_with(preset, given_settings(options))
    with show_progress() as progress:
        paths = _find(model, progress)
        if explain:
            failed = _explain(paths, videos, settings, flow_folder, as_json)
        elif output is not None:
            use_own_gpu()
            engines = _load(paths, engine, device, precision, settings, progress)
            names = feature_names(videos, keep_folders)
            _explain_names(videos, names, output, keep_folders)
            # named as in the whole list
            names = dict(Shard.of_process().of(part.of([*names.items()])))
            extractor = Extractor([*engines.values()], settings, flow_folder)
            for planner in extractor.planners.values():
                for change in planner.changes:
                    say(change)
            results = extract_to_folder(
                extractor,
                names,
                output,
                models={
                    network.metadata.stream: {"name": name, "sha256": digest(paths[name])}
                    for name, network in engines.items()
                    if network.metadata
                },
                batch_size=batch_size,
                decoder=decoder,
                progress=progress,
            )
            documents = _report(results, on_bad_video, as_json, progress.message)
            order = {video: number for number, video in enumerate(names)}
            documents.sort(key=lambda document: order[document["video"]])
            if as_json:
                print_json({"model": " ".join(model), "videos": documents})
            else:
                show(output)
            failed = sum("error" in document for document in documents)
            done = sum("shape" in document for document in documents)
            kept = len(documents) - done - failed
            counted = "1 video" if len(documents) == 1 else f"{len(documents)} videos"
            say(f"{counted}: {done} extracted, {kept} kept, {failed} failed")
    if failed and on_bad_video != "skip":
        sys.exit(1)


def _find(models: tuple[str, ...], progress: TerminalProgress) -> dict[str, Path]:
    """Return the file of each model."""
    from i3dzoo.fetch.find import find

    return {model: find(model, progress=progress) for model in models}


def _load(
    paths: dict[str, Path],
    engine: "EngineName",
    device: "Device",
    precision: "Precision | None",
    settings: "FeatureSettings",
    progress: TerminalProgress,
) -> "dict[str, Engine]":
    """Load the networks, in PyTorch if only that can do what the settings ask for."""
    from i3dzoo.checkpoints.networks import split_key
    from i3dzoo.engines.base import SUFFIXES, load_engine

    networks = {}
    for name, path in paths.items():
        exported = Path(split_key(path)[0]).suffix.lower() in SUFFIXES
        only_torch = engine == "auto" and settings.needs_pytorch and not exported
        networks[name] = load_engine(
            path,
            "torch" if only_torch else engine,
            device,
            precision=precision,
            progress=progress,
        )
        if metadata := networks[name].metadata:
            remark_description(path, metadata)
    return networks


def _report(
    results: "Iterable[FeatureFile]",
    on_bad_video: str,
    as_json: bool,
    remark: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Print what became of each video, and return it for JSON."""
    from i3dzoo.errors import VideoError

    documents = []
    for result in results:
        document: dict[str, Any] = {"video": result.video}
        documents.append(document)
        if result.error is not None:
            document["error"] = result.error
            named = result.error.startswith(result.video)
            reason = result.error if named else f"{result.video}: {result.error}"
            if on_bad_video == "error":
                raise VideoError(reason)
            remark(f"i3dzoo: {reason}")
            continue
        document["path"] = result.files[0]
        document["files"] = list(result.files)
        document["json"] = result.path
        if result.features is not None:
            document["shape"] = list(result.features.vectors.shape)
            document["notes"] = list(result.features.notes)
            for note in () if as_json else result.features.notes:
                remark(f"{Path(result.video).name}: {note}")
    return documents


def _explain_names(
    videos: tuple[str, ...], names: dict[str, str], output: str, keep_folders: bool
) -> None:
    """Say how the files are named, where it may surprise."""
    if repeats := len(videos) - len(names):
        say(f"{repeats} {'video is' if repeats == 1 else 'videos are'} repeated; each is used once")
    kept = next((name for name in names.values() if len(Path(name).parts) > 1), None)
    if kept is not None and not keep_folders:
        example = f"{output.rstrip('/')}/{kept}.json"
        say(
            "two folders have videos of the same name, so the features are written to the same "
            f"folders, as in {example}"
        )


def _explain(
    paths: dict[str, Path],
    videos: tuple[str, ...],
    settings: "FeatureSettings",
    flow_folder: Path | None,
    as_json: bool,
) -> int:
    """Print the frames of each row of each video; return how many videos cannot be read."""
    from rich.table import Table

    from i3dzoo.errors import I3DZooError
    from i3dzoo.features.explain import explain, model_metadata

    metadata = [model_metadata(path) for path in paths.values()]
    documents: list[dict[str, Any]] = []
    for video in videos:
        try:
            explained = explain(metadata, video, settings, flow_folder)
        except I3DZooError as error:
            documents.append({"video": video, "error": str(error)})
            say(f"i3dzoo: {error}")
            continue
        documents.append({"video": video, **explained})
        if as_json:
            continue
        table = Table("row", "first frame", "last frame", "start", "end", "padded", box=None)
        for number, row in enumerate(explained["rows"]):
            seconds = ["" if row[key] is None else f"{row[key]:.3f}" for key in ("start", "end")]
            table.add_row(
                str(number),
                str(row["first_frame"]),
                str(row["last_frame"]),
                *seconds,
                str(row["padded"]),
            )
        show_table(table, video)
        for note in explained["notes"]:
            say(note)
    if as_json:
        print_json({"videos": documents})
    return sum("error" in document for document in documents)
