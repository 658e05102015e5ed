"""`i3dzoo identify`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from i3dzoo.cli._console import json_option, print_json, say

if TYPE_CHECKING:
    from i3dzoo.checkpoint import Checkpoint
    from i3dzoo.fingerprint import Match
    from i3dzoo.metadata import Metadata


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@json_option
def command(files: tuple[Path, ...], as_json: bool) -> None:
    """Say which layout FILES (or zoo models) have and which published checkpoint they are.

    Every tensor is matched by its CRC32C against the published checkpoints, whatever the layout:
    all of one, its trunk under another head, its convolutions with BatchNorm moved, or the nearest.
    Files in half precision are compared with what `i3dzoo pull` has cached, rounded alike. Of a
    joint checkpoint both networks are told.

    \b
    Examples:
      i3dzoo identify model.ckpt.index
      i3dzoo identify rgb_imagenet.pt mine.safetensors
      i3dzoo identify --json unknown.pth
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    from i3dzoo.errors import I3DZooError
    from i3dzoo.joint import read_networks
    from i3dzoo.loading import find

    documents: list[dict[str, Any]] = []
    for file in files:
        try:
            networks = read_networks(find(file))
        except I3DZooError as error:
            if len(files) == 1:
                raise
            documents.append({"file": str(file), "error": str(error)})
            say(f"i3dzoo: {error}")
            continue
        documents += [_identify(file, checkpoint, as_json) for checkpoint in networks]
    if as_json:
        print_json(documents)
    else:
        say("Next: i3dzoo convert FILE, or i3dzoo info FILE for its description.")
    if any("error" in document for document in documents):
        sys.exit(1)


def _identify(file: Path, checkpoint: "Checkpoint", as_json: bool) -> dict[str, Any]:
    from i3dzoo.fingerprint import best_match

    match = best_match(checkpoint.tensors)
    metadata = checkpoint.metadata
    if not as_json:
        layout = checkpoint.conversion.layout if checkpoint.conversion else ""
        kind = f"{metadata.stream}, {metadata.num_classes or 'no'} classes"
        click.echo(f"{file}: {layout}, {kind}: {_words(metadata, match)}")
    return _document(file, checkpoint, match)


def _document(file: Path, checkpoint: "Checkpoint", match: "Match") -> dict[str, Any]:
    from i3dzoo.fingerprint import without_checksums

    metadata = checkpoint.metadata
    by_file = metadata.zoo if without_checksums(metadata.zoo) else None
    return {
        "file": str(file),
        "layout": checkpoint.conversion.layout if checkpoint.conversion else "",
        "stream": metadata.stream,
        "num_classes": metadata.num_classes,
        "dtype": match.dtype,
        "published": match.name if match.matched else by_file,
        "matched": match.matched,
        "total": match.total,
        "exact": match.exact,
        "trunk": match.trunk,
        "convolutions": match.convolutions,
        "parts": {part: list(counts) for part, counts in match.parts().items()},
        "differing": list(match.differing) if match.matched else [],
        "made_from": metadata.base,
        "summary": _words(metadata, match),
    }


def _words(metadata: "Metadata", match: "Match") -> str:
    """Say what a file is, and where its tensors do not tell, what else does."""
    from i3dzoo.fingerprint import without_checksums

    if match.matched:
        return str(match)
    if without_checksums(metadata.zoo):
        return f"{metadata.zoo}, by the digest of its file or its own account"
    made = f"; it says that it was made from {metadata.base}" if metadata.base else ""
    return f"{match}{made}"
