"""Run a task as TAO's launcher does: its results folder, status.json, and names of checkpoints."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from i3dzoo.checkpoints.checkpoint import Checkpoint, write_checkpoint
from i3dzoo.checkpoints.metadata import Stream
from i3dzoo.devices import Device
from i3dzoo.distributed import is_main_process
from i3dzoo.evaluation.metrics import Metrics
from i3dzoo.evaluation.run import Evaluation, run_evaluation
from i3dzoo.exporters.job import Export
from i3dzoo.files import make_folder
from i3dzoo.predict import Prediction
from i3dzoo.progress import SILENT, Progress
from i3dzoo.tao.inference import export_spec, load_inference
from i3dzoo.tao.records import Task
from i3dzoo.tao.spec import load_tao
from i3dzoo.tao.task import evaluation_config, train_spec
from i3dzoo.training import checkpointing
from i3dzoo.training.checkpointing import Position
from i3dzoo.training.finetune import FinetuneResult
from i3dzoo.training.metric_logger import read_metric_lines
from i3dzoo.video import BadVideo

LATEST = "ar_model_latest.pth"
"""TAO's name of the link to the newest checkpoint."""


class StatusLog:
    """Writes TAO's status.json: one JSON object a line, on the main process.

    Source: nvidia_tao_pytorch/core/loggers/api_logging.py.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "status.json"
        if is_main_process():
            make_folder(folder)

    def write(self, status: str, message: str, **kpi: float) -> None:
        """Append a line: STARTED, RUNNING, SUCCESS or FAILURE, with numbers if there are any."""
        if not is_main_process():
            return
        now = time.localtime()
        line: dict[str, Any] = {
            "date": f"{now.tm_mon}/{now.tm_mday}/{now.tm_year}",
            "time": f"{now.tm_hour}:{now.tm_min}:{now.tm_sec}",
            "status": status,
            "verbosity": "INFO",
            "message": message,
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line | ({"kpi": kpi} if kpi else {})) + "\n")


@contextlib.contextmanager
def _monitored(folder: Path, task: Task) -> Iterator[StatusLog]:
    """Write how a task begins and ends."""
    log = StatusLog(folder)
    log.write("STARTED", f"Starting Action Recognition {task}")
    try:
        yield log
    except BaseException as error:  # also Ctrl-C; the log records it, and it is raised again
        interrupted = isinstance(error, KeyboardInterrupt | SystemExit)
        log.write("FAILURE", f"{task} was interrupted" if interrupted else str(error))
        raise
    log.write("SUCCESS", f"Action Recognition {task} finished successfully.")


def train(
    path: Path, overrides: Sequence[str], *, device: Device = "auto", progress: Progress = SILENT
) -> FinetuneResult:
    """Train; a run in the results folder is resumed, as TAO does.

    Beside i3dzoo's files, each epoch leaves `model_epoch_000_step_00005.pth`, which TAO loads, and
    `ar_model_latest.pth` links to the newest. Two streams have `_rgb` and `_flow` in their names.
    """
    folder = load_tao(path, overrides).folders["train"]
    with _monitored(folder, "train") as log:
        return train_spec(
            path,
            overrides,
            folder=folder,
            resume=checkpointing.latest(folder) is not None,
            device=device,
            end_epoch=_end_epoch(folder, log),
            progress=progress,
        )


def _end_epoch(
    folder: Path, log: StatusLog
) -> Callable[[Position, Mapping[Stream, Checkpoint]], None]:
    def end_epoch(position: Position, checkpoints: Mapping[Stream, Checkpoint]) -> None:
        for stream, checkpoint in checkpoints.items():
            part = f"_{stream}" if len(checkpoints) > 1 else ""
            name = f"model{part}_epoch_{position.epoch - 1:03d}_step_{position.step:05d}.pth"
            write_checkpoint(folder / name, checkpoint, "tao", force=True)
            _link(folder / LATEST.replace("_latest", f"{part}_latest"), name)
        lines = read_metric_lines(folder / "metrics.jsonl")
        steps = [line for line in lines if line["kind"] == "step"]
        epoch = [line for line in steps if position.epoch - 1 < line["epoch"] <= position.epoch]
        if epoch:
            loss, accuracy = (float(np.mean([line[key] for line in epoch])) for key in _METRICS)
            log.write("RUNNING", "Train metrics generated.", train_loss=loss, train_acc=accuracy)
        if position.evaluated_step == position.step:
            loss, accuracy = (position.metrics[key] for key in _METRICS)
            log.write("RUNNING", "Eval metrics generated.", val_loss=loss, val_acc=accuracy)

    return end_epoch


_METRICS = ("loss", "top1")


def _link(path: Path, target: str) -> None:
    """Replace a link at once; where there are no links, it is another name of the file."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.unlink(missing_ok=True)
    try:
        temporary.symlink_to(target)
    except OSError:
        os.link(path.with_name(target), temporary)
    temporary.replace(path)


def evaluate(
    path: Path, overrides: Sequence[str], *, device: Device = "auto", progress: Progress = SILENT
) -> Evaluation:
    """Evaluate; the predictions are kept in the results folder."""
    folder = load_tao(path, overrides, task="evaluate").folders["evaluate"]
    with _monitored(folder, "evaluate") as log:
        model, config = evaluation_config(
            path, overrides, output=folder, device=device, progress=progress
        )
        (evaluation,) = run_evaluation(model, config, progress)
        metrics = evaluation.metrics
        assert isinstance(metrics, Metrics)  # noqa: S101 - there are no annotations
        log.write(
            "RUNNING",
            "Test metrics generated.",
            accuracy=round(100 * metrics.top1, 3),
            m_accuracy=round(100 * metrics.mean_class, 3),
        )
    return evaluation


def infer(
    path: Path, overrides: Sequence[str], *, device: Device = "auto", progress: Progress = SILENT
) -> Iterator[Prediction | BadVideo]:
    """Yield the prediction of each video, or the reason why there is none."""
    folder = load_tao(path, overrides, task="inference").folders["inference"]
    with _monitored(folder, "inference"):
        inference = load_inference(path, overrides, device=device, progress=progress)
        yield from inference.run(1, progress)


def export(
    path: Path,
    overrides: Sequence[str],
    *,
    device: Device = "auto",
    force: bool = False,
    progress: Progress = SILENT,
) -> Export:
    """Export to ONNX; a file that exists is an error, as in TAO, without `force`."""
    folder = load_tao(path, overrides, task="export").folders["export"]
    with _monitored(folder, "export"):
        return export_spec(path, overrides, device=device, force=force, progress=progress)
