"""Checkpoints of a run: complete, atomic, and never removed before a newer one is whole.

A run's folder holds

    run.json                  what is trained, by which recipe and command, on which machine
    metrics.jsonl             one line a step and an epoch
    checkpoints/step-N.pt     all that resuming needs
    best.safetensors          canonical, by validation top-1
    last.safetensors          canonical, at the end
    predictions.jsonl         of the best on the validation videos
    report.html
"""

import re
import zipfile
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from i3dzoo._files import atomic_write
from i3dzoo.errors import FormatError, MissingFileError

__all__ = ["Position", "latest", "load", "save", "sweep"]

_NAME = re.compile(r"step-(\d{8})\.pt")


@dataclass
class Position:
    """Where a run is.

    Attributes:
        step: Optimiser steps done.
        epoch: Epochs done.
        batch: Batches done of the epoch after those.
        best: Best validation top-1 so far, 0..1; -1 before the first.
        best_epoch: The epochs that were done then, a fraction where it was in the middle of one.
        best_step: The steps that were done then.
        plateau: Factor that the `plateau` schedule has made.
        lowest_loss: Lowest validation loss so far, for `plateau`; infinite before the first.
        lowest_epoch: The epoch that gave it, or after which the rate fell last.
        evaluated: Steps that were done when the network was last evaluated; -1 before.
        metrics: What that evaluation gave.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best: float = -1.0
    best_epoch: float = 0
    best_step: int = 0
    plateau: float = 1.0
    lowest_loss: float = float("inf")
    lowest_epoch: int = 0
    evaluated: int = -1
    metrics: dict[str, float] = field(default_factory=dict)


def latest(folder: Path) -> Path | None:
    """Return the newest checkpoint of a run's folder, or None where there is none."""
    return max(_checkpoints(folder), default=None)


def _checkpoints(folder: Path) -> list[Path]:
    found = (folder / "checkpoints").glob("step-*.pt")
    return [path for path in found if _NAME.fullmatch(path.name)]


def save(folder: Path, position: Position, content: dict[str, Any]) -> Path:
    """Write a checkpoint whole, and only then remove those before it.

    Args:
        folder: The run's.
        position: Where the run is.
        content: State dicts by name, of what `torch.load` with `weights_only=True` reads.

    Raises:
        OutputError: The disk is full or the folder cannot be written; older ones are still there.
    """
    import torch

    path = folder / "checkpoints" / f"step-{position.step:08d}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        torch.save({**content, "position": asdict(position)}, file)
    for older in _checkpoints(folder):
        if older != path:
            older.unlink()
    sweep(folder)
    return path


def sweep(folder: Path) -> None:
    """Remove the half files of a run's process that was killed while it wrote."""
    for pattern in (".*.part", "checkpoints/.*.part"):
        for leftover in folder.glob(pattern):
            leftover.unlink()


def load(path: Path) -> tuple[Position, dict[str, Any]]:
    """Read a checkpoint: where the run was, and the state dicts by name.

    Raises:
        MissingFileError: There is no such file.
        FormatError: It is no checkpoint of a run, or is corrupt.
    """
    import torch

    try:
        with zipfile.ZipFile(path) as archive:  # torch.load looks at no checksum
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"the checksum of {damaged} is wrong")
        content = torch.load(path, map_location="cpu", weights_only=True)
        found = content.pop("position")
        if set(found) != {each.name for each in fields(Position)}:
            raise ValueError("another version of i3dzoo wrote it")
        position = Position(**found)
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: there is no such checkpoint") from error
    except Exception as error:  # torch.load has no error of its own: corrupt files raise anything
        reason = str(error).partition("\n")[0]
        raise FormatError(
            f"{path}: is no checkpoint of a run, or is corrupt ({reason}); begin again in another "
            "folder, or from best.safetensors"
        ) from error
    return position, content
