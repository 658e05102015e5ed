"""Head surgery: canonical tensors in, canonical tensors with another head out."""

import dataclasses
from typing import Literal

import numpy as np

from i3dzoo.architecture import FEATURES, HEAD
from i3dzoo.arrays import Array, Tensors
from i3dzoo.checkpoint import Checkpoint
from i3dzoo.convert import num_classes
from i3dzoo.errors import ShapeError

__all__ = ["Head", "change_head", "replace_head"]

Head = Literal["fresh", "zeros", "keep", "drop"]

_WEIGHT = f"{HEAD}.conv.weight"
_BIAS = f"{HEAD}.conv.bias"


def fresh_weight(classes: int, seed: int) -> Array:
    """Draw a head's weight: float32 [classes, 1024, 1, 1, 1].

    Normal with standard deviation 1 / sqrt(1024), drawn anew beyond two deviations: what DeepMind's
    Sonnet gives a convolution of 1024 inputs. Source: sonnet/python/modules/conv.py,
    `create_weight_initializer`.
    """
    generator = np.random.default_rng(seed)
    values = generator.standard_normal(classes * FEATURES)
    while (far := np.abs(values) > 2).any():
        values[far] = generator.standard_normal(np.count_nonzero(far))
    weight: Array = values.astype("f4") / np.float32(np.sqrt(FEATURES))
    return weight.reshape(classes, FEATURES, 1, 1, 1)


def replace_head(tensors: Tensors, classes: int, head: Head = "fresh", seed: int = 0) -> Tensors:
    """Return the tensors with a head for `classes` classes; the trunk is the same arrays.

    Args:
        tensors: The canonical state dict, with a head or without.
        classes: Classes of the new head; with `drop` it is not used.
        head: `fresh` draws weights (see `fresh_weight`) and sets biases to zero, `zeros` sets both
            to zero, `keep` demands a head of `classes` classes and keeps it, `drop` leaves none.
        seed: Of the fresh weights.

    Raises:
        ShapeError: `keep`, and the head has another number of classes.
    """
    if head == "keep":
        found = num_classes(tensors)
        if found != classes:
            raise ShapeError(
                f"the head has {found} classes; expected {classes}: pass --head fresh for a new one"
            )
        return tensors
    changed = {name: array for name, array in tensors.items() if not name.startswith(HEAD)}
    if head == "drop":
        return changed
    dtype = next(iter(changed.values())).dtype
    if head == "fresh":
        changed[_WEIGHT] = fresh_weight(classes, seed).astype(dtype)
    else:
        changed[_WEIGHT] = np.zeros((classes, FEATURES, 1, 1, 1), dtype)
    changed[_BIAS] = np.zeros(classes, dtype)
    return changed


def change_head(
    checkpoint: Checkpoint,
    classes: int | None,
    labels: tuple[str, ...] | None = None,
    head: Head | None = None,
    seed: int = 0,
) -> Checkpoint:
    """Return a checkpoint with another head, recorded in its history.

    Args:
        checkpoint: What to change.
        classes: Classes of the new head; None takes as many as there are.
        labels: Their names; None forgets the old ones, unless the head is kept.
        head: As in `replace_head`; None keeps a head that fits and makes a fresh one otherwise.
        seed: Of a fresh head.

    Raises:
        ShapeError: `keep`, and the head has another number of classes.
    """
    old = checkpoint.metadata
    count = old.num_classes if classes is None else classes
    how: Head = head or ("keep" if count == old.num_classes else "fresh")
    tensors = replace_head(checkpoint.tensors, count, how, seed)
    detail = {"fresh": f" for {count} classes, seed {seed}", "zeros": f" for {count} classes"}
    origin = f" on the trunk of {old.zoo}" if old.zoo else ""
    kept = how == "keep"
    metadata = dataclasses.replace(
        old,
        num_classes=num_classes(tensors),
        labels=(labels or old.labels) if kept else (labels if how != "drop" else None),
        zoo=old.zoo if kept else None,
        history=old.history if kept else (*old.history, f"head {how}{detail.get(how, '')}{origin}"),
    )
    return dataclasses.replace(checkpoint, tensors=tensors, metadata=metadata)
