"""Converter tables: one TOML file for each layout, parsed into frozen records.

A table converts in both directions, so its rules must be a bijection: every canonical tensor has
one source name, and no two canonical tensors share one.
"""

import difflib
import functools
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from msgspec import Meta, field

from i3dzoo.checkpoints import presets
from i3dzoo.checkpoints.metadata import Stream
from i3dzoo.errors import ConverterError, UnknownNameError
from i3dzoo.formats import FORMATS
from i3dzoo.network.architecture import BLOCKS, UNITS, canonical_shapes
from i3dzoo.records import Record, parse_toml, read_toml
from i3dzoo.resources import data

AxisOrder = Literal["OIDHW", "DHWIO", "OIHW", "HWIO", "OI", "C", "1111C"]
AXIS_COUNTS: Final[Mapping[str, int]] = dict(
    OIDHW=5, DHWIO=5, OIHW=4, HWIO=4, OI=2, C=1, **{"1111C": 5}
)
"""Number of axes of each axis order."""

IMAGES: Final = "images"
"""The folder of the layouts of 2D networks, which `i3dzoo inflate` reads."""

_KERNELS: Final = ("OIDHW", "DHWIO")
_IMAGE_KERNELS: Final = ("OIHW", "HWIO")
_VECTORS: Final = ("C", "1111C")
_LINEAR: Final = "OI"  # of a convolution with a kernel of 1x1x1
_BLOCK_NAMES: Final = tuple(block.removeprefix("Mixed_") for block in BLOCKS)
_Text = Annotated[str, Meta(min_length=1, description="text")]


class Rule(Record, frozen=True):
    """One tensor of a layout."""

    source: str  # its name in the layout, without prefix
    target: str  # its canonical name
    layouts: tuple[str, ...]  # axis orders that are read; the first is written


class Ignore(Record, frozen=True):
    """Tensors of a layout that are left out, and why nothing is lost."""

    pattern: str  # with `*` for any text
    reason: str
    write: tuple[str, ...] = ()  # names without prefix that are written as int64 zeros


class Joint(Record, frozen=True):
    """The prefixes of two networks in one file, and the layers that combine their logits."""

    rgb: str
    flow: str
    sum: tuple[str, str] | None = None  # linear layers with a ReLU between them, if there are any

    def __post_init__(self) -> None:
        if self.rgb == self.flow:
            raise ConverterError(f"rgb and flow are both {self.rgb!r}; expected two prefixes")

    @property
    def prefix(self) -> Mapping[Stream, str]:
        """The prefix of each stream."""
        return {"rgb": self.rgb, "flow": self.flow}


class Table(Record, frozen=True, kw_only=True):
    """One layout."""

    name: str
    title: str
    format: str
    prefixes: tuple[str, ...]  # of names that are read
    stream_prefix: Mapping[Stream, str]  # of names that are written
    rules: tuple[Rule, ...]
    absent: tuple[str, ...]  # canonical tensors that the layout lacks; all are ones
    ignores: tuple[Ignore, ...]
    joint: Joint | None = None
    preset: str | None = None  # which describes the files of a layout of one project

    @property
    def images(self) -> bool:
        """Whether it is the layout of a 2D network."""
        return any(order in _IMAGE_KERNELS for rule in self.rules for order in rule.layouts)


class _Prefix(Record, frozen=True):
    rgb: str | None = None
    flow: str | None = None
    also: tuple[str, ...] = ()

    @property
    def streams(self) -> Mapping[Stream, str]:
        default = self.also[0] if self.also else ""
        return {
            "rgb": default if self.rgb is None else self.rgb,
            "flow": default if self.flow is None else self.flow,
        }


class _TensorRule(Record, frozen=True):
    source: _Text
    target: _Text
    layout: Annotated[tuple[AxisOrder, ...], Meta(min_length=1)]

    def __post_init__(self) -> None:
        if ("{unit}" in self.source) != ("{unit}" in self.target):
            raise ConverterError(
                f"source is {self.source!r}, target {self.target!r}; expected {{unit}} in both or "
                "in neither"
            )


class _IgnoreEntry(Record, frozen=True):
    source: _Text
    reason: _Text
    write: Literal["int64-zero"] | None = None


class _Document(Record, frozen=True, kw_only=True):
    """A converter table as it is written in TOML; converters/README.md explains the keys."""

    title: str
    format: str
    prefix: _Prefix
    units: dict[str, str]
    tensor: tuple[_TensorRule, ...]
    order: tuple[str, ...] = ()
    joint: Joint | None = None
    preset: str | None = None
    absent: dict[str, Literal["ones"]] = field(default_factory=dict)
    ignore: tuple[_IgnoreEntry, ...] = ()

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ConverterError(f"format is {self.format!r}; expected one of {', '.join(FORMATS)}")
        if self.preset not in (None, *presets.names()):
            raise ConverterError(
                f"preset is {self.preset!r}; expected one of {', '.join(presets.names())}"
            )
        for target in self.absent:
            if "{unit}" not in target:
                raise ConverterError(f"absent has {target!r}; expected a name with {{unit}}")


def names(folder: str = "") -> tuple[str, ...]:
    """Return the layouts that have a table, in alphabetical order.

    With the folder `images`, they are those of 2D networks, and begin with `images/`.
    """
    files = ((data("converters") / folder) if folder else data("converters")).iterdir()
    own = (entry.name for entry in files)
    stems = sorted(file.removesuffix(".toml") for file in own if file.endswith(".toml"))
    return tuple(f"{folder}/{stem}" if folder else stem for stem in stems)


def tables(format_name: str) -> Iterator[Table]:
    """Yield the table of every layout, those of a container format first."""
    yield from map(table, sorted(names(), key=lambda name: _document(name).format != format_name))


def table(name: str) -> Table:
    """Return the table of a layout, or a custom table by its path, which ends in `.toml`."""
    return load_table(name) if name.endswith(".toml") else _shipped(name)


def load_table(path: str | Path) -> Table:
    """Read a custom table; a ConverterError says why it cannot be used in both directions."""
    return _build(Path(path).stem, str(path), read_toml(path, _Document, error=ConverterError))


@functools.cache
def _shipped(name: str) -> Table:
    return _build(name, f"converters/{name}.toml", _document(name))


@functools.cache
def _document(name: str) -> _Document:
    if name not in (*names(), *names(IMAGES)):
        near = difflib.get_close_matches(name, names(), 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UnknownNameError(
            f"no layout has the name {name!r}; {hint}expected one of {', '.join(names())}"
        )
    content = (data("converters") / f"{name}.toml").read_bytes()
    return parse_toml(content, _Document, f"converters/{name}.toml", error=ConverterError)


def _build(name: str, where: str, document: _Document) -> Table:
    """Expand `{unit}` and `{n}`, and check that the result is a bijection."""
    streams, joint = document.prefix.streams, document.joint
    units = _units(where, document.units)
    prefixes = [*streams.values(), *document.prefix.also, *(joint.prefix.values() if joint else ())]
    result = Table(
        name=name,
        title=document.title,
        format=document.format,
        prefixes=tuple(dict.fromkeys(prefixes)),
        stream_prefix=streams,
        rules=tuple(_ordered(where, _rules(document.tensor, units), document.order)),
        absent=tuple(t.replace("{unit}", unit.name) for t in document.absent for unit in UNITS),
        ignores=tuple(_ignore(entry, units) for entry in document.ignore),
        joint=joint,
        preset=document.preset,
    )
    _check_bijection(where, result)
    return result


def _units(where: str, patterns: Mapping[str, str]) -> dict[str, str]:
    """Return the layout's name of each canonical unit."""
    units: dict[str, str] = {}
    # patterns come first, so that exact entries replace them
    for canonical, own in sorted(patterns.items(), key=lambda item: "{n}" not in item[0]):
        for block in _BLOCK_NAMES if "{n}" in canonical else ("",):
            units[canonical.replace("{n}", block)] = own.replace("{n}", block)
    expected = [unit.name for unit in UNITS]
    if wrong := sorted(set(units) ^ set(expected)):
        raise ConverterError(f"{where}: units: missing or unknown units: {', '.join(wrong[:5])}")
    return {name: units[name] for name in expected}


def _rules(entries: Iterable[_TensorRule], units: Mapping[str, str]) -> list[Rule]:
    return [
        Rule(
            entry.source.replace("{unit}", own),
            entry.target.replace("{unit}", canonical),
            entry.layout,
        )
        for entry in entries
        for canonical, own in (units.items() if "{unit}" in entry.source else [("", "")])
    ]


def _ignore(entry: _IgnoreEntry, units: Mapping[str, str]) -> Ignore:
    written = [entry.source.replace("{unit}", own) for own in units.values()] if entry.write else ()
    return Ignore(entry.source.replace("{unit}", "*"), entry.reason, tuple(written))


def _ordered(where: str, rules: list[Rule], patterns: tuple[str, ...]) -> list[Rule]:
    """Sort rules by the beginnings of their names; patterns with `{n}` repeat for each block."""
    if not patterns:
        return rules
    positions: dict[str, int] = {}
    for blocked, group in itertools.groupby(patterns, lambda pattern: "{n}" in pattern):
        members = list(group)
        for block in _BLOCK_NAMES if blocked else ("",):
            for pattern in members:
                positions[pattern.replace("{n}", block)] = len(positions)
    parents = {rule.source: rule.source.rpartition("/")[0] for rule in rules}
    if missing := [source for source, parent in parents.items() if parent not in positions]:
        raise ConverterError(f"{where}: order: has no position for {', '.join(missing[:5])}")
    return sorted(rules, key=lambda rule: positions[parents[rule.source]])


def _check_bijection(where: str, result: Table) -> None:
    shapes = canonical_shapes(1)
    targets = [rule.target for rule in result.rules] + list(result.absent)
    sources = [rule.source for rule in result.rules]
    for kind, tensor_names in (("target", targets), ("source", sources)):
        if repeated := [name for name, count in Counter(tensor_names).items() if count > 1]:
            raise ConverterError(f"{where}: two rules have the {kind} {repeated[0]}")
    if wrong := sorted(set(targets) ^ set(shapes)):
        raise ConverterError(
            f"{where}: {len(wrong)} canonical tensors are missing or unknown: "
            f"{', '.join(wrong[:5])}"
        )
    for rule in result.rules:
        shape = shapes[rule.target]
        kernels = _IMAGE_KERNELS if result.images else _KERNELS
        possible: tuple[str, ...] = kernels if len(shape) == 5 else _VECTORS
        possible += (_LINEAR,) if shape[2:] == (1, 1, 1) else ()
        if not set(rule.layouts) <= set(possible):
            raise ConverterError(
                f"{where}: {rule.target}: layout is {', '.join(rule.layouts)}; "
                f"expected {' or '.join(possible)}"
            )
