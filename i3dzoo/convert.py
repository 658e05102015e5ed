"""Conversion between a layout and the canonical state dict: tensors in, tensors out.

The law: every source tensor meets exactly one rule or one ignore, every target is written exactly
once, every shape is checked, and what is left over on either side is an error that lists the names.
Arrays are returned as views wherever the axis order allows, so converting moves no bytes.
"""

import dataclasses
import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from i3dzoo.architecture import HEAD, canonical_shapes
from i3dzoo.arrays import Array, Tensors
from i3dzoo.errors import MappingError, ShapeError
from i3dzoo.metadata import Stream
from i3dzoo.tables import LAYOUTS, Table

__all__ = [
    "Conversion",
    "Step",
    "compose",
    "continued",
    "detect",
    "from_canonical",
    "networks",
    "num_classes",
    "stream",
    "to_canonical",
]

_DTYPES: Final = ("float16", "bfloat16", "float32")
_STEM_WEIGHT: Final = "Conv3d_1a_7x7.conv.weight"
_AS_IS: Final = "as it is"
_OTHER_STREAM: Final = "of the other stream's network, which was not asked for"
_HEAD_TENSORS: Final = (f"{HEAD}.conv.weight", f"{HEAD}.conv.bias")


@dataclass(frozen=True)
class Step:
    """What became of one tensor.

    Attributes:
        source: Its name before; empty where the tensor is a constant.
        target: Its name after; empty where it was ignored.
        shape: Of the target; of the source where it was ignored.
        operation: What was done, or the reason why it was ignored.
    """

    source: str
    target: str
    shape: tuple[int, ...]
    operation: str


@dataclass(frozen=True)
class Conversion:
    """Converted tensors, and what became of each.

    Attributes:
        layout: Name of the foreign layout.
        tensors: The result, in the order of the table.
        steps: One for each tensor written.
        ignored: One for each tensor left out.
    """

    layout: str
    tensors: Tensors
    steps: tuple[Step, ...]
    ignored: tuple[Step, ...]


def stream(tensors: Tensors) -> Stream:
    """Return the stream of canonical tensors: two input channels are flow, three RGB."""
    channels = tensors[_STEM_WEIGHT].shape[1]
    return "flow" if channels == 2 else "rgb"


def num_classes(tensors: Tensors) -> int:
    """Return the number of classes of canonical tensors, 0 where there is no head."""
    bias = tensors.get(_HEAD_TENSORS[1])
    return 0 if bias is None else int(bias.shape[0])


def networks(tensors: Tensors, table: Table) -> dict[str, Stream]:
    """Return the stream of each network that a layout's tensors hold, by the text before its names.

    A network is there where its first convolution is.
    """
    stem = next(rule for rule in table.rules if rule.target == _STEM_WEIGHT)
    found: dict[str, Stream] = {}
    for prefix in table.prefixes:
        array = tensors.get(prefix + stem.source)
        if array is not None and array.ndim == LAYOUTS[stem.layouts[0]]:
            channels = array.shape[3 if stem.layouts[0] == "DHWIO" else 1]
            found[prefix] = "flow" if channels == 2 else "rgb"
    return found


def detect(where: str, names: Iterable[str], tables: Iterable[Table]) -> Table:
    """Return the table whose names these are.

    Where a whole network stands behind a text that no table knows, as modules put their names
    before those of the modules in them, the table that is returned reads that too.

    Args:
        where: The file, for messages.
        names: Names of tensors.
        tables: The layouts to choose from; those after one that fits whole are not looked at.

    Raises:
        MappingError: None fits; the message says what the nearest one lacks.
    """
    found = set(names)
    best, best_hits = None, 0
    seen = []
    for candidate in tables:
        seen.append(candidate)
        sources = {rule.source for rule in candidate.rules}
        hits = max(len({p + s for s in sources} & found) for p in candidate.prefixes)
        if hits > best_hits:
            best, best_hits = candidate, hits
        if hits == len(sources):
            return candidate  # the rest, which loading would take time, cannot fit better
    if best is None or not set(best.prefixes) & set(_whole_behind(found, best)):
        for candidate in seen:
            if prefixes := _whole_behind(found, candidate):
                return dataclasses.replace(candidate, prefixes=prefixes)
    if best is None:
        sample = ", ".join(sorted(found)[:3]) or "nothing"
        raise MappingError(
            f"{where}: its tensors ({sample}, …) have no names of any layout that i3dzoo knows; "
            "write a converter table and pass it with --converter"
        )
    return best


def _whole_behind(names: set[str], table: Table) -> tuple[str, ...]:
    """Return the texts behind which a whole network's names stand, with its head or without."""
    trunk = [rule.source for rule in table.rules if rule.target not in _HEAD_TENSORS]
    stem = next(rule.source for rule in table.rules if rule.target == _STEM_WEIGHT)
    prefixes = sorted(name.removesuffix(stem) for name in names if name.endswith(stem))
    return tuple(prefix for prefix in prefixes if names.issuperset(prefix + s for s in trunk))


def to_canonical(
    where: str, tensors: Tensors, table: Table, stream: Stream | None = None
) -> Conversion:
    """Convert a layout's tensors to canonical ones.

    Args:
        where: The file, for messages.
        tensors: Arrays by the layout's names.
        table: The layout.
        stream: The network that is wanted of a file with two; of one with one, what it must be.

    Raises:
        MappingError: A tensor is missing, or meets no rule, or the file's network is of the other
            stream, or it holds two and `stream` does not say which.
        ShapeError: A tensor has a shape that I3D does not have.
    """
    prefix, others = _choose(where, tensors, table, stream)
    headless = not any(
        prefix + rule.source in tensors for rule in table.rules if rule.target in _HEAD_TENSORS
    )
    rules = [rule for rule in table.rules if not (headless and rule.target in _HEAD_TENSORS)]
    missing = [prefix + rule.source for rule in rules if prefix + rule.source not in tensors]
    known = {prefix + rule.source for rule in rules}
    rest = {name: array for name, array in tensors.items() if name not in known}
    beside = {other + rule.source for other in others for rule in table.rules} & set(rest)
    ignored = [
        Step(name, "", rest.pop(name).shape, _OTHER_STREAM) for name in tensors if name in beside
    ]
    dropped, unknown = _ignore(table, rest)
    ignored += dropped
    if missing or unknown:
        raise MappingError(_left_over(where, table, missing, unknown))
    canonical: dict[str, Array] = {}
    steps = []
    for rule in rules:
        name = prefix + rule.source
        layout = _layout(where, name, tensors[name], rule.layouts)
        canonical[rule.target] = _to_canonical(tensors[name], layout)
        operation = _AS_IS if layout in ("OIDHW", "C") else f"{layout} -> canonical"
        steps.append(Step(name, rule.target, canonical[rule.target].shape, operation))
    for target in table.absent:
        bias = canonical[target.replace(".bn.weight", ".bn.bias")]
        canonical[target] = np.broadcast_to(np.ones((), bias.dtype), bias.shape)
        steps.append(Step("", target, bias.shape, "ones: this layout has no such tensor"))
    _check_shapes(where, canonical, {step.target: step.source for step in steps})
    order = canonical_shapes(1)
    canonical = {name: canonical[name] for name in order if name in canonical}
    return Conversion(table.name, canonical, tuple(steps), tuple(ignored))


def from_canonical(where: str, tensors: Tensors, table: Table) -> Conversion:
    """Convert canonical tensors to a layout's.

    Args:
        where: The file, for messages.
        tensors: The canonical state dict.
        table: The layout.

    Raises:
        MappingError: The layout has no place for a tensor that is not what the layout implies.
    """
    prefix = table.stream_prefix[stream(tensors)]
    converted: dict[str, Array] = {}
    steps = []
    for rule in table.rules:
        if rule.target not in tensors and rule.target in _HEAD_TENSORS:
            continue
        name = prefix + rule.source
        converted[name] = _from_canonical(tensors[rule.target], rule.layouts[0])
        operation = _AS_IS if rule.layouts[0] in ("OIDHW", "C") else f"-> {rule.layouts[0]}"
        steps.append(Step(rule.target, name, converted[name].shape, operation))
    ignored = []
    for target in table.absent:
        if not np.all(tensors[target] == 1):
            raise MappingError(
                f"{where}: {target} is not all ones, and the layout {table.name} has no place for "
                "it; convert to a layout with BatchNorm scales, such as piergiaj"
            )
        ignored.append(Step(target, "", tensors[target].shape, "ones, which the layout implies"))
    for source in (prefix + name for ignore in table.ignores for name in ignore.write):
        converted[source] = np.zeros((), "i8")
        steps.append(Step("", source, (), "zero: the layout's readers expect it"))
    return Conversion(table.name, converted, tuple(steps), tuple(ignored))


def continued(
    conversion: Conversion | None, tensors: Tensors, operation: str, replaced: bool = False
) -> Conversion | None:
    """Return a conversion with an operation on its result added to it.

    Args:
        conversion: What was done before; None stays None.
        tensors: The operation's result; arrays that it left alone are the very same.
        operation: What was done, in words.
        replaced: Whether the other arrays have nothing of those that they take the place of.
    """
    if conversion is None:
        return None
    before = {step.target: step for step in conversion.steps}
    steps, ignored = [], list(conversion.ignored)
    for name, array in tensors.items():
        step = before.get(name)
        if step is None or (replaced and array is not conversion.tensors[name]):
            steps.append(Step("", name, array.shape, operation))
            continue
        del before[name]
        if array is not conversion.tensors[name]:
            operations = [op for op in (step.operation, operation) if op != _AS_IS]
            step = Step(step.source, name, array.shape, ", then ".join(operations))
        steps.append(step)
    for step in before.values():
        if step.source:
            reason = f"{operation} takes its place" if step.target in tensors else operation
            ignored.append(Step(step.source, "", conversion.tensors[step.target].shape, reason))
    return Conversion(conversion.layout, tensors, tuple(steps), tuple(ignored))


def compose(read: Conversion, written: Conversion) -> tuple[Step, ...]:
    """Return what became of each tensor on its way from one layout through canonical to another."""
    origin = {step.target: step for step in read.steps}
    steps = []
    for step in written.steps:
        first = origin.get(step.source)
        if first is None:
            steps.append(step)
            continue
        operations = [op for op in (first.operation, step.operation) if op != _AS_IS]
        steps.append(
            Step(first.source, step.target, step.shape, ", then ".join(operations) or _AS_IS)
        )
    return tuple(steps)


def _choose(
    where: str, tensors: Tensors, table: Table, wanted: Stream | None
) -> tuple[str, tuple[str, ...]]:
    """Return the prefix of the network to read, and those of the networks beside it."""
    found = networks(tensors, table)
    if wanted:
        fitting = [prefix for prefix, stream in found.items() if stream == wanted]
    else:
        fitting = list(found)
    if len(found) == 1 and not fitting:
        raise MappingError(
            f"{where}: holds a network for {next(iter(found.values()))}; expected one for {wanted}"
        )
    if found and len(fitting) != 1:
        held = ", ".join(f"{stream} under {prefix!r}" for prefix, stream in found.items())
        if len(fitting) > 1 and len(set(found.values())) == 1:
            raise MappingError(
                f"{where}: holds {held}; pass a table with the one that is meant with --converter"
            )
        raise MappingError(
            f"{where}: holds {held}; choose the network to read with --stream rgb or --stream flow "
            "of i3dzoo convert or verify"
        )
    if not found:  # say what is missing under the prefix that comes nearest
        nearest = max(
            table.prefixes, key=lambda p: sum(p + r.source in tensors for r in table.rules)
        )
        return nearest, ()
    return fitting[0], tuple(prefix for prefix in found if prefix != fitting[0])


def _ignore(table: Table, rest: Tensors) -> tuple[list[Step], list[str]]:
    ignored, unknown = [], []
    for name, array in rest.items():
        for rule in table.ignores:
            if fnmatch.fnmatchcase(name, rule.pattern) or any(
                fnmatch.fnmatchcase(name, prefix + rule.pattern) for prefix in table.prefixes
            ):
                ignored.append(Step(name, "", array.shape, rule.reason))
                break
        else:
            unknown.append(name)
    return ignored, unknown


def _left_over(where: str, table: Table, missing: list[str], unknown: list[str]) -> str:
    def listed(names: list[str]) -> str:
        return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")

    parts = []
    if missing:
        parts.append(f"lacks {len(missing)} of its tensors ({listed(missing)})")
    if unknown:
        parts.append(f"has {len(unknown)} that it does not know ({listed(unknown)})")
    return (
        f"{where}: does not fit the layout {table.name}: it {' and '.join(parts)}; "
        "convert the unaltered file, leave out what is not the network's with --ignore, or pass a "
        "table of your own with --converter"
    )


def _layout(where: str, name: str, array: Array, layouts: tuple[str, ...]) -> str:
    if array.dtype.name not in _DTYPES:
        raise MappingError(
            f"{where}: {name} has dtype {array.dtype}; expected one of {', '.join(_DTYPES)}"
        )
    for layout in layouts:
        if array.ndim == LAYOUTS[layout] and (layout != "1111C" or array.shape[:4] == (1,) * 4):
            return layout
    raise ShapeError(
        f"{where}: {name} has shape {array.shape}; expected axes {' or '.join(layouts)}"
    )


def _to_canonical(array: Array, layout: str) -> Array:
    if layout == "DHWIO":
        return array.transpose(4, 3, 0, 1, 2)
    return array.reshape(-1) if layout == "1111C" else array


def _from_canonical(array: Array, layout: str) -> Array:
    if layout == "DHWIO":
        return array.transpose(2, 3, 4, 1, 0)
    return array.reshape(1, 1, 1, 1, -1) if layout == "1111C" else array


def _check_shapes(where: str, canonical: Tensors, sources: dict[str, str]) -> None:
    channels = canonical[_STEM_WEIGHT].shape[1]
    if channels not in (2, 3):
        raise ShapeError(
            f"{where}: {sources[_STEM_WEIGHT]} takes {channels} channels; expected 3 (RGB) or 2 "
            "(flow)"
        )
    classes = num_classes(canonical) or 1
    for name, shape in canonical_shapes(classes, channels).items():
        if name in canonical and canonical[name].shape != shape:
            raise ShapeError(
                f"{where}: {sources[name]} becomes {name} of shape {canonical[name].shape}; "
                f"expected {shape}"
            )
