"""The training loop: to be read from top to bottom."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from i3dzoo.errors import RecipeError
from i3dzoo.training import state
from i3dzoo.training.bad_videos import BadVideos
from i3dzoo.training.clips import Batch, Clips, load
from i3dzoo.training.engine import Engine
from i3dzoo.training.failures import told
from i3dzoo.training.identity import fixed_keys
from i3dzoo.training.journal import Journal
from i3dzoo.training.network import Streams
from i3dzoo.training.plan import epoch_batches, learning_rate_factor
from i3dzoo.training.processes import shared
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
        watch: Called on the main process with what was journalled: of each step, and of each
            evaluation (`kind` is `step` or `epoch`).
        bad: Hears of the training videos that cannot be read.
        facts: What else makes the run what it is, such as its data: it is not resumed with others.
        begin: Called on the main process when nothing speaks against the run any more.
        unmeasured: Called on every process at the end; whether what is to be kept is still to be
            evaluated, as a kill may have come in between.
    """

    recipe: Recipe
    streams: Streams
    clips: Clips
    evaluate: Callable[[nn.Module], dict[str, float]]
    keep: Callable[[str, Streams, dict[str, float]], None]
    folder: Path
    watch: Callable[[Mapping[str, Any]], None] = lambda _: None
    bad: BadVideos | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    begin: Callable[[], None] = lambda: None
    unmeasured: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Result:
    """What came of it.

    Attributes:
        position: Where the run ended, and what its last evaluation gave.
        bad: Why a video cannot be read, by its file, where those are skipped.
    """

    position: state.Position
    bad: Mapping[str, str] = field(default_factory=dict)


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
        TrainingError: The loss is not finite, or memory does not suffice.
        DeviceError: A GPU, or another process, failed.
        RecipeError: The batch cannot be divided among the processes, or the checkpoint is of a run
            with another recipe or other facts.
        OutputError: The run's folder cannot be written.
    """
    position, bad = state.Position(), run.bad or BadVideos(accelerator)
    with told(lambda: f"step {position.step}"):
        engine = Engine(run.recipe, run.streams, run.clips, accelerator)
        if resume is not None:
            position = _resume(run, engine, resume)
        if accelerator.is_main_process:
            run.begin()
        journal = Journal(run.folder, position) if accelerator.is_main_process else None
        loaded = _load(run, accelerator, position)
        try:
            while not _finished(run, position):
                engine.begin_epoch(position.epoch)
                _train_epoch(run, engine, position, journal, loaded, bad)
                if _evaluation_is_due(run, position):
                    _evaluate(run, engine, position, journal)
                _save(run, engine, position)
            with engine.averaged() as network:
                if run.unmeasured():
                    run.evaluate(network)
                if accelerator.is_main_process:
                    run.keep("last", engine.streams, position.metrics)
        finally:
            if journal is not None:
                journal.close()
    return Result(position, bad.found)


def _resume(run: Run, engine: Engine, path: Path) -> state.Position:
    """Go back to a checkpoint; the main process reads it for all, whichever machine they are on."""
    main = engine.accelerator.is_main_process
    read = shared(state.load(path) if main else None, engine.accelerator)
    assert read is not None  # noqa: S101 - the main process has read it
    position, content = read
    for key, value in _fixed(run).items():
        if content["fixed"].get(key) != value:
            raise RecipeError(
                f"{path}: the run has {key} {content['fixed'].get(key)} and cannot go on with "
                f"{value}; give the run's own, or begin another run"
            )
    engine.load_state_dict(content)
    return position


def _fixed(run: Run) -> dict[str, Any]:
    """Return what must stay as it is for a run to go on as if it had not been stopped."""
    return {
        "streams": sorted(run.streams.networks),
        **fixed_keys(run.recipe),
        "classes": list(run.clips.classes),
        "training clips": len(run.clips.labels),
        **run.facts,
    }


def _finished(run: Run, position: state.Position) -> bool:
    loop = run.recipe.loop
    waited = position.epoch - position.best_epoch
    stopped = loop.early_stop is not None and position.evaluated >= 0 and waited >= loop.early_stop
    return position.epoch >= loop.epochs or _enough(run, position) or stopped


def _enough(run: Run, position: state.Position) -> bool:
    most = run.recipe.loop.max_steps
    return most is not None and position.step >= most


def _evaluation_is_due(run: Run, position: state.Position) -> bool:
    whole = position.batch == 0 and position.epoch % run.recipe.evaluation.every == 0
    return whole or _finished(run, position)


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
    world = accelerator.num_processes
    smallest = min(loop.batch_size, len(run.clips.labels)) // world
    if not smallest:
        raise RecipeError(
            f"there are {len(run.clips.labels)} training clips for {world} processes; expected at "
            "least one for each: start fewer processes"
        )
    return load(
        run.clips,
        left,
        device=accelerator.device,
        rank=accelerator.process_index,
        world=world,
        parts=min(loop.accumulate, smallest),
        workers=loop.workers,
        channels_last=loop.channels_last,
    )


def _train_epoch(
    run: Run,
    engine: Engine,
    position: state.Position,
    journal: Journal | None,
    loaded: Iterator[list[Batch]],
    bad: BadVideos,
) -> None:
    """Go through the batches of an epoch that have not been done yet."""
    recipe, loop = run.recipe, run.recipe.loop
    batches = _batches(run, position.epoch)
    while position.batch < len(batches):
        started = time.perf_counter()
        parts = next(loaded)
        ready = time.perf_counter()
        for one in (one for part in parts for one in part.bad):
            bad.meet(one)
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
            steps = {"step": position.step, "steps_an_epoch": len(batches)}
            run.watch({"kind": "step", **steps, **line})
        if loop.save_every and position.step % loop.save_every == 0:
            _save(run, engine, position)
        if _enough(run, position):
            break
    bad.gather()
    if position.batch == len(batches):
        position.epoch += 1
        position.batch = 0


def _evaluate(run: Run, engine: Engine, position: state.Position, journal: Journal | None) -> None:
    """Evaluate, keep the best, and let the plateau schedule see the loss."""
    done: float = position.epoch
    if position.batch:
        done = round(done + position.batch / len(_batches(run, position.epoch)), 4)
    with engine.averaged() as network:
        metrics = run.evaluate(network)
        position.metrics, position.evaluated = metrics, position.step
        if metrics["top1"] > position.best:
            position.best = metrics["top1"]
            position.best_epoch, position.best_step = done, position.step
            if engine.accelerator.is_main_process:
                run.keep("best", engine.streams, metrics)
    schedule = run.recipe.schedule
    if metrics["loss"] < position.lowest_loss:
        position.lowest_loss, position.lowest_epoch = metrics["loss"], position.epoch
    elif schedule.kind == "plateau" and position.epoch - position.lowest_epoch > schedule.patience:
        position.plateau *= schedule.decay
        position.lowest_epoch = position.epoch
    if journal is not None:
        line = {"val_loss" if k == "loss" else k: v for k, v in metrics.items()}
        journal.write("epoch", position.step, epoch=done, **line)
        run.watch({"kind": "epoch", "step": position.step, "epoch": done, **line})


def _save(run: Run, engine: Engine, position: state.Position) -> None:
    if engine.accelerator.is_main_process:
        content = {**engine.state_dict(), "fixed": _fixed(run)}
        state.save(run.folder, position, content)
    engine.accelerator.wait_for_everyone()
