"""`i3dzoo inflate`."""

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import click

from i3dzoo.checkpoints.checkpoint import write_checkpoint
from i3dzoo.checkpoints.inflation import inflate
from i3dzoo.cli._console import json_option, key_option, print_json, say, show, suggest
from i3dzoo.cli._parameters import MODEL, PRESET
from i3dzoo.files import check_output


@click.command()
@click.argument("source", metavar="SRC", type=MODEL)
@click.argument("target", metavar="DST", type=click.Path(path_type=Path))
@click.option(
    "--method",
    type=click.Choice(["average", "center"]),
    default="average",
    show_default=True,
    help="Repeat each kernel along time, divided by its length, as in the paper; or put it into "
    "the middle frame, between zeros.",
)
@click.option(
    "--in-channels",
    type=click.Choice(["2", "3"]),
    help="Make a network for flow (2) by averaging the kernels of the first layer over the "
    "colours.",
)
@click.option(
    "--input",
    "input_preset",
    metavar="PRESET",
    type=PRESET,
    help="Describe the input and the network by this preset: torchvision-no-transform for a "
    "network without transform_input, deepmind for I3D's own padding and pooling; see "
    "docs/guides/inflation.md.  [default: the project of SRC]",
)
@click.option(
    "--converter",
    type=click.Path(path_type=Path),
    help="Read SRC with a converter table of your own.",
)
@click.option(
    "--ignore",
    metavar="NAMES",
    multiple=True,
    help="Skip tensors that are not part of the layout, such as 'extra.*'. Can be repeated.",
)
@click.option("--force", is_flag=True, help="Replace DST if it exists.")
@key_option("source")
@json_option
def command(
    source: str,
    target: Path,
    method: Any,
    in_channels: str | None,
    input_preset: str | None,
    converter: Path | None,
    ignore: tuple[str, ...],
    force: bool,
    as_json: bool,
) -> None:
    """Inflate a 2D Inception-v1 (GoogLeNet) SRC, such as one trained on ImageNet, to I3D.

    SRC is a state dict of torchvision's GoogLeNet, or a checkpoint of TF-slim's Inception-v1. DST
    is a canonical file (.safetensors) for `finetune --from`. BatchNorm and the head stay as they
    are; auxiliary heads are left out.

    \b
    Examples:
      i3dzoo inflate googlenet-1378be20.pth imagenet.safetensors
      i3dzoo inflate googlenet-1378be20.pth imagenet_flow.safetensors --in-channels 2
      i3dzoo inflate inception_v1.ckpt imagenet.safetensors --method center
      i3dzoo inflate mine.pth mine.safetensors --input torchvision-no-transform
      i3dzoo finetune hmdb51 --data data/hmdb51 --from imagenet.safetensors
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    if target.suffix != ".safetensors":
        raise click.UsageError(
            f"DST is {target}; expected a .safetensors file, which stores the description; i3dzoo "
            "convert makes other layouts from it"
        )
    check_output(target, force)
    channels = int(in_channels) if in_channels else None
    checkpoint = inflate(
        source, method, channels, input_preset=input_preset, table=converter, ignore=ignore
    )
    metadata, conversion = checkpoint.metadata, checkpoint.conversion
    assert conversion is not None  # noqa: S101 - it was read from a file
    for step in metadata.history:
        say(str(step))
    for mapped in conversion.ignored:
        if not mapped.source.endswith("num_batches_tracked"):
            say(f"{mapped.source}  ignored: {mapped.operation}")
    say(f"Described by: {metadata.variant}; {metadata.input}")
    write_checkpoint(target, checkpoint, "canonical", force)
    if as_json:
        print_json(
            {
                "source": source,
                "target": str(target),
                "metadata": metadata.to_dict(),
                "tensors": [dataclasses.asdict(mapped) for mapped in conversion.mapping],
                "ignored": [dataclasses.asdict(mapped) for mapped in conversion.ignored],
            }
        )
        return
    suggest(f"i3dzoo finetune hmdb51 --data FOLDER --from {shlex.quote(str(target))}")
    show(target)
