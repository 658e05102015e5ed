"""Which clip comes when, at which learning rate: pure functions of seed, epoch and step.

Nothing here has a state, so a run that is resumed at a step goes on as if it had never stopped,
and any number of processes see the same batches.
"""

import math
from collections.abc import Sequence

import numpy as np

from i3dzoo.training.recipe import Schedule

__all__ = ["accumulation", "epoch_batches", "learning_rate_factor", "share", "step_seed"]


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Return the batches of one epoch, shuffled; an incomplete last one is left out.

    Where there are fewer than `batch_size` samples they make one batch.
    """
    order = np.random.default_rng([seed, epoch]).permutation(count).tolist()
    whole = max(count // batch_size, 1)
    return [order[i * batch_size : (i + 1) * batch_size] for i in range(whole)]


def accumulation(batch_size: int, world: int, most: int) -> int | None:
    """Return the fewest parts of a batch's share that have at most `most` clips each.

    Args:
        batch_size: Over all processes.
        world: How many these are.
        most: Clips that a device takes at once.

    Returns:
        A divisor of each process's share; None where nothing fits, or the batch cannot be divided
        among the processes.
    """
    own, rest = divmod(batch_size, world)
    if rest or most < 1:
        return None
    return next(parts for parts in range(1, own + 1) if own % parts == 0 and own // parts <= most)


def share(batch: Sequence[int], rank: int, world: int) -> list[int]:
    """Return what one of `world` processes takes of a batch: each item goes to just one."""
    return list(batch[rank::world])


def step_seed(seed: int, step: int, rank: int) -> int:
    """Return the seed of what is drawn in one step on one device, such as dropout."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1)


def learning_rate_factor(
    schedule: Schedule, epoch: float, epochs: float, lr: float, plateau: float = 1.0
) -> float:
    """Return what the learning rate is multiplied by.

    Args:
        schedule: Of the recipe.
        epoch: Where training is, in epochs, 0 at its start.
        epochs: Where it ends.
        lr: The recipe's learning rate, of which `min_lr` is a part.
        plateau: The factor that the plateaus so far have made.
    """
    lowest = schedule.min_lr / lr
    factor = 1.0
    if schedule.kind == "multistep":
        factor = schedule.decay ** sum(epoch >= step for step in schedule.steps)
    elif schedule.kind == "cosine":
        done = min(epoch / epochs, 1.0) if epochs else 1.0
        factor = lowest + (1 - lowest) * (1 + math.cos(math.pi * done)) / 2
    elif schedule.kind == "plateau":
        factor = max(plateau, min(lowest, 1.0))  # a floor above the rate does not raise it
    if epoch < schedule.warmup_epochs:
        # the first step is not of rate zero, so that it does something
        factor *= max(epoch / schedule.warmup_epochs, 1e-3)
    return factor
