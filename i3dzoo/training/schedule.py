"""Learning rates, accumulation and seeds, as pure functions of seed, epoch and step.

Nothing here has state, so a resumed run continues as an uninterrupted run.
"""

import math

import numpy as np

from i3dzoo.training.recipe import Schedule


def accumulation(batch_size: int, world_size: int, max_clips: int) -> int | None:
    """Return into how few parts of at most `max_clips` a process can cut its share of a batch.

    The result divides the share; None if no clip fits, or the processes cannot share the batch.
    """
    share, rest = divmod(batch_size, world_size)
    if rest or max_clips < 1:
        return None
    return next(n for n in range(1, share + 1) if share % n == 0 and share // n <= max_clips)


def step_seed(seed: int, step: int, rank: int) -> int:
    """Return the seed of one step on one device, for dropout."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1)


def learning_rate_factor(
    schedule: Schedule, epoch: float, epochs: float, lr: float, plateau: float = 1.0
) -> float:
    """Return the factor of the learning rate `lr` after `epoch` of all `epochs`.

    `plateau` is the product of the reductions of the `plateau` schedule so far.
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
        # not zero, so that the first step changes the weights
        factor *= max(epoch / schedule.warmup_epochs, 1e-3)
    return factor
