"""`i3dzoo identify`."""

from pathlib import Path

import click

from i3dzoo.cli._console import json_option, print_json, say


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@json_option
def command(files: tuple[Path, ...], as_json: bool) -> None:
    """Say which layout FILES have and which published checkpoint they are.

    Every tensor is matched by its CRC32C against the published checkpoints, whatever the layout.

    \b
    Examples:
      i3dzoo identify model.ckpt.index
      i3dzoo identify rgb_imagenet.pt mine.safetensors
      i3dzoo identify --json unknown.pth
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    from i3dzoo.checkpoint import read_checkpoint
    from i3dzoo.fingerprint import best_match

    documents = []
    for file in files:
        checkpoint = read_checkpoint(file)
        match = best_match(checkpoint.tensors)
        metadata = checkpoint.metadata
        layout = checkpoint.conversion.layout if checkpoint.conversion else ""
        documents.append(
            {
                "file": str(file),
                "layout": layout,
                "stream": metadata.stream,
                "num_classes": metadata.num_classes,
                "published": match.name if match.matched else None,
                "matched": match.matched,
                "total": match.total,
                "trunk": bool(match.matched) and match.trunk,
                "differing": list(match.differing) if match.matched else [],
            }
        )
        if not as_json:
            kind = f"{metadata.stream}, {metadata.num_classes or 'no'} classes"
            click.echo(f"{file}: {layout}, {kind}: {match}")
    if as_json:
        print_json(documents)
    else:
        say("Next: i3dzoo convert FILE, or i3dzoo info FILE for its description.")
