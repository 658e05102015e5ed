"""Converter tables: one TOML a layout, loaded into frozen records that are checked whole.

A table is used both ways, so its rules must be a bijection: every canonical tensor has one source
name, and no two share one.
"""

import functools
import itertools
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from i3dzoo._files import is_special
from i3dzoo._resources import data
from i3dzoo.architecture import BLOCKS, UNITS, canonical_shapes
from i3dzoo.errors import ConverterError, UnknownNameError
from i3dzoo.formats import FORMATS
from i3dzoo.metadata import Stream

__all__ = [
    "LAYOUTS",
    "Ignore",
    "Joint",
    "Rule",
    "Table",
    "likely",
    "load_table",
    "names",
    "table",
]

LAYOUTS: Final = {"OIDHW": 5, "DHWIO": 5, "C": 1, "1111C": 5}
"""Axis orders and their number of axes."""

_AXES: Final = {5: ("OIDHW", "DHWIO"), 1: ("C", "1111C")}  # by rank of the canonical tensor
# the keys of a table and the kinds of their values; * is any key
_VOCABULARY: Final[dict[str, Any]] = {
    "title": str,
    "format": str,
    "order": [str],
    "prefix": {"rgb": str, "flow": str, "also": [str]},
    "joint": {"rgb": str, "flow": str, "sum": [str]},
    "units": {"*": str},
    "tensor": [{"source": str, "target": str, "layout": [str]}],
    "absent": {"*": str},
    "ignore": [{"source": str, "reason": str, "write": str}],
}
_BLOCK_NAMES: Final = tuple(block.removeprefix("Mixed_") for block in BLOCKS)


@dataclass(frozen=True)
class Rule:
    """One tensor of a layout.

    Attributes:
        source: Its name there, without prefix.
        target: Its canonical name.
        layouts: Axis orders that are read; the first is written.
    """

    source: str
    target: str
    layouts: tuple[str, ...]


@dataclass(frozen=True)
class Ignore:
    """Tensors of a layout that are left out.

    Attributes:
        pattern: Names, with `*` for any text.
        reason: Why nothing is lost.
        write: The names to add on writing, without prefix; they hold int64 zeros.
    """

    pattern: str
    reason: str
    write: tuple[str, ...] = ()


@dataclass(frozen=True)
class Joint:
    """How a layout holds the networks of both streams in one file.

    Attributes:
        prefix: The text before every name of a network, by stream.
        sum: Names of the two linear layers, a ReLU between them, that make one of their logits;
            here they add them. None where the layout leaves that to its readers.
    """

    prefix: Mapping[Stream, str]
    sum: tuple[str, str] | None


@dataclass(frozen=True)
class Table:
    """One layout.

    Attributes:
        name: Name of the layout, and of its file.
        title: What people call it.
        format: Container that it is written in.
        prefixes: Texts before every name that are read.
        stream_prefix: The one that is written, by stream.
        rules: One for each tensor of the layout.
        absent: Canonical names that the layout lacks; all are ones.
        ignores: What is left out.
        joint: How it holds two networks; None where it has no place for a second.
    """

    name: str
    title: str
    format: str
    prefixes: tuple[str, ...]
    stream_prefix: Mapping[Stream, str]
    rules: tuple[Rule, ...]
    absent: tuple[str, ...]
    ignores: tuple[Ignore, ...]
    joint: Joint | None = None


def names() -> tuple[str, ...]:
    """Return the layouts that have a table, in alphabetical order."""
    files = (entry.name for entry in data("converters").iterdir())
    return tuple(sorted(file.removesuffix(".toml") for file in files if file.endswith(".toml")))


def likely(format_name: str) -> Iterator[Table]:
    """Yield every layout's table, those of a container first, each loaded when it is reached."""

    def other(name: str) -> bool:
        text = (data("converters") / f"{name}.toml").read_text("utf-8")
        return f'\nformat = "{format_name}"\n' not in text

    yield from map(table, sorted(names(), key=other))


def table(name: str) -> Table:
    """Return the table of a layout.

    Args:
        name: Of the layout, or the path of a table of the user's own, which ends in `.toml`.

    Raises:
        UnknownNameError: There is no such layout.
        ConverterError: The user's own table cannot be read or breaks the law of tables.
    """
    if name.endswith(".toml"):
        return load_table(name)
    return _own(name)


@functools.cache
def _own(name: str) -> Table:
    if name not in names():
        raise UnknownNameError(f"no layout is called {name!r}; there are {', '.join(names())}")
    text = (data("converters") / f"{name}.toml").read_text("utf-8")
    return _parse(name, f"converters/{name}.toml", text)


def load_table(path: str | Path) -> Table:
    """Read a table of the user's own.

    Raises:
        ConverterError: It cannot be read or breaks the law of tables.
    """
    path = Path(path)
    if is_special(path):
        raise ConverterError(f"{path}: is no regular file; save it to one first")
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConverterError(f"{path}: cannot be read as a converter table: {error}") from error
    return _parse(path.stem, str(path), text)


def _parse(name: str, where: str, text: str) -> Table:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConverterError(f"{where}: is no TOML: {error}") from error
    for key in ("title", "format", "prefix", "units", "tensor"):
        document.setdefault(key)  # None, which is no value of any
    _check_table(where, document, _VOCABULARY)
    prefix = document["prefix"]
    also = tuple(prefix.get("also", ()))
    streams: dict[Stream, str] = {
        "rgb": prefix.get("rgb", also[0] if also else ""),
        "flow": prefix.get("flow", also[0] if also else ""),
    }
    joint = _joint(where, document)
    units = _units(where, document["units"])
    rules = _rules(where, document["tensor"], units)
    result = Table(
        name=name,
        title=document["title"],
        format=_format(where, document["format"]),
        prefixes=tuple(
            dict.fromkeys([*streams.values(), *also, *(joint.prefix.values() if joint else ())])
        ),
        stream_prefix=streams,
        rules=tuple(_ordered(where, rules, document.get("order", []))),
        absent=tuple(_absent(where, document.get("absent", {}))),
        ignores=tuple(_ignores(where, document.get("ignore", []), units)),
        joint=joint,
    )
    _check_bijection(where, result)
    return result


def _check_table(where: str, entries: dict[str, Any], kinds: dict[str, Any]) -> None:
    """Refuse keys that a table does not have, and values of another kind than its own."""
    unknown = sorted(set(entries) - set(kinds))
    if unknown and "*" not in kinds:
        raise ConverterError(
            f"{where}: unknown key {', '.join(unknown)}; expected {', '.join(kinds)}"
        )
    for key, value in entries.items():
        _check_value(where, key, value, kinds.get(key, kinds.get("*")))


def _check_value(where: str, key: str, value: Any, kind: Any) -> None:
    found, expected = type(value), kind if isinstance(kind, type) else type(kind)
    if found is not expected:
        raise ConverterError(f"{where}: {key} is {value!r}; expected a {expected.__name__}")
    if expected is list:
        for item in value:
            _check_value(where, key, item, kind[0])
    if expected is dict:
        _check_table(f"{where} [{key}]", value, kind)


def _format(where: str, name: str) -> str:
    if name not in FORMATS:
        raise ConverterError(f"{where}: format is {name!r}; expected one of {', '.join(FORMATS)}")
    return name


def _joint(where: str, document: dict[str, Any]) -> Joint | None:
    if "joint" not in document:
        return None
    entries = document["joint"]
    rgb, flow, layers = (entries.get(key) for key in ("rgb", "flow", "sum"))
    if rgb is None or flow is None or rgb == flow or len(layers or "ab") != 2:
        raise ConverterError(
            f"{where} [joint]: {entries}; expected rgb and flow, which differ, and sum, a list of "
            "two layers, or no sum"
        )
    return Joint({"rgb": rgb, "flow": flow}, (layers[0], layers[1]) if layers else None)


def _units(where: str, patterns: dict[str, str]) -> dict[str, str]:
    """Expand {n} and return this layout's unit for each canonical one."""
    units: dict[str, str] = {}
    # patterns first, so that exact entries replace what they gave
    for canonical, own in sorted(patterns.items(), key=lambda item: "{n}" not in item[0]):
        for block in _BLOCK_NAMES if "{n}" in canonical else ("",):
            units[canonical.replace("{n}", block)] = own.replace("{n}", block)
    expected = [unit.name for unit in UNITS]
    wrong = sorted(set(units) ^ set(expected))
    if wrong:
        raise ConverterError(f"{where} [units]: missing or unknown units: {', '.join(wrong[:5])}")
    return {name: units[name] for name in expected}


def _rules(where: str, entries: list[dict[str, Any]], units: dict[str, str]) -> list[Rule]:
    rules = []
    for entry in entries:
        source, target, layouts = (entry.get(key) for key in ("source", "target", "layout"))
        if (
            source is None
            or target is None
            or not layouts
            or not set(layouts) <= set(LAYOUTS)
            or ("{unit}" in source) != ("{unit}" in target)
        ):
            raise ConverterError(
                f"{where} [[tensor]]: {entry}; expected source, target, both or neither with "
                f"{{unit}}, and layout, a list of {', '.join(LAYOUTS)}"
            )
        pairs = units.items() if "{unit}" in source else [("", "")]
        for canonical, own in pairs:
            rules.append(
                Rule(
                    source.replace("{unit}", own),
                    target.replace("{unit}", canonical),
                    tuple(layouts),
                )
            )
    return rules


def _ordered(where: str, rules: list[Rule], patterns: list[str]) -> list[Rule]:
    """Sort rules by the beginnings of their names; those with {n} are taken block by block."""
    if not patterns:
        return rules
    places: dict[str, int] = {}
    for blocked, group in itertools.groupby(patterns, lambda pattern: "{n}" in pattern):
        members = list(group)
        for block in _BLOCK_NAMES if blocked else ("",):
            for pattern in members:
                places[pattern.replace("{n}", block)] = len(places)
    found = [(places.get(rule.source.rpartition("/")[0]), rule) for rule in rules]
    lost = [rule.source for place, rule in found if place is None]
    if lost:
        raise ConverterError(f"{where} [order]: has no place for {', '.join(lost[:5])}")
    return [rule for _, rule in sorted(found, key=lambda pair: pair[0] or 0)]


def _absent(where: str, entries: dict[str, str]) -> list[str]:
    for target, value in entries.items():
        if value != "ones" or "{unit}" not in target:
            raise ConverterError(
                f"{where} [absent]: {target} = {value!r}; expected '{{unit}}.…' = 'ones'"
            )
    return [target.replace("{unit}", unit.name) for target in entries for unit in UNITS]


def _ignores(where: str, entries: list[dict[str, str]], units: dict[str, str]) -> list[Ignore]:
    ignores = []
    for entry in entries:
        source, reason, write = (entry.get(key) for key in ("source", "reason", "write"))
        if not source or not reason or write not in (None, "int64-zero"):
            raise ConverterError(
                f"{where} [[ignore]]: {entry}; expected source, reason, and write = 'int64-zero' "
                "or no write"
            )
        added = [source.replace("{unit}", own) for own in units.values()] if write else []
        ignores.append(Ignore(source.replace("{unit}", "*"), reason, tuple(added)))
    return ignores


def _check_bijection(where: str, result: Table) -> None:
    targets = [rule.target for rule in result.rules] + list(result.absent)
    sources = [rule.source for rule in result.rules]
    for kind, found in (("target", targets), ("source", sources)):
        twice = [name for name, count in Counter(found).items() if count > 1]
        if twice:
            raise ConverterError(f"{where}: two rules have the {kind} {twice[0]}")
    wrong = sorted(set(targets) ^ set(canonical_shapes(1)))
    if wrong:
        raise ConverterError(
            f"{where}: {len(wrong)} canonical tensors are missing or unknown: "
            f"{', '.join(wrong[:5])}"
        )
    shapes = canonical_shapes(1)
    for rule in result.rules:
        fitting = _AXES[len(shapes[rule.target])]
        if not set(rule.layouts) <= set(fitting):
            raise ConverterError(
                f"{where}: {rule.target} has layout {', '.join(rule.layouts)}; "
                f"expected {' or '.join(fitting)}"
            )
