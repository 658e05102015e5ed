"""The options of `i3dzoo convert` that change a checkpoint on its way."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from i3dzoo.cli._console import say

if TYPE_CHECKING:
    from i3dzoo.checkpoint import Checkpoint

__all__ = ["operate", "say_surgery", "surgery_options"]

_OPTIONS = (
    click.option("--num-classes", type=click.IntRange(min=1), help="Give it a head for N classes."),
    click.option(
        "--labels",
        metavar="SET|FILE",
        help="Give it a head for these classes: a label set such as hmdb51 or ucf101, or a file "
        "with one label a line.",
    ),
    click.option(
        "--head",
        type=click.Choice(["fresh", "zeros", "keep", "drop", "match"]),
        help="How the head is made; fresh where the number of classes changes. match carries over "
        "the rows of classes that old and new labels share.",
    ),
    click.option("--seed", default=0, show_default=True, help="Of a fresh head."),
    click.option(
        "--in-channels",
        type=click.Choice(["2", "3"]),
        help="Make it a network for flow (2) or RGB (3), by averaging its first kernels.",
    ),
    click.option(
        "--dtype",
        type=click.Choice(["float16", "bfloat16", "float32"]),
        help="Round the weights to this number format.",
    ),
)


def surgery_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of surgery to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def operate(
    checkpoint: "Checkpoint", options: dict[str, Any]
) -> "tuple[Checkpoint, dict[str, Any]]":
    """Apply the options: stream, then head, then number format.

    Returns:
        The changed checkpoint, and for the report what was done: `history` has the steps, and with
        a matched head `carried` and `fresh` its classes.
    """
    from i3dzoo.surgery import change_dtype, change_stream

    before = checkpoint.metadata.history
    if options["in_channels"]:
        checkpoint = change_stream(checkpoint, int(options["in_channels"]))
    checkpoint, report = _change_head(checkpoint, options)
    if options["dtype"]:
        checkpoint = change_dtype(checkpoint, options["dtype"])
    steps = checkpoint.metadata.history[len(before) :]
    return checkpoint, {"history": list(steps), **report}


def say_surgery(report: dict[str, Any], brief: bool) -> None:
    """Say what was done, step by step, and unless `brief` where a matched head is from."""
    if not brief:
        for new, olds in report.get("carried", {}).items():
            say(f"{new}  <-  {'mean of ' if len(olds) > 1 else ''}{', '.join(olds)}")
        if report.get("fresh"):
            say(f"fresh: {', '.join(report['fresh'])}")
    for step in report["history"]:
        say(step)


def _change_head(
    checkpoint: "Checkpoint", options: dict[str, Any]
) -> "tuple[Checkpoint, dict[str, Any]]":
    from i3dzoo.head import change_head, matching_of
    from i3dzoo.labels import find_labels

    labels = find_labels(options["labels"]) if options["labels"] else None
    classes, head = options["num_classes"], options["head"]
    if labels and classes not in (None, len(labels)):
        raise click.UsageError(f"--labels has {len(labels)} names, --num-classes is {classes}")
    if head == "drop" and (labels or classes):
        raise click.UsageError("--head drop leaves no classes; leave out --labels, --num-classes")
    if labels is None and classes is None and head is None:
        return checkpoint, {}
    changed = change_head(checkpoint, classes, labels, head, options["seed"])
    if head != "match":
        return changed, {}
    matching = matching_of(checkpoint, labels)
    carried = {new: list(olds) for new, olds in matching.carried.items()}
    return changed, {"carried": carried, "fresh": list(matching.fresh)}
