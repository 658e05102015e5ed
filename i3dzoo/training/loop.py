"""The training loop, to be read from top to bottom."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from i3dzoo.distributed import shard
from i3dzoo.engines.failures import explain_failures
from i3dzoo.errors import RecipeError
from i3dzoo.progress import SILENT, Progress
from i3dzoo.training import checkpointing
from i3dzoo.training.checkpointing import Position
from i3dzoo.training.metric_logger import MetricLogger
from i3dzoo.training.recipe import Recipe
from i3dzoo.training.schedule import learning_rate_factor
from i3dzoo.training.streams import Streams
from i3dzoo.training.train_step import TrainStep, processes_of
from i3dzoo.video import Batch, epoch_batches, load_batches
from i3dzoo.video.bad_videos import BadVideos
from i3dzoo.video.loader import SampleSource

if TYPE_CHECKING:
    from accelerate import Accelerator


# What is shown beside the count of steps.
_SHOWN = {
    "epoch": ".2f",
    "loss": ".4f",
    "top1": ".1%",
    "clips_per_second": ".1f",
    "data_wait": ".0%",
}


class Trainer(Protocol):
    """What the loop leaves to others: the evaluation, and the files of the run."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """Plain values, by snake_case key, that must not change when the run is resumed."""

    @property
    def bad_videos(self) -> BadVideos:
        """Collects the training videos that cannot be read."""

    def begin(self) -> None:
        """Prepare the folder of the run; called on the main process before the first step."""

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Measure the network, in eval mode; called on every process after an epoch.

        The result has at least `loss` (nats) and `top1` (0..1), the same on every process.
        """

    def keep(self, name: str, streams: Streams, metrics: Mapping[str, float]) -> None:
        """Write the weights `best` or `last`; called on the main process."""

    def end_epoch(self, streams: Streams, position: Position) -> None:
        """Use the weights after an epoch; called on the main process once they are saved."""

    def needs_evaluation(self) -> bool:
        """Return whether the weights to keep were never evaluated; called on every process."""


def train(
    recipe: Recipe,
    streams: Streams,
    clips: SampleSource,
    trainer: Trainer,
    folder: Path,
    *,
    accelerator: "Accelerator",
    resume: Path | None = None,
    progress: Progress = SILENT,
) -> Position:
    """Train the streams in place, evaluate after each epoch, and save what resuming needs.

    Everything random is a function of the recipe's seed, the step and the rank. A run that was
    killed and resumed from its checkpoint therefore ends with the weights of an uninterrupted run,
    to the bit where the device is deterministic, as a CPU is.
    """
    loop = _Loop(recipe, clips, trainer, folder, accelerator, progress)
    with explain_failures(lambda: f"step {loop.position.step}"):
        loop.begin(streams, resume)
        try:
            loop.run()
        finally:
            if loop.logger is not None:
                loop.logger.close()
    return loop.position


@dataclass
class _Loop:
    """The state of one call of `train`."""

    recipe: Recipe
    clips: SampleSource
    trainer: Trainer
    folder: Path
    accelerator: "Accelerator"
    progress: Progress
    position: Position = field(default_factory=Position)
    logger: MetricLogger | None = None

    def __post_init__(self) -> None:
        self.processes = processes_of(self.accelerator)
        if not self.processes.is_main:
            self.progress = SILENT

    def begin(self, streams: Streams, resume: Path | None) -> None:
        recipe = self.recipe
        self.train_step = TrainStep(recipe, streams, self.clips, self.accelerator)
        self.fixed = {
            "streams": sorted(streams.networks),
            **checkpointing.fixed_settings(recipe),
            "classes": list(self.clips.classes),
            "training_clips": len(self.clips.labels),
            **self.trainer.facts,
        }
        if resume is not None:
            # the main process reads for all, which may be on other machines
            self.position, state = self.processes.broadcast(
                checkpointing.load(resume) if self.processes.is_main else None
            )
            checkpointing.check_same_run(resume, state["fixed"], self.fixed)
            self.train_step.load_state_dict(state)
        if self.processes.is_main:
            self.trainer.begin()
            self.logger = MetricLogger(self.folder, self.position)
        self.batches = self._load()
        steps = recipe.loop.epochs * len(self._epoch_batches(0))
        self.progress.start("steps", min(steps, recipe.loop.max_steps or steps), "items")
        self.progress.update(self.position.step)

    def run(self) -> None:
        while not self._is_finished():
            self.train_step.begin_epoch(self.position.epoch)
            self._train_epoch()
            if self._evaluation_is_due():
                self._evaluate()
            self._save()
            if self.processes.is_main and not self.position.batch:
                self.trainer.end_epoch(self.train_step.streams, self.position)
        with self.train_step.evaluation_network() as network:
            if self.trainer.needs_evaluation():
                self.trainer.evaluate(network)
            if self.processes.is_main:
                self.trainer.keep("last", self.train_step.streams, self.position.metrics)

    def _is_finished(self) -> bool:
        loop, position = self.recipe.loop, self.position
        last: float = loop.epochs
        if loop.early_stop is not None and position.evaluated_step >= 0:
            last = min(last, position.best_epoch + loop.early_stop)
        return position.epoch >= last or self._has_max_steps()

    def _has_max_steps(self) -> bool:
        most = self.recipe.loop.max_steps
        return most is not None and self.position.step >= most

    def _evaluation_is_due(self) -> bool:
        position = self.position
        due = position.batch == 0 and position.epoch % self.recipe.evaluation.every == 0
        return due or self._is_finished()

    def _epoch_batches(self, epoch: int) -> list[list[int]]:
        loop = self.recipe.loop
        return epoch_batches(len(self.clips.labels), loop.batch_size, loop.seed, epoch)

    def _load(self) -> Iterator[list[Batch]]:
        """Yield this process's share of each batch, in parts, to the end of the run."""
        loop, rank, world_size = self.recipe.loop, self.processes.rank, self.processes.world_size
        first_epoch, batches_done = self.position.epoch, self.position.batch
        count = len(self.clips.labels)
        smallest_share = min(loop.batch_size, count) // world_size
        if not smallest_share:
            raise RecipeError(
                f"there are {count} training clips for {world_size} processes; expected at least "
                "one for each: start fewer processes"
            )
        parts = min(loop.accumulate, smallest_share)
        numbers = (
            (epoch, shard(batch, rank, world_size)[part::parts])
            for epoch in range(first_epoch, loop.epochs)
            for batch in self._epoch_batches(epoch)[batches_done if epoch == first_epoch else 0 :]
            for part in range(parts)
        )
        device = self.accelerator.device
        batches = load_batches(self.clips, numbers, device=device, workers=loop.workers)
        inputs = map(self._normalise, batches)
        return iter(lambda: list(islice(inputs, parts)), [])

    def _normalise(self, batch: Batch) -> Batch:
        """Return the batch as input of the networks: float32 [B, C, T, H, W]."""
        channels_last = self.recipe.loop.channels_last
        layout = torch.channels_last_3d if channels_last else torch.contiguous_format
        clips = {
            stream: self.clips.normalise(stream, clips).contiguous(memory_format=layout)
            for stream, clips in batch.clips.items()
        }
        return replace(batch, clips=clips)

    def _train_epoch(self) -> None:
        """Train on the batches of an epoch that are not done yet."""
        recipe, position, bad_videos = self.recipe, self.position, self.trainer.bad_videos
        batches = self._epoch_batches(position.epoch)
        while position.batch < len(batches):
            started = time.perf_counter()
            parts = next(self.batches)
            loaded = time.perf_counter()
            for video in (video for part in parts for video in part.bad):
                bad_videos.add(video)
            epoch = position.epoch + position.batch / len(batches)
            factor = learning_rate_factor(
                recipe.schedule, epoch, recipe.loop.epochs, recipe.optim.lr, position.plateau_factor
            )
            result = self.train_step(parts, position.step, factor)
            seconds = time.perf_counter() - started
            position.batch += 1
            position.step += 1
            values = {
                "epoch": round(position.epoch + position.batch / len(batches), 4),
                "loss": result.loss,
                "top1": result.top1,
                "lr": recipe.optim.lr * factor,
                "clips_per_second": round(len(batches[0]) / seconds, 3),
                "data_wait": round((loaded - started) / seconds, 4),
            }
            if self.logger is not None:
                self.logger.log("step", position.step, **values)
            self.progress.update(
                position.step, **{key: f"{values[key]:{how}}" for key, how in _SHOWN.items()}
            )
            if position.batch == len(batches):
                self.progress.message(
                    f"epoch {position.epoch + 1} of {recipe.loop.epochs}: loss {result.loss:.4f}, "
                    f"top-1 {100 * result.top1:.2f}% of the last batch, "
                    f"{values['clips_per_second']:.1f} clips/s, "
                    f"{values['data_wait']:.0%} waiting for data"
                )
            if recipe.loop.save_every and position.step % recipe.loop.save_every == 0:
                self._save()
            if self._has_max_steps():
                break
        bad_videos.gather()
        if position.batch == len(batches):
            position.epoch += 1
            position.batch = 0

    def _evaluate(self) -> None:
        """Evaluate, keep the best weights, and let the plateau schedule see the loss."""
        position, schedule = self.position, self.recipe.schedule
        epoch: float = position.epoch
        if position.batch:
            part = position.batch / len(self._epoch_batches(position.epoch))
            epoch = round(epoch + part, 4)
        with self.train_step.evaluation_network() as network:
            metrics = self.trainer.evaluate(network)
            position.metrics, position.evaluated_step = metrics, position.step
            if metrics["top1"] > position.best_top1:
                position.best_top1 = metrics["top1"]
                position.best_epoch, position.best_step = epoch, position.step
                if self.processes.is_main:
                    self.trainer.keep("best", self.train_step.streams, metrics)
        if metrics["loss"] < position.lowest_loss:
            position.lowest_loss, position.lowest_epoch = metrics["loss"], position.epoch
        elif (
            schedule.kind == "plateau"
            and position.epoch - position.lowest_epoch > schedule.patience
        ):
            position.plateau_factor *= schedule.decay
            position.lowest_epoch = position.epoch
        if self.logger is not None:
            values = {"val_loss" if key == "loss" else key: v for key, v in metrics.items()}
            self.logger.log("epoch", position.step, epoch=epoch, **values)
        of_epochs = f"epoch {position.epoch} of {self.recipe.loop.epochs}"
        self.progress.message(
            f"{f'step {position.step}' if position.batch else of_epochs}: validation loss "
            f"{metrics['loss']:.4f}, top-1 {100 * metrics['top1']:.2f}%"
        )

    def _save(self) -> None:
        if self.processes.is_main:
            state = {**self.train_step.state_dict(), "fixed": self.fixed}
            checkpointing.save(self.folder, self.position, state)
        self.accelerator.wait_for_everyone()
