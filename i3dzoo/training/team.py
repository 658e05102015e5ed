"""Predicting a split by one process or by many: no video twice, and taken up after any kill."""

import glob
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from i3dzoo.errors import DependencyError
from i3dzoo.training.predictions import (
    Prediction,
    Predictions,
    PredictionWriter,
    Run,
    read_predictions,
)
from i3dzoo.training.processes import gathered, shared

__all__ = ["Team", "predict_together"]


class Team:
    """The processes that torchrun or `accelerate launch` started, or this one alone.

    Args:
        device: `auto` takes GPUs where there are any, one for each process; `cpu` does not.

    Attributes:
        rank: Number of this process.
        world: How many there are.

    Raises:
        DependencyError: There are several, and accelerate is not installed.
    """

    def __init__(self, device: str = "auto") -> None:
        self.rank, self.world = 0, 1
        self._state: Any = None
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return
        try:
            from accelerate import PartialState
        except ImportError as error:
            raise DependencyError(
                "several processes need accelerate: pip install 'i3dzoo[train]'"
            ) from error
        # on GPUs each process also makes its own the current one
        self._state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available())
        self.rank, self.world = self._state.process_index, self._state.num_processes

    @property
    def is_main(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def gather(self, own: list[Any]) -> list[Any]:
        """Return what all processes have, on each of them."""
        return own if self._state is None else gathered(own, self._state)

    def share(self, value: Any) -> Any:
        """Return what the main process has, on each of them."""
        return value if self._state is None else shared(value, self._state)


def predict_together(
    team: Team,
    path: Path,
    run: Run,
    predict: Callable[[set[str]], Iterator[Prediction]],
    count: Callable[[int], None] = lambda _: None,
) -> Predictions:
    """Complete a file of predictions.

    Every process keeps what it predicts as it goes: the main one in the file itself, the others in
    parts beside it. At the end, and at the beginning after a kill, however many processes there
    were, the parts are taken into the file.

    Args:
        team: The processes; each of them calls this.
        path: The file.
        run: Whose predictions these are.
        predict: Gives this process's share of the videos, but for those that are done.
        count: Called with the number of videos that are done, as far as this process knows.

    Returns:
        All predictions, on every process.

    Raises:
        OutputError: The file holds predictions of another run, or cannot be written.
    """
    if team.is_main:
        with PredictionWriter(path, run) as writer:
            for part in sorted(path.parent.glob(f"{glob.escape(path.name)}.*.part")):
                if part.stat().st_size:
                    _take(writer, read_predictions(part))
                part.unlink()
            done = set(writer.done)
    done = team.share(done if team.is_main else None)
    own = path if team.is_main else path.with_name(f"{path.name}.{team.rank}.part")
    made = []
    with PredictionWriter(own, run) as writer:
        for prediction in predict(done):
            writer.write(prediction)
            made.append(prediction)
            count(len(done) + len(made))
    every = team.gather(made)
    if team.is_main:
        with PredictionWriter(path, run) as writer:
            _take(writer, Predictions.of(run, every))
        found = read_predictions(path)
    # sharing waits until the file is whole, and the parts are not needed any more
    whole: Predictions = team.share(found if team.is_main else None)
    if not team.is_main:
        own.unlink(missing_ok=True)
    return whole


def _take(writer: PredictionWriter, found: Predictions) -> None:
    """Write those that the file has not."""
    for row, video in enumerate(found.videos):
        if video not in writer.done:
            label, clips = int(found.labels[row]), int(found.clips[row])
            writer.write(Prediction(video, label, found.logits[row], clips))
