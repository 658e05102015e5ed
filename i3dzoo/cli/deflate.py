"""`i3dzoo deflate`."""

import shlex
from pathlib import Path

import click

from i3dzoo.checkpoints.inflation import layouts, write_deflated
from i3dzoo.cli._console import json_option, key_option, print_json, say, show, suggest
from i3dzoo.cli._parameters import MODEL
from i3dzoo.cli.progress import find_model
from i3dzoo.fetch.find import open_checkpoint


@click.command()
@click.argument("model", type=MODEL)
@click.argument("target", metavar="DST", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "layout",
    type=click.Choice(layouts()),
    default="torchvision",
    show_default=True,
    help="Layout of DST.",
)
@click.option("--force", is_flag=True, help="Replace DST if it exists.")
@key_option("model")
@json_option
def command(model: str, target: Path, layout: str, force: bool, as_json: bool) -> None:
    """Sum the kernels of an I3D network over time, which gives a 2D Inception-v1.

    For an image, the 2D network returns what MODEL returns for a clip of that image repeated.
    Deflating an inflated network gives back the original, up to rounding.

    \b
    Examples:
      i3dzoo deflate imagenet.safetensors googlenet.pth
      i3dzoo deflate rgb_scratch inception_v1.ckpt.index --to tf-slim
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    checkpoint = open_checkpoint(find_model(model))
    written = write_deflated(target, checkpoint, layout, force)
    metadata = checkpoint.metadata
    say(
        f"The layout {layout} has no description: a program that loads it needs "
        f"{metadata.variant}; {metadata.input}"
    )
    suggest(f"i3dzoo inflate {shlex.quote(str(written))} FILE.safetensors")
    if as_json:
        path = click.format_filename(written)
        print_json({"path": path, "layout": layout, "metadata": metadata.to_dict()})
    else:
        show(written)
