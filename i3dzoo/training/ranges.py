"""Which numbers the keys of a recipe, or of a TAO spec, may hold."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from i3dzoo.architecture import MIN_FRAMES
from i3dzoo.errors import RecipeError

if TYPE_CHECKING:
    from i3dzoo.training.recipe import Recipe

__all__ = ["MOST_SEED", "RANGES", "Range", "check_range", "check_together"]

MOST_SEED = 2**32 - 1
"""The largest seed that every generator takes."""


@dataclass(frozen=True)
class Range:
    """A range of finite numbers.

    Attributes:
        low: The smallest.
        high: The largest.
        above: Whether `low` itself is left out.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False

    def __contains__(self, value: float) -> bool:
        enough = value > self.low if self.above else value >= self.low
        return enough and value <= self.high and math.isfinite(value)

    def __str__(self) -> str:
        if self.low == -math.inf:
            return "a finite number"
        if self.high == math.inf:
            return f"{'more than' if self.above else 'at least'} {self.low:g}"
        return f"{'more than ' if self.above else ''}{self.low}..{self.high}"


_PART = Range(0, 1)
_COUNT = Range(1)
_POSITIVE = Range(0, above=True)
_NOT_NEGATIVE = Range(0)

RANGES: dict[str, Range] = {
    "network.dropout": _PART,
    "network.unfreeze_epoch": _NOT_NEGATIVE,
    "network.ema": _PART,
    "augment.frames": Range(MIN_FRAMES),
    "augment.resize": _COUNT,
    "augment.crop": _COUNT,
    "augment.flip": _PART,
    "augment.mean": Range(),
    "augment.std": _POSITIVE,
    "augment.clips_per_video": _COUNT,
    "optim.lr": _POSITIVE,
    "optim.momentum": _PART,
    "optim.weight_decay": _NOT_NEGATIVE,
    "optim.head_lr_scale": _NOT_NEGATIVE,
    "optim.clip_grad_norm": _POSITIVE,
    "optim.label_smoothing": _PART,
    "schedule.steps": _NOT_NEGATIVE,
    "schedule.decay": _PART,
    "schedule.patience": _NOT_NEGATIVE,
    "schedule.min_lr": _NOT_NEGATIVE,
    "schedule.warmup_epochs": _NOT_NEGATIVE,
    "loop.epochs": _COUNT,
    "loop.max_steps": _COUNT,
    "loop.batch_size": _COUNT,
    "loop.accumulate": _COUNT,
    "loop.seed": Range(0, MOST_SEED),
    "loop.workers": _NOT_NEGATIVE,
    "loop.save_every": _COUNT,
    "loop.early_stop": _COUNT,
    "evaluation.every": _COUNT,
    "evaluation.batch_size": _COUNT,
}
"""Of each key of a recipe that holds numbers."""


def check_range(where: str, key: str, value: Any, span: Range) -> None:
    """Make sure that a number, or each of several, is within its range; other values may be any.

    Args:
        where: The file, for the message.
        key: The key, for the message.
        value: Of the key's type.
        span: The range.

    Raises:
        RecipeError: A number is out of it.
    """
    for number in value if isinstance(value, tuple) else (value,):
        is_number = isinstance(number, int | float) and not isinstance(number, bool)
        if is_number and number not in span:
            raise RecipeError(f"{where}: {key} is {number}; expected {span}")


def check_together(where: str, recipe: "Recipe") -> None:
    """Check what is of no one range: lists of channels, a rate in words, and momenta.

    Raises:
        RecipeError: A value cannot be, or cannot be beside another.
    """
    augment, optim = recipe.augment, recipe.optim
    for key, values in (("mean", augment.mean), ("std", augment.std)):
        if values == ():
            raise RecipeError(f"{where}: augment.{key} is []; expected a number for each channel")
    if augment.fps not in ("checkpoint", "native") and not _is_rate(augment.fps):
        raise RecipeError(
            f"{where}: augment.fps is {augment.fps!r}; expected 'checkpoint', 'native' or a number "
            "more than 0"
        )
    if optim.kind == "sgd" and optim.nesterov and not optim.momentum:
        raise RecipeError(
            f"{where}: optim.momentum is 0, and optim.nesterov is true; expected a momentum more "
            "than 0 with it"
        )


def _is_rate(text: str) -> bool:
    try:
        return float(text) in _POSITIVE
    except ValueError:
        return False
