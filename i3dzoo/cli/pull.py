"""`i3dzoo pull`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from i3dzoo.cli._console import json_option, print_json, say

if TYPE_CHECKING:
    from i3dzoo.manifest import Manifest
    from i3dzoo.progress import Progress


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--offline", is_flag=True, help="Use the cache only; never touch the network.")
@click.option("--force", is_flag=True, help="Fetch again what is cached.")
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    help="Take this copy of a zoo model's file instead of fetching one.",
)
@click.option("--verify", is_flag=True, help="Hash a repository's cached files again.")
@click.option("--all", "everything", is_flag=True, help="A repository's pictures and ONNX too.")
@json_option
def command(names: tuple[str, ...], as_json: bool, file: Path | None, **options: bool) -> None:
    """Fetch published checkpoints, verify every tensor, and cache them as canonical files.

    A NAME is one of `i3dzoo list`, or a repository on the Hugging Face Hub: USER/NAME,
    USER/NAME@REVISION or hf://USER/NAME/FILE. Every file of a repository is compared with its
    sha256 before it is used; it stays in the Hub's own cache.

    What is cached and sound is not fetched again. A download that breaks goes on where it stopped;
    that of a zoo model also when the command was killed and is run again. The cache is
    I3DZOO_CACHE, or where this system keeps caches. The paths of the files are printed on standard
    output.

    \b
    Examples:
      i3dzoo pull rgb_scratch
      i3dzoo pull rgb_imagenet flow_imagenet
      i3dzoo pull rgb_scratch --offline
      i3dzoo pull rgb_imagenet --file rgb_imagenet.pt
      i3dzoo pull USER/i3d-hmdb51@v1
      cp "$(i3dzoo pull rgb_scratch)" weights.safetensors
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    from i3dzoo import hub, zoo
    from i3dzoo.cli._progress import watch

    if options["offline"] and options["force"]:
        raise click.UsageError("--force fetches from the network, which --offline forbids")
    unique = list(dict.fromkeys(names))
    if file and (len(unique) > 1 or unique[0] not in zoo.names()):
        raise click.UsageError("--file is a copy of one zoo model, and NAME says of which")
    for name in unique:
        if name in zoo.names() or not hub.is_address(name):
            zoo.manifest(name)  # an unknown name fails before anything is fetched
    documents = []
    for name in unique:
        with watch() as progress:
            if file:
                zoo.adopt(name, file, progress=progress)
                options["force"] = False  # which would fetch it after all
            pull = _pull_model if name in zoo.names() else _pull_repository
            document, remark = pull(name, options, progress)
        documents.append(document)
        say(f"{name}: {remark}")
        if not as_json:
            click.echo(document["path"])
    if as_json:
        print_json(documents)
    say_next(documents[-1]["name"], documents[-1]["stream"])


def _pull_model(
    name: str, options: dict[str, bool], progress: "Progress"
) -> tuple[dict[str, Any], str]:
    from i3dzoo import zoo
    from i3dzoo.cli._progress import megabytes

    model = zoo.manifest(name)
    path = zoo.pull(name, offline=options["offline"], force=options["force"], progress=progress)
    size = path.stat().st_size
    document = {
        "name": model.name,
        "path": str(path),
        "size": size,
        "stream": model.stream,
        "num_classes": model.num_classes,
        "licence": model.licence,
        "tensors_verified": len(model.crc32c),
    }
    return document, (
        f"{model.stream}, {model.num_classes} classes, {megabytes(size)}, "
        f"{model.licence}; {_verified(model)}{f'; note: {model.note}' if model.note else ''}"
    )


def _pull_repository(
    name: str, options: dict[str, bool], progress: "Progress"
) -> tuple[dict[str, Any], str]:
    from i3dzoo import hub
    from i3dzoo.checkpoint import read_checkpoint
    from i3dzoo.cli._progress import megabytes

    snapshot = hub.pull(
        hub.parse(name),
        offline=options["offline"],
        force=options["force"],
        verify=options["verify"],
        everything=options["everything"],
        progress=progress,
    )
    metadata = read_checkpoint(snapshot.weights).metadata
    size = snapshot.weights.stat().st_size
    document = {
        "name": name,
        "path": str(snapshot.weights),
        "size": size,
        "stream": metadata.stream,
        "num_classes": metadata.num_classes,
        "commit": snapshot.commit,
        "files_verified": list(snapshot.files),
    }
    return document, (
        f"{metadata.stream}, {metadata.num_classes} classes, {megabytes(size)}, "
        f"commit {snapshot.commit[:8]}; {len(snapshot.files)} files verified by their digests"
    )


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
    if "/" in name:  # of the Hub: its classes are its own already
        say(f"  i3dzoo convert {name} tao.pt --to piergiaj")
    else:
        say(f"  i3dzoo convert {name} mine.safetensors --labels hmdb51")
