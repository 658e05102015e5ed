"""`i3dzoo finetune`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from i3dzoo.cli._console import json_option, print_json, say

if TYPE_CHECKING:
    from i3dzoo.metadata import Stream
    from i3dzoo.training.finetune import Task
    from i3dzoo.training.loop import Result
    from i3dzoo.training.recipe import Recipe
    from i3dzoo.video import BadVideo


@click.command()
@click.argument("dataset", default="videos")
@click.option("--data", type=click.Path(path_type=Path), help="Folder that `prepare` made.")
@click.option(
    "--from", "models", multiple=True, help="Model to begin with; two, RGB and flow, go together."
)
@click.option("-e", "--spec", type=click.Path(path_type=Path), help="A TAO spec instead.")
@click.option("--split", type=click.Choice(["1", "2", "3", "none"]), default="1", show_default=True)
@click.option("--recipe", default="small", show_default=True, help="tao, paper, small, or a file.")
@click.option("--set", "settings", multiple=True, help="KEY=VALUE of the recipe: optim.lr=0.005.")
@click.option("--freeze", help="none, trunk, or until:ENDPOINT.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--resume", is_flag=True, help="Go on with the run in the output folder.")
@click.option(
    "--on-bad-video", type=click.Choice(["error", "skip"]), default="error", show_default=True
)
@click.option(
    "--cache-frames",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="GB",
    help="Keep decoded frames, up to this.",
)
@click.option("--device", type=click.Choice(["auto", "cpu"]), default="auto", show_default=True)
@json_option
def command(**options: Any) -> None:
    """Fine-tune on a prepared dataset (hmdb51, ucf101, or a name of yours for it).

    One process runs on one GPU, or the CPU; for more, start it with torchrun or accelerate launch.
    A run that was killed goes on with --resume as if it had not been.

    \b
    Examples:
      i3dzoo finetune hmdb51 --data data/hmdb51 --from rgb_imagenet -o runs/hmdb51
      i3dzoo finetune hmdb51 --data data/hmdb51 --from rgb_imagenet --set optim.lr=0.002
      i3dzoo finetune -e train_rgb_3d_64_i3d.yaml
      torchrun --nproc-per-node 8 -m i3dzoo finetune -e train_rgb_3d_64_i3d.yaml
      i3dzoo finetune hmdb51 --data data/hmdb51 --from rgb_imagenet -o runs/hmdb51 --resume
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    from i3dzoo.training.finetune import finetune

    task, recipe, resume = _from_spec(options) if options["spec"] else _from_options(options)
    with _Watch(recipe.loop.epochs) as watch:
        result = finetune(task, recipe, resume=resume, watch=watch, tell=watch.leave_out)
    if watch.main:
        _print_result(task, result, options["as_json"])


def _from_options(options: dict[str, Any]) -> "tuple[Task, Recipe, bool]":
    from i3dzoo.checkpoint import read_checkpoint
    from i3dzoo.loading import find
    from i3dzoo.training.finetune import Task
    from i3dzoo.training.recipe import load_recipe

    for name, flag in (("data", "--data"), ("models", "--from")):
        if not options[name]:
            raise click.UsageError(f"{flag} is missing, or pass a TAO spec with -e")
    found = {name: read_checkpoint(find(name)) for name in options["models"]}
    streams = {checkpoint.metadata.stream: name for name, checkpoint in found.items()}
    if len(streams) < len(options["models"]):
        raise click.UsageError("two models are trained together if one is RGB and one flow")
    dataset = options["dataset"]
    task = Task(
        checkpoints={stream: found[name] for stream, name in streams.items()},
        names=streams,
        train_data=options["data"],
        test_data=None,
        split=None if options["split"] == "none" else int(options["split"]),
        classes=None,
        folder=options["output"] or Path("runs") / f"{dataset}_{'_'.join(streams)}",
        on_bad_video=options["on_bad_video"],
        cache_bytes=int(options["cache_frames"] * 1e9),
        device=options["device"],
        dataset=dataset,
        command=("i3dzoo", *sys.argv[1:]),
    )
    return task, _overridden(load_recipe(options["recipe"]), options), options["resume"]


def _overridden(recipe: "Recipe", options: dict[str, Any]) -> "Recipe":
    from i3dzoo.training.recipe import override

    freeze = [f"network.freeze={options['freeze']}"] if options["freeze"] else []
    return override(recipe, [*freeze, *options["settings"]])


def _from_spec(options: dict[str, Any]) -> "tuple[Task, Recipe, bool]":
    from i3dzoo.checkpoint import Checkpoint, read_checkpoint
    from i3dzoo.errors import RecipeError
    from i3dzoo.loading import find
    from i3dzoo.training.finetune import Task
    from i3dzoo.training.tao import load_tao

    spec = load_tao(options["spec"])
    for note in spec.notes:
        say(f"{spec.path.name}: {note}")
    checkpoints: dict[Stream, Checkpoint] = {}
    names: dict[Stream, str] = {}
    for part in spec.streams:
        if part.pretrained is None:
            raise RecipeError(
                f"{spec.path}: names no pretrained {part.stream} model; name one, or a zoo model"
            )
        checkpoint = read_checkpoint(find(part.pretrained))
        if checkpoint.metadata.stream != part.stream:
            raise RecipeError(
                f"{spec.path}: {part.pretrained} is a {checkpoint.metadata.stream} model; "
                f"expected {part.stream}"
            )
        checkpoints[part.stream], names[part.stream] = checkpoint, part.pretrained
    assert spec.train_dir is not None  # noqa: S101 - load_tao has checked it
    task = Task(
        checkpoints=checkpoints,
        names=names,
        train_data=spec.train_dir,
        test_data=spec.val_dir,
        split=None,
        classes=spec.labels,
        folder=options["output"] or spec.results_dir or Path("runs") / spec.path.stem,
        on_bad_video=options["on_bad_video"],
        cache_bytes=int(options["cache_frames"] * 1e9),
        device=options["device"],
        dataset=spec.train_dir.name,
        command=("i3dzoo", *sys.argv[1:]),
    )
    return task, _overridden(spec.recipe, options), options["resume"] or spec.resume is not None


class _Watch:
    """Shows how training goes: a bar on terminals, a line now and then elsewhere."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.main = False

    def __enter__(self) -> "_Watch":
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  top-1 {task.fields[top1]:.3f}"),
            TextColumn("{task.fields[rate]:.1f} clips/s  waiting {task.fields[wait]:.0%}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self.task: Any = None
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def tell(self, text: str) -> None:
        """Print a remark above the bar."""
        self.bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def leave_out(self, bad: "BadVideo") -> None:
        """Name a video that cannot be read."""
        self.tell(f"{bad.file}: left out: {bad.reason}")

    def __call__(self, line: Mapping[str, Any]) -> None:
        self.main = True
        if line["kind"] == "epoch":
            self.tell(
                f"after epoch {line['epoch']:g}: validation loss {line['val_loss']:.4f}, "
                f"top-1 {100 * line['top1']:.2f} %, mean class {100 * line['mean_class']:.2f} %"
            )
            return
        steps = int(line["steps_an_epoch"])
        fields: dict[str, Any] = {
            "epoch": f"{line['epoch']:.2f} of {self.epochs}",
            "loss": line["loss"],
            "top1": line["top1"],
            "rate": line["clips_per_second"],
            "wait": line["data_wait"],
        }
        if self.task is None:
            self.task = self.bar.add_task("", total=self.epochs * steps, **fields)
        self.bar.update(self.task, completed=int(line["step"]), **fields)
        if not self.bar.console.is_terminal and line["step"] % steps == 0:
            say(
                f"epoch {fields['epoch']}: loss {line['loss']:.4f}, top-1 {line['top1']:.3f}, "
                f"{line['clips_per_second']:.1f} clips/s"
            )


def _print_result(task: "Task", result: "Result", as_json: bool) -> None:
    folder = task.folder
    best = sorted(folder.glob("best*.safetensors"))
    if as_json:
        metrics = {"best_top1": result.position.best, "best_epoch": result.position.best_epoch}
        document = {"folder": str(folder), "files": list(map(str, best)), **metrics}
        print_json({**document, "bad_videos": dict(result.bad)})
        return
    say(
        f"best top-1 {100 * result.position.best:.2f} % after epoch {result.position.best_epoch}; "
        f"report: {folder / 'report.html'}"
    )
    if result.bad:
        say(f"{len(result.bad)} videos cannot be read and were left out; run.json names them")
    say(f"Next: i3dzoo evaluate {best[0]} --data {task.train_data} --protocol paper")
    for path in best:
        click.echo(path)
