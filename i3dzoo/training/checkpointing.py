"""Save and load the checkpoints of a run, and check that they belong to it.

A checkpoint is complete, and it is removed only after a newer one is completely written. The folder
of a run contains:

    run.json                  what is trained, by which recipe and command, on which machine
    metrics.jsonl             one line for each step and each evaluation
    checkpoints/step-N.pt     everything that resuming needs
    best.safetensors          canonical checkpoint with the best validation top-1
    last.safetensors          canonical checkpoint of the end
    predictions.jsonl         of the best checkpoint on the validation videos
    report.html
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from i3dzoo.arrays import bfloat16
from i3dzoo.errors import FormatError, MissingFileError, RecipeError
from i3dzoo.files import atomic_write
from i3dzoo.formats.torch_snapshot import read_snapshot
from i3dzoo.training.recipe import Recipe

_CHANGEABLE = frozenset(
    {
        "loop.epochs",
        "loop.max_steps",
        # of the machine, not of the result
        "loop.accumulate",
        "loop.channels_last",
        "loop.checkpoint_activations",
        "loop.compile",
        "loop.cudnn_benchmark",
        "loop.cudnn_deterministic",
        "loop.precision",
        "loop.save_every",
        "loop.workers",
        "evaluation.batch_size",
    }
)


@dataclass
class Position:
    """How far a run has come.

    Attributes:
        step: Optimiser steps done.
        epoch: Epochs done.
        batch: Batches done in the current epoch.
        best_top1: Best validation top-1 so far, 0..1; -1 before the first evaluation.
        best_epoch: Epochs done at that evaluation; a fraction if it was within an epoch.
        best_step: Steps done at that evaluation.
        plateau_factor: What the `plateau` schedule has multiplied the learning rate by.
        lowest_loss: Lowest validation loss so far, for `plateau`; infinite before the first
            evaluation.
        lowest_epoch: Epoch of the lowest loss, or of the last reduction of the learning rate.
        evaluated_step: Steps done at the last evaluation; -1 before the first.
        metrics: The result of the last evaluation.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best_top1: float = -1.0
    best_epoch: float = 0
    best_step: int = 0
    plateau_factor: float = 1.0
    lowest_loss: float = float("inf")
    lowest_epoch: int = 0
    evaluated_step: int = -1
    metrics: dict[str, float] = field(default_factory=dict)


def latest(folder: Path) -> Path | None:
    """Return the newest checkpoint in the folder of a run, or None if there is none."""
    return max(_checkpoints(folder), default=None)


def _checkpoints(folder: Path) -> list[Path]:
    return list((folder / "checkpoints").glob(f"step-{'[0-9]' * 8}.pt"))


def save(folder: Path, position: Position, state: dict[str, Any]) -> Path:
    """Write a checkpoint, and then remove the older ones; if writing fails, they stay.

    `state` is plain data with tensors, as `i3dzoo.formats.torch_snapshot` reads it.
    """
    path = folder / "checkpoints" / f"step-{position.step:08d}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        torch.save({**state, "position": asdict(position)}, file)
    for older in _checkpoints(folder):
        if older != path:
            older.unlink()
    remove_partial_files(folder)
    return path


def remove_partial_files(folder: Path) -> None:
    """Remove the files that a process of the run was writing when it was killed."""
    for pattern in (".*.part", "checkpoints/.*.part"):
        for path in folder.glob(pattern):
            path.unlink()


def load(path: Path) -> tuple[Position, dict[str, Any]]:
    """Read a checkpoint: how far the run had come, and its state."""
    try:
        state = _to_tensors(read_snapshot(path))
        position = state.pop("position")
        if set(position) != {attribute.name for attribute in fields(Position)}:
            raise ValueError("another version of i3dzoo wrote it")
        return Position(**position), state
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: the checkpoint does not exist") from error
    except Exception as error:  # corrupt files raise anything
        reason = str(error).removeprefix(f"{path}: ").partition("\n")[0]
        raise FormatError(
            f"{path}: not a checkpoint of a run, or corrupt ({reason}); start again in another "
            "folder, or from best.safetensors"
        ) from error


def _to_tensors(value: Any) -> Any:
    """Copy plain data, with tensors in place of arrays."""
    if isinstance(value, dict):
        return {key: _to_tensors(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_to_tensors, value))
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype == bfloat16():
        return torch.from_numpy(value.view("i2").copy()).view(torch.bfloat16)
    return torch.from_numpy(value.copy())


def fixed_settings(recipe: Recipe) -> dict[str, Any]:
    """Return the settings, by `SECTION.KEY`, that must not change when a run is resumed."""
    return {
        f"{section}.{key}": value
        for section, settings in recipe.to_dict().items()
        if isinstance(settings, dict)
        for key, value in settings.items()
        if f"{section}.{key}" not in _CHANGEABLE
    }


def check_same_run(path: Path, saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Check that the settings and facts of the run to resume are those of its checkpoint."""
    for key, value in current.items():
        if saved.get(key) != value:
            name = key if "." in key else key.replace("_", " ")
            raise RecipeError(
                f"{path}: the run has {name} {saved.get(key)}, and it cannot be resumed with "
                f"{name} {value}; use the run's own value, or start another run"
            )
