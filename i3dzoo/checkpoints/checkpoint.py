"""Checkpoints: canonical tensors and their metadata, read from and written to any layout."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from i3dzoo import formats
from i3dzoo.arrays import Tensors
from i3dzoo.checkpoints import convert
from i3dzoo.checkpoints.convert import Conversion, MappedTensor
from i3dzoo.checkpoints.converter import Table, load_table, table, tables
from i3dzoo.checkpoints.embedded import (
    DESCRIPTION,
    check_batch_norm,
    is_described,
    read_description,
)
from i3dzoo.checkpoints.metadata import Metadata, Source, Stream, default_input
from i3dzoo.checkpoints.networks import Network, find_networks, nearest, select, split_key
from i3dzoo.checkpoints.presets import DEFAULT, preset
from i3dzoo.checkpoints.suffixes import table_for
from i3dzoo.digests import Sha256
from i3dzoo.errors import ConverterError, FormatError, MetadataError
from i3dzoo.files.exclusive import exclusive_files
from i3dzoo.records import convert as convert_record
from i3dzoo.version import __version__


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by canonical name, and their metadata.

    Examples:
        >>> import i3dzoo
        >>> checkpoint = i3dzoo.open_checkpoint("mine.safetensors")
        >>> len(checkpoint.tensors), checkpoint.metadata.num_classes
        (287, 2)

    Attributes:
        tensors: The canonical state dict; arrays may be views of a mapped file.
        metadata: Stream, classes, labels, input, origin.
        conversion: How the tensors were converted; None if they were not read from a file.
        checked: Whether the file has a checksum of every tensor, and all match.
        path: The file that was read.
        described: Whether the file contains its own metadata.
        key: The key of the network, if the file has several.
    """

    tensors: Tensors
    metadata: Metadata
    conversion: Conversion | None = None
    checked: bool = False
    path: Path | None = None
    described: bool = False
    key: str | None = None


def read_checkpoint(
    path: str | Path,
    layout: str | None = None,
    converter: str | Path | None = None,
    stream: Stream | None = None,
    ignore: tuple[str, ...] = (),
    key: str | None = None,
    round_float64: bool = False,
) -> Checkpoint:
    """Read a file of any layout.

    A canonical file contains its metadata. For other files, the shapes give the stream and the
    number of classes. The input and the variant are DeepMind's, or those of the preset of a layout
    that belongs to one project; `i3dzoo.zoo.identify.recognise` adds the metadata of a published
    checkpoint.

    Args:
        path: The file; for a TensorFlow checkpoint, its index, data file, prefix or folder.
            `FILE#KEY` is FILE with this `key`.
        layout: Name of the layout; None detects it from the names of the tensors.
        converter: A custom converter table instead of `layout`.
        stream: The network to read from a file with two, such as TAO's joint checkpoints.
        ignore: Names of unknown tensors to leave out, with `*` for any text.
        key: The network to read from a file with several: the key of its state dict, the prefix of
            its names, or a part of these that no other network has. Nothing else is read. None
            reads the only network, or the one under a usual key (`state_dict`, `model_state_dict`,
            `model`, `net`), and logs a warning about the others.
        round_float64: Round float64 to float32, instead of refusing it.

    Raises:
        MissingFileError: The file does not exist.
        FormatError: The file is truncated, corrupt or of an unknown format, or has NaN or infinity.
        ChecksumError: A tensor does not match the file's checksum of it.
        MappingError: The tensors are not those of the layout, or several networks fit.
        MetadataError: The metadata is malformed or contradicts the tensors.
    """
    where, own_key = split_key(path)
    key = own_key if key is None else key
    container = formats.read(Path(where))
    described = is_described(container)
    digest = None if described else Sha256(container.path)

    def candidates() -> Iterable[Table]:
        if converter is not None:
            return [load_table(converter)]
        return [table(layout)] if layout is not None else tables(container.format)

    parts = container.state_dicts
    networks = find_networks(parts, candidates())
    if networks and networks[0].table.images:
        raise ConverterError(
            f"{networks[0].table.name}: is the layout of a 2D network; i3dzoo inflate reads it"
        )
    if networks:
        network = select(where, networks, container, stream, key)
    else:
        check_batch_norm(container)
        network = nearest(where, parts, candidates())
    conversion = convert.network_to_canonical(
        where, network, networks, key is not None, ignore, round_float64
    )
    conversion = replace(conversion, ignored=conversion.ignored + _unread(parts, network))
    tensors = conversion.tensors
    check_finite(where, tensors)
    stream = convert.stream_of(tensors)
    if digest is None:
        metadata = read_description(container, tensors, stream)
        _check_description(container.path, metadata, tensors)
    else:
        origin = preset(network.table.preset or DEFAULT)
        metadata = Metadata(
            stream=stream,
            num_classes=convert.num_classes(tensors),
            labels=None,
            input=origin.inputs.get(stream, default_input(stream)),
            variant=origin.variant,
            source=Source(conversion.layout, digest.result()),
        )
    own = network.key if len(networks) > 1 else None
    return Checkpoint(
        tensors, metadata, conversion, container.checked, container.path, described, own
    )


def network_keys(path: str | Path) -> tuple[str, ...]:
    """Return the keys of the whole networks in a file."""
    container = formats.read(Path(split_key(path)[0]))
    networks = find_networks(container.state_dicts, tables(container.format))
    return tuple(network.key for network in networks)


def write_checkpoint(
    path: str | Path, checkpoint: Checkpoint, layout: str | None = None, force: bool = False
) -> Path:
    """Write a file of any layout, whole or not at all.

    A canonical file contains the metadata and a checksum of every tensor.

    Examples:
        >>> import i3dzoo
        >>> checkpoint = i3dzoo.open_checkpoint("mine.safetensors")
        >>> i3dzoo.write_checkpoint("mine.pt", checkpoint, "piergiaj")
        PosixPath('mine.pt')

    Args:
        path: The file; for a TensorFlow checkpoint, its index or prefix.
        checkpoint: The checkpoint to write.
        layout: Name of the layout, or path of a custom converter table (`.toml`). None takes the
            only layout with the suffix of `path`, and canonical if the suffix says nothing.
        force: Whether to replace existing files.

    Returns:
        The file that was written; for a TensorFlow checkpoint, its index.

    Raises:
        OptionError: The suffix of `path` contradicts the layout, or fits several.
        OutputError: The file exists and `force` is not set, or it cannot be written.
        MappingError: The tensors are not those of I3D, or the layout cannot hold one of them.
        FormatError: A tensor has NaN, infinity or negative variances.
        MetadataError: The metadata has a value of the wrong type, or contradicts the tensors.
    """
    path = Path(path)
    layout_table = table_for(path, layout)
    outputs = formats.outputs(layout_table.format, path)
    with exclusive_files(outputs, force):
        _write(path, checkpoint, layout_table)
    return outputs[0]


def _write(path: Path, checkpoint: Checkpoint, layout: Table) -> None:
    """Write a checkpoint after checking it."""
    tensors = convert.to_canonical(str(path), checkpoint.tensors, table("canonical")).tensors
    check_finite(str(path), tensors)
    metadata = checkpoint.metadata.replace(writer=f"i3dzoo {__version__}")
    convert_record(metadata.to_dict(), Metadata, str(path))
    _check_description(path, metadata, tensors)
    conversion = convert.from_canonical(str(path), checkpoint.tensors, layout)
    # the safetensors loaders of transformers and timm require the key "format"
    text = {"format": "pt", DESCRIPTION: metadata.to_json()}
    formats.write(layout.format, path, conversion.tensors, text)


def check_finite(where: str, tensors: Tensors) -> None:
    """Refuse NaN, infinity and negative variances."""
    for name, array in tensors.items():
        # a sum in double precision is finite only if all of its terms are
        with np.errstate(invalid="ignore", over="ignore"):
            total = np.sum(array, dtype=np.float64)
        if not np.isfinite(total):
            bad = int(np.size(array) - np.count_nonzero(np.isfinite(array)))
            raise FormatError(
                f"{where}: {name} has {bad} values that are NaN or infinite; the training "
                "diverged, so use an earlier checkpoint"
            )
        if name.endswith("running_var") and (array < 0).any():
            raise FormatError(f"{where}: {name} has negative variances; the file is corrupt")


def _unread(parts: Mapping[str, Tensors], network: Network) -> tuple[MappedTensor, ...]:
    """Return the tensors of the other state dicts of a file."""
    return tuple(
        MappedTensor(f"{part}.{name}", "", array.shape, f"is under {part!r}, which is not read")
        for part, tensors in parts.items()
        if part not in (network.part, network.head)
        for name, array in tensors.items()
    )


def _check_description(path: Path, metadata: Metadata, tensors: Tensors) -> None:
    stream, classes = convert.stream_of(tensors), convert.num_classes(tensors)
    if (stream, classes) != (metadata.stream, metadata.num_classes):
        raise MetadataError(
            f"{path}: the metadata says {metadata.stream} with {metadata.num_classes} classes, but "
            f"the tensors are {stream} with {classes}; one was changed without the other"
        )
