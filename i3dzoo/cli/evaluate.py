"""`i3dzoo evaluate`."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from i3dzoo.cli._console import (
    device_option,
    engine_option,
    json_option,
    precision_option,
    print_json,
    say,
    show,
)
from i3dzoo.cli._parameters import MODEL, TEST_PROTOCOL
from i3dzoo.cli.progress import show_progress
from i3dzoo.errors import OptionError

if TYPE_CHECKING:
    from i3dzoo.evaluation.run import Evaluation, EvaluationConfig
    from i3dzoo.progress import Progress

_SPLITS: Final[dict[str, Any]] = {"1": 1, "2": 2, "3": 3, "all": "all", "none": None}
_path = click.Path(path_type=Path)


@click.command()
@click.argument("models", metavar="[MODELS | KEY=VALUE...]", nargs=-1, type=MODEL)
@click.option("-e", "--spec", type=_path, help="TAO spec to run instead.")
@click.option(
    "--data",
    type=_path,
    help="Folder that `i3dzoo prepare` made, folder of class folders, or list of videos.",
)
@click.option("--root", type=_path, help="Folder of the videos of a list.")
@click.option(
    "--split",
    type=click.Choice(list(_SPLITS)),
    help="Split to evaluate on; none evaluates all videos.  [default: 1, or none for data without "
    "splits]",
)
@click.option(
    "--protocol",
    type=TEST_PROTOCOL,
    metavar="NAME",
    help="center, tao, paper, or multi:CLIPSxCROPS (multi:10x3).  [default: center]",
)
@click.option(
    "--annotations",
    type=_path,
    help="CSV table of the classes of each video in --data, for multi-label models; such as "
    "Charades_v1_test.csv.",
)
@click.option("-o", "--output", type=_path, help="Folder of predictions.  [default: predictions]")
@click.option("--results", type=_path, help="JSON file of results to write, for push --results.")
@click.option("--parquet", is_flag=True, help="Write the predictions as parquet, too.")
@click.option("--confusion", type=_path, help="PNG file of the confusion matrix to draw.")
@click.option(
    "--batch-size", type=click.IntRange(min=1), help="Number of views in a batch.  [default: 8]"
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Number of videos decoded at once; 0 decodes in this process.  [default: one for each "
    "core, up to 16 with a GPU and 4 without]",
)
@click.option(
    "--on-bad-video",
    type=click.Choice(["error", "skip"]),
    default="error",
    show_default=True,
    help="What to do with a video that cannot be read.",
)
@device_option
@engine_option
@precision_option
@json_option
def command(
    models: tuple[str, ...],
    spec: Path | None,
    output: Path | None,
    results: Path | None,
    parquet: bool,
    confusion: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Evaluate MODELS on a test split: one model, or an RGB and a flow model together.

    A model is a zoo name, a checkpoint of any layout, an .onnx file, a TensorRT engine, or a file
    of predictions that an earlier evaluation wrote. The logits of two models are summed. Each video
    counts once. Predictions are saved as they are made, and the same command resumes an interrupted
    evaluation. --split none evaluates all videos, such as those of a folder in TAO's layout. Start
    the command with torchrun to share the videos among several GPUs. With -e, a TAO spec is run
    instead, and KEY=VALUE replaces keys of the spec.

    Multi-label models need --annotations, and are evaluated by the mean average precision (mAP).

    \b
    Examples:
      i3dzoo evaluate runs/hmdb51/best.safetensors --data data/hmdb51
      i3dzoo evaluate rgb.safetensors flow.safetensors --data data/hmdb51 --protocol paper
      i3dzoo evaluate best.safetensors --data data/hmdb51 --split all --results results.json
      i3dzoo evaluate predictions/rgb.jsonl predictions/flow.jsonl
      i3dzoo evaluate hmdb51.onnx --data data/hmdb51
      i3dzoo evaluate rgb_imagenet --data clips/
      i3dzoo evaluate rgb_charades --data Charades_v1_480 --annotations Charades_v1_test.csv
      i3dzoo evaluate -e evaluate_rgb.yaml
      torchrun --nproc-per-node 4 -m i3dzoo evaluate best.safetensors --data data/hmdb51
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    keys = ("data", "root", "split", "protocol", "batch_size", "annotations")
    task = {key: value for key in keys if (value := options.pop(key)) is not None}
    if spec and task:
        raise click.UsageError(
            f"--{next(iter(task)).replace('_', '-')} cannot be used with -e, because the spec "
            "defines it; replace the key of the spec with KEY=VALUE"
        )
    from i3dzoo.distributed import destroy_process_group, is_main_process
    from i3dzoo.evaluation.run import EvaluationConfig, run_evaluation

    evaluations = []
    with show_progress() as progress:
        if spec:
            from i3dzoo.tao.task import evaluation_config

            model, config = evaluation_config(
                spec, models, output=output, progress=progress, **options
            )
            models = (model,)
        else:
            task["split"] = _SPLITS[task["split"]] if "split" in task else "auto"
            config = EvaluationConfig(output=output or Path("predictions"), **task, **options)
        for evaluation in run_evaluation(models, config, progress):
            evaluations.append(evaluation)
            if is_main_process():
                header = evaluation.predictions.header
                if not as_json:
                    show(f"split {header.split}, {header.protocol}: {evaluation.metrics}")
                _write_files(evaluation, config, parquet, confusion, progress)
    destroy_process_group()
    if is_main_process():
        _finish(evaluations, models, config, results, as_json)


def _write_files(
    evaluation: "Evaluation",
    config: "EvaluationConfig",
    parquet: bool,
    confusion: Path | None,
    progress: "Progress",
) -> None:
    """Write the files that the user asked for a split."""
    metrics, header = evaluation.metrics, evaluation.predictions.header
    if evaluation.bad_videos:
        progress.message(f"{len(evaluation.bad_videos)} videos cannot be read and are not included")
    if parquet:
        from i3dzoo.evaluation.predictions import write_parquet
        from i3dzoo.files import make_folder

        make_folder(config.output)
        digests = (*header.model.split("+"), header.data)
        stem = "-".join(digest[:8] for digest in digests if digest)
        name = f"{stem}_{header.protocol.replace(':', '-')}_split{header.split}.parquet"
        path = write_parquet(evaluation.predictions, config.output / name, force=True)
        progress.message(f"predictions: {path}")
    if confusion:
        from i3dzoo.evaluation.metrics import Metrics
        from i3dzoo.report.plots import plot_confusion

        if not isinstance(metrics, Metrics):
            raise OptionError(
                "--confusion: multi-label videos have no confusion matrix; leave it out"
            )

        split = f"_split{header.split}" if config.split == "all" else ""
        path = confusion.with_name(f"{confusion.stem}{split}{confusion.suffix or '.png'}")
        labels = evaluation.labels or tuple(map(str, range(len(metrics.per_class))))
        progress.message(f"confusion matrix: {plot_confusion(metrics, labels, path)}")


def _finish(
    evaluations: "Sequence[Evaluation]",
    models: Sequence[str],
    config: "EvaluationConfig",
    results: Path | None,
    as_json: bool,
) -> None:
    """Write the file of results, and print what covers all splits, and the next command."""
    if results:
        from i3dzoo.files import atomic_write
        from i3dzoo.hub.results import to_percent

        name = config.data.resolve().name if config.data else "videos"
        document = [to_percent(evaluation.to_dict(), name) for evaluation in evaluations]
        with atomic_write(results) as file:
            file.write(json.dumps(document, indent=1).encode())
        say(f"results: {results}")
    if as_json:
        print_json([evaluation.to_dict() for evaluation in evaluations])
        return
    if len(evaluations) > 1:  # multi-label videos have no splits
        top1 = [evaluation.to_dict()["top1"] for evaluation in evaluations]
        mean = sum(top1) / len(evaluations)
        show(f"mean of {len(evaluations)} splits: top-1 {mean:.2%}")
    if results:
        model = "FILE" if models[0].endswith(".jsonl") else models[0]
        words = shlex.join(["i3dzoo", "push", model, "USER/NAME", "--results", str(results)])
        say(f"Next: {words}")
    else:
        say("Next: add --results FILE, whose numbers i3dzoo push puts on the model card")
