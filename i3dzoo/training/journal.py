"""What a run tells: one JSON line a step, TensorBoard scalars, a progress bar."""

import contextlib
import json
import sys
import time
import types
from pathlib import Path
from typing import Any

from i3dzoo._files import atomic_write, output_error
from i3dzoo.training.state import Position

__all__ = ["Journal", "read_lines"]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of JSON lines; a last line that was cut by a kill is left out."""
    lines = []
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
    return lines


class Journal:
    """Writes `metrics.jsonl` and TensorBoard's files of one run.

    Args:
        folder: The run's.
        position: Where the run goes on from; lines of what a kill undid are removed.
        tensorboard: Whether to write TensorBoard's files, where it is installed.
    """

    def __init__(self, folder: Path, position: Position, tensorboard: bool = True) -> None:
        self.path = folder / "metrics.jsonl"
        reached = {"step": position.step, "epoch": position.evaluated}
        kept = [
            line
            for line in read_lines(self.path)
            if line.get("step", -1) <= reached.get(line.get("kind", ""), position.step)
        ]
        with atomic_write(self.path) as file:
            file.writelines(json.dumps(line).encode() + b"\n" for line in kept)
        self._file = self.path.open("a", encoding="utf-8", buffering=1)
        self._board = _board(folder, position.step) if tensorboard else None

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Write one line, and the numbers in it as scalars.

        Raises:
            OutputError: The disk is full.
        """
        line = {"kind": kind, "step": step, "time": round(time.time(), 3), **values}
        try:
            self._file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise output_error(self.path, error) from error
        if self._board is not None:
            prefix = "train" if kind == "step" else "validation"
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(f"{prefix}/{name}", value, step)

    def close(self) -> None:
        """Close the files."""
        with contextlib.suppress(OSError):  # of what could not be written, which has been told
            self._file.close()
        if self._board is not None:
            self._board.close()


def _board(folder: Path, resumed_at: int) -> Any:
    # TensorBoard loads all of TensorFlow where it is installed, unless this module exists
    sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("notf"))
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=resumed_at + 1)
