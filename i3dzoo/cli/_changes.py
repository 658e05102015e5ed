"""The options of `i3dzoo convert` that change a checkpoint: stream, head and number format."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import click

from i3dzoo import zoo
from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.checkpoints.describe import describe_as, describe_labels
from i3dzoo.checkpoints.head import Head, change_head, match_head_labels
from i3dzoo.checkpoints.history import HistoryStep
from i3dzoo.checkpoints.labels import MULTI_LABEL_SETS, check_labels, find_labels
from i3dzoo.checkpoints.streams import change_dtype, change_stream
from i3dzoo.cli._console import say
from i3dzoo.cli._parameters import LABELS, PRESET

_OPTIONS = (
    click.option(
        "--input",
        "input_preset",
        metavar="PRESET",
        type=PRESET,
        help="Use the preprocessing and the network settings of the project that published the "
        "weights, such as bsl1k; see docs/reference/presets.md.",
    ),
    click.option(
        "--num-classes", type=click.IntRange(min=1), help="Number of classes of the new head."
    ),
    click.option(
        "--labels",
        metavar="SET|FILE",
        type=LABELS,
        help="Classes of the new head: a label set such as hmdb51 or ucf101, or a file of "
        "names (one per line, classInd.txt, CSV or JSON).",
    ),
    click.option(
        "--head",
        type=click.Choice(["fresh", "zeros", "keep", "drop", "match"]),
        help="How to make the head. match copies the rows of the classes that the old and the new "
        "labels share.  [default: fresh if the number of classes changes]",
    ),
    click.option(
        "--multi-label/--single-label",
        default=None,
        help="Whether a clip can have several classes at once, or has exactly one.",
    ),
    click.option("--seed", default=0, show_default=True, help="Seed of a fresh head."),
    click.option(
        "--in-channels",
        type=click.Choice(["2", "3"]),
        help="Make a network for flow (2) or RGB (3) by averaging the kernels of the first layer.",
    ),
    click.option(
        "--dtype",
        type=click.Choice(["float16", "bfloat16", "float32"]),
        help="Round the weights to this number format.",
    ),
)


def change_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that change a checkpoint to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True)
class Report:
    """What was changed.

    Attributes:
        history: The steps.
        carried: For each new class with rows of a matched head, the old classes.
        fresh: The classes whose rows are new.
    """

    history: tuple[HistoryStep, ...]
    carried: dict[str, list[str]] | None = None
    fresh: tuple[str, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        matched = {} if self.carried is None else {"carried": self.carried, "fresh": self.fresh}
        return {"history": [step.to_dict() for step in self.history], **matched}

    def print(self, *, brief: bool) -> None:
        """Print each step and, unless `brief`, where the rows of a matched head come from."""
        if not brief:
            for new, olds in (self.carried or {}).items():
                say(f"{new}  <-  {'mean of ' if len(olds) > 1 else ''}{', '.join(olds)}")
            if self.fresh:
                say(f"fresh: {', '.join(self.fresh)}")
        for step in self.history:
            say(str(step))


@dataclass(frozen=True)
class Changes:
    """The options, as click parsed them."""

    input_preset: str | None
    num_classes: int | None
    labels: str | None
    head: Head | Literal["match"] | None
    multi_label: bool | None
    seed: int
    in_channels: str | None
    dtype: Literal["float16", "bfloat16", "float32"] | None

    def apply(self, checkpoint: Checkpoint) -> tuple[Checkpoint, Report]:
        """Change a checkpoint: description, stream, head and number format, in this order."""
        before = len(checkpoint.metadata.history)
        if self.input_preset:
            checkpoint = describe_as(checkpoint, self.input_preset)
        if self.in_channels:
            checkpoint = change_stream(checkpoint, int(self.in_channels))
        checkpoint, carried, fresh = self._change_head(checkpoint)
        multi_label = self.multi_label
        if multi_label is None and self.labels in MULTI_LABEL_SETS:
            multi_label = True
        if multi_label is not None:
            checkpoint = describe_labels(checkpoint, multi_label)
        if self.dtype:
            checkpoint = change_dtype(checkpoint, self.dtype)
        return checkpoint, Report(checkpoint.metadata.history[before:], carried, fresh)

    def _change_head(
        self, checkpoint: Checkpoint
    ) -> tuple[Checkpoint, dict[str, list[str]] | None, tuple[str, ...] | None]:
        labels = find_labels(self.labels) if self.labels else None
        if labels and self.num_classes not in (None, len(labels)):
            raise click.UsageError(
                f"--labels has {len(labels)} names, but --num-classes is {self.num_classes}"
            )
        if self.head == "drop" and (labels or self.num_classes):
            raise click.UsageError(
                "--head drop removes all classes; omit --labels and --num-classes"
            )
        if labels is None and self.num_classes is None and self.head is None:
            return checkpoint, None, None
        if self.labels and labels and self.head == "keep":
            check_labels(self.labels, labels, checkpoint.metadata.num_classes)
        changed = change_head(checkpoint, self.num_classes, labels, self.head, self.seed)
        if self.head == "keep":
            changed = _without_wrong_claim(changed)
        if self.head != "match":
            return changed, None, None
        match = match_head_labels(checkpoint, labels)
        carried = {new: list(olds) for new, olds in match.carried.items()}
        return changed, carried, tuple(match.fresh)


def _without_wrong_claim(checkpoint: Checkpoint) -> Checkpoint:
    """Drop the zoo name of a checkpoint whose classes have other names than the published one."""
    metadata = checkpoint.metadata
    if metadata.zoo not in zoo.names():
        return checkpoint
    if metadata.labels == zoo.manifest(str(metadata.zoo)).class_names:
        return checkpoint
    step = HistoryStep(operation="rename", base_model=metadata.zoo, classes=metadata.num_classes)
    return replace(checkpoint, metadata=metadata.changed(step))
