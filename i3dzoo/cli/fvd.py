"""`i3dzoo fvd`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from i3dzoo.cli._console import (
    decoder_option,
    device_option,
    json_option,
    print_json,
    say,
    show,
)
from i3dzoo.cli._parameters import FVD_PROTOCOL, MODEL
from i3dzoo.cli.progress import show_progress

if TYPE_CHECKING:
    from i3dzoo.devices import Device
    from i3dzoo.fvd import Embedder, FVDResult, Protocol
    from i3dzoo.fvd.video_sets import Layout, ValueRange
    from i3dzoo.onnx.options import Precision
    from i3dzoo.video.pipeline import DecoderName

_positive = click.IntRange(min=1)
_path = click.Path(path_type=Path)


class _Lengths(click.ParamType):  # type: ignore[type-arg] # older clicks are not generic
    """Numbers of frames: 10,16 or 10-30."""

    name = "lengths"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Return the numbers."""
        if isinstance(value, tuple):
            return value
        numbers: list[int] = []
        for part in str(value).split(","):
            first, _, last = part.partition("-")
            if not (first.isdigit() and (last or first).isdigit()) or len(part) > 9:
                self.fail(
                    f"{part!r} is not a number of frames or a range such as 10-30", param, ctx
                )
            numbers += range(int(first), int(last or first) + 1)
        return tuple(numbers)


@click.command()
@click.argument("real", required=False)
@click.argument("fake", required=False)
@click.option(
    "--protocol",
    type=FVD_PROTOCOL,
    metavar="PROTOCOL",
    default="tf",
    show_default=True,
    help="tf (the definition), styleganv, common, videogpt, cdfvd, or a TOML file of your own.",
)
@click.option("--frames", type=click.IntRange(min=9), help="Frames of a clip.  [default: 16]")
@click.option("--every", type=_positive, help="Take every n-th frame.  [default: 1]")
@click.option(
    "--offset",
    type=click.Choice(["start", "center", "random"]),
    help="Where in a video the clip starts.  [default: the protocol's]",
)
@click.option("--clips-per-video", type=_positive, help="Clips of each video.  [default: 1]")
@click.option(
    "--short-videos",
    type=click.Choice(["error", "skip"]),
    help="What to do with a video shorter than a clip.  [default: the protocol's]",
)
@click.option("--videos", type=_positive, help="Videos of each set.  [default: the protocol's]")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of random choices.  [default: 0]")
@click.option(
    "--range",
    "value_range",
    type=click.Choice(["0..1", "-1..1", "0..255"]),
    help="Value range of arrays of floats.  [default: detected]",
)
@click.option(
    "--layout",
    type=click.Choice(["NTHWC", "NCTHW", "NTCHW"]),
    help="Order of the axes of an array.  [default: detected by the axis of length 3]",
)
@click.option("--stats", type=_path, help="File of REAL's statistics, to write or to reuse.")
@click.option(
    "--lengths", type=_Lengths(), default=(), help="Further clip lengths, such as 10,12 or 10-30."
)
@click.option(
    "--bootstrap",
    "rounds",
    type=_positive,
    help="Number of bootstrap rounds, for a 95% confidence interval.",
)
@click.option("--plot", type=_path, help="Draw the features and FVD against N (PNG, PDF, SVG).")
@click.option(
    "--model",
    type=MODEL,
    default="rgb_scratch",
    metavar="MODEL",
    show_default=True,
    help="The network.",
)
@click.option(
    "--batch-size",
    type=_positive,
    default=8,
    show_default=True,
    help="Number of clips in a batch.",
)
@click.option("--selftest", "run_selftest", is_flag=True, help="Recompute published values.")
@device_option
@click.option(
    "--precision",
    type=click.Choice(["fp32", "tf32", "bf16", "fp16"]),
    default="fp32",
    show_default=True,
    help="Precision of the network. FVD is defined in fp32; on an H100, tf32 and fp16 were up to "
    "0.06% off, and bf16 0.5%.",
)
@decoder_option
@click.option("--force", is_flag=True, help="Replace the plot if it exists.")
@json_option
def command(
    real: str | None,
    fake: str | None,
    protocol: str,
    value_range: "ValueRange | None",
    layout: "Layout | None",
    stats: Path | None,
    lengths: tuple[int, ...],
    rounds: int | None,
    plot: Path | None,
    model: str,
    batch_size: int,
    run_selftest: bool,
    device: "Device",
    precision: "Precision",
    decoder: "DecoderName",
    force: bool,
    as_json: bool,
    **sampling: Any,
) -> None:
    """Compute the Fréchet Video Distance (FVD) of two sets of videos.

    REAL and FAKE are folders of videos or of folders of images; .npy or .npz arrays of videos,
    uint8 or floats [N, T, H, W, 3] or [N, 3, T, H, W], or of features [N, 400]; or statistics that
    --stats has saved. The two sets can differ in size. Each video is used once, at its own frame
    rate.

    \b
    Examples:
      i3dzoo fvd real/ fake/
      i3dzoo fvd real/ fake.npy --protocol styleganv --stats real.safetensors
      i3dzoo fvd real/ fake/ --frames 30 --lengths 10-29 --bootstrap 200 --plot fvd.png
      i3dzoo fvd --selftest
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    if run_selftest == (fake is not None) or (run_selftest and real is not None):
        raise click.UsageError("name two sets of videos, REAL and FAKE, or pass --selftest alone")
    if plot is not None:
        from i3dzoo.report.canvas import check_plot

        check_plot(plot, force)
    from i3dzoo.distributed import ProcessGroup, destroy_process_group, is_main_process
    from i3dzoo.fvd import Embedder, compute_fvd, load_protocol
    from i3dzoo.progress import SILENT

    with show_progress() as progress:

        def load() -> Embedder:
            shown = progress if is_main_process() else SILENT
            return Embedder.load(model, device, batch_size, shown, precision, decoder)

        if run_selftest:
            sys.exit(_selftest(load(), progress, as_json) if is_main_process() else 0)
        changes = {name: value for name, value in sampling.items() if value is not None}
        result = compute_fvd(
            real,
            fake,
            load_protocol(protocol).replace(**changes),
            embedder=load,
            stats=stats,
            lengths=lengths,
            rounds=rounds or 0,
            layout=layout,
            value_range=value_range,
            progress=progress,
            processes=ProcessGroup.join(device),
        )
    destroy_process_group()
    if not is_main_process():
        return
    for remark in (*result.notes, *(f"warning: {text}" for text in result.warnings)):
        say(remark)
    if as_json:
        print_json(_document(result, protocol))
    else:
        _print(result, protocol)
    if plot is not None:
        from i3dzoo.report.fvd_plots import plot_fvd

        plot_fvd(result, plot, force)
        if not as_json:
            show(plot)


def _selftest(embedder: "Embedder", progress: Any, as_json: bool) -> int:
    """Print the published values beside those of this machine; return the exit code."""
    from i3dzoo.fvd.selftest import TOLERANCE, selftest

    checks = []
    for check in selftest(embedder, progress):
        checks.append(check)
        if not as_json:
            verdict = "pass" if check.passed else "FAIL"
            show(
                f"{verdict}  {check.name}: published {check.expected:.6g}, here {check.found:.6g}, "
                f"relative error {check.error:.1e}"
            )
    passed = all(check.passed for check in checks)
    if as_json:
        print_json(
            {
                "passed": passed,
                "tolerance": TOLERANCE,
                "weights": embedder.digest,
                "checks": [
                    {
                        "name": check.name,
                        "expected": check.expected,
                        "found": check.found,
                        "passed": check.passed,
                    }
                    for check in checks
                ],
            }
        )
    return 0 if passed else 1


def _print(result: "FVDResult", name: str) -> None:
    show(f"FVD {result.fvd:.6g}")
    if result.interval is not None:
        interval = result.interval
        show(
            f"  95% confidence interval {interval.low:.6g} to {interval.high:.6g}, bootstrap of "
            f"{interval.rounds} rounds"
        )
    if result.infinite is not None:
        line = result.infinite
        show(
            f"  for infinitely many videos {line.fvd:.6g}, fitted from {line.counts[0]} to "
            f"{line.counts[-1]} (R2 {line.r2:.3f})"
        )
    if result.kvd is not None:
        show(f"KVD {result.kvd:.6g}")
    if len(result.lengths) > 1:
        for frames, fvd in result.lengths.items():
            show(f"  {frames} frames: FVD {fvd:.6g}")
    show(f"{result.real.count} real and {result.fake.count} fake clips")
    show(f"protocol {name}: {result.protocol.title}; {_sampled(result.protocol)}")
    if result.weights is not None:
        show(f"weights sha256:{result.weights}")


def _sampled(protocol: "Protocol") -> str:
    every = f", every {protocol.every}th" if protocol.every > 1 else ""
    clips = f", {protocol.clips_per_video} clips a video" if protocol.clips_per_video > 1 else ""
    seed = f", seed {protocol.seed}" if protocol.offset == "random" or protocol.videos else ""
    return f"{protocol.frames} frames{every}, offset {protocol.offset}{clips}{seed}"


def _document(result: "FVDResult", name: str) -> dict[str, Any]:
    interval, line = result.interval, result.infinite
    return {
        "fvd": result.fvd,
        "interval": interval
        and {"low": interval.low, "high": interval.high, "rounds": interval.rounds},
        "infinite": line
        and {
            "fvd": line.fvd,
            "slope": line.slope,
            "r2": line.r2,
            "counts": list(line.counts),
            "values": list(line.values),
        },
        "kvd": result.kvd,
        "lengths": {str(frames): fvd for frames, fvd in result.lengths.items()},
        "real": result.real.count,
        "fake": result.fake.count,
        "protocol": {"name": name, **result.protocol.to_dict()},
        "weights": result.weights,
        "precision": result.precision,
        "notes": list(result.notes),
        "warnings": list(result.warnings),
    }
