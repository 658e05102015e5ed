"""What `i3dzoo info` shows of a network beyond its description: its cost, and its tensors."""

import contextlib
import re
from typing import Any

import click
from rich.table import Table

from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.checkpoints.metadata import Input, Stream
from i3dzoo.cli._console import cell, show_table
from i3dzoo.cli.progress import megabytes
from i3dzoo.errors import ShapeError
from i3dzoo.network.architecture import Variant
from i3dzoo.network.cost import Cost, Size, cost
from i3dzoo.zoo.statistics import TensorStatistics, tensor_statistics


class SizeType(click.ParamType[Size]):
    """The size of a clip: frames, height and width."""

    name = "TxHxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Size:
        """Return three numbers."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d{1,5})x(\d{1,5})x(\d{1,5})", value)
        if match is None:
            self.fail(
                f"{value!r}: expected frames, height and width, such as 64x224x224", param, ctx
            )
        frames, height, width = map(int, match.groups())
        return frames, height, width


def network_cost(
    stream: Stream, num_classes: int, spec: Input, variant: Variant, size: Size | None
) -> Cost | None:
    """Return the cost of a clip of this size, or of the size that the description names.

    None if the description names a size that the network does not take.
    """
    channels = 2 if stream == "flow" else 3
    if size is not None:
        return cost(size, num_classes, channels, variant)
    with contextlib.suppress(ShapeError):
        return cost((spec.frames, spec.crop, spec.crop), num_classes, channels, variant)
    return None


def cost_lines(total: Cost | None) -> list[tuple[str, str]]:
    """Return the lines of the cost."""
    if total is None:
        return []
    trunk = total.parameters - total.head_parameters
    head = f" and {total.head_parameters:,} of the head" if total.head_parameters else ""
    clip = "x".join(map(str, total.size))
    adds = f"{total.multiply_adds / 1e9:.1f} G multiply-adds, each counted as two"
    weights, alive = megabytes(total.weight_bytes), megabytes(total.activation_bytes)
    lines = [
        ("parameters", f"{total.parameters / 1e6:.1f} M: {trunk:,} of the trunk{head}"),
        ("cost", f"{total.flop / 1e9:.1f} GFLOP for a clip of {clip} ({adds})"),
        ("memory", f"{weights} of weights, and at least {alive} for such a clip, in float32"),
    ]
    width = max(map(len, total.endpoints))
    for number, (name, shape) in enumerate(total.endpoints.items()):
        text = f"{name:<{width}}  {'x'.join(map(str, shape))}"
        lines.append(("" if number else "endpoints", text))
    return lines


def statistics_of(checkpoint: Checkpoint) -> list[TensorStatistics]:
    """Return the statistics of each tensor of a checkpoint."""
    return list(tensor_statistics(checkpoint.tensors))


def show_tensors(rows: list[TensorStatistics]) -> None:
    """Print a table with a line for each tensor."""
    table = Table(box=None, pad_edge=False)
    for heading in ("tensor", "shape", "dtype", "min", "max", "mean", "std", "crc32c"):
        justify: Any = "right" if heading in ("min", "max", "mean", "std") else "left"
        table.add_column(heading, justify=justify, no_wrap=True)
    for row in rows:
        numbers = (f"{number:.5g}" for number in (row.min, row.max, row.mean, row.std))
        shape = "x".join(map(str, row.shape))
        table.add_row(*map(cell, (row.name, shape, row.dtype, *numbers, row.crc32c)))
    show_table(table)
