"""Evaluate models on the test split of a dataset."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from i3dzoo.checkpoints.metadata import Metadata
from i3dzoo.devices import Device
from i3dzoo.distributed import ProcessGroup
from i3dzoo.engines.base import Engine, EngineName, load_engine, run_batches
from i3dzoo.engines.failures import EVALUATING, explain_failures
from i3dzoo.errors import DatasetError, MetadataError, OptionError
from i3dzoo.evaluation.average_precision import MultiLabelMetrics, evaluate_multi_label
from i3dzoo.evaluation.metrics import Metrics, evaluate_logits
from i3dzoo.evaluation.prediction_file import complete_predictions, read_predictions
from i3dzoo.evaluation.predictions import PredictionHeader, Predictions, VideoPrediction, fuse
from i3dzoo.evaluation.protocols import parse_protocol, predict_dataset
from i3dzoo.fetch.data import find_data
from i3dzoo.fetch.find import digest, find
from i3dzoo.files import make_folder
from i3dzoo.onnx.options import Precision
from i3dzoo.progress import SILENT, Progress
from i3dzoo.video import Index, VideoDataset
from i3dzoo.video.annotations import annotated_index, read_annotations
from i3dzoo.video.bad_videos import BadVideos
from i3dzoo.video.dataset import OnBadVideo
from i3dzoo.video.index_file import INDEX_NAME, read_index
from i3dzoo.video.prepare_videos import VideoOptions, prepare_own
from i3dzoo.video.splits import Role

Split = int | Literal["auto", "all"] | None


@dataclass(frozen=True)
class EvaluationConfig:
    """The arguments of `evaluate`; `describe` changes a model's metadata as a TAO spec says."""

    data: Path | None = None
    split: Split = "auto"
    protocol: str = "center"
    output: Path = Path("predictions")
    batch_size: int = 8
    workers: int | None = None
    on_bad_video: OnBadVideo = "error"
    device: Device = "auto"
    engine: EngineName = "auto"
    precision: Precision | None = None
    describe: Callable[[Metadata], Metadata] = lambda metadata: metadata
    annotations: Path | None = None
    root: Path | None = None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The result for one split.

    Attributes:
        metrics: Accuracies, loss and confusion matrix; the average precision of multi-label videos.
        predictions: The predictions; of two models, their logits are summed.
        dataset: Name of the dataset; None if it is unknown.
        labels: Names of the classes; None if only predictions were given.
        bad_videos: Why a video could not be read, by its file; it is not among the predictions.
    """

    metrics: Metrics | MultiLabelMetrics
    predictions: Predictions
    dataset: str | None
    labels: tuple[str, ...] | None
    bad_videos: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return the document that `i3dzoo evaluate --json` prints; accuracies are in 0..1."""
        header = self.predictions.header
        return {
            "i3dzoo": "evaluation",
            "dataset": self.dataset,
            "split": header.split,
            "protocol": header.protocol,
            "model": header.model,
            **self.metrics.to_dict(),
            "labels": self.labels,
            "bad_videos": dict(self.bad_videos),
        }


def evaluate(
    models: str | Path | Sequence[str | Path],
    data: str | Path | None = None,
    *,
    split: Split = "auto",
    protocol: str = "center",
    output: str | Path = "predictions",
    batch_size: int = 8,
    workers: int | None = None,
    on_bad_video: OnBadVideo = "error",
    device: Device = "auto",
    engine: EngineName = "auto",
    precision: Precision | None = None,
    annotations: str | Path | None = None,
    root: str | Path | None = None,
    progress: Progress = SILENT,
) -> list[Evaluation]:
    """Evaluate one model, or an RGB and a flow model whose logits are summed.

    Predictions are kept in files as they are made. The same call continues where an earlier one
    stopped, and makes no prediction again. Processes that torchrun started share the videos.

    Examples:
        >>> import i3dzoo
        >>> (result,) = i3dzoo.evaluate("mine.safetensors", "clips", workers=0)
        >>> 0 <= result.metrics.top1 <= 1
        True

    Args:
        models: Zoo names, files of any layout, .onnx files, TensorRT engines, repositories on the
            Hub, or files of predictions (.jsonl).
        data: The folder that `i3dzoo prepare` made, a folder in TAO's layout, a folder of class
            folders, or a list of videos; files of predictions need none.
        split: 1, 2 or 3; `all` evaluates these three; None takes all videos. `auto` is the split
            of the predictions if there are any, and else 1, or all videos of data without splits.
        protocol: `center`, `tao`, `paper` or `multi:CLIPSxCROPS`; see
            `i3dzoo.evaluation.protocols`.
        output: Folder of the files of predictions.
        batch_size: Number of views that run at once.
        workers: Most videos that are decoded at once; 0 decodes one, and in this process. None is
            one for each core, up to 16 for an NVIDIA GPU and up to 4 for other devices.
        on_bad_video: What to do with a video that cannot be read: `error` or `skip`.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        engine: `auto`, `torch`, `fused`, `onnxruntime`, `openvino` or `tensorrt`; see
            `i3dzoo.engines.base.load_engine`.
        precision: `fp32`, `tf32`, `bf16` or `fp16`; None is the engine's own, see `load_engine`.
        annotations: CSV file with the classes of each video, for multi-label models; `data` is then
            a folder of videos; see `i3dzoo.video.annotations`. All annotated videos are evaluated,
            and the metrics are `i3dzoo.evaluation.average_precision.MultiLabelMetrics`.
        root: Folder of the videos of a list; see `i3dzoo.video.prepare_videos`.
        progress: Shows the number of videos, remarks, and the videos that cannot be read.

    Returns:
        The result for each split, on every process.

    Raises:
        OptionError: There are not one or two models, or the split or the data does not fit them.
        I3DZooError: A model or the data is not suitable, or a video cannot be read.
    """
    path = None if data is None else Path(data)
    config = EvaluationConfig(
        path,
        split,
        protocol,
        Path(output),
        batch_size,
        workers,
        on_bad_video,
        device,
        engine,
        precision,
        annotations=None if annotations is None else Path(annotations),
        root=None if root is None else Path(root),
    )
    return list(run_evaluation(models, config, progress))


def run_evaluation(
    models: str | Path | Sequence[str | Path],
    config: EvaluationConfig,
    progress: Progress = SILENT,
) -> Iterator[Evaluation]:
    """Evaluate models as `evaluate` does, and yield the result for each split when it is there."""
    names = list(map(str, [models] if isinstance(models, str | Path) else models))
    if not 1 <= len(names) <= 2:
        raise OptionError(f"expected one model, or an RGB and a flow model; found {len(names)}")
    processes = ProcessGroup.join(config.device)
    progress = progress if processes.is_main else SILENT
    opened = [_open(name, config, processes, progress) for name in names]
    streams = [model.metadata.stream for model in opened if isinstance(model, _Model)]
    if len(set(streams)) < len(streams):
        raise OptionError(
            f"expected an RGB and a flow model; both models are of the {streams[0]} stream"
        )
    given = [model.header.split for model in opened if isinstance(model, Predictions)]
    wanted = "none" if config.split is None else str(config.split)
    for name, model in zip(names, opened, strict=True):
        if isinstance(model, Predictions) and wanted not in ("auto", model.header.split):
            raise OptionError(
                f"{name}: expected predictions of split {wanted}, found those of split "
                f"{model.header.split}; leave --split out"
            )
    if config.annotations and wanted not in ("auto", "none"):
        raise OptionError("--annotations names the videos to evaluate; leave --split out")
    if config.data is not None and not config.annotations:
        config = replace(config, data=_prepared(config, opened, processes, progress))
    splits = [wanted]
    if wanted == "auto":
        splits = given[:1] or [_default_split(config)]
    elif wanted == "all":
        splits = ["1", "2", "3"]
    for split in splits:
        yield _evaluate_split(opened, split, config, BadVideos(processes, progress))


def _prepared(
    config: EvaluationConfig,
    opened: "Sequence[_Model | Predictions]",
    processes: ProcessGroup,
    progress: Progress,
) -> Path:
    """Return the data, or the index of a folder or a list of videos, which is not split."""
    assert config.data is not None  # noqa: S101 - the caller has checked it
    models = (model.metadata.labels for model in opened if isinstance(model, _Model))
    options = VideoOptions(next(models, None), config.root, val_fraction=0.0)
    name = hashlib.sha256(os.fsencode(config.data.absolute())).hexdigest()[:8]
    data = find_data(config.data, progress)
    return prepare_own(data, config.output / f"data-{name}", options, processes, progress)


def _default_split(config: EvaluationConfig) -> str:
    """Return split 1, or `none` for data without splits."""
    data = config.data
    if config.annotations or (data and data.is_dir() and not (data / INDEX_NAME).exists()):
        return "none"
    return "1" if data is None or read_index(data).has_splits else "none"


@dataclass(frozen=True)
class _Model:
    """A model to evaluate: its file, engine and description, and a digest of file and input.

    `computed` is a part of the name of its files: engines and precisions differ in rounding.
    """

    path: Path
    engine: Engine
    metadata: Metadata
    digest: str
    computed: str


def _open(
    name: str, config: EvaluationConfig, processes: ProcessGroup, progress: Progress
) -> _Model | Predictions:
    if name.endswith(".jsonl"):
        return read_predictions(name)
    if config.data is None:
        raise OptionError(f"{name}: expected data to evaluate the model on; add --data")
    path = find(name)
    engine = _load_engine(path, config, processes, progress)
    if engine.metadata is None or not engine.metadata.num_classes:
        raise MetadataError(
            f"{name}: expected a model with a head, found a trunk; add a head with "
            "`i3dzoo convert --num-classes`, and train it"
        )
    metadata, sha256 = config.describe(engine.metadata), digest(path)
    _check_labels(name, metadata, config)
    if metadata != engine.metadata:  # with another input, the same file is another model
        sha256 = hashlib.sha256(f"{sha256} {metadata.to_json()}".encode()).hexdigest()
    computed = "" if engine.name == "torch" else f"_{engine.name}"
    computed += "" if engine.precision == "fp32" else f"_{engine.precision}"
    return _Model(path, engine, metadata, sha256, processes.broadcast(computed))


def _load_engine(
    path: Path, config: EvaluationConfig, processes: ProcessGroup, progress: Progress
) -> Engine:
    """Load a model; the main process comes first, and the others take the engine it has kept."""

    def load() -> Engine:
        return load_engine(
            path, config.engine, config.device, precision=config.precision, progress=progress
        )

    try:
        engine = load() if processes.is_main else None
    finally:
        processes.broadcast(None)
    return load() if engine is None else engine


def _check_labels(name: str, metadata: Metadata, config: EvaluationConfig) -> None:
    """Check that the videos have as many classes as the model's clips: one, or several."""
    if metadata.multi_label and config.annotations is None:
        raise OptionError(
            f"{name}: is multi-label; add --annotations FILE, a CSV table with all classes of each "
            "video, such as Charades_v1_test.csv"
        )
    if config.annotations is None:
        return
    if not metadata.multi_label:
        raise OptionError(
            f"{name}: --annotations is for multi-label models, and this one is single-label; leave "
            "it out, or describe the model with `i3dzoo convert --multi-label`"
        )
    if metadata.labels is None:
        raise MetadataError(
            f"{name}: its classes have no names; name them with `i3dzoo convert --head keep "
            "--labels`"
        )


def _evaluate_split(
    opened: Sequence[_Model | Predictions],
    split: str,
    config: EvaluationConfig,
    bad_videos: BadVideos,
) -> Evaluation:
    labels, predictions = None, []
    for model in opened:
        if isinstance(model, _Model):
            dataset = _open_data(model, split, config, bad_videos.progress)
            labels = dataset.classes
            model = _predict(model, dataset, split, config, bad_videos)
        predictions.append(model)
    fused = predictions[0] if len(predictions) == 1 else fuse(*predictions)
    if not fused.videos:
        raise DatasetError(
            f"no video of split {fused.header.split} could be read, so there is nothing to evaluate"
        )
    metrics: Metrics | MultiLabelMetrics
    if fused.labels.ndim == 1:
        metrics = evaluate_logits(fused.logits, fused.labels)
    else:
        metrics = evaluate_multi_label(fused.logits, fused.labels)
    data = config.data
    name = read_index(data).dataset if data and (data / INDEX_NAME).exists() else None
    return Evaluation(metrics, fused, name, labels, bad_videos.reasons)


def _warn_of_training_videos(model: _Model, dataset: VideoDataset, progress: Progress) -> None:
    """Say how many of the videos a run of `finetune` on videos of one's own was trained on."""
    data = model.path.parent / "data"
    if not (data / INDEX_NAME).exists():
        return
    index = read_index(data)
    trained = {index.path(entry).resolve() for entry in index.entries if "train" in entry.roles}
    count = sum(dataset.index.path(entry).resolve() in trained for entry in dataset.entries)
    if count:
        progress.message(
            f"{model.path} was trained on {count} of these {len(dataset.entries)} videos; to "
            f"evaluate it on the others only, use --data {data}"
        )


def _open_data(
    model: _Model, split: str, config: EvaluationConfig, progress: Progress
) -> VideoDataset:
    assert config.data is not None  # noqa: S101 - _open has checked it
    data: Path | Index = config.data
    if config.annotations:
        classes = model.metadata.labels or ()
        annotations = read_annotations(config.annotations, classes)
        data = annotated_index(config.data, annotations, classes, progress)
    role: Role | None = None
    if split != "none":
        data = read_index(data) if isinstance(data, Path) else data
        role = data.held_out(int(split), training=False)
        if role == "val":
            progress.message(
                f"{config.data}: has no test videos; the validation videos are evaluated"
            )
    dataset = VideoDataset(
        data,
        {model.metadata.stream: model.metadata.input},
        None if split == "none" else int(split),
        role,
        parse_protocol(config.protocol),
        classes=model.metadata.labels,
        on_bad_video=config.on_bad_video,
    )
    if split == "none":
        _warn_of_training_videos(model, dataset, progress)
    if config.annotations is None and dataset.targets is not None:
        raise MetadataError(
            f"{model.path}: its clips have one class, and the videos of {config.data} several; "
            "describe the model with `i3dzoo convert --multi-label` if it was trained on several"
        )
    if len(dataset.classes) != model.metadata.num_classes:
        raise MetadataError(
            f"{model.path}: expected the {len(dataset.classes)} classes of {config.data}, found "
            f"{model.metadata.num_classes} classes without names; name them with "
            "`i3dzoo convert --labels`"
        )
    return dataset


def _predict(
    model: _Model,
    dataset: VideoDataset,
    split: str,
    config: EvaluationConfig,
    bad_videos: BadVideos,
) -> Predictions:
    """Predict the videos that the file of predictions does not have yet."""
    processes, progress = bad_videos.processes, bad_videos.progress
    header = PredictionHeader(model.digest, config.protocol, split, dataset.digest)
    # models may have the same name, such as best.safetensors, and datasets may share a folder
    digests, protocol = f"{header.model[:8]}-{header.data[:8]}", config.protocol.replace(":", "-")
    name = f"{model.path.stem}-{digests}{model.computed}_{protocol}_split{split}.jsonl"
    path = config.output / name
    make_folder(config.output)

    def predict(done: set[str]) -> Iterator[VideoPrediction]:
        # of the other processes, this one knows only what they had done before
        left = len(dataset.videos) - len(done)
        progress.start("videos", len(done) + -(-left // processes.world_size), "items")
        return predict_dataset(
            partial(run_batches, model.engine),
            dataset,
            device=model.engine.device,
            batch_size=config.batch_size,
            processes=processes,
            workers=config.workers,
            done=done,
            skipped=bad_videos.add,
        )

    with explain_failures(lambda: "evaluating", EVALUATING):
        predictions = complete_predictions(path, header, predict, processes, progress)
        bad_videos.gather()
    progress.message(f"predictions: {path}")
    return predictions
