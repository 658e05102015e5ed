"""`i3dzoo finetune`."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from i3dzoo.cli._console import device_option, json_option, print_json, say, show
from i3dzoo.cli._parameters import MODEL, RECIPE
from i3dzoo.cli._prepare_videos import source_options
from i3dzoo.cli.progress import show_progress

if TYPE_CHECKING:
    from i3dzoo.progress import Progress
    from i3dzoo.training.finetune import FinetuneResult

_path = click.Path(path_type=Path)


@dataclass(frozen=True)
class Options:
    """The arguments and options of the command, as click parsed them."""

    words: tuple[str, ...]
    data: Path | None
    test_data: Path | None
    models: tuple[str, ...]
    spec: Path | None
    split: str | None
    recipe: str | None
    settings: tuple[str, ...]
    freeze: str | None
    output: Path | None
    resume: bool
    keep: str
    on_bad_video: Literal["error", "skip"]
    cache_frames: float
    device: str
    labels: str | None
    root: Path | None
    val_fraction: float
    group_by: str | None
    as_json: bool

    @property
    def all_settings(self) -> list[str]:
        """The settings of the recipe, with the one of --freeze."""
        freeze = [f"network.freeze={self.freeze}"] if self.freeze else []
        return [*freeze, *self.settings]

    @property
    def common(self) -> dict[str, Any]:
        """The arguments of a run with a spec or without."""
        return {
            "on_bad_video": self.on_bad_video,
            "cache_bytes": int(self.cache_frames * 1e9),
            "device": self.device,
            "command": ("i3dzoo", *sys.argv[1:]),
            "keep": tuple(self.keep.split(",")),
        }


@click.command()
@click.argument("words", metavar="[DATASET | KEY=VALUE...]", nargs=-1)
@click.option(
    "--data",
    type=_path,
    help="Folder that `i3dzoo prepare` made, folder of class folders, or list of videos.",
)
@click.option("--test-data", type=_path, help="Data to evaluate on, with --split none.")
@source_options
@click.option(
    "--from",
    "models",
    multiple=True,
    type=MODEL,
    metavar="MODEL",
    help="Model to start from, or FILE#KEY; an RGB and a flow model are trained together.",
)
@click.option("-e", "--spec", type=_path, help="TAO spec to run instead.")
@click.option(
    "--split",
    type=click.Choice(["1", "2", "3", "none"]),
    help="Split of the dataset; none trains on all its videos.  [default: 1]",
)
@click.option(
    "--recipe",
    type=RECIPE,
    metavar="RECIPE",
    help="tao, paper, small, cpu, smoke, or a YAML file.  [default: chosen for the data and the "
    "device]",
)
@click.option(
    "--set", "settings", multiple=True, help="Replace a key of the recipe: optim.lr=0.005."
)
@click.option("--freeze", help="What to freeze: none, trunk, or until:ENDPOINT.")
@click.option(
    "-o",
    "--output",
    type=_path,
    help="Folder of the run.  [default: runs/DATASET_STREAM, such as runs/hmdb51_rgb]",
)
@click.option("--resume", is_flag=True, help="Resume the run in the output folder.")
@click.option(
    "--keep",
    type=click.Choice(["last,best", "best,last", "best", "last"]),
    default="last,best",
    show_default=True,
    help="Which weights to keep.",
)
@click.option(
    "--on-bad-video",
    type=click.Choice(["error", "skip"]),
    default="error",
    show_default=True,
    help="What to do with a video that cannot be read.",
)
@click.option(
    "--cache-frames",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="GB",
    help="Cache decoded frames, up to this size over all processes.",
)
@device_option
@json_option
def command(**options: Any) -> None:
    """Fine-tune on a dataset: a prepared one, or videos of your own.

    DATASET is the name to record for the dataset, such as hmdb51. Videos of your own are a
    folder <class>/<video>, or a list of videos and classes; see i3dzoo prepare videos.

    One process uses one GPU, or the CPU; for several GPUs, start the command with torchrun or
    accelerate launch. Resume an interrupted run with --resume; the result is the same as without
    the interruption. With -e, a TAO spec is run instead, and KEY=VALUE replaces keys of the spec.

    \b
    Examples:
      i3dzoo finetune mine --data clips/ --from rgb_imagenet
      i3dzoo finetune hmdb51 --data data/hmdb51 --from rgb_imagenet -o runs/hmdb51
      i3dzoo finetune hmdb51 --data data/hmdb51 --from rgb_imagenet --set optim.lr=0.002
      i3dzoo finetune hmdb51 --data data/flow --from rgb.safetensors --from flow.safetensors
      i3dzoo finetune motions --data data/motions --from rgb_scratch --recipe smoke
      i3dzoo finetune -e train_rgb_3d_64_i3d.yaml
      i3dzoo finetune -e spec.yaml model.rgb_pretrained_model_path=rgb_imagenet
      torchrun --nproc-per-node 8 -m i3dzoo finetune -e train_rgb_3d_64_i3d.yaml
      i3dzoo finetune hmdb51 --data data/hmdb51 --from rgb_imagenet -o runs/hmdb51 --resume
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    given = Options(**options)
    from i3dzoo.distributed import destroy_process_group, is_main_process

    with show_progress() as progress:
        try:
            result = (_run_spec if given.spec else _run)(given, progress)
        except KeyboardInterrupt:
            progress.message("stopped; the same command with --resume continues the run")
            raise
    destroy_process_group()
    if is_main_process():
        _print_result(result, given.as_json)


def _run(options: Options, progress: "Progress") -> "FinetuneResult":
    if len(options.words) > 1 or any("=" in word for word in options.words):
        raise click.UsageError("KEY=VALUE replaces keys of a TAO spec; for a recipe, use --set")
    for value, flag in ((options.data, "--data"), (options.models, "--from")):
        if not value:
            raise click.UsageError(f"{flag} is missing; or pass a TAO spec with -e")
    from i3dzoo.training.finetune import finetune

    assert options.data is not None  # noqa: S101 - checked above
    return finetune(
        options.data,
        options.models,
        folder=options.output,
        recipe=options.recipe or "auto",
        settings=options.all_settings,
        dataset=next(iter(options.words), "videos"),
        split=None if options.split == "none" else int(options.split or 1),
        test_data=options.test_data,
        labels=options.labels,
        root=options.root,
        val_fraction=options.val_fraction,
        group_by=options.group_by,
        resume=options.resume,
        progress=progress,
        **options.common,
    )


def _run_spec(options: Options, progress: "Progress") -> "FinetuneResult":
    for value, flag in (
        (options.data, "--data"),
        (options.test_data, "--test-data"),
        (options.models, "--from"),
        (options.split, "--split"),
        (options.recipe, "--recipe"),
        (options.labels, "--labels"),
        (options.root, "--root"),
        (options.group_by, "--group-by"),
    ):
        if value:
            raise click.UsageError(
                f"{flag} cannot be used with -e, because the spec defines it; replace the key of "
                "the spec with KEY=VALUE"
            )
    from i3dzoo.tao.task import train_spec

    assert options.spec is not None  # noqa: S101 - the caller has checked
    return train_spec(
        options.spec,
        options.words,
        settings=options.all_settings,
        folder=options.output,
        resume=options.resume,
        progress=progress,
        **options.common,
    )


def _print_result(result: "FinetuneResult", as_json: bool) -> None:
    position, files = result.position, [str(path) for path in result.files]
    if as_json:
        print_json(
            {
                "folder": str(result.folder),
                "files": files,
                "best_top1": position.best_top1,
                "best_epoch": position.best_epoch,
                "bad_videos": dict(result.bad_videos),
            }
        )
        return
    if position.best_top1 >= 0:
        whole = position.best_epoch == int(position.best_epoch)
        when = f"epoch {position.best_epoch:g}" if whole else f"step {position.best_step}"
        say(f"best top-1 {100 * position.best_top1:.2f}% after {when}")
    if result.bad_videos:
        say(f"{len(result.bad_videos)} videos cannot be read and were left out; see run.json")
    say(f"report: {result.folder / 'report.html'}")
    words = ["i3dzoo", "evaluate", *files, "--data", str(result.test_data)]
    words += [] if result.split == 1 else ["--split", str(result.split or "none")]
    say(f"Next: {shlex.join([*words, '--protocol', 'paper'])}")
    for path in result.files:
        show(click.format_filename(path))
