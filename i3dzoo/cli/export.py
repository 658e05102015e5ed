"""`i3dzoo export`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from i3dzoo.cli._console import (
    device_option,
    json_option,
    key_option,
    print_json,
    run_command,
    say,
    show,
)
from i3dzoo.cli._parameters import MODEL
from i3dzoo.cli.progress import show_progress

if TYPE_CHECKING:
    from i3dzoo.devices import Device
    from i3dzoo.exporters.job import Export, Target

_AXES = ("frames", "height", "width")  # of i3dzoo.onnx.options, which --help must not import
_LARGEST_EDGE = 8192  # larger frames are not decoded either
_PATH = click.Path(path_type=Path)
_EXISTING = click.Path(exists=True, path_type=Path)


def _axes(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    axes = _AXES if value == "all" else tuple(value.split(",")) if value else ()
    if not set(axes) <= set(_AXES):
        raise click.BadParameter(f"expected all, or some of {','.join(_AXES)}", ctx, param)
    return axes


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    width, _, height = value.partition("x")
    if not all(edge.isdecimal() and 1 <= int(edge) <= _LARGEST_EDGE for edge in (width, height)):
        raise click.BadParameter(
            f"expected WIDTHxHEIGHT, such as 320x240, each at most {_LARGEST_EDGE}", ctx, param
        )
    return int(height), int(width)


@click.command()
@click.argument("words", metavar="[MODEL | KEY=VALUE...]", nargs=-1, type=MODEL)
@click.option("-e", "--spec", type=_PATH, help="TAO spec that defines the export instead.")
@click.option(
    "--to",
    type=click.Choice(["onnx", "tensorrt", "tao", "torchscript", "pt2"]),
    help="Format to export to; pt2 is torch.export.",
)
@click.option("-o", "--output", "path", type=_PATH, help="The file to write.")
@click.option("--flow", metavar="MODEL", help="Flow network to fuse with MODEL: logits are added.")
@click.option("--frames", type=click.IntRange(min=9), help="Frames of a clip.  [default: MODEL's]")
@click.option("--crop", type=click.IntRange(min=16), help="Edge of a clip.  [default: MODEL's]")
@click.option(
    "--dynamic",
    metavar="AXES",
    callback=_axes,
    help="Axes of any size: frames, height, width, or all. The batch always has any size.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "tf32", "fp16", "bf16"]),
    default="fp32",
    show_default=True,
    help="Precision of weights and computation; tf32 is for TensorRT only. Inputs and outputs "
    "stay float32.",
)
@click.option(
    "--opset",
    type=click.IntRange(min=13),
    help="Version of the ONNX operator set.  [default: 13; 22 with bf16]",
)
@click.option("--keep-bn", is_flag=True, help="Keep BatchNorm as nodes instead of folding it.")
@click.option("--features", is_flag=True, help="Add the pooled features as an output.")
@click.option("--steps", is_flag=True, help="Add the logits of each time step, for timelines.")
@click.option(
    "--pixels",
    metavar="WxH",
    callback=_size,
    help="Take uint8 frames of this size; the graph resizes, crops and scales them.",
)
@click.option("--clip", type=_EXISTING, help="Video to compare on.  [default: noise]")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, help="Seed of the noise.  [default: 0]"
)
@click.option("--atol", type=float, help="Largest difference from PyTorch that passes, in logits.")
@click.option(
    "--shapes",
    metavar="MIN,OPT,MAX",
    help="TensorRT: batch sizes such as 1,4,8, or clips such as 1x64x224x224,… (BxTxHxW).",
)
@click.option("--workspace", type=float, help="TensorRT: largest memory for building, in GiB.")
@click.option("--timing-cache", type=_PATH, help="TensorRT: file of kernel timings to reuse.")
@click.option(
    "--compatible",
    type=click.Choice(["gpus", "versions", "all"]),
    help="TensorRT: make the engine run on all GPUs from Ampere on, with later versions of "
    "TensorRT, or both.",
)
@click.option("--refittable", is_flag=True, help="TensorRT: allow replacing the weights later.")
@click.option(
    "--refit",
    metavar="ENGINE",
    type=_PATH,
    help="TensorRT: copy this refittable engine with MODEL's weights, without building.",
)
@click.option(
    "--deepstream", type=_PATH, metavar="DIR", help="ONNX: write DeepStream's files into DIR, too."
)
@device_option
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@key_option("words")
@json_option
def command(
    words: tuple[str, ...],
    spec: Path | None,
    deepstream: Path | None,
    device: "Device",
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Export MODEL, a zoo name or a file, to another engine or framework.

    The file is written only after its output was compared with PyTorch's, at two batch sizes and,
    if axes are dynamic, at two clip sizes. With -e, a TAO spec is exported to ONNX instead, and
    KEY=VALUE replaces keys of the spec.

    \b
    Examples:
      i3dzoo export rgb_scratch --to onnx -o i3d.onnx
      i3dzoo export mine.safetensors --to onnx -o any.onnx --dynamic all --clip clip.mp4
      i3dzoo export rgb.safetensors --flow flow.safetensors --to onnx -o joint.onnx
      i3dzoo export rgb_scratch --to tensorrt -o i3d.engine --precision fp16 --shapes 1,8,8
      i3dzoo export mine.safetensors --to tensorrt -o new.engine --refit i3d.engine
      i3dzoo export mine.safetensors --to tao -o mine.pt
      i3dzoo export mine.safetensors --to onnx -o mine.onnx --deepstream deepstream/
      i3dzoo export -e export_rgb.yaml export.checkpoint=best.safetensors
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    with show_progress() as progress:
        if spec is not None:
            _check_no_options(options)
            from i3dzoo.tao.inference import export_spec

            result = export_spec(spec, words, device=device, force=force, progress=progress)
        else:
            result = _export(
                words, deepstream, device=device, force=force, progress=progress, **options
            )
    if deepstream is not None:
        from i3dzoo.exporters.deepstream import write_deepstream

        for path in write_deepstream(deepstream, result, force=force):
            say(f"DeepStream: {path}")
    if not as_json:
        _print(result)
        return
    print_json(
        {
            "path": str(result.path),
            "target": result.target,
            "bytes": result.path.stat().st_size,
            "nodes": result.nodes,
            "parity": result.parity.to_dict() if result.parity else None,
            "remarks": result.remarks,
        }
    )


def _export(
    words: tuple[str, ...],
    deepstream: Path | None,
    *,
    path: Path | None,
    to: "Target | None",
    **options: Any,
) -> "Export":
    if len(words) != 1 or to is None or path is None:
        raise click.UsageError(
            "expected one MODEL, --to and -o; or a TAO spec with -e, and KEY=VALUE for its keys"
        )
    if deepstream is not None and to != "onnx":
        raise click.UsageError("--deepstream applies to --to onnx; DeepStream builds the engine")
    from i3dzoo.exporters.export import export

    return export(words[0], path, to, **options)


def _check_no_options(options: dict[str, Any]) -> None:
    """Refuse options beside a spec, whose section `export` defines them."""
    source = click.get_current_context().get_parameter_source
    given = [name for name in options if source(name) is ParameterSource.COMMANDLINE]
    if given:
        flag = "--output" if given[0] == "path" else f"--{given[0].replace('_', '-')}"
        raise click.UsageError(
            f"{flag} cannot be used with -e, because the spec defines the export; replace the key "
            "of the spec with KEY=VALUE"
        )


def _print(result: "Export") -> None:
    if result.parity is not None:
        say(f"{result.parity.runner} compared with PyTorch on {result.parity.clip}:")
        for case in result.parity.cases:
            say(f"  {case}")
    for remark in result.remarks:
        say(remark)
    size = f"{result.path.stat().st_size / 1e6:.1f} MB"
    say(f"{result.path}: {size}" + (f", {result.nodes} nodes" if result.nodes else ""))
    if result.target == "tao":
        from i3dzoo.exporters.tao import tao_spec

        say("\nLines for a TAO 5 spec (TAO 4 has model_config for model, and so on):\n")
        say(tao_spec(result.path, result.metadata))
        say()
    if result.target == "onnx" and result.takes_clips:
        from i3dzoo.exporters.deepstream import trtexec_command

        say(f"TensorRT engine: {trtexec_command(result)}")
    where = "" if result.runs_here else " (on a machine with a GPU that runs it)"
    say(f"Next{where}: {_next_step(result)}")
    show(result.path)


def _next_step(result: "Export") -> str:
    """Return what the user can do with the file."""
    path = result.path
    of_target = {
        "tao": f"i3dzoo identify {shlex.quote(str(path))}",
        "torchscript": f'torch.jit.load("{path}") in any program with PyTorch',
        "pt2": f'torch.export.load("{path}").module() in any program with PyTorch',
    }
    if result.target in of_target:
        return of_target[result.target]
    if not result.takes_clips:
        return f"run {path} in your own program; docs/guides/export.md lists its inputs and outputs"
    return run_command(path, result.metadata.num_classes)
