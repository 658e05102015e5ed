"""Read and write the files of a run folder: run.json, metrics.jsonl and predictions.jsonl.

docs/reference/run-folder.md describes the files for other tools.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from i3dzoo.errors import FormatError, MissingFileError, ShapeError
from i3dzoo.evaluation.metrics import Metrics, evaluate_logits
from i3dzoo.evaluation.prediction_file import read_lines, read_predictions
from i3dzoo.evaluation.predictions import Predictions
from i3dzoo.files import atomic_write
from i3dzoo.records import Record, convert, parse_json, read_json

RUN, METRICS, PREDICTIONS = "run.json", "metrics.jsonl", "predictions.jsonl"

_REMEDY: Final = "; name the folder of a run, such as `i3dzoo finetune` writes"

Column = npt.NDArray[np.float64]


class RunSource(Record, frozen=True, kw_only=True):
    """What a run was trained from, and on."""

    model: str | None = None
    dataset: str | None = None
    split: int | None = None
    training_videos: int | None = None
    test_videos: int | None = None


class RunRecord(Record, frozen=True, kw_only=True):
    """The contents of run.json."""

    command: tuple[str, ...]
    resumed: tuple[tuple[str, ...], ...] = ()
    recipe: dict[str, Any]
    labels: tuple[str, ...]
    environment: dict[str, Any]
    source: RunSource
    started: str
    finished: str | None = None
    title: str | None = None
    stream: Literal["rgb", "flow", "joint"] = "rgb"
    data: str | None = None
    result: str | None = None
    augment: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    unreadable_videos: dict[str, str] = msgspec.field(default_factory=dict)
    extra: dict[str, Any] = msgspec.field(default_factory=dict)


class StepMetrics(Record, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """A line of metrics.jsonl of the kind `step`: one optimizer step."""

    step: int
    epoch: float | None = None
    loss: float | None = None
    lr: float | None = None
    top1: float | None = None
    clips_per_second: float | None = None
    data_wait: float | None = None


class EpochMetrics(Record, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """A line of metrics.jsonl of the kind `epoch`: one evaluation."""

    epoch: float
    val_loss: float | None = None
    top1: float | None = None
    top5: float | None = None
    mean_class: float | None = None


_KINDS: Final[dict[str, type[Record]]] = {"step": StepMetrics, "epoch": EpochMetrics}


@dataclass(frozen=True, eq=False)
class MetricHistory:
    """The fields of `StepMetrics` and `EpochMetrics` as columns [N]; a missing value is NaN."""

    steps: dict[str, Column]
    epochs: dict[str, Column]


@dataclass(frozen=True, eq=False)
class RunFolder:
    """The contents of a run folder; `predictions` is None if the run has not been evaluated."""

    folder: Path
    run: RunRecord
    history: MetricHistory
    predictions: Predictions | None = None
    metrics: Metrics | None = None


def read_run_folder(folder: str | Path) -> RunFolder:
    """Read run.json, metrics.jsonl and, if it exists, predictions.jsonl of a run folder."""
    folder = Path(folder)
    run, history, path = read_run(folder), read_metrics(folder), folder / PREDICTIONS
    predictions = read_predictions(path) if path.exists() else None
    if predictions is None or not predictions.videos:
        return RunFolder(folder, run, history)
    if predictions.logits.shape[1] != len(run.labels):
        raise ShapeError(
            f"{path}: expected {len(run.labels)} logits per video, one for each label in {RUN}; "
            f"found {predictions.logits.shape[1]}"
        )
    metrics = evaluate_logits(predictions.logits, predictions.labels)
    return RunFolder(folder, run, history, predictions, metrics)


def read_run(folder: str | Path) -> RunRecord:
    """Read run.json of a run folder."""
    path = Path(folder) / RUN
    if not path.exists():
        raise MissingFileError(f"{path}: the file does not exist{_REMEDY}")
    return read_json(path, RunRecord, error=FormatError)


def write_run(folder: Path, run: RunRecord, *, resumed: bool = False) -> None:
    """Write run.json.

    A resumed run keeps the first command and the start time of the run.json that exists; other
    commands are added to `resumed`, each once.
    """
    path = folder / RUN
    if resumed and path.exists():
        try:
            first = read_run(folder)
        except FormatError as error:
            raise FormatError(f"{error}; remove the file to resume without its contents") from error
        commands = dict.fromkeys((first.command, *first.resumed, run.command))
        run = run.replace(command=first.command, resumed=tuple(commands)[1:], started=first.started)
    with atomic_write(path) as file:
        file.write(json.dumps(_to_unicode(run.to_dict()), indent=2).encode())


def timestamp() -> str:
    """Return the current time as run.json has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def read_metrics(folder: str | Path) -> MetricHistory:
    """Read metrics.jsonl of a run folder.

    A last line that was cut off is ignored. Lines of a resumed run replace earlier lines of the
    same or a later step. Lines of other kinds are ignored.
    """
    path = Path(folder) / METRICS
    records: dict[str, list[Record]] = {kind: [] for kind in _KINDS}
    for number, line in enumerate(read_lines(path, _REMEDY)[0], 1):
        where = f"{path}: line {number}"
        values = parse_json(line, dict[str, Any], where, error=FormatError)
        kind = str(values.get("kind"))
        if kind in _KINDS:
            record = convert(values, _KINDS[kind], where, FormatError)
            earlier = records[kind]
            while earlier and getattr(earlier[-1], kind) >= getattr(record, kind):
                earlier.pop()
            earlier.append(record)
    return MetricHistory(
        *(
            {
                name: np.array([getattr(record, name) for record in records[kind]], np.float64)
                for name in _KINDS[kind].__struct_fields__
            }
            for kind in _KINDS
        )
    )


def _to_unicode(value: Any) -> Any:
    """Escape bytes of file names that are not UTF-8, which JSON readers refuse."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_to_unicode(key): _to_unicode(item) for key, item in value.items()}
    return [_to_unicode(item) for item in value] if isinstance(value, list | tuple) else value
