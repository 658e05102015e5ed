"""`i3dzoo finetune`."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from i3dzoo.cli._console import json_option, print_json, say

if TYPE_CHECKING:
    from i3dzoo.training.finetune import Task
    from i3dzoo.training.loop import Result
    from i3dzoo.training.recipe import Recipe

_path = click.Path(path_type=Path)
_NOT_WITH_A_SPEC = {
    "data": "--data",
    "test_data": "--test-data",
    "models": "--from",
    "split": "--split",
    "recipe": "--recipe",
}


@click.command()
@click.argument("words", metavar="[DATASET | KEY=VALUE...]", nargs=-1)
@click.option("--data", type=_path, help="Folder that `prepare` made.")
@click.option("--test-data", type=_path, help="Folder to evaluate on, with --split none.")
@click.option(
    "--from", "models", multiple=True, help="Model to begin with; two, RGB and flow, go together."
)
@click.option("-e", "--spec", type=_path, help="A TAO spec instead.")
@click.option("--split", type=click.Choice(["1", "2", "3", "none"]), help="[default: 1]")
@click.option("--recipe", help="tao, paper, small, smoke, or a file.  [default: small]")
@click.option("--set", "settings", multiple=True, help="KEY=VALUE of the recipe: optim.lr=0.005.")
@click.option("--freeze", help="none, trunk, or until:ENDPOINT.")
@click.option("-o", "--output", type=_path, help="Folder of the run.")
@click.option("--resume", is_flag=True, help="Go on with the run in the output folder.")
@click.option(
    "--keep", default="last,best", show_default=True, help="Which of last and best to keep."
)
@click.option(
    "--on-bad-video", type=click.Choice(["error", "skip"]), default="error", show_default=True
)
@click.option(
    "--cache-frames",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="GB",
    help="Keep decoded frames, up to this, of all processes.",
)
@click.option("--device", type=click.Choice(["auto", "cpu"]), default="auto", show_default=True)
@json_option
def command(**options: Any) -> None:
    """Fine-tune on a prepared dataset (hmdb51, ucf101, or a name of yours for it).

    One process runs on one GPU, or the CPU; for more, start it with torchrun or accelerate launch.
    A run that was killed goes on with --resume as if it had not been. A TAO spec is run as it is;
    its keys are replaced as in TAO, by KEY=VALUE.

    \b
    Examples:
      i3dzoo finetune hmdb51 --data data/hmdb51 --from rgb_imagenet -o runs/hmdb51
      i3dzoo finetune hmdb51 --data data/hmdb51 --from rgb_imagenet --set optim.lr=0.002
      i3dzoo finetune hmdb51 --data data/flow --from rgb.safetensors --from flow.safetensors
      i3dzoo finetune motions --data data/motions --from rgb_scratch --recipe smoke
      i3dzoo finetune -e train_rgb_3d_64_i3d.yaml
      i3dzoo finetune -e spec.yaml model.rgb_pretrained_model_path=rgb_imagenet
      torchrun --nproc-per-node 8 -m i3dzoo finetune -e train_rgb_3d_64_i3d.yaml
      i3dzoo finetune hmdb51 --data data/hmdb51 --from rgb_imagenet -o runs/hmdb51 --resume
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    from i3dzoo._parallel import is_main
    from i3dzoo.cli._training import Watch
    from i3dzoo.training.finetune import finetune
    from i3dzoo.training.processes import leave

    task, recipe, resume = _from_spec(options) if options["spec"] else _from_options(options)
    with Watch(recipe.loop.epochs, recipe.loop.max_steps) as watch:
        try:
            result = finetune(
                task, recipe, resume=resume, watch=watch, tell=watch.leave_out, remark=watch.tell
            )
        except KeyboardInterrupt:
            watch.tell("stopped; the same command with --resume goes on")
            raise
    leave()
    if is_main():
        _print_result(task, result, options["as_json"])


def _common(options: dict[str, Any]) -> dict[str, Any]:
    """Return what a task takes of the options, with a spec or without."""
    keep = tuple(options["keep"].split(","))
    if not set(keep) <= {"last", "best"}:
        raise click.UsageError(f"--keep {options['keep']}: expected last, best, or last,best")
    return {
        "on_bad_video": options["on_bad_video"],
        "cache_bytes": int(options["cache_frames"] * 1e9),
        "device": options["device"],
        "command": ("i3dzoo", *sys.argv[1:]),
        "keep": keep,
    }


def _settings(options: dict[str, Any]) -> list[str]:
    freeze = [f"network.freeze={options['freeze']}"] if options["freeze"] else []
    return [*freeze, *options["settings"]]


def _from_options(options: dict[str, Any]) -> "tuple[Task, Recipe, bool]":
    from i3dzoo.checkpoint import read_checkpoint
    from i3dzoo.loading import find
    from i3dzoo.training.finetune import Task
    from i3dzoo.training.recipe import load_recipe, override

    if len(options["words"]) > 1 or any("=" in word for word in options["words"]):
        raise click.UsageError("KEY=VALUE replaces keys of a TAO spec; those of a recipe: --set")
    for name, flag in (("data", "--data"), ("models", "--from")):
        if not options[name]:
            raise click.UsageError(f"{flag} is missing, or pass a TAO spec with -e")
    recipe = override(load_recipe(options["recipe"] or "small"), _settings(options))
    found = {name: read_checkpoint(find(name)) for name in options["models"]}
    streams = {checkpoint.metadata.stream: name for name, checkpoint in found.items()}
    if len(streams) < len(options["models"]):
        raise click.UsageError("two models are trained together if one is RGB and one flow")
    streams = dict(sorted(streams.items(), reverse=True))  # RGB before flow
    dataset = next(iter(options["words"]), "videos")
    task = Task(
        checkpoints={stream: found[name] for stream, name in streams.items()},
        names=streams,
        train_data=options["data"],
        test_data=options["test_data"],
        split=None if options["split"] == "none" else int(options["split"] or 1),
        classes=None,
        folder=options["output"] or Path("runs") / f"{dataset}_{'_'.join(streams)}",
        dataset=dataset,
        **_common(options),
    )
    return task, recipe, options["resume"]


def _from_spec(options: dict[str, Any]) -> "tuple[Task, Recipe, bool | Path]":
    from i3dzoo._parallel import is_main
    from i3dzoo.training.from_tao import choose_gpus, tao_task
    from i3dzoo.training.tao import load_tao

    for name, flag in _NOT_WITH_A_SPEC.items():
        if options[name]:
            raise click.UsageError(
                f"{flag} does not go with -e, as the spec says it; replace its key by KEY=VALUE"
            )
    spec = load_tao(options["spec"], options["words"])
    task, recipe, remarks = tao_task(
        spec, _settings(options), options["output"], **_common(options)
    )
    seen = choose_gpus(spec.gpu_ids) if options["device"] != "cpu" else ""
    for note in (*spec.notes, *remarks, seen):
        if note and is_main():
            say(f"{spec.path.name}: {note}")
    return task, recipe, spec.resume or options["resume"]


def _print_result(task: "Task", result: "Result", as_json: bool) -> None:
    folder, best = task.folder, result.position
    names = ("best", "last") if "best" in task.keep else ("last",)
    found = (sorted(folder.glob(f"{name}*.safetensors"), reverse=True) for name in names)
    files = next(filter(None, found), [])  # RGB before flow
    if as_json:
        print_json(
            {
                "folder": str(folder),
                "files": [str(path) for path in files],
                "best_top1": best.best,
                "best_epoch": best.best_epoch,
                "bad_videos": dict(result.bad),
            }
        )
        return
    if best.best_epoch or best.evaluated >= 0:
        whole = best.best_epoch == int(best.best_epoch)
        when = f"epoch {int(best.best_epoch)}" if whole else f"step {best.best_step}"
        say(f"best top-1 {100 * best.best:.2f} % after {when}")
    if result.bad:
        say(f"{len(result.bad)} videos cannot be read and were left out; run.json names them")
    say(f"report: {folder / 'report.html'}")
    where = [str(task.test_data or task.train_data)]
    where += [] if task.split == 1 else ["--split", str(task.split or "none").lower()]
    words = ["i3dzoo", "evaluate", *map(str, files), "--data", *where, "--protocol", "paper"]
    say(f"Next: {shlex.join(words)}")
    for path in files:
        click.echo(click.format_filename(path))
