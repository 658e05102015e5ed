"""`i3dzoo bench`."""

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from i3dzoo.cli._console import device_option, json_option, print_json, say, show, suggest
from i3dzoo.cli._parameters import MODEL
from i3dzoo.cli.progress import find_model, show_progress

if TYPE_CHECKING:
    from i3dzoo.bench import Measurement
    from i3dzoo.devices import Device
    from i3dzoo.onnx.options import Precision

# `i3dzoo.bench.ENGINES`, which is not imported here because it imports numpy
_ENGINES = (
    *("torch", "torch-kernels", "torch-compiled", "fused"),
    *("onnxruntime", "openvino", "tensorrt"),
)

_COLUMNS = (
    ("engine", "engine", ""),
    ("precision", "precision", ""),
    ("batch", "batch", ""),
    ("clips/s", "clips_per_second", ".3g"),
    ("p50 ms", "p50_ms", ".1f"),
    ("p99 ms", "p99_ms", ".1f"),
    ("memory MB", "memory_mb", ".0f"),
    ("error", "error", ".1e"),
)  # heading, field of a measurement, and format

_positive = click.IntRange(min=1)


@click.command()
@click.argument("model", type=MODEL)
@click.option(
    "--engine",
    "engines",
    multiple=True,
    type=click.Choice(_ENGINES),
    help="Engine to measure; can be given several times.  [default: all that run here]",
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(["fp32", "tf32", "bf16", "fp16"]),
    help="Can be given several times.  [default: fp32; all but tf32 on a GPU]",
)
@click.option(
    "--batch",
    "batches",
    multiple=True,
    type=_positive,
    help="Batch size; can be given several times.  [default: 1]",
)
@click.option("--runs", type=_positive, default=5, help="Timed runs.  [default: 5]")
@click.option("--frames", type=click.IntRange(min=9), help="Frames of a clip.  [default: MODEL's]")
@click.option("--crop", type=click.IntRange(min=16), help="Edge of a clip.  [default: MODEL's]")
@click.option("--threads", type=_positive, help="Number of CPU threads.")
@device_option
@click.option(
    "--plot", type=click.Path(path_type=Path), help="Draw clips per second (PNG, PDF, SVG)."
)
@click.option("--force", is_flag=True, help="Replace the plot if it exists.")
@json_option
def command(
    model: str,
    engines: tuple[str, ...],
    precisions: "tuple[Precision, ...]",
    batches: tuple[int, ...],
    device: "Device",
    plot: Path | None,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure MODEL (a zoo name or a checkpoint) on every engine of this machine.

    Times are from clips in memory to logits in memory; errors are differences from PyTorch in
    float32. An engine that fails does not stop the others.

    \b
    Examples:
      i3dzoo bench rgb_scratch
      i3dzoo bench mine.safetensors --batch 1 --batch 8 --plot bench.png
      i3dzoo bench rgb_scratch --engine torch --engine onnxruntime --threads 2 --json
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    from i3dzoo.bench import Benchmark, available_engines, measure
    from i3dzoo.errors import DeviceError

    if plot is not None:
        from i3dzoo.report.canvas import check_plot

        check_plot(plot, force)
    available = available_engines(device)
    path = find_model(model)
    precisions = precisions or _default_precisions(device)
    benchmarks = [
        Benchmark(path, engine, precision, batches or (1,), device=device, **options)
        for engine in engines or available
        for precision in precisions
    ]
    # errors are differences from PyTorch in float32, which comes first
    benchmarks.sort(key=lambda item: (item.engine, item.precision) != ("torch", "fp32"))
    measurements = []
    with show_progress() as progress:
        progress.start("measurements", len(benchmarks) * len(batches or (1,)), "items")
        for row in measure(benchmarks):
            measurements.append(row)
            result = row.failure or f"{row.p50_ms:.1f} ms"
            progress.message(f"{row.engine} {row.precision} batch {row.batch}: {result}")
            progress.update(len(measurements))
    if as_json:
        print_json({"model": model, "rows": [dataclasses.asdict(row) for row in measurements]})
    if all(row.failure is not None for row in measurements):
        raise DeviceError("every engine failed; the lines above have the reasons")
    if plot is not None:
        from i3dzoo.report.plots import plot_benchmark

        plot_benchmark(measurements, plot, force=force)
    if not as_json:
        _print(measurements)
        name = shlex.quote(str(model))
        suggest(f"i3dzoo export {name} --to onnx -o FILE, for onnxruntime and OpenVINO")
        if plot is not None:
            show(plot)


def _default_precisions(device: "Device") -> "tuple[Precision, ...]":
    from i3dzoo.devices import choose_device
    from i3dzoo.engines.tensorrt_library import gpu

    if choose_device(device).type != "cuda":
        return ("fp32",)
    say(f"GPU: {gpu()}")
    return ("fp32", "fp16", "bf16")


def _print(measurements: "Sequence[Measurement]") -> None:
    lines = [tuple(heading for heading, _, _ in _COLUMNS)]
    for row in measurements:
        if row.failure is None:
            values = [(getattr(row, name), form) for _, name, form in _COLUMNS]
            lines.append(tuple("-" if v is None else format(v, form) for v, form in values))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        cells[:2] = [cell.ljust(width) for cell, width in zip(line[:2], widths[:2], strict=True)]
        show("  ".join(cells))
