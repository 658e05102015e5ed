"""`i3dzoo pull`."""

from pathlib import Path
from typing import Any

import click

from i3dzoo import hub, zoo
from i3dzoo.cli._console import json_option, print_json, run_command, say, show, suggest
from i3dzoo.cli._parameters import MODEL
from i3dzoo.cli.progress import megabytes, show_progress
from i3dzoo.fetch.find import open_checkpoint
from i3dzoo.fetch.pull import import_file, pull
from i3dzoo.zoo.manifest import Manifest


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=MODEL)
@click.option("--offline", is_flag=True, help="Use only the cache, not the network.")
@click.option("--force", is_flag=True, help="Download files that are already cached.")
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    help="Use this copy of a zoo model's file instead of a download.",
)
@click.option("--verify", is_flag=True, help="Fail if a cached Hub file is corrupt.")
@click.option(
    "--all", "everything", is_flag=True, help="Download the pictures and ONNX file of a repository."
)
@click.option(
    "--max-size",
    metavar="GB",
    type=click.FloatRange(min=0, min_open=True, max=1e6),
    default=1.0,
    show_default=True,
    help="Largest total download of a repository.",
)
@json_option
def command(
    names: tuple[str, ...],
    offline: bool,
    force: bool,
    file: Path | None,
    verify: bool,
    everything: bool,
    max_size: float,
    as_json: bool,
) -> None:
    """Download published checkpoints, verify every tensor, and cache them as canonical files.

    NAME is a zoo model (see `i3dzoo list`) or a repository on the Hugging Face Hub: USER/NAME,
    USER/NAME@REVISION or hf://USER/NAME/FILE. The SHA-256 of every file of a repository is checked
    before the file is used. Repositories are kept in the Hub's own cache.

    Files that are cached and intact are not downloaded again. An interrupted download of a zoo
    model is resumed. Zoo models are cached in I3DZOO_CACHE, or in the cache folder of the system.
    The paths of the files are printed on standard output.

    \b
    Examples:
      i3dzoo pull rgb_scratch
      i3dzoo pull rgb_imagenet flow_imagenet
      i3dzoo pull rgb_scratch --offline
      i3dzoo pull rgb_imagenet --file rgb_imagenet.pt
      i3dzoo pull USER/i3d-hmdb51@v1
      cp "$(i3dzoo pull rgb_scratch)" weights.safetensors
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    if offline and force:
        raise click.UsageError("--force downloads files, which --offline forbids")
    unique = list(dict.fromkeys(names))
    if file and (len(unique) > 1 or unique[0] not in zoo.names()):
        raise click.UsageError("--file needs exactly one NAME, and it must be a zoo model")
    for name in unique:
        if name in zoo.names() or not hub.is_address(name):
            zoo.manifest(name)  # an unknown name fails before any download
    documents = []
    for name in unique:
        with show_progress() as progress:
            if name not in zoo.names():
                snapshot = hub.pull(
                    hub.parse(name),
                    offline=offline,
                    force=force,
                    verify=verify,
                    everything=everything,
                    max_size=int(max_size * 1e9),
                    progress=progress,
                )
                document, remark = _describe_snapshot(name, snapshot)
            else:
                if file:
                    import_file(name, file, progress=progress)
                # a file that was just imported must not be downloaded
                path = pull(name, offline=offline, force=force and not file, progress=progress)
                document, remark = _describe_model(zoo.manifest(name), path)
        documents.append(document)
        say(f"{name}: {remark}")
        if not as_json:
            show(document["path"])
    if as_json:
        print_json(documents)
    _suggest(documents[-1])


def _describe_model(model: Manifest, path: Path) -> tuple[dict[str, Any], str]:
    """Return a document about a zoo model, and a remark."""
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
    verified = "digest of the file verified; no checksums of its tensors were published"
    if model.crc32c:
        verified = f"all {len(model.crc32c)} published tensors verified"
    return document, (
        f"{model.stream}, {model.num_classes} classes, {megabytes(size)}, "
        f"{model.licence}; {verified}{f'; note: {model.note}' if model.note else ''}"
    )


def _describe_snapshot(name: str, snapshot: hub.Snapshot) -> tuple[dict[str, Any], str]:
    """Return a document about a repository on the Hub, and a remark."""
    metadata = open_checkpoint(snapshot.weights).metadata
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


def _suggest(document: dict[str, Any]) -> None:
    name = document["name"]
    run = [run_command(name, document["num_classes"])] if document["stream"] == "rgb" else []
    # a repository on the Hub usually has the classes of its own already
    convert = "tao.pt --to piergiaj" if "/" in name else "mine.safetensors --labels hmdb51"
    suggest(*run, f"i3dzoo info {name}", f"i3dzoo convert {name} {convert}")
