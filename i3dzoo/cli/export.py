"""`i3dzoo export`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from i3dzoo.cli._console import json_option, print_json, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from i3dzoo.checkpoint import Checkpoint
    from i3dzoo.export.options import ExportOptions, Precision
    from i3dzoo.export.rounding import Rounding
    from i3dzoo.export.targets import Export
    from i3dzoo.metadata import Input

_TENSORRT = ("shapes", "workspace", "timing_cache", "compatible", "refittable")
_AXES = ("frames", "height", "width")  # of i3dzoo.export.options, which the help must not import

_LARGEST = 8192  # edge of a frame; larger ones are not decoded either


def _axes(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    if not value:
        return ()
    if value == "all":
        return _AXES
    axes = tuple(value.split(","))
    if not set(axes) <= set(_AXES):
        raise click.BadParameter(f"expected all, or some of {','.join(_AXES)}", ctx, param)
    return axes


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    width, _, height = value.partition("x")
    if not all(edge.isdecimal() and 1 <= int(edge) <= _LARGEST for edge in (width, height)):
        raise click.BadParameter(
            f"expected WIDTHxHEIGHT, such as 320x240, each {_LARGEST} at most", ctx, param
        )
    return int(height), int(width)


def _gibibytes(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value <= 1 << 20:  # also where it is not a number
        raise click.BadParameter("expected GiB, such as 4", ctx, param)
    return value


@click.command()
@click.argument("model")
@click.option(
    "--to",
    "target",
    required=True,
    type=click.Choice(["onnx", "tensorrt", "tao", "torchscript", "pt2"]),
)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path))
@click.option("--flow", metavar="MODEL", help="Fuse MODEL with this one: logits are added. ONNX.")
@click.option("--frames", type=click.IntRange(min=9), help="Frames of a clip.  [default: MODEL's]")
@click.option("--crop", type=click.IntRange(min=16), help="Edge of a clip.  [default: MODEL's]")
@click.option(
    "--dynamic",
    metavar="AXES",
    callback=_axes,
    help="Leave open: frames, height, width, or all; the batch always is.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "tf32", "fp16", "bf16", "int8"]),
    default="fp32",
    show_default=True,
    help="Of weights and computation; tf32 is TensorRT's. Inputs and outputs stay float32.",
)
@click.option(
    "--calibrate",
    metavar="PATH",
    multiple=True,
    type=click.Path(path_type=Path),
    help="int8: a video or a folder of videos to round by; kept as FILE.calibration.json.",
)
@click.option("--opset", type=click.IntRange(min=13), help="Of ONNX.  [default: 13; 22 with bf16]")
@click.option("--keep-bn", is_flag=True, help="Keep BatchNorm as nodes instead of folding it.")
@click.option("--features", is_flag=True, help="Give the pooled features as an output, too.")
@click.option("--steps", is_flag=True, help="Give the logits of each step, too, for timelines.")
@click.option(
    "--pixels",
    metavar="WxH",
    callback=_size,
    help="Take uint8 frames of this size; resizing and scaling become part of the graph.",
)
@click.option(
    "--clip", type=click.Path(exists=True, path_type=Path), help="A video to prove it on."
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of the noise to prove it on.",
)
@click.option("--atol", type=float, help="Largest difference from PyTorch that passes, in logits.")
@click.option(
    "--shapes",
    metavar="MIN,OPT,MAX",
    help="TensorRT: batches such as 1,4,8, or clips such as 1x64x224x224,… (BxTxHxW).",
)
@click.option(
    "--workspace",
    type=float,
    callback=_gibibytes,
    help="TensorRT: the most memory to build in, in GiB.",
)
@click.option(
    "--timing-cache", type=click.Path(path_type=Path), help="TensorRT: kept between builds."
)
@click.option(
    "--compatible",
    type=click.Choice(["gpus", "versions", "all"]),
    help="TensorRT: for GPUs from Ampere on, for later versions, or both.",
)
@click.option("--refittable", is_flag=True, help="TensorRT: weights can be replaced later.")
@click.option(
    "--refit",
    metavar="ENGINE",
    type=click.Path(path_type=Path),
    help="TensorRT: take this refittable engine and replace its weights, without building.",
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@json_option
def command(model: str, target: str, output: Path, flow: str | None, **options: Any) -> None:
    """Write MODEL (a zoo name or a file) for another engine.

    The file takes its name only after its output was compared with PyTorch's, at two batch sizes
    and, where axes are dynamic, at two sizes.

    \b
    Examples:
      i3dzoo export rgb_scratch --to onnx -o i3d.onnx
      i3dzoo export mine.safetensors --to onnx -o any.onnx --dynamic all --clip clip.mp4
      i3dzoo export rgb.safetensors --flow flow.safetensors --to onnx -o joint.onnx
      i3dzoo export rgb_scratch --to tensorrt -o i3d.engine --precision fp16 --shapes 1,8,8
      i3dzoo export rgb_scratch --to tensorrt -o i8.engine --precision int8 --calibrate clips/
      i3dzoo export mine.safetensors --to tensorrt -o new.engine --refit i3d.engine
      i3dzoo export mine.safetensors --to tao -o mine.pt
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    from i3dzoo.export.options import ExportOptions

    checkpoints = [_read(each, options) for each in (model, flow) if each]
    precision: Precision = "fp32" if options["precision"] == "tf32" else options["precision"]
    if options["precision"] == "tf32" and target != "tensorrt":
        raise click.UsageError("tf32 is how TensorRT computes; export to tensorrt for it")
    chosen = ExportOptions(
        dynamic=options["dynamic"],
        keep_bn=options["keep_bn"],
        opset=(22 if precision == "bf16" else 13) if options["opset"] is None else options["opset"],
        precision=precision,
        features=options["features"],
        steps=options["steps"],
        pixels=options["pixels"],
    )
    made = _export(checkpoints, target, output, chosen, options)
    if options["as_json"]:
        print_json(_document(made))
        return
    _print(made, checkpoints)


def _read(name: str, options: dict[str, Any]) -> "Checkpoint":
    """Read a checkpoint, with the size of clip that was asked for."""
    from i3dzoo.checkpoint import read_checkpoint
    from i3dzoo.loading import find

    checkpoint = read_checkpoint(find(name))
    spec = checkpoint.metadata.input
    frames, crop = options["frames"] or spec.frames, options["crop"] or spec.crop
    # the field of view stays what it was
    resize = spec.resize and max(round(spec.resize * crop / spec.crop), crop)
    spec = dataclasses.replace(spec, frames=frames, crop=crop, resize=resize)
    metadata = dataclasses.replace(checkpoint.metadata, input=spec)
    return dataclasses.replace(checkpoint, metadata=metadata)


def _export(
    checkpoints: "list[Checkpoint]",
    target: str,
    output: Path,
    chosen: "ExportOptions",
    options: dict[str, Any],
) -> "Export":
    proof = {key: options[key] for key in ("clip", "seed", "atol", "force")}
    if options["refit"]:
        return _refit(checkpoints, target, output, options, proof)
    rounding = None
    if options["precision"] == "int8":
        _check_int8(checkpoints, target, output, options)
        proof["clip"] = _int8_clip(checkpoints[0].metadata.input, options)
        rounding = _rounding(checkpoints[0], output, options)
    else:
        _refuse("is for --precision int8", "calibrate")
    if target != "tensorrt":
        _refuse("is for --to tensorrt", *_TENSORRT)
        if target != "onnx":
            _refuse("is for --to onnx or tensorrt", "opset")
        if target == "tao":
            _refuse("is for networks that run; those for tao are read back", "clip", "seed", "atol")
        from i3dzoo.export.targets import export

        return export(checkpoints, target, output, chosen, rounding=rounding, **proof)
    from i3dzoo.export.engine_build import EngineOptions
    from i3dzoo.export.tensorrt import export_engine

    engine = EngineOptions(**{key: options[key] for key in ("precision", *_TENSORRT)})
    return export_engine(checkpoints, output, chosen, engine, rounding=rounding, say=say, **proof)


def _refuse(why: str, *keys: str) -> None:
    """Refuse options that were given, whatever their value."""
    source = click.get_current_context().get_parameter_source
    for key in keys:
        if source(key) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{key.replace('_', '-')} {why}")


def _refit(
    checkpoints: "list[Checkpoint]",
    target: str,
    output: Path,
    options: dict[str, Any],
    proof: dict[str, Any],
) -> "Export":
    if target != "tensorrt":
        raise click.UsageError("--refit is for --to tensorrt")
    keys = ("precision", "dynamic", "keep_bn", "opset", "features", "steps", "pixels", "calibrate")
    _refuse("is as the engine was built; leave it out with --refit", *_TENSORRT, *keys)
    from i3dzoo.export.refit import refit_export

    return refit_export(checkpoints, options["refit"], output, **proof)


def _check_int8(
    checkpoints: "list[Checkpoint]", target: str, output: Path, options: dict[str, Any]
) -> None:
    """Refuse, before clips are shown, what would be refused after."""
    if target not in ("onnx", "tensorrt") or len(checkpoints) > 1:
        raise click.UsageError("int8 is for one stream, to onnx or tensorrt")
    _refuse("does not go with int8, whose scales belong to its weights", "refittable")
    from i3dzoo.export.targets import check_path

    check_path(output, target, options["force"])


def _int8_clip(spec: "Input", options: dict[str, Any]) -> Path:
    """Return a video to compare on: int8 fits noise no better than it must."""
    from i3dzoo.export.calibrate import videos_in
    from i3dzoo.export.prove import probe_clip

    video: Path | None = options["clip"]
    if video is None:
        video = next(videos_in(options["calibrate"], spec.channels), None)
    if video is None:
        raise click.UsageError("int8 is compared with PyTorch on a real clip; pass --clip VIDEO")
    probe_clip(video, spec, options["pixels"])
    return video


def _rounding(
    checkpoint: "Checkpoint", output: Path, options: dict[str, Any]
) -> "Mapping[str, Rounding]":
    """Return how int8 rounds, from clips or from what an earlier export kept."""
    from i3dzoo.export.calibrate import calibrated

    kept = output.with_name(f"{output.name}.calibration.json")
    return calibrated(checkpoint, options["calibrate"], kept, say).units


def _document(made: "Export") -> dict[str, Any]:
    return {
        "path": str(made.path),
        "target": made.target,
        "bytes": made.path.stat().st_size,
        "nodes": made.nodes,
        "proof": made.proof.to_dict() if made.proof else None,
        "remarks": list(made.remarks),
    }


def _print(made: "Export", checkpoints: "list[Checkpoint]") -> None:
    if made.proof is not None:
        say(f"{made.proof.runner} against PyTorch, {made.proof.clip}:")
        for case in made.proof.cases:
            say(f"  {case}")
    for remark in made.remarks:
        say(remark)
    size = f"{made.path.stat().st_size / 1e6:.1f} MB"
    say(f"{made.path}: {size}" + (f", {made.nodes} nodes" if made.nodes else ""))
    if made.target == "tao":
        from i3dzoo.export import tao

        metadata = checkpoints[0].metadata
        say("\nFor a TAO spec (the same names as in TAO 5; TAO 4 calls them model_config, …):\n")
        say(tao.spec(made.path, metadata))
        say()
    following = {
        "tao": f"i3dzoo identify {made.path}",
        "torchscript": f'torch.jit.load("{made.path}") in any program with PyTorch',
        "pt2": f'torch.export.load("{made.path}").module() in any program with PyTorch',
    }
    where = "" if made.runs_here else ", beside a GPU that runs it"
    runs = f"i3dzoo predict VIDEO --model {made.path}"
    if not made.plain:
        runs = f"docs/export.md names what {made.path} takes and gives in a program of yours"
    elif not checkpoints[0].metadata.num_classes:
        runs = f"i3dzoo features VIDEO --model {made.path} -o FOLDER"
    then = following.get(made.target, runs)
    say(f"Next{where}: {then}")
    click.echo(made.path)
