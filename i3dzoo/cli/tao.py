"""`i3dzoo tao`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from i3dzoo.cli._console import device_option, say, show
from i3dzoo.cli.progress import show_progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from i3dzoo.evaluation.run import Evaluation

_RULE = "*" * 31


@click.group()
def command() -> None:
    """Run the commands of NVIDIA TAO's launcher as they are, without NVIDIA's containers.

    \b
    Examples:
      i3dzoo tao action_recognition train -e train_rgb_3d_64_i3d.yaml -k your_key -r results
      i3dzoo tao action_recognition evaluate -e spec.yaml evaluate.checkpoint=ar_model_latest.pth
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines


@command.command("action_recognition")
@click.argument("task", type=click.Choice(["train", "evaluate", "inference", "export"]))
@click.argument("overrides", metavar="[KEY=VALUE...]", nargs=-1)
@click.option(
    "-e",
    "--experiment_spec_file",
    "spec",
    required=True,
    type=click.Path(path_type=Path),
    help="The spec, with the names of any version of TAO.",
)
@click.option(
    "-r", "--results_dir", "results", help="Folder of the results; the same as results_dir=."
)
@click.option("-k", "--key", help="Has no effect: i3dzoo writes no encrypted files.")
@click.option("--force", is_flag=True, help="Export: replace the file if it exists.")
@device_option
def action_recognition(
    task: str,
    overrides: tuple[str, ...],
    spec: Path,
    results: str | None,
    key: str | None,
    force: bool,
    device: Any,
) -> None:
    """Train, evaluate, predict (inference) or export by a TAO spec.

    Each task has a folder of its own in the results folder, with TAO's status.json. Training leaves
    a checkpoint for TAO after each epoch and resumes by itself. KEY=VALUE replaces keys of the
    spec.

    \b
    Examples:
      i3dzoo tao action_recognition train -e train_rgb_3d_64_i3d.yaml -k your_key -r results
      i3dzoo tao action_recognition evaluate -e spec.yaml evaluate.checkpoint=ar_model_latest.pth
      i3dzoo tao action_recognition inference -e spec.yaml inference.trt_engine=i3d.engine
      i3dzoo tao action_recognition export -k your_key -e i3d_rgb_3d_64_export.yaml model=mine.pth
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    from i3dzoo.distributed import destroy_process_group, is_main_process

    if key is not None and is_main_process():
        say("-k has no effect: i3dzoo writes no encrypted files, and cannot read them")
    if results is not None:
        overrides = (*overrides, f"results_dir={results}")
    with show_progress() as progress:
        lines = _RUN[task](spec, overrides, progress, device=device, force=force)
    destroy_process_group()
    if is_main_process():
        for line in lines:
            show(line)


def _train(
    spec: Path, overrides: tuple[str, ...], progress: Any, *, device: Any, **_: Any
) -> list[str]:
    from i3dzoo.tao.launcher import LATEST, train

    result = train(spec, overrides, device=device, progress=progress)
    return [str(result.folder / (LATEST if len(result.files) == 1 else ""))]


def _evaluate(
    spec: Path, overrides: tuple[str, ...], progress: Any, *, device: Any, **_: Any
) -> list[str]:
    from i3dzoo.tao.launcher import evaluate

    return _accuracies(evaluate(spec, overrides, device=device, progress=progress))


def _accuracies(evaluation: "Evaluation") -> list[str]:
    """Return the lines that TAO prints: the accuracy of each class, the total and the mean."""
    from i3dzoo.evaluation.metrics import Metrics

    metrics = evaluation.metrics
    assert isinstance(metrics, Metrics)  # noqa: S101 - there are no annotations
    labels = evaluation.labels or tuple(map(str, range(len(metrics.per_class))))
    return [
        _RULE,
        *(
            f"{label:<14}{100 * accuracy:.4}"
            for label, accuracy in zip(labels, metrics.per_class.tolist(), strict=True)
        ),
        _RULE,
        f"Total accuracy: {round(100 * metrics.top1, 3)}",
        f"Average class accuracy: {round(100 * metrics.mean_class, 3)}",
    ]


def _inference(
    spec: Path, overrides: tuple[str, ...], progress: Any, *, device: Any, **_: Any
) -> list[str]:
    from i3dzoo.tao.launcher import infer
    from i3dzoo.video import BadVideo

    lines = []
    for result in infer(spec, overrides, device=device, progress=progress):
        if isinstance(result, BadVideo):
            progress.message(f"i3dzoo: {result.reason}")
        else:
            lines.append(f"{result.path} : {[result.top[0].label]}")
    return lines


def _export(
    spec: Path, overrides: tuple[str, ...], progress: Any, *, device: Any, force: bool
) -> list[str]:
    from i3dzoo.exporters.deepstream import trtexec_command
    from i3dzoo.tao.launcher import export

    result = export(spec, overrides, device=device, force=force, progress=progress)
    progress.message(f"TensorRT engine: {trtexec_command(result)}")
    return [str(result.path)]


_RUN: dict[str, "Callable[..., list[str]]"] = {
    "train": _train,
    "evaluate": _evaluate,
    "inference": _inference,
    "export": _export,
}
