"""Describe the same weights otherwise: by a preset, or as single-label or multi-label."""

import dataclasses
from pathlib import Path

from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.checkpoints.history import HistoryStep
from i3dzoo.checkpoints.presets import load_preset
from i3dzoo.errors import OptionError


def describe_as(checkpoint: Checkpoint, name: str) -> Checkpoint:
    """Return a checkpoint with the input and the variant of a preset; tensors stay the same.

    The preset is one that ships, by name, or a TOML file. With another input or variant, the
    weights of a published checkpoint are no longer it.

    Raises:
        UnknownNameError: There is no preset and no file of this name.
        OptionError: The preset has no input for the stream.
    """
    chosen, old = load_preset(name), checkpoint.metadata
    if old.stream not in chosen.inputs:
        raise OptionError(
            f"--input {name}: describes {' and '.join(chosen.inputs)} networks, and this one is "
            f"{old.stream}; choose another preset"
        )
    fields = {"input": chosen.inputs[old.stream], "variant": chosen.variant}
    if old.replace(**fields) == old:
        return checkpoint
    step = HistoryStep(operation="describe", base_model=old.origin, preset=Path(name).stem)
    return dataclasses.replace(checkpoint, metadata=old.changed(step, **fields))


def describe_labels(checkpoint: Checkpoint, multi_label: bool) -> Checkpoint:
    """Return a checkpoint whose clips have several classes at once, or one; tensors stay the same.

    Raises:
        OptionError: There is no head.
    """
    old = checkpoint.metadata
    if not old.num_classes:
        raise OptionError(
            "--multi-label and --single-label: the network has no head; leave them out"
        )
    if old.multi_label == multi_label:
        return checkpoint
    step = HistoryStep(operation="describe", base_model=old.origin, multi_label=multi_label)
    return dataclasses.replace(checkpoint, metadata=old.changed(step, multi_label=multi_label))
