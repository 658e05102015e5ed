"""Inflate a 2D network, Inception-v1, to I3D; and deflate one.

Source: Carreira and Zisserman, arXiv:1705.07750, section 2.4: filters are repeated along time and
divided by their number, so that a clip of one repeated image has the activations of the image.
"""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np

from i3dzoo import formats
from i3dzoo.arrays import Array, Tensors
from i3dzoo.checkpoints import convert, converter
from i3dzoo.checkpoints.checkpoint import Checkpoint, check_finite
from i3dzoo.checkpoints.converter import IMAGES, Table
from i3dzoo.checkpoints.history import HistoryStep
from i3dzoo.checkpoints.metadata import Metadata, Source, default_input
from i3dzoo.checkpoints.networks import Network, find_networks, nearest, select, split_key
from i3dzoo.checkpoints.presets import DEFAULT, load_preset
from i3dzoo.checkpoints.streams import change_stream
from i3dzoo.checkpoints.suffixes import check_suffix
from i3dzoo.digests import sha256
from i3dzoo.errors import ConverterError, MappingError, OptionError, UnknownNameError
from i3dzoo.files.exclusive import exclusive_files
from i3dzoo.formats import Container
from i3dzoo.formats.tensorflow_bundle import index_path
from i3dzoo.network.architecture import canonical_shapes

Method = Literal["average", "center"]

_LOG: Final = logging.getLogger("i3dzoo")
_CAFFE: Final = (".caffemodel", ".prototxt")
_NO_STATISTICS: Final = (
    "GoogLeNet as Caffe and MXNet distribute it has biases and local response normalisation "
    "instead, which I3D does not have; use torchvision's GoogLeNet or TF-slim's Inception-v1"
)


def inflate(
    source: str | Path,
    method: Method = "average",
    in_channels: int | None = None,
    *,
    input_preset: str | None = None,
    table: str | Path | None = None,
    ignore: tuple[str, ...] = (),
    key: str | None = None,
) -> Checkpoint:
    """Read a 2D network, Inception-v1, and inflate it to I3D.

    On a clip of one repeated image, away from its first and last frames, every endpoint equals that
    of the 2D network. BatchNorm and the head stay as they are. The input and the variant are
    those of the project that the layout belongs to.

    Examples:
        >>> import i3dzoo
        >>> i3dzoo.inflate("googlenet.pth").tensors["Conv3d_1a_7x7.conv.weight"].shape
        (64, 3, 7, 7, 7)

    Args:
        source: The file, in a layout of `converters/images`; `FILE#KEY` is FILE with this `key`.
        method: `average` repeats each kernel along time, divided by its length, as in the paper;
            `center` puts it into the middle frame, between zeros.
        in_channels: 2 makes a network for flow by averaging the first kernels over the colours; see
            `change_stream`. None keeps the channels of the source.
        input_preset: Describe the network by this preset instead of that of the layout.
        table: A converter table of a 2D network, instead of the layouts of i3dzoo.
        ignore: Names of unknown tensors to leave out, with `*` for any text.
        key: The network to read from a file with several; see `read_checkpoint`.

    Returns:
        The checkpoint, in the number format of the source; float64 is rounded to float32.

    Raises:
        UnknownNameError: There is no such method or preset.
        MissingFileError: The file does not exist.
        FormatError: The file is truncated, corrupt or of an unknown format, or has NaN or infinity.
        MappingError: It is not Inception-v1, has no BatchNorm, or is I3D already.
        ShapeError: A tensor has another shape, or `in_channels` is neither 2 nor 3.
    """
    if method not in get_args(Method):
        raise UnknownNameError(
            f"no method has the name {method!r}; expected one of {', '.join(get_args(Method))}"
        )
    where, own_key = split_key(source)
    key = own_key if key is None else key
    network, networks, path = _read(where, _tables(table), key)
    if any(array.dtype == "f8" for array in network.tensors.values()):
        _LOG.warning("%s: float64 is rounded to float32", where)
    conversion = convert.network_to_canonical(
        where, network, networks, key is not None, ignore, round_float64=True
    )
    check_finite(where, conversion.tensors)
    own = network.table.preset
    origin = load_preset(input_preset or own or DEFAULT)
    if origin.note and input_preset is None:
        _LOG.warning("%s: %s", where, origin.note)
    stream = convert.stream_of(conversion.tensors)
    if stream not in origin.inputs:
        raise OptionError(
            f"--input {input_preset or own}: describes {' and '.join(origin.inputs)} networks, and "
            f"{where} is {stream}; choose another preset"
        )
    tensors = inflate_tensors(conversion.tensors, method)
    metadata = Metadata(
        stream=stream,
        num_classes=convert.num_classes(tensors),
        labels=None,
        input=origin.inputs.get(stream, default_input(stream)),
        variant=origin.variant,
        source=Source(network.table.name, sha256(index_path(path) or path)),
        history=(HistoryStep(operation="inflate", method=method),),
    )
    mapped = convert.add_operation(conversion, tensors, f"inflated ({method})")
    checkpoint = Checkpoint(tensors, metadata, mapped, path=path)
    return checkpoint if in_channels is None else change_stream(checkpoint, in_channels)


def inflate_tensors(tensors: Tensors, method: Method = "average") -> Tensors:
    """Return the tensors of I3D, from canonical ones whose kernels span one frame.

    Arrays that do not change are the same objects.
    """
    shapes = canonical_shapes(1)
    return {
        name: _extend(array, shapes[name][2], method) if array.ndim == 5 else array
        for name, array in tensors.items()
    }


def deflate_tensors(tensors: Tensors) -> Tensors:
    """Return canonical tensors whose kernels span one frame: those of I3D, summed over time."""
    return {
        name: array.sum(axis=2, keepdims=True, dtype="f8").astype(array.dtype)
        if array.ndim == 5 and array.shape[2] > 1
        else array
        for name, array in tensors.items()
    }


def deflate(checkpoint: Checkpoint, layout: str = "torchvision") -> Tensors:
    """Return the 2D network that an I3D network is on a clip of one repeated image.

    Each kernel is summed over time. An inflated network gives the 2D network again, to
    rounding. The description has no place in these layouts: a program that loads the tensors needs
    the input and the variant of the checkpoint.

    Examples:
        >>> import i3dzoo
        >>> arrays = i3dzoo.deflate(i3dzoo.open_checkpoint("mine.safetensors"))
        >>> arrays["conv1.conv.weight"].shape
        (64, 3, 7, 7)

    Args:
        checkpoint: An I3D network of any origin.
        layout: `torchvision` (load it into `googlenet(aux_logits=False)`) or `tf-slim`.

    Returns:
        Arrays by the names of the layout.

    Raises:
        UnknownNameError: There is no such layout.
        MappingError: The layout cannot hold one of the tensors.
    """
    tensors = deflate_tensors(checkpoint.tensors)
    return convert.from_canonical(str(checkpoint.path or layout), tensors, _layout(layout)).tensors


def write_deflated(
    path: Path, checkpoint: Checkpoint, layout: str = "torchvision", force: bool = False
) -> Path:
    """Write the tensors of `deflate` to a file, whole or not at all; return the file.

    Raises:
        OptionError: The suffix of the file is not one of the layout's format.
        OutputError: The file exists and `force` is not set, or it cannot be written.
    """
    format_name = _layout(layout).format
    check_suffix(path, format_name, layout)
    outputs = formats.outputs(format_name, path)
    with exclusive_files(outputs, force):
        formats.write(format_name, path, deflate(checkpoint, layout), {})
    return outputs[0]


def _extend(array: Array, frames: int, method: Method) -> Array:
    if frames == 1:
        return array
    if method == "average":
        return np.repeat((array / frames).astype(array.dtype), frames, axis=2)
    extended = np.zeros((*array.shape[:2], frames, *array.shape[3:]), array.dtype)
    extended[:, :, frames // 2] = array[:, :, 0]
    return extended


def layouts() -> tuple[str, ...]:
    """Return the layouts of 2D networks, in alphabetical order."""
    return tuple(name.removeprefix(f"{IMAGES}/") for name in converter.names(IMAGES))


def _layout(name: str) -> Table:
    if name not in layouts():
        raise UnknownNameError(
            f"no 2D layout has the name {name!r}; expected one of {', '.join(layouts())}"
        )
    return converter.table(f"{IMAGES}/{name}")


def _tables(custom: str | Path | None) -> Sequence[Table]:
    if custom is None:
        return tuple(converter.table(name) for name in converter.names(IMAGES))
    table = converter.load_table(custom)
    if not table.images:
        raise ConverterError(
            f"{custom}: is the table of a 3D network; expected axis orders OIHW or HWIO for "
            "its kernels, or pass it to i3dzoo convert"
        )
    return (table,)


def _read(
    where: str, tables: Sequence[Table], key: str | None
) -> tuple[Network, Sequence[Network], Path]:
    """Return the 2D network to read, all networks of the file, and the file."""
    if Path(where).suffix in _CAFFE:
        raise MappingError(f"{where}: Caffe's GoogLeNet has no BatchNorm: {_NO_STATISTICS}")
    container = formats.read(Path(where))
    parts = container.state_dicts
    networks = find_networks(parts, tables)
    if networks:
        return select(where, networks, container, None, key), networks, container.path
    if find_networks(parts, converter.tables(container.format)):
        raise MappingError(
            f"{where}: is already an I3D network, and i3dzoo inflate reads 2D networks; use the "
            "file as it is"
        )
    _check_statistics(where, container)
    return nearest(where, parts, tables), (), container.path


def _check_statistics(where: str, container: Container) -> None:
    """Refuse a network whose first convolution is Inception's, without BatchNorm statistics."""
    for tensors in container.state_dicts.values():
        stem = [name for name, array in tensors.items() if _is_stem(array.shape)]
        if stem and not any("mean" in name or "bn" in name.lower() for name in tensors):
            raise MappingError(
                f"{where}: has no BatchNorm statistics (the first convolution is {stem[0]}): "
                f"{_NO_STATISTICS}"
            )


def _is_stem(shape: Iterable[int]) -> bool:
    return tuple(shape) in ((64, 3, 7, 7), (7, 7, 3, 64))
