"""The training loop: to be read from top to bottom."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from i3dzoo.training import state
from i3dzoo.training.clips import Batch, Clips, load
from i3dzoo.training.engine import Engine
from i3dzoo.training.journal import Journal
from i3dzoo.training.network import Streams
from i3dzoo.training.plan import epoch_batches, learning_rate_factor
from i3dzoo.training.recipe import Recipe

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Result", "Run", "train"]


@dataclass
class Run:
    """What `train` is given.

    Attributes:
        recipe: How to train.
        streams: The networks.
        clips: What to train them on.
        evaluate: Called on every process after an epoch with the network in eval mode; returns at
            least `loss` and `top1` (0..1), the same on every process.
        keep: Called on the main process with `best` or `last`, the networks and the metrics, to
            write them as canonical files.
        folder: Where the run is kept.
        watch: Called on the main process after each step with what was journalled.
    """

    recipe: Recipe
    streams: Streams
    clips: Clips
    evaluate: Callable[[nn.Module], dict[str, float]]
    keep: Callable[[str, Streams, dict[str, float]], None]
    folder: Path
    watch: Callable[[dict[str, float]], None] = lambda _: None


@dataclass(frozen=True)
class Result:
    """What came of it.

    Attributes:
        position: Where the run ended.
        metrics: Of the last evaluation.
    """

    position: state.Position
    metrics: dict[str, float] = field(default_factory=dict)


def train(run: Run, accelerator: "Accelerator", resume: Path | None = None) -> Result:
    """Train, evaluate after each epoch, and keep what is needed to go on.

    Everything that is drawn is a function of the recipe's seed, the step and the process's number:
    a run that was killed and resumed gives the weights of one that was not, to the bit where the
    device computes the same twice, as a CPU does.

    Args:
        run: What to train and on what.
        accelerator: From `make_accelerator`.
        resume: A checkpoint to go on from; None begins.

    Raises:
        TrainingError: The loss is not finite, memory does not suffice, or the GPU failed.
        RecipeError: The batch cannot be divided among the processes.
        OutputError: The run's folder cannot be written.
    """
    engine = Engine(run.recipe, run.streams, run.clips, accelerator)
    position = state.Position()
    if resume is not None:
        position, content = state.load(resume)
        engine.load_state_dict(content)
    journal = Journal(run.folder, position) if accelerator.is_main_process else None
    loop = run.recipe.loop
    metrics: dict[str, float] = {}
    loaded = _load(run, accelerator, position)
    try:
        while position.epoch < loop.epochs and not _enough(run, position):
            engine.begin_epoch(position.epoch)
            _train_epoch(run, engine, position, journal, loaded)
            if position.epoch % run.recipe.evaluation.every == 0 or position.epoch == loop.epochs:
                metrics = _evaluate(run, engine, position, journal)
            _save(run, engine, position)
            if loop.early_stop and position.epoch - position.best_epoch >= loop.early_stop:
                break
        with engine.averaged():
            if accelerator.is_main_process:
                run.keep("last", engine.streams, metrics)
    finally:
        if journal is not None:
            journal.close()
    return Result(position, metrics)


def _enough(run: Run, position: state.Position) -> bool:
    most = run.recipe.loop.max_steps
    return most is not None and position.step >= most


def _batches(run: Run, epoch: int) -> list[list[int]]:
    loop = run.recipe.loop
    return epoch_batches(len(run.clips.labels), loop.batch_size, loop.seed, epoch)


def _load(run: Run, accelerator: "Accelerator", position: state.Position) -> Iterator[list[Batch]]:
    """Load all batches from here to the end of the run."""
    loop, epoch, batch = run.recipe.loop, position.epoch, position.batch
    left = (
        (number, each)
        for number in range(epoch, loop.epochs)
        for each in _batches(run, number)[batch if number == epoch else 0 :]
    )
    return load(
        run.clips,
        left,
        device=accelerator.device,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        parts=loop.accumulate,
        workers=loop.workers,
        channels_last=loop.channels_last,
    )


def _train_epoch(
    run: Run,
    engine: Engine,
    position: state.Position,
    journal: Journal | None,
    loaded: Iterator[list[Batch]],
) -> None:
    """Go through the batches of an epoch that have not been done yet."""
    recipe, loop = run.recipe, run.recipe.loop
    batches = _batches(run, position.epoch)
    while position.batch < len(batches):
        started = time.perf_counter()
        parts = next(loaded)
        ready = time.perf_counter()
        at = position.epoch + position.batch / len(batches)
        factor = learning_rate_factor(
            recipe.schedule, at, loop.epochs, recipe.optim.lr, position.plateau
        )
        result = engine.step(parts, position.step, factor)
        done = time.perf_counter()
        position.batch += 1
        position.step += 1
        if journal is not None:
            line = {
                "epoch": round(position.epoch + position.batch / len(batches), 4),
                "loss": result.loss,
                "top1": result.top1,
                "lr": recipe.optim.lr * factor,
                "clips_per_second": round(len(batches[0]) / (done - started), 3),
                "data_wait": round((ready - started) / (done - started), 4),
            }
            journal.write("step", position.step, **line)
            run.watch({"step": position.step, "steps_an_epoch": len(batches), **line})
        if loop.save_every and position.step % loop.save_every == 0:
            _save(run, engine, position)
        if _enough(run, position):
            break
    position.epoch += 1
    position.batch = 0


def _evaluate(
    run: Run, engine: Engine, position: state.Position, journal: Journal | None
) -> dict[str, float]:
    """Evaluate, keep the best, and let the plateau schedule see the loss."""
    with engine.averaged() as network:
        metrics = run.evaluate(network)
        if metrics["top1"] > position.best:
            position.best, position.best_epoch = metrics["top1"], position.epoch
            if engine.accelerator.is_main_process:
                run.keep("best", engine.streams, metrics)
    schedule = run.recipe.schedule
    if metrics["loss"] < position.lowest_loss:
        position.lowest_loss, position.waited = metrics["loss"], 0
    else:
        position.waited += 1
        if schedule.kind == "plateau" and position.waited > schedule.patience:
            position.plateau, position.waited = position.plateau * schedule.decay, 0
    if journal is not None:
        values = {f"val_{k}" if k == "loss" else k: v for k, v in metrics.items()}
        journal.write("epoch", position.step, epoch=position.epoch, **values)
    return metrics


def _save(run: Run, engine: Engine, position: state.Position) -> None:
    if engine.accelerator.is_main_process:
        state.save(run.folder, position, engine.state_dict())
    engine.accelerator.wait_for_everyone()
