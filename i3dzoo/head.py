"""Head surgery: a checkpoint in, a checkpoint with another head out."""

import dataclasses
from typing import Literal

import numpy as np

from i3dzoo.architecture import FEATURES, HEAD
from i3dzoo.arrays import Array, Tensors
from i3dzoo.checkpoint import Checkpoint
from i3dzoo.convert import continued, num_classes
from i3dzoo.errors import MappingError, MetadataError, ShapeError
from i3dzoo.matching import Matching, match_labels
from i3dzoo.metadata import Metadata

__all__ = ["Head", "change_head", "fresh_weight", "match_head", "matching_of", "replace_head"]

Head = Literal["fresh", "zeros", "keep", "drop", "match"]

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


def replace_head(
    tensors: Tensors, classes: int, head: Literal["fresh", "zeros", "drop"] = "fresh", seed: int = 0
) -> Tensors:
    """Return the tensors with a head for `classes` classes; the trunk is the same arrays.

    Args:
        tensors: The canonical state dict, with a head or without.
        classes: Classes of the new head; with `drop` it is not used.
        head: `fresh` draws weights (see `fresh_weight`) and sets biases to zero, `zeros` sets both
            to zero, `drop` leaves none.
        seed: Of the fresh weights.
    """
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


def match_head(tensors: Tensors, matching: Matching, seed: int = 0) -> Tensors:
    """Return the tensors with a head whose rows come from the old head where they can.

    A class with one counterpart has its weights and bias to the bit; one with several has their
    mean, so that its logit is the mean of theirs; one with none has a fresh row, the same that
    `replace_head` would draw for it.

    Args:
        tensors: The canonical state dict, with a head of the matching's old classes.
        matching: From `match_labels`.
        seed: Of the fresh rows.
    """
    changed = dict(replace_head(tensors, len(matching.new), "fresh", seed))
    for name in (_WEIGHT, _BIAS):
        old = tensors[name]
        new: Array = changed[name].copy()
        for row, sources in enumerate(matching.rows):
            if len(sources) == 1:
                new[row] = old[sources[0]]
            elif sources:
                new[row] = old[list(sources)].mean(axis=0, dtype="f4").astype(old.dtype)
        changed[name] = new
    return changed


def matching_of(checkpoint: Checkpoint, labels: tuple[str, ...] | None) -> Matching:
    """Return where the rows of a head for `labels` would come from.

    Raises:
        MetadataError: The old head's classes or the new ones have no names.
        MappingError: They have no class in common.
    """
    old = checkpoint.metadata.labels
    if not old:
        raise MetadataError(
            f"the {checkpoint.metadata.num_classes or 'absent'} classes of the old head have no "
            "names, so none can be matched; pass --head fresh, or convert a zoo model, which has"
        )
    if not labels:
        raise MetadataError("the new classes have no names to match; pass --labels with them")
    matching = match_labels(old, labels)
    if not matching.carried:
        raise MappingError(
            f"none of the {len(labels)} new classes ({labels[0]}, …) is one of the {len(old)} old "
            f"ones ({old[0]}, …); pass --head fresh"
        )
    return matching


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
        classes: Classes of the new head; None takes as many as there are labels, or classes now.
        labels: Their names; None forgets the old ones, unless the head is kept.
        head: `fresh`, `zeros` and `drop` as in `replace_head`, `match` as in `match_head`; `keep`
            demands a head of so many classes and keeps it. None keeps a head of as many classes,
            unless it knows them by other names, and makes a fresh one where the number changes.
        seed: Of fresh rows.

    Raises:
        ShapeError: `keep`, and the head has another number of classes; or there are not as many
            labels as classes, or none.
        MetadataError: `match`, and one side has no names of classes; or None, and the head's
            classes have other names.
        MappingError: `match`, and the two have no class in common.
    """
    old = checkpoint.metadata
    if classes is not None and classes < 1:
        raise ShapeError(f"a head of {classes} classes was asked for; expected at least one")
    labels = tuple(labels) if labels else None
    count = classes or (len(labels) if labels else old.num_classes)
    how: Head = head or ("keep" if count == old.num_classes else "fresh")
    if labels and len(labels) != count:
        raise ShapeError(f"there are {len(labels)} labels for {count} classes")
    if how == "keep":
        if head is None and labels and old.labels not in (None, labels):
            raise MetadataError(
                f"the head knows its {count} classes by other names ({old.labels[0]}, …); pass "
                "--head keep to rename them, --head match to carry rows over by name, or fresh"
            )
        return _kept(checkpoint, count, labels)
    if not count and how != "drop":
        raise ShapeError("there is no head whose classes could be counted; pass --num-classes")
    if how == "match":
        matching = matching_of(checkpoint, labels)
        tensors = match_head(checkpoint.tensors, matching, seed)
        by = f" by {matching.table}" if matching.table else " by name"
        detail = (
            f" for {count} classes: {len(matching.carried)} rows carried over{by}, "
            f"{len(matching.fresh)} fresh, seed {seed}"
        )
    else:
        tensors = replace_head(checkpoint.tensors, count, how, seed)
        made = {"fresh": f" for {count} classes, seed {seed}", "zeros": f" for {count} classes"}
        detail = made.get(how, "")
    base = old.zoo or old.base
    metadata = dataclasses.replace(
        old,
        num_classes=num_classes(tensors),
        labels=labels if how != "drop" else None,
        zoo=None,
        base=base,
        history=(*old.history, f"head {how}{detail}" + (f", on {base}" if base else "")),
    )
    conversion = continued(checkpoint.conversion, tensors, f"head {how}", replaced=how != "match")
    return dataclasses.replace(
        checkpoint, tensors=tensors, metadata=metadata, conversion=conversion
    )


def _kept(checkpoint: Checkpoint, classes: int, labels: tuple[str, ...] | None) -> Checkpoint:
    """Return the checkpoint with its head as it is, under new names where some are given."""
    metadata = checkpoint.metadata
    if metadata.num_classes != classes:
        raise ShapeError(
            f"the head has {metadata.num_classes} classes; expected {classes}: "
            "pass --head fresh for a new one"
        )
    new = labels or metadata.labels
    if _known_labels(metadata) not in (None, new):
        base = metadata.zoo or metadata.base
        step = f"{classes} classes renamed"
        metadata = dataclasses.replace(
            metadata, zoo=None, base=base, history=(*metadata.history, step)
        )
    metadata = dataclasses.replace(metadata, labels=new)
    return dataclasses.replace(checkpoint, metadata=metadata)


def _known_labels(metadata: Metadata) -> tuple[str, ...] | None:
    """Return the names of the classes as they were published, or as they are."""
    from i3dzoo import zoo

    if metadata.zoo in zoo.names():
        return zoo.labels(zoo.manifest(str(metadata.zoo)).labels)
    return metadata.labels
