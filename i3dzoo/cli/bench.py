"""`i3dzoo bench`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from i3dzoo.cli._console import json_option, print_json, say

if TYPE_CHECKING:
    from i3dzoo.bench import Job, Row

# of i3dzoo.bench
_ENGINES = ("torch", "torch-kernels", "torch-compiled", "onnxruntime", "openvino", "tensorrt")


@click.command()
@click.argument("model")
@click.option(
    "--engine",
    "engines",
    multiple=True,
    type=click.Choice(_ENGINES),
    help="Measure this one; several may be given.  [default: all that run here]",
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(["fp32", "fp16", "bf16"]),
    help="[default: fp32; all three beside a GPU]",
)
@click.option("--batch", "batches", multiple=True, type=click.IntRange(min=1), help="[default: 1]")
@click.option("--runs", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--frames", type=click.IntRange(min=9), help="Frames of a clip.  [default: MODEL's]")
@click.option("--crop", type=click.IntRange(min=16), help="Edge of a clip.  [default: MODEL's]")
@click.option("--threads", type=click.IntRange(min=1), help="On the processor.")
@click.option(
    "--plot", type=click.Path(path_type=Path), help="Draw clips a second (PNG, PDF, SVG)."
)
@click.option("--force", is_flag=True, help="Replace the plot if it exists.")
@json_option
def command(model: str, **options: Any) -> None:
    """Measure MODEL (a zoo name or a checkpoint) in every engine that this machine has.

    Times are from clips in memory to logits in memory; errors are against PyTorch in float32. What
    fails is said and the rest goes on.

    \b
    Examples:
      i3dzoo bench rgb_scratch
      i3dzoo bench mine.safetensors --batch 1 --batch 8 --plot bench.png
      i3dzoo bench rgb_scratch --engine torch --engine onnxruntime --threads 2 --json
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    from i3dzoo import bench
    from i3dzoo.errors import DeviceError

    if options["plot"] is not None:
        from i3dzoo.plot import check_plot

        check_plot(options["plot"], options["force"])
    rows = bench.measure(_jobs(model, options), _tell)
    if options["as_json"]:
        print_json({"model": model, "rows": [dataclasses.asdict(row) for row in rows]})
    if all(row.failure is not None for row in rows):
        raise DeviceError("no engine gave numbers; the lines above say why of each")
    if options["plot"] is not None:
        bench.draw(rows, options["plot"])
    if options["as_json"]:
        return
    _print(rows)
    say("Next: i3dzoo export MODEL --to onnx -o FILE writes a network for the fastest")
    if options["plot"] is not None:
        click.echo(options["plot"])


def _jobs(model: str, options: dict[str, Any]) -> "list[Job]":
    from i3dzoo.bench import Job, available
    from i3dzoo.errors import DeviceError
    from i3dzoo.export.cuda import gpu
    from i3dzoo.loading import find

    path = find(model)
    usual: tuple[str, ...] = ("fp32",)
    try:
        say(f"on {gpu()}")
        usual = ("fp32", "fp16", "bf16")
    except DeviceError:
        pass
    keys = ("runs", "frames", "crop", "threads")
    jobs = [
        Job(
            path,
            engine,
            precision,  # type: ignore[arg-type] # click checked the choices
            options["batches"] or (1,),
            **{key: options[key] for key in keys},
        )
        for engine in options["engines"] or available()
        for precision in options["precisions"] or usual
    ]
    first = ("torch", "fp32")  # what errors are against
    return sorted(jobs, key=lambda job: (job.engine, job.precision) != first)


def _tell(row: "Row") -> None:
    name = f"{row.engine} {row.precision} batch {row.batch}"
    say(f"{name}: {row.failure or f'{row.p50_ms:.1f} ms'}")


def _print(rows: "list[Row]") -> None:
    head = ("engine", "precision", "batch", "clips/s", "p50 ms", "p99 ms", "memory MB", "error")
    lines = [head, *(_cells(row) for row in rows if row.failure is None)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        left = [cell.ljust(width) for cell, width in zip(line[:2], widths[:2], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(line[2:], widths[2:], strict=True)]
        click.echo("  ".join([*left, *right]))


def _cells(row: "Row") -> tuple[str, ...]:
    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    return (
        row.engine,
        row.precision,
        str(row.batch),
        number(row.clips_per_second, ".3g"),
        number(row.p50_ms, ".1f"),
        number(row.p99_ms, ".1f"),
        number(row.memory_mb, ".0f"),
        number(row.error, ".1e"),
    )
