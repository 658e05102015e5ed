"""`i3dzoo evaluate`."""

import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from i3dzoo.cli._console import engine_option, json_option, print_json, say

if TYPE_CHECKING:
    from i3dzoo.engines import Engine
    from i3dzoo.metadata import Metadata
    from i3dzoo.training.data import VideoClips
    from i3dzoo.training.metrics import Metrics
    from i3dzoo.training.predictions import Prediction, Predictions, Run
    from i3dzoo.training.team import Team
    from i3dzoo.video import BadVideo

_path = click.Path(path_type=Path)


@click.command()
@click.argument("models", metavar="[MODELS | KEY=VALUE...]", nargs=-1)
@click.option("-e", "--spec", type=_path, help="A TAO spec instead.")
@click.option("--data", type=_path, help="Folder that `prepare` made.")
@click.option(
    "--split", type=click.Choice(["1", "2", "3", "all", "none"]), default="1", show_default=True
)
@click.option(
    "--protocol",
    default="center",
    show_default=True,
    help="center, tao, paper, or multi:CLIPSxCROPS such as multi:10x3.",
)
@click.option(
    "-o",
    "--output",
    type=_path,
    default=Path("predictions"),
    show_default=True,
    help="Folder of predictions.",
)
@click.option("--results", type=_path, help="Write JSON results, which push --results takes.")
@click.option("--parquet", is_flag=True, help="Write the predictions as parquet too.")
@click.option("--confusion", type=_path, help="Draw the confusion matrix, as PNG.")
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Views at once.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="Processes that decode videos.",
)
@click.option(
    "--on-bad-video", type=click.Choice(["error", "skip"]), default="error", show_default=True
)
@click.option("--device", type=click.Choice(["auto", "cpu"]), default="auto", show_default=True)
@engine_option
@json_option
def command(**options: Any) -> None:
    """Measure MODELS on a test split; of two, one RGB and one flow, the logits are summed.

    A model is a checkpoint of any layout, an .onnx file or a TensorRT engine, or a file of
    predictions that an earlier evaluation wrote. Each video counts once. Predictions are kept as
    they are made: the same command goes on where it was stopped. --split none takes all videos, as
    of a folder in TAO's layout. Started by torchrun, several GPUs share the videos. A TAO spec says
    model, data, input, classes and protocol itself.

    \b
    Examples:
      i3dzoo evaluate runs/hmdb51/best.safetensors --data data/hmdb51
      i3dzoo evaluate rgb.safetensors flow.safetensors --data data/hmdb51 --protocol paper
      i3dzoo evaluate best.safetensors --data data/hmdb51 --split all --results results.json
      i3dzoo evaluate predictions/rgb.jsonl predictions/flow.jsonl
      i3dzoo evaluate hmdb51.onnx --data data/hmdb51
      i3dzoo evaluate -e evaluate_rgb.yaml
      torchrun --nproc-per-node 4 -m i3dzoo evaluate best.safetensors --data data/hmdb51
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    from i3dzoo.training.processes import leave
    from i3dzoo.training.team import Team

    described = _from_spec(options) if options["spec"] else _as_it_is
    if not 1 <= len(options["models"]) <= 2:
        raise click.UsageError("one model or two are evaluated")
    team = Team(options["device"])
    opened = [_open(model, options, described) for model in options["models"]]
    _check_streams(opened)
    documents = []
    for split in _splits(opened, options):
        runner = _Runner(team, options)
        found = runner.of_all(opened, split)
        if team.is_main:
            documents.append(_measured(runner, found, split, options))
    leave()
    if not team.is_main:
        return
    if options["results"]:
        _write_results(documents, options)
    if options["as_json"]:
        print_json(documents)
        return
    if len(documents) > 1:
        mean = sum(document["top1"] for document in documents) / len(documents)
        click.echo(f"mean of {len(documents)} splits: top-1 {100 * mean:.2f} %")
    _say_what_next(options)


def _splits(opened: "list[_Model | Predictions]", options: dict[str, Any]) -> tuple[str, ...]:
    """Return the splits to measure: predictions that are there already have their own."""
    splits = ("1", "2", "3") if options["split"] == "all" else (options["split"],)
    given = click.get_current_context().get_parameter_source("split")
    for model, one in zip(options["models"], opened, strict=True):
        if not isinstance(one, _Model):
            own = one.run.split
            if given is click.core.ParameterSource.COMMANDLINE and splits != (own,):
                raise click.UsageError(
                    f"--split {options['split']}: {model} holds predictions of split {own}; leave "
                    "--split out"
                )
            splits = (own,)
    return splits


def _as_it_is(metadata: "Metadata") -> "Metadata":
    return metadata


def _from_spec(options: dict[str, Any]) -> "Callable[[Metadata], Metadata]":
    """Take the options from a TAO spec; return what it makes of the model's description."""
    from i3dzoo._parallel import is_main
    from i3dzoo.training.from_tao import choose_gpus, tao_metadata
    from i3dzoo.training.tao import load_tao

    given = click.get_current_context().get_parameter_source
    for name in ("data", "split", "protocol", "batch_size"):
        if given(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"--{name.replace('_', '-')} does not go with -e, as the spec says it; replace its "
                "key by KEY=VALUE"
            )
    spec = load_tao(options["spec"], options["models"], task="evaluate")
    run = spec.evaluate
    seen = choose_gpus(run.gpu_ids) if options["device"] != "cpu" else ""
    for note in (*spec.notes, seen):
        if note and is_main():
            say(f"{spec.path.name}: {note}")
    options |= {"models": (run.checkpoint,), "data": run.data_dir, "split": "none"}
    options |= {"protocol": run.protocol, "batch_size": run.batch_size}
    if run.results_dir and given("output") is not click.core.ParameterSource.COMMANDLINE:
        options["output"] = run.results_dir
    return partial(tao_metadata, spec)


@dataclass(frozen=True)
class _Model:
    """A model that is to predict: its file, what runs it, what it takes, and its digest."""

    path: Path
    engine: "Engine"
    metadata: "Metadata"
    digest: str


def _open(
    model: str, options: dict[str, Any], described: "Callable[[Metadata], Metadata]"
) -> "_Model | Predictions":
    """Read predictions, or load the model that makes them."""
    from i3dzoo.training.predictions import read_predictions

    if model.endswith(".jsonl"):
        return read_predictions(model)
    if options["data"] is None:
        raise click.UsageError("--data is missing")
    import hashlib

    from i3dzoo.engines import load_engine
    from i3dzoo.errors import MetadataError
    from i3dzoo.loading import digest, find

    path = find(model)
    engine = load_engine(path, options["engine"], options["device"])
    if engine.metadata is None or not engine.metadata.num_classes:
        raise MetadataError("the model has no head, so there is nothing to evaluate; convert it")
    metadata, sha256 = described(engine.metadata), digest(path)
    if metadata != engine.metadata:  # the same file with another input is another model
        sha256 = hashlib.sha256(f"{sha256} {metadata.to_json()}".encode()).hexdigest()
    return _Model(path, engine, metadata, sha256)


def _check_streams(opened: "list[_Model | Predictions]") -> None:
    streams = [one.metadata.stream for one in opened if isinstance(one, _Model)]
    if len(set(streams)) < len(streams):
        raise click.UsageError(
            f"both models are of the {streams[0]} stream; of two, one is RGB and one flow"
        )


class _Runner:
    """Predicts one split with each model; `bad` are the videos that cannot be read."""

    def __init__(self, team: "Team", options: dict[str, Any]) -> None:
        self.team, self.options = team, options
        self.bad: dict[str, str] = {}
        self.labels: tuple[str, ...] | None = None

    def of_all(self, opened: "list[_Model | Predictions]", split: str) -> "Predictions":
        """Return the predictions of the model, or those of two, fused."""
        from i3dzoo.training.predictions import fuse

        found = [self._predict(one, split) if isinstance(one, _Model) else one for one in opened]
        return found[0] if len(found) == 1 else fuse(*found)

    def _predict(self, model: "_Model", split: str) -> "Predictions":
        """Make the predictions that are not there yet."""
        from i3dzoo._files import make_folder
        from i3dzoo.errors import MetadataError
        from i3dzoo.evaluate import parse_protocol
        from i3dzoo.training.data import VideoClips, open_streams
        from i3dzoo.training.predictions import Run

        options, metadata = self.options, model.metadata
        datasets = open_streams(
            options["data"],
            {metadata.stream: metadata.input},
            None if split == "none" else int(split),
            None if split == "none" else "test",
            parse_protocol(options["protocol"]),
            on_bad_video=options["on_bad_video"],
        )
        clips = VideoClips(datasets, metadata.labels)
        if len(clips.classes) != metadata.num_classes:
            raise MetadataError(
                f"{model.path}: has {metadata.num_classes} classes without names, and "
                f"{options['data']} has {len(clips.classes)}; name them by convert --labels"
            )
        self.labels = clips.classes
        run = Run(model.digest, options["protocol"], split, clips.digest)
        ran = "" if options["engine"] in ("auto", "torch") else f"_{options['engine']}"
        # models may have one name, such as best.safetensors, and data sets share a folder
        digests, protocol = f"{run.model[:8]}-{run.data[:8]}", run.protocol.replace(":", "-")
        name = f"{model.path.stem}-{digests}{ran}_{protocol}_split{split}.jsonl"
        make_folder(options["output"])
        found = self._run(model, clips, options["output"] / name, run)
        if self.team.is_main:
            say(f"predictions: {options['output'] / name}")
        return found

    def _run(self, model: "_Model", clips: "VideoClips", path: Path, run: "Run") -> "Predictions":
        import contextlib

        from i3dzoo.cli._progress import watch
        from i3dzoo.engines import device_of, run_batches
        from i3dzoo.evaluate import predict_videos
        from i3dzoo.progress import Quiet
        from i3dzoo.training.failures import EVALUATING, told
        from i3dzoo.training.team import predict_together

        team, options = self.team, self.options
        shown = watch(counted=True) if team.is_main else contextlib.nullcontext(Quiet())
        with told(lambda: "evaluating", EVALUATING), shown as progress:
            bad: list[BadVideo] = []

            def predict(done: set[str]) -> "Iterator[Prediction]":
                # this process's share, and with it all, as far as it can be known here
                left = len(clips.labels) - len(done)
                progress.start("videos", len(done) + -(-left // team.world))
                return predict_videos(
                    partial(run_batches, model.engine, model.metadata.stream),
                    clips.datasets,
                    labels=clips.labels,
                    device=device_of(model.engine),
                    batch_size=options["batch_size"],
                    rank=team.rank,
                    world=team.world,
                    workers=options["workers"],
                    done=done,
                    skipped=bad.append,
                )

            found = predict_together(team, path, run, predict, progress.update)
            for one in team.gather(bad):
                if one.file not in self.bad:
                    progress.say(f"{one.file}: left out: {one.reason}")
                self.bad[one.file] = one.reason
        return found


def _measured(
    runner: _Runner, found: "Predictions", split: str, options: dict[str, Any]
) -> dict[str, Any]:
    """Print what a split gave, write what is wished for, and return it all."""
    from i3dzoo.errors import DatasetError
    from i3dzoo.training.metrics import evaluate_logits

    if not found.videos:
        raise DatasetError(
            f"no video of split {found.run.split} could be read, so there is nothing to measure"
        )
    metrics = evaluate_logits(found.logits, found.labels)
    if not options["as_json"]:
        _print(found, metrics, len(runner.bad))
    several = f"_split{split}" if options["split"] == "all" else ""
    _write_extras(runner, found, metrics, several, options)
    return {
        "i3dzoo": "evaluation",
        "dataset": _dataset(options["data"]),
        "split": found.run.split,
        "protocol": found.run.protocol,
        "model": found.run.model,
        **metrics.to_dict(),
        "labels": runner.labels,
        "bad_videos": runner.bad,
    }


def _print(found: "Predictions", metrics: "Metrics", bad: int) -> None:
    low, high = metrics.interval
    click.echo(
        f"split {found.run.split}, {found.run.protocol}: {metrics.videos} videos, "
        f"top-1 {100 * metrics.top1:.2f} % ({100 * low:.1f} to {100 * high:.1f}), "
        f"top-5 {100 * metrics.top5:.2f} %, mean class {100 * metrics.mean_class:.2f} %"
    )
    if bad:
        say(f"{bad} videos of the split cannot be read and are not among these")


def _write_extras(
    runner: _Runner, found: "Predictions", metrics: "Metrics", several: str, options: dict[str, Any]
) -> None:
    """Write the parquet file and the picture of the confusion matrix."""
    if options["parquet"]:
        from i3dzoo._files import make_folder
        from i3dzoo.training.predictions import write_parquet

        make_folder(options["output"])
        run = found.run
        stem = "-".join(digest[:8] for digest in (*run.model.split("+"), run.data) if digest)
        name = f"{stem}_{run.protocol.replace(':', '-')}_split{run.split}.parquet"
        say(f"predictions: {write_parquet(found, options['output'] / name, force=True)}")
    if options["confusion"]:
        from i3dzoo.training.report_plots import plot_confusion

        target: Path = options["confusion"]
        target = target.with_name(f"{target.stem}{several}{target.suffix or '.png'}")
        labels = runner.labels or tuple(map(str, range(len(metrics.per_class))))
        say(f"confusion matrix: {plot_confusion(metrics, labels, target)}")


def _dataset(data: Path | None) -> str | None:
    """Return what the index calls the data, if there is one."""
    from i3dzoo.video.index import INDEX_NAME, read_index

    return read_index(data).dataset if data and (data / INDEX_NAME).exists() else None


def _write_results(documents: list[dict[str, Any]], options: dict[str, Any]) -> None:
    """Write percents, as the model card has them."""
    from i3dzoo._files import atomic_write
    from i3dzoo.hub.results import in_percent

    name = options["data"].resolve().name if options["data"] else "videos"
    results = [in_percent(document, name) for document in documents]
    with atomic_write(options["results"]) as file:
        file.write(json.dumps(results, indent=1).encode())
    say(f"results: {options['results']}")


def _say_what_next(options: dict[str, Any]) -> None:
    models = options["models"]
    if not options["results"]:
        say("Next: the same with --results FILE, which i3dzoo push puts on the model card")
        return
    model = "FILE" if models[0].endswith(".jsonl") else models[0]
    words = ["i3dzoo", "push", model, "USER/NAME", "--results", str(options["results"])]
    say(f"Next: {shlex.join(words)}")
