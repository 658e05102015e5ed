"""`i3dzoo identify`."""

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.checkpoints.networks import split_key, with_key
from i3dzoo.cli._console import json_option, key_option, print_json, say, show, suggest
from i3dzoo.cli._description import remark_description
from i3dzoo.cli._parameters import MODEL
from i3dzoo.cli.progress import find_model
from i3dzoo.errors import I3DZooError, MappingError
from i3dzoo.fetch.find import open_networks
from i3dzoo.fetch.folded import FoldedNetwork, read_folded
from i3dzoo.zoo import manifest
from i3dzoo.zoo.identify import best_match, without_checksums
from i3dzoo.zoo.known_files import KnownFile, known_file


@click.command()
@click.argument("files", nargs=-1, required=True, type=MODEL)
@key_option("files")
@json_option
def command(files: tuple[str, ...], as_json: bool) -> None:
    """Detect the layout of FILES, and find the published checkpoint that they come from.

    The CRC32C of every tensor is compared with those of the published checkpoints, whatever the
    layout. The result is a whole checkpoint, its trunk with another head, its convolutions with
    other BatchNorm values, or the nearest checkpoint. A file in half precision is compared with the
    cached checkpoints, rounded in the same way. All networks of a file are listed as FILE#KEY.

    \b
    Examples:
      i3dzoo identify model.ckpt.index
      i3dzoo identify rgb_imagenet.pt mine.safetensors
      i3dzoo identify --json unknown.pth
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    documents: list[dict[str, Any]] = []
    for file in files:
        try:
            found = _identify(file, find_model(file))
        except I3DZooError as error:
            if len(files) == 1:
                raise
            documents.append({"file": str(file), "error": str(error)})
            say(f"i3dzoo: {error}")
            continue
        documents += found
        for document in found if not as_json else ():
            kind = f"{document['stream']}, {document['num_classes'] or 'no'} classes"
            name = with_key(document["file"], document["key"])
            show(f"{name}: {document['layout']}, {kind}: {document['summary']}")
    if as_json:
        print_json(documents)
    else:
        name = shlex.quote(str(files[0]))
        suggest(f"i3dzoo info {name}", f"i3dzoo convert {name}")
    if any("error" in document for document in documents):
        sys.exit(1)


def _identify(file: str, path: Path) -> list[dict[str, Any]]:
    """Return a document for each network of a file."""
    name = split_key(file)[0]
    known = known_file(Path(split_key(path)[0]))
    if known is not None:
        say(f"{name}: is {known.name}, {known.note}")
    try:
        networks = open_networks(path)
    except MappingError:
        if folded := read_folded(path):
            return [_folded(name, network) for network in folded]
        if known is not None:
            return [_known(name, known)]
        raise
    for checkpoint in networks:
        if known is None:
            remark_description(file, checkpoint.metadata)
    return [_document(name, checkpoint) for checkpoint in networks]


def _known(file: str, known: KnownFile) -> dict[str, Any]:
    """Return the document of a file whose layout is not read, but which is known as a whole."""
    model = manifest(known.same_as)
    return {
        "file": file,
        "key": None,
        "layout": "unknown",
        "stream": model.stream,
        "num_classes": model.num_classes,
        "dtype": "float32",
        "published": known.same_as,
        "matched": 0,
        "total": 0,
        "exact": False,
        "trunk": False,
        "convolutions": False,
        "parts": {},
        "differing": [],
        "made_from": known.same_as,
        "summary": f"{known.name}, with the weights of {known.same_as}, according to the digest of "
        "the file",
    }


def _folded(file: str, network: FoldedNetwork) -> dict[str, Any]:
    metadata = network.metadata
    return {
        "file": file,
        "key": None,
        "layout": "onnx",
        "stream": metadata.stream,
        "num_classes": metadata.num_classes,
        "dtype": network.options.precision,
        "published": metadata.zoo if network.verified else None,
        "matched": 0,
        "total": 0,
        "exact": False,
        "trunk": False,
        "convolutions": False,
        "parts": {},
        "differing": [],
        "made_from": metadata.origin,
        "summary": network.summary,
    }


def _document(file: str, checkpoint: Checkpoint) -> dict[str, Any]:
    match, metadata = best_match(checkpoint.tensors), checkpoint.metadata
    by_file = metadata.zoo if without_checksums(metadata.zoo) else None
    summary = str(match)
    if not match.matched and by_file:
        summary = f"{by_file}, according to the digest of the file or its description"
    elif not match.matched and metadata.base:
        summary += f"; its description says that it was made from {metadata.base}"
    return {
        "file": file,
        "key": checkpoint.key,
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
        "summary": summary,
    }
