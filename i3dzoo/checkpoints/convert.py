"""Convert tensors between a layout and the canonical state dict.

The law: every source tensor matches exactly one rule or one ignore, every target is written exactly
once, every shape is checked, and tensors left over on either side are an error that lists them.
Arrays are returned as views wherever the axis order allows it, so conversion copies no weights.
"""

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from i3dzoo.arrays import Array, Tensors
from i3dzoo.checkpoints.converter import AXIS_COUNTS, Ignore, Table
from i3dzoo.checkpoints.metadata import Stream
from i3dzoo.checkpoints.networks import HEAD, Network, choose, find_networks, nearest
from i3dzoo.errors import FormatError, MappingError, ShapeError
from i3dzoo.network.architecture import HEAD_BIAS, STEM_WEIGHT, canonical_shapes

_DTYPES: Final = ("float16", "bfloat16", "float32")
_UNCHANGED: Final = "unchanged"
_ROUNDED: Final = "rounded to float32"


@dataclass(frozen=True)
class MappedTensor:
    """How one tensor was converted, or why it was ignored."""

    source: str  # empty if the tensor is a constant
    target: str  # empty if the tensor was ignored
    shape: tuple[int, ...]
    operation: str


@dataclass(frozen=True)
class Conversion:
    """Converted tensors, and the mapping of each tensor that was written or left out."""

    layout: str  # the one that is not canonical
    tensors: Tensors
    mapping: tuple[MappedTensor, ...]
    ignored: tuple[MappedTensor, ...]


def stream_of(tensors: Tensors) -> Stream:
    """Return the stream of canonical tensors: flow has two input channels, RGB three."""
    return "flow" if tensors[STEM_WEIGHT].shape[1] == 2 else "rgb"


def num_classes(tensors: Tensors) -> int:
    """Return the number of classes of canonical tensors, 0 if there is no head."""
    bias = tensors.get(HEAD_BIAS)
    return 0 if bias is None else int(bias.shape[0])


def to_canonical(
    where: str, tensors: Tensors, table: Table, stream: Stream | None = None
) -> Conversion:
    """Convert the tensors of a layout to canonical ones.

    `stream` is the network to convert if there are two, and the expected one if there is one.
    """
    networks = find_networks({"": tensors}, [table])
    network = (
        choose(where, networks, stream) if networks else nearest(where, {"": tensors}, [table])
    )
    return network_to_canonical(where, network, networks)


def network_to_canonical(
    where: str,
    network: Network,
    networks: Sequence[Network] = (),
    only: bool = False,
    ignore: tuple[str, ...] = (),
    round_float64: bool = False,
) -> Conversion:
    """Convert one network of a state dict to canonical tensors.

    Args:
        where: Of messages.
        network: The network.
        networks: All networks of the file; tensors of the others are ignored.
        only: Ignore all other tensors too.
        ignore: Names of unknown tensors to ignore, with `*` for any text.
        round_float64: Round float64 to float32, instead of refusing it.
    """
    table, prefix, tensors = network.table, network.prefix, network.tensors
    has_head = any(prefix + rule.source in tensors for rule in table.rules if rule.target in HEAD)
    rules = [rule for rule in table.rules if has_head or rule.target not in HEAD]
    missing = [prefix + rule.source for rule in rules if prefix + rule.source not in tensors]
    known = {prefix + rule.source for rule in rules}
    ignored, rest = _of_others(network, networks, known)
    ignores = (*table.ignores, *(Ignore(pattern, "matches --ignore") for pattern in ignore))
    dropped, unknown = _ignore(rest, ignores, ("", *table.prefixes, prefix))
    if only:
        reason = f"is not part of the network under {network.key!r}"
        dropped += [MappedTensor(name, "", tensors[name].shape, reason) for name in unknown]
        unknown = []
    if missing or unknown:
        raise MappingError(_mismatch(where, table, missing, unknown))
    canonical: dict[str, Array] = {}
    mapping = []
    for rule in rules:
        name = prefix + rule.source
        array, operation = tensors[name], _UNCHANGED
        if round_float64 and array.dtype == "f8":
            array, operation = round_to(f"{where}: {name}", array, np.dtype("f4")), _ROUNDED
        order = _axis_order(where, name, array, rule.layouts)
        canonical[rule.target] = _to_canonical(array, order)
        if order not in ("OIDHW", "OIHW", "C"):
            operation = _joined(operation, f"{order} -> canonical")
        mapping.append(MappedTensor(name, rule.target, canonical[rule.target].shape, operation))
    for target in table.absent:
        bias = canonical[target.replace(".bn.weight", ".bn.bias")]
        canonical[target] = np.broadcast_to(np.ones((), bias.dtype), bias.shape)
        mapping.append(MappedTensor("", target, bias.shape, "ones: the layout lacks this tensor"))
    sources = {mapped.target: mapped.source for mapped in mapping}
    _check_shapes(where, canonical, sources, table.images)
    canonical = {name: canonical[name] for name in canonical_shapes(1) if name in canonical}
    return Conversion(table.name, canonical, tuple(mapping), (*ignored, *dropped))


def from_canonical(where: str, tensors: Tensors, table: Table) -> Conversion:
    """Convert canonical tensors to those of a layout; those of images have kernels of one frame."""
    _check_kind(where, tensors, table)
    prefix = table.stream_prefix[stream_of(tensors)]
    converted: dict[str, Array] = {}
    mapping = []
    for rule in table.rules:
        if rule.target not in tensors and rule.target in HEAD:
            continue
        name, order = prefix + rule.source, rule.layouts[0]
        converted[name] = _from_canonical(tensors[rule.target], order)
        operation = _UNCHANGED if order in ("OIDHW", "OIHW", "C") else f"-> {order}"
        mapping.append(MappedTensor(rule.target, name, converted[name].shape, operation))
    ignored = []
    for target in table.absent:
        if not np.all(tensors[target] == 1):
            raise MappingError(
                f"{where}: {target}: expected ones, because the layout {table.name} does not store "
                "this tensor; convert to a layout with BatchNorm scales, such as "
                f"{'torchvision' if table.images else 'piergiaj'}"
            )
        ignored.append(
            MappedTensor(target, "", tensors[target].shape, "ones, as the layout implies")
        )
    for source in (prefix + name for ignore in table.ignores for name in ignore.write):
        converted[source] = np.zeros((), "i8")
        mapping.append(MappedTensor("", source, (), "zero, which readers of the layout expect"))
    return Conversion(table.name, converted, tuple(mapping), tuple(ignored))


def add_operation(
    conversion: Conversion | None, tensors: Tensors, operation: str, replaced: bool = False
) -> Conversion | None:
    """Return a conversion that is followed by an operation on its result, `tensors`.

    Arrays that the operation did not change must be the same objects. If it `replaced` the others,
    they contain nothing of the arrays before.
    """
    if conversion is None:
        return None
    before = {mapped.target: mapped for mapped in conversion.mapping}
    mapping, ignored = [], list(conversion.ignored)
    for name, array in tensors.items():
        mapped = before.get(name)
        changed = mapped is not None and array is not conversion.tensors[name]
        if mapped is None or (replaced and changed):
            mapping.append(MappedTensor("", name, array.shape, operation))
            continue
        del before[name]
        if changed:
            operations = _joined(mapped.operation, operation)
            mapped = MappedTensor(mapped.source, name, array.shape, operations)
        mapping.append(mapped)
    for mapped in before.values():
        if mapped.source:
            reason = f"{operation} replaces it" if mapped.target in tensors else operation
            shape = conversion.tensors[mapped.target].shape
            ignored.append(MappedTensor(mapped.source, "", shape, reason))
    return Conversion(conversion.layout, tensors, tuple(mapping), tuple(ignored))


def round_to(where: str, array: Array, dtype: np.dtype[Any]) -> Array:
    """Return an array in another float format, rounded to nearest; overflow is an error."""
    with np.errstate(over="ignore"):  # overflows raise an error below
        rounded: Array = array.astype(dtype)
    if np.isfinite(np.sum(rounded, dtype="f8")):
        return rounded
    largest = float(np.abs(array.astype("f8")).max())
    remedy = "; use bfloat16, which has the range of float32" if dtype == "f2" else ""
    raise FormatError(
        f"{where}: the value {largest:g} is outside the range of {dtype.name}{remedy}"
    )


def compose(read: Conversion, written: Conversion) -> tuple[MappedTensor, ...]:
    """Return the mapping from one layout to another, through canonical names."""
    origin = {mapped.target: mapped for mapped in read.mapping}
    mapping = []
    for mapped in written.mapping:
        if first := origin.get(mapped.source):
            operations = _joined(first.operation, mapped.operation)
            mapped = MappedTensor(first.source, mapped.target, mapped.shape, operations)
        mapping.append(mapped)
    return tuple(mapping)


def _joined(*operations: str) -> str:
    return ", then ".join(text for text in operations if text != _UNCHANGED) or _UNCHANGED


def _of_others(
    network: Network, networks: Sequence[Network], known: set[str]
) -> tuple[list[MappedTensor], Tensors]:
    """Return the tensors of other networks in the same state dict, and the rest of it."""
    owners = {
        name: other
        for other in networks
        if (other.part, other.prefix != network.prefix) == (network.part, True)
        for name in other.names - known
    }
    ignored, rest = [], {}
    for name, array in network.tensors.items():
        if owner := owners.get(name):
            other_stream = owner.stream != network.stream
            which = "of the other stream" if other_stream else f"under {owner.key!r}"
            ignored.append(MappedTensor(name, "", array.shape, f"belongs to the network {which}"))
        elif name not in known:
            rest[name] = array
    return ignored, rest


def _ignore(
    rest: Tensors, ignores: Iterable[Ignore], prefixes: Sequence[str]
) -> tuple[list[MappedTensor], list[str]]:
    ignored, unknown = [], []
    patterns = [(prefix + rule.pattern, rule.reason) for rule in ignores for prefix in prefixes]
    for name, array in rest.items():
        for pattern, reason in patterns:
            if fnmatch.fnmatchcase(name, pattern):
                ignored.append(MappedTensor(name, "", array.shape, reason))
                break
        else:
            unknown.append(name)
    return ignored, unknown


def _mismatch(where: str, table: Table, missing: list[str], unknown: list[str]) -> str:
    parts = [
        f"{len(names)} {kind} ({', '.join(names[:5])}{', …' if len(names) > 5 else ''})"
        for kind, names in (("missing", missing), ("unknown", unknown))
        if names
    ]
    return (
        f"{where}: expected the tensors of the layout {table.name}, found {' and '.join(parts)}; "
        "convert the unaltered file, omit other tensors with --ignore, or pass a custom table with "
        "--converter"
    )


def _axis_order(where: str, name: str, array: Array, orders: tuple[str, ...]) -> str:
    if array.dtype == "f8":
        raise MappingError(
            f"{where}: {name} has dtype float64; round it with i3dzoo convert --dtype float32, or "
            "in Python with open_checkpoint(path, round_float64=True)"
        )
    if array.dtype.name not in _DTYPES:
        raise MappingError(
            f"{where}: {name} has dtype {array.dtype}; expected one of {', '.join(_DTYPES)}"
        )
    for order in orders:
        if array.ndim == AXIS_COUNTS[order] and (order != "1111C" or array.shape[:4] == (1,) * 4):
            return order
    raise ShapeError(
        f"{where}: {name} has shape {array.shape}; expected axes {' or '.join(orders)}"
    )


def _to_canonical(array: Array, order: str) -> Array:
    if order == "DHWIO":
        return array.transpose(4, 3, 0, 1, 2)
    if order in ("OIHW", "HWIO"):
        return (array if order == "OIHW" else array.transpose(3, 2, 0, 1))[:, :, None]
    if order == "OI":
        return array.reshape(*array.shape, 1, 1, 1)
    return array.reshape(-1) if order == "1111C" else array


def _from_canonical(array: Array, order: str) -> Array:
    if order == "DHWIO":
        return array.transpose(2, 3, 4, 1, 0)
    if order in ("OIHW", "HWIO"):
        return array[:, :, 0] if order == "OIHW" else array[:, :, 0].transpose(2, 3, 1, 0)
    if order == "OI":
        return array.reshape(array.shape[:2])
    return array.reshape(1, 1, 1, 1, -1) if order == "1111C" else array


def _check_kind(where: str, tensors: Tensors, table: Table) -> None:
    if table.images and tensors[STEM_WEIGHT].shape[2] > 1:
        raise MappingError(
            f"{where}: the layout {table.name} is for 2D networks, and this network is 3D; write "
            "it with i3dzoo deflate, which sums the kernels over time"
        )


def _check_shapes(where: str, canonical: Tensors, sources: dict[str, str], images: bool) -> None:
    channels = canonical[STEM_WEIGHT].shape[1]
    if channels not in (2, 3):
        raise ShapeError(
            f"{where}: {sources[STEM_WEIGHT]} has {channels} input channels; expected 3 (RGB) or 2 "
            "(flow)"
        )
    classes = num_classes(canonical) or 1
    for name, shape in canonical_shapes(classes, channels, images=images).items():
        if name in canonical and canonical[name].shape != shape:
            raise ShapeError(
                f"{where}: {sources[name]} becomes {name} of shape {canonical[name].shape}; "
                f"expected {shape}"
            )
