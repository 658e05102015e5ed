"""Replace the classification head of a checkpoint."""

import dataclasses
from typing import Literal

import numpy as np

from i3dzoo.arrays import Array, Tensors
from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.checkpoints.convert import add_operation, num_classes
from i3dzoo.checkpoints.history import HistoryStep
from i3dzoo.checkpoints.label_map import LabelMatch, match_labels
from i3dzoo.errors import MappingError, MetadataError, ShapeError
from i3dzoo.network.architecture import FEATURES, HEAD, HEAD_BIAS, HEAD_WEIGHT
from i3dzoo.text import listing

Head = Literal["fresh", "zeros", "keep", "drop", "match"]


def fresh_weight(classes: int, seed: int) -> Array:
    """Return random weights for a head: float32 [classes, 1024, 1, 1, 1].

    They are normal with standard deviation 1 / sqrt(1024), truncated at two deviations, as in
    DeepMind's Sonnet for a convolution with 1024 inputs. Source: sonnet/python/modules/conv.py,
    `create_weight_initializer`.
    """
    generator = np.random.default_rng(seed)
    values = generator.standard_normal(classes * FEATURES)
    while (outside := np.abs(values) > 2).any():
        values[outside] = generator.standard_normal(np.count_nonzero(outside))
    weight: Array = values.astype("f4") / np.float32(np.sqrt(FEATURES))
    return weight.reshape(classes, FEATURES, 1, 1, 1)


def replace_head(
    tensors: Tensors, classes: int, head: Literal["fresh", "zeros", "drop"] = "fresh", seed: int = 0
) -> Tensors:
    """Return the tensors with a head for `classes` classes; the other arrays are the same objects.

    `fresh` uses random weights (see `fresh_weight`) and zero biases, `zeros` uses zeros for both,
    `drop` removes the head.
    """
    result = {name: array for name, array in tensors.items() if not name.startswith(HEAD)}
    if head == "drop":
        return result
    dtype = next(iter(result.values())).dtype
    if head == "fresh":
        result[HEAD_WEIGHT] = fresh_weight(classes, seed).astype(dtype)
    else:
        result[HEAD_WEIGHT] = np.zeros((classes, FEATURES, 1, 1, 1), dtype)
    result[HEAD_BIAS] = np.zeros(classes, dtype)
    return result


def match_head(tensors: Tensors, match: LabelMatch, seed: int = 0) -> Tensors:
    """Return the tensors with a head that reuses the rows of matching old classes.

    A class with one old class gets its exact row. A class with several gets the mean of their rows,
    so its logit is the mean of their logits. A class with none gets the fresh row of
    `replace_head`.
    """
    result = dict(replace_head(tensors, len(match.new), "fresh", seed))
    for name in (HEAD_WEIGHT, HEAD_BIAS):
        old = tensors[name]
        new: Array = result[name].copy()
        for row, sources in enumerate(match.rows):
            if len(sources) == 1:
                new[row] = old[sources[0]]
            elif sources:
                new[row] = old[list(sources)].mean(axis=0, dtype="f4").astype(old.dtype)
        result[name] = new
    return result


def match_head_labels(checkpoint: Checkpoint, labels: tuple[str, ...] | None) -> LabelMatch:
    """Match new classes with those of a checkpoint's head; at least one must match."""
    old = checkpoint.metadata.labels
    if not old:
        raise MetadataError(
            f"the {checkpoint.metadata.num_classes} classes of the old head have no names to "
            "match; pass --head fresh, or convert a zoo model, whose classes have names"
        )
    if not labels:
        raise MetadataError("the new classes have no names to match; pass --labels with them")
    match = match_labels(old, labels)
    if not match.carried:
        raise MappingError(
            f"none of the {len(labels)} new classes ({listing(labels, 1)}) matches one of the "
            f"{len(old)} old classes ({listing(old, 1)}); pass --head fresh"
        )
    return match


def change_head(
    checkpoint: Checkpoint,
    classes: int | None,
    labels: tuple[str, ...] | None = None,
    head: Head | None = None,
    seed: int = 0,
) -> Checkpoint:
    """Return a checkpoint with another head, and the change in its history.

    Examples:
        >>> import i3dzoo
        >>> checkpoint = i3dzoo.open_checkpoint("mine.safetensors")
        >>> i3dzoo.change_head(checkpoint, None, ["run", "jump", "fall"]).metadata.num_classes
        3

    Args:
        checkpoint: The checkpoint to change.
        classes: Number of classes of the new head; None means the number of labels, or else the
            current number.
        labels: Names of the classes; None removes the old names unless the head is kept.
        head: `fresh`, `zeros` and `drop` as in `replace_head`, `match` as in `match_head`; `keep`
            keeps the head, which must have this number of classes. None keeps the head if the
            number of classes is the same and makes a fresh one if not.
        seed: Seed of fresh rows.

    Raises:
        ShapeError: `keep`, and the head has another number of classes; or the number of labels is
            not the number of classes; or there is no class.
        MetadataError: `match`, and the old or new classes have no names; or None, and the classes
            of the head have other names.
        MappingError: `match`, and no class matches.
    """
    old = checkpoint.metadata
    if classes is not None and classes < 1:
        raise ShapeError(f"expected a head of at least one class, found {classes}")
    labels = tuple(labels) if labels else None
    count = classes or (len(labels) if labels else old.num_classes)
    if labels and len(labels) != count:
        raise ShapeError(f"expected {count} labels, one a class, found {len(labels)}")
    how: Head = head or ("keep" if count == old.num_classes else "fresh")
    if how == "keep":
        if head is None and labels and old.labels not in (None, labels):
            raise MetadataError(
                f"the {count} classes of the head have other names ({listing(old.labels, 1)}); "
                "pass --head keep to rename them, --head match to reuse the rows of the same "
                "classes, or --head fresh"
            )
        return _keep_head(checkpoint, count, labels)
    if not count and how != "drop":
        raise ShapeError("the checkpoint has no head; pass --num-classes or --labels")
    match = None
    if how == "match":
        match = match_head_labels(checkpoint, labels)
        tensors = match_head(checkpoint.tensors, match, seed)
    else:
        tensors = replace_head(checkpoint.tensors, count, how, seed)
    step = HistoryStep(
        operation="head",
        base_model=old.origin,
        head=how,
        classes=count if how != "drop" else None,
        carried=len(match.carried) if match else None,
        label_map=match.label_map if match else None,
        seed=seed if how in ("fresh", "match") else None,
    )
    labels = labels if how != "drop" else None
    classes = num_classes(tensors)
    metadata = old.changed(step, num_classes=classes, labels=labels, multi_label=False)
    operation = f"head {how}"
    conversion = add_operation(checkpoint.conversion, tensors, operation, replaced=match is None)
    return dataclasses.replace(
        checkpoint, tensors=tensors, metadata=metadata, conversion=conversion
    )


def _keep_head(checkpoint: Checkpoint, classes: int, labels: tuple[str, ...] | None) -> Checkpoint:
    metadata = checkpoint.metadata
    if metadata.num_classes != classes:
        raise ShapeError(
            f"expected a head of {classes} classes, found {metadata.num_classes}; pass --head "
            "fresh for a new head"
        )
    new = labels or metadata.labels
    if metadata.labels not in (None, new):
        step = HistoryStep(operation="rename", base_model=metadata.origin, classes=classes)
        metadata = metadata.changed(step)
    return dataclasses.replace(checkpoint, metadata=metadata.replace(labels=new))
