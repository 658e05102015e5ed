"""A checkpoint: canonical tensors and their description, read from any layout."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from i3dzoo import __version__, convert, formats, tables
from i3dzoo._files import check_output
from i3dzoo.arrays import Tensors
from i3dzoo.checksums import Sha256
from i3dzoo.convert import Conversion
from i3dzoo.errors import ChecksumError, FormatError, MetadataError
from i3dzoo.fingerprint import best_match, published_file
from i3dzoo.formats.container import Container
from i3dzoo.metadata import Metadata, Source, Stream, default_input

__all__ = ["Checkpoint", "check_finite", "read_checkpoint", "write_checkpoint"]

_DESCRIPTION = "i3dzoo"  # the key of the description in a safetensors file's metadata
CANONICAL = "canonical"


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by canonical name, and what is known of them.

    Attributes:
        tensors: The canonical state dict; arrays may be views of a mapped file.
        metadata: Stream, classes, labels, input, origin.
        conversion: How the file's tensors became these, where they were read from a file.
        checked: Whether the file carries a checksum of every tensor, which all were right.
    """

    tensors: Tensors
    metadata: Metadata
    conversion: Conversion | None = None
    checked: bool = False


def read_checkpoint(
    path: str | Path,
    layout: str | None = None,
    converter: str | Path | None = None,
    stream: Stream | None = None,
    altered: bool = False,
    ignore: tuple[str, ...] = (),
) -> Checkpoint:
    """Read a file of any layout.

    A canonical file brings its description. Of any other, stream and classes are read off the
    shapes, and where the tensors are those of a published checkpoint, labels and input are its; a
    file that shares its convolutions with one takes the input from it.

    Args:
        path: The file; of a TensorFlow checkpoint, its index, data file, prefix or folder.
        layout: Name of the layout; None recognises it by the names of the tensors.
        converter: A converter table of the user's own, instead of `layout`.
        stream: The network to read of a file that holds two, as TAO's joint checkpoints do.
        altered: Accept a file that is a published checkpoint but for one tensor, which without
            checksums of its own looks damaged.
        ignore: Names of tensors to leave out that the layout does not know, with `*` for any text.

    Raises:
        MissingFileError: There is no such file.
        FormatError: It is truncated, corrupt or of no known format, or holds NaN or infinity.
        ChecksumError: A tensor does not match its checksum, or that of a published checkpoint.
        MappingError: Its tensors are not those of the layout.
        MetadataError: Its description contradicts its tensors.
    """
    path = Path(path)
    container = formats.read(path)
    digest = None if _DESCRIPTION in container.metadata else Sha256(container.path)
    if converter is not None:
        table = tables.load_table(converter)
    elif layout is not None:
        table = tables.table(layout)
    else:
        table = convert.detect(str(path), container.tensors, tables.likely(container.format))
    if ignore:
        asked = tuple(tables.Ignore(pattern, "as --ignore asks") for pattern in ignore)
        table = dataclasses.replace(table, ignores=table.ignores + asked)
    conversion = convert.to_canonical(str(path), container.tensors, table, stream)
    check_finite(str(path), conversion.tensors)
    if digest is None:
        metadata = _described(container, conversion.tensors)
    else:
        metadata = _recognised(container, conversion, altered, digest)
    return Checkpoint(conversion.tensors, metadata, conversion, container.checked)


def write_checkpoint(
    path: str | Path, checkpoint: Checkpoint, layout: str = CANONICAL, force: bool = False
) -> Path:
    """Write a file of any layout, whole or not at all.

    A canonical file carries the description and a checksum of every tensor.

    Args:
        path: The file; of a TensorFlow checkpoint, its index or prefix.
        checkpoint: What to write.
        layout: Name of the layout, or the path of a table of the user's own (`.toml`).
        force: Replace files that exist.

    Returns:
        The file that was written; of a TensorFlow checkpoint, its index.

    Raises:
        OutputError: The file exists and `force` is not set, or it cannot be written.
        MappingError: The tensors are not those of an I3D, or the layout has no place for one.
        FormatError: A tensor holds NaN, infinity or negative variances.
        MetadataError: The description contradicts the tensors.
    """
    path = Path(path)
    table = tables.table(layout)
    written = formats.outputs(table.format, path)
    for each in written:
        check_output(each, force)
    tensors = convert.to_canonical(str(path), checkpoint.tensors, tables.table(CANONICAL)).tensors
    check_finite(str(path), tensors)
    _check_description(path, checkpoint.metadata, tensors)
    conversion = convert.from_canonical(str(path), checkpoint.tensors, table)
    metadata = dataclasses.replace(checkpoint.metadata, writer=f"i3dzoo {__version__}")
    # "format" is what the safetensors loaders of transformers and timm look for
    text = {"format": "pt", _DESCRIPTION: metadata.to_json()}
    formats.write(table.format, path, conversion.tensors, text)
    return written[0]


def check_finite(where: str, tensors: Tensors) -> None:
    """Refuse NaN, infinity and negative variances.

    Raises:
        FormatError: With the tensor's name.
    """
    for name, array in tensors.items():
        # a sum in double precision is finite only if all of its terms are
        with np.errstate(invalid="ignore", over="ignore"):
            total = np.sum(array, dtype=np.float64)
        if not np.isfinite(total):
            bad = int(np.size(array) - np.count_nonzero(np.isfinite(array)))
            raise FormatError(
                f"{where}: {name} holds {bad} values that are NaN or infinite; "
                "the training that made it diverged, use an earlier checkpoint"
            )
        if name.endswith("running_var") and (array < 0).any():
            raise FormatError(f"{where}: {name} holds negative variances; the file is corrupt")


def _described(container: Container, tensors: Tensors) -> Metadata:
    try:
        metadata = Metadata.from_json(container.metadata[_DESCRIPTION])
    except MetadataError as error:
        raise MetadataError(f"{container.path}: {error}") from error
    _check_description(container.path, metadata, tensors)
    return metadata


def _check_description(path: Path, metadata: Metadata, tensors: Tensors) -> None:
    found = (convert.stream(tensors), convert.num_classes(tensors))
    if found != (metadata.stream, metadata.num_classes):
        raise MetadataError(
            f"{path}: the metadata says {metadata.stream} and {metadata.num_classes} classes, the "
            f"tensors are {found[0]} with {found[1]}; one of them was altered without the other"
        )


def _recognised(
    container: Container, conversion: Conversion, altered: bool, digest: Sha256
) -> Metadata:
    from i3dzoo import zoo

    tensors = conversion.tensors
    stream = convert.stream(tensors)
    found = best_match(tensors)
    damaged = len(found.differing) == 1 and not found.trunk
    # a first convolution for other channels was made so, and is no damage
    if damaged and zoo.manifest(found.name).stream == stream and not (container.checked or altered):
        raise ChecksumError(
            f"{container.path}: is {found.name} but for {found.differing[0]}, so it is corrupt: "
            "fetch it again, or i3dzoo convert it with --altered if that was changed on purpose"
        )
    metadata = Metadata(
        stream=stream,
        num_classes=convert.num_classes(tensors),
        labels=None,
        input=default_input(stream),
        source=Source(conversion.layout, digest.result()),
    )
    if name := published_file(container.path, stream, metadata.num_classes):
        manifest = zoo.manifest(name)
        labels = zoo.labels(manifest.labels)
        return dataclasses.replace(metadata, zoo=name, labels=labels, input=manifest.input)
    if not found.convolutions:
        return metadata
    manifest = zoo.manifest(found.name)
    metadata = dataclasses.replace(metadata, input=manifest.input, base=found.name)
    if not found.exact:
        return metadata
    metadata = dataclasses.replace(metadata, labels=zoo.labels(manifest.labels))
    if found.dtype != "float32":
        return metadata
    return dataclasses.replace(metadata, zoo=found.name, base=None)
