"""`i3dzoo pull`."""

from typing import TYPE_CHECKING

import click

from i3dzoo.cli._console import json_option, print_json, say

if TYPE_CHECKING:
    from i3dzoo.manifest import Manifest


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--offline", is_flag=True, help="Use the cache only; never touch the network.")
@click.option("--force", is_flag=True, help="Fetch again what is cached.")
@json_option
def command(names: tuple[str, ...], offline: bool, force: bool, as_json: bool) -> None:
    """Fetch published checkpoints, verify every tensor, and cache them as canonical files.

    What is cached and sound is not fetched again. A broken download goes on where it stopped when
    the command is run again. The cache is I3DZOO_CACHE, or where this system keeps caches. The
    paths of the files are printed on standard output.

    \b
    Examples:
      i3dzoo pull rgb_scratch
      i3dzoo pull rgb_imagenet flow_imagenet
      i3dzoo pull rgb_scratch --offline
      cp "$(i3dzoo pull rgb_scratch)" weights.safetensors
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    from i3dzoo import zoo
    from i3dzoo.cli._progress import megabytes, watch

    if offline and force:
        raise click.UsageError("--force fetches from the network, which --offline forbids")
    models = [zoo.manifest(name) for name in dict.fromkeys(names)]
    documents = []
    for model in models:
        with watch() as progress:
            path = zoo.pull(model.name, offline=offline, force=force, progress=progress)
        size = path.stat().st_size
        documents.append(
            {
                "name": model.name,
                "path": str(path),
                "size": size,
                "stream": model.stream,
                "num_classes": model.num_classes,
                "licence": model.licence,
                "tensors_verified": len(model.crc32c),
            }
        )
        say(
            f"{model.name}: {model.stream}, {model.num_classes} classes, {megabytes(size)}, "
            f"{model.licence}; {_verified(model)}"
        )
        if model.note:
            say(f"{model.name}: note: {model.note}")
        if not as_json:
            click.echo(str(path))
    if as_json:
        print_json(documents)
    say_next(models[-1].name, models[-1].stream)


def _verified(model: "Manifest") -> str:
    if model.crc32c:
        return f"all {len(model.crc32c)} published tensors verified"
    return "the digest of its file verified, which is all that was published"


def say_next(name: str, stream: str) -> None:
    """Say what can be done with a model now."""
    say("\nNow what:")
    if stream == "rgb":
        say(f"  i3dzoo predict clip.mp4 --model {name}")
    say(f"  i3dzoo info {name}")
    say(f"  i3dzoo convert {name} mine.safetensors --labels hmdb51")
