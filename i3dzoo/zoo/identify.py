"""Identify a checkpoint: which published one it is, and whether it still is.

Tensors are compared by their masked CRC32C, taken over the bytes in DeepMind's axis order. The
checksum is therefore the same in every layout, and the same as in DeepMind's own `.index` files.

Two kinds of checkpoints have no published checksums to compare with. Half-precision weights are
compared with the cached published checkpoints, rounded to the same format. Checkpoints that were
published without checksums of their tensors are identified by the digest of their file.
"""

import dataclasses
from pathlib import Path

from i3dzoo.arrays import Tensors
from i3dzoo.checkpoints import convert
from i3dzoo.checkpoints.checkpoint import Checkpoint, read_checkpoint
from i3dzoo.digests import file_digest
from i3dzoo.errors import ChecksumError, I3DZooError, MetadataError
from i3dzoo.network.architecture import STEM_WEIGHT
from i3dzoo.text import listing
from i3dzoo.zoo.manifest import Files, Manifest
from i3dzoo.zoo.match import Match, checksum, compare_checksums, tensor_checksums
from i3dzoo.zoo.registry import cached_path, manifest, names


def best_match(tensors: Tensors) -> Match:
    """Return the published checkpoint that shares the most tensors with these; maybe none."""
    checksums = tensor_checksums(tensors)
    classes = convert.num_classes(tensors)
    dtype = tensors[STEM_WEIGHT].dtype.name
    exact = dtype == "float32"
    models = [model for model in map(manifest, names()) if model.crc32c]
    matches = [
        compare_checksums(model.name, published, checksums, classes, dtype)
        for model in models
        if (published := model.crc32c if exact else _rounded_checksums(model, tensors))
    ]
    no_match = Match("", 0, len(models[0].crc32c), tuple(models[0].crc32c), classes, dtype)
    return max(matches, key=lambda match: match.matched / match.total, default=no_match)


def published_file(path: Path, stream: str, classes: int) -> str | None:
    """Return the published checkpoint, of those without checksums, that has the file's digest.

    A file is only read if one of them has its stream and its number of classes.
    """
    for model in map(manifest, names()):
        if model.crc32c or model.images or (model.stream, model.num_classes) != (stream, classes):
            continue
        digests = {file_digest(path, kind) for kind in ("git-blob", "sha256")}
        for source in model.sources:
            if isinstance(source, Files) and source.files[0].digest in digests:
                return model.name
    return None


def without_checksums(name: str | None) -> bool:
    """Whether this is a published checkpoint without published checksums of its tensors."""
    return name in names() and not manifest(str(name)).crc32c


def check_published(checkpoint: Checkpoint, model: Manifest, where: str) -> bool:
    """Check that a checkpoint has the stream, the classes and the tensors of a published one.

    Returns False if the manifest has no checksums of the tensors, so that they were not compared.
    """
    metadata = checkpoint.metadata
    if (metadata.stream, metadata.num_classes) != (model.stream, model.num_classes):
        raise ChecksumError(
            f"{where}: has stream {metadata.stream} and {metadata.num_classes} classes, expected "
            f"{model.stream} and {model.num_classes} for {model.name}"
        )
    if not model.crc32c:
        return False
    match = compare_checksums(model.name, model.crc32c, tensor_checksums(checkpoint.tensors))
    if not match.exact:
        count = f"{match.total - match.matched} of {match.total} tensors differ from those of"
        if match.matched == match.total:
            count = f"{len(match.scales)} BatchNorm scales are not 1, unlike those of"
        raise ChecksumError(f"{where}: {count} {model.name}: {listing(match.differing)}")
    return True


def check_claim(checkpoint: Checkpoint, where: str) -> bool:
    """Check that a checkpoint is the published one that its description names, if it names one.

    Tensors without published checksums are compared with those of the cached file. Returns False if
    there is nothing to compare the tensors with.
    """
    name = checkpoint.metadata.zoo
    if name is None:
        return False
    model = manifest(name)
    try:
        if not (model.crc32c or model.images):
            model = model.replace(crc32c=tensor_checksums(_cached_tensors(name)))
        compared = check_published(checkpoint, model, where)
    except ChecksumError as error:
        raise ChecksumError(
            f"{error}, although its description names {name}; pull {name} again with --force, or "
            "give changed weights a description of their own with i3dzoo convert"
        ) from error
    if checkpoint.metadata.labels != model.class_names:
        raise MetadataError(
            f"{where}: its description names {name}, but its classes have other names; rename "
            "them with i3dzoo convert --head keep --labels, which records it in the history"
        )
    return compared


def recognise(checkpoint: Checkpoint, altered: bool = False) -> Checkpoint:
    """Add what is known about a published checkpoint to one that was read from a file.

    A file with a description of its own keeps it. Other files get the labels, the input and the
    variant of the published checkpoint whose tensors they have, or the input and the variant of the
    one whose convolutions they have. One tensor that differs from a published checkpoint is taken
    for damage, unless `altered`.
    """
    if checkpoint.described or checkpoint.path is None:
        return checkpoint
    metadata, path = checkpoint.metadata, checkpoint.path
    best = best_match(checkpoint.tensors)
    damaged = len(best.differing) == 1 and not best.trunk
    # a first convolution for other channels was changed on purpose
    same_stream = damaged and manifest(best.name).stream == metadata.stream
    if same_stream and not (checkpoint.checked or altered):
        raise ChecksumError(
            f"{path}: is {best.name} except for {best.differing[0]}, so it is probably corrupt: "
            "fetch it again, or convert it with --altered if the tensor was changed on purpose"
        )
    if name := published_file(path, metadata.stream, metadata.num_classes):
        model = manifest(name)
        metadata = metadata.replace(
            zoo=name,
            labels=model.class_names,
            input=model.input,
            variant=model.variant,
            multi_label=model.multi_label,
        )
    elif best.convolutions:
        model = manifest(best.name)
        metadata = metadata.replace(base=best.name, input=model.input, variant=model.variant)
        if best.exact:
            metadata = metadata.replace(labels=model.class_names, multi_label=model.multi_label)
            if best.dtype == "float32":
                metadata = metadata.replace(zoo=best.name, base=None)
    return dataclasses.replace(checkpoint, metadata=metadata)


def _cached_tensors(name: str) -> Tensors:
    """Return the tensors of a cached model; none if it is not cached or the file is corrupt."""
    path = cached_path(name)
    try:
        return read_checkpoint(path, "canonical").tensors if path.exists() else {}
    except I3DZooError:
        return {}


def _rounded_checksums(model: Manifest, like: Tensors) -> dict[str, int]:
    """Return the checksums of a cached model of the same stream, rounded to other tensors' formats.

    Empty if the model is of another stream, is not cached, or its file is corrupt.
    """
    tensors = _cached_tensors(model.name) if convert.stream_of(like) == model.stream else {}
    return {
        name: checksum(tensors[name].astype(like[name].dtype if name in like else "f4"))
        for name in model.crc32c
        if tensors
    }
