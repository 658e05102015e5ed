"""Log the metrics of a run to metrics.jsonl and TensorBoard."""

import contextlib
import json
import sys
import time
import types
from pathlib import Path
from typing import Any

from i3dzoo.errors import FormatError
from i3dzoo.evaluation.prediction_file import read_lines
from i3dzoo.files import atomic_write, output_error
from i3dzoo.records import parse_json
from i3dzoo.training.checkpointing import Position


def read_metric_lines(path: Path) -> list[dict[str, Any]]:
    """Read metrics.jsonl up to a line that is incomplete because of a kill."""
    lines: list[dict[str, Any]] = []
    if path.exists():
        complete, rest = read_lines(path)
        with contextlib.suppress(FormatError):
            for line in (*complete, rest):
                lines.append(parse_json(line, dict[str, Any], error=FormatError))
    return lines


class MetricLogger:
    """Writes `metrics.jsonl`, and TensorBoard's files where TensorBoard is installed.

    Lines of an earlier process that are later than the position of the run are removed.
    """

    def __init__(self, folder: Path, position: Position) -> None:
        self.path = folder / "metrics.jsonl"
        last_steps = {"step": position.step, "epoch": position.evaluated_step}
        kept = [
            line
            for line in read_metric_lines(self.path)
            if line.get("step", -1) <= last_steps.get(line.get("kind", ""), position.step)
        ]
        with atomic_write(self.path) as file:
            file.writelines(json.dumps(line).encode() + b"\n" for line in kept)
        self._file = self.path.open("a", encoding="utf-8", buffering=1)
        self._tensorboard = _tensorboard_writer(folder, position.step)

    def log(self, kind: str, step: int, **values: Any) -> None:
        """Write a line of the kind `step`, or `epoch` for an evaluation, and its scalars."""
        line = {"kind": kind, "step": step, "time": round(time.time(), 3), **values}
        try:
            self._file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise output_error(self.path, error) from error
        if self._tensorboard is not None:
            prefix = "train" if kind == "step" else "validation"
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._tensorboard.add_scalar(f"{prefix}/{name}", value, step)

    def close(self) -> None:
        """Close the files."""
        with contextlib.suppress(OSError):  # `log` has raised it already
            self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()


def _tensorboard_writer(folder: Path, step: int) -> Any:
    # without this module, TensorBoard imports all of TensorFlow where that is installed
    sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("notf"))
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
