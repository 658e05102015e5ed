"""Explain in one sentence why data does not fit a type."""

import difflib
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, Union

import msgspec

from i3dzoo.records._load import join
from i3dzoo.text import shorten

_PATH: Final = re.compile(r" - at `(?P<key>key` in `)?\$(?P<path>[^`]*)`$")
_STEP: Final = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_WORDS: Final = {
    "IntType": "an integer",
    "FloatType": "a number",
    "StrType": "text",
    "BoolType": "true or false",
    "NoneType": "null",
    "ListType": "a list",
    "VarTupleType": "a list",
    "DictType": "a mapping",
    "StructType": "a mapping",
}
_LIMITS: Final = {
    "ge": "of {} or more",
    "gt": "greater than {}",
    "le": "of at most {}",
    "lt": "less than {}",
    "min_length": "of length {} or more",
    "max_length": "of length {} or less",
    "pattern": "that matches {}",
}


def explain(problem: msgspec.ValidationError, value: Any, kind: Any) -> str:
    """Return a message with the key path, what the type expects there, and what was found."""
    text, path, about_key = str(problem), "", False
    if at := _PATH.search(text):
        text, about_key = text[: at.start()], at["key"] is not None
        for name, number in _STEP.findall(at["path"]):
            key: Any = name or number
            if number == "...":  # msgspec names no keys of dict[str, ...]
                unfit = (k for k, item in value.items() if not _fits(item, _child(kind, k, value)))
                key = next(unfit)
            elif number:
                key = int(number)
            kind, value, path = _child(kind, key, value), value[key], join(path, key)
    prefix = f"{path}: " if path else ""
    if problem.__cause__ is not None:  # the ValueError of a __post_init__
        return prefix + str(problem.__cause__)
    if about_key:
        keys = [typing.get_args(option)[0] for option in _options(kind) if typing.get_args(option)]
        expected = keys[0] if keys else str
        key = next(key for key in value if not _fits(key, expected))
        return f"{prefix}expected {_expected(expected)} as a key, found {_found(key)}"
    if text.startswith("Object contains unknown field"):
        record = _record_of(kind, value)
        tag = record.__struct_config__.tag_field
        fields = [*([tag] if tag else []), *record.__struct_encode_fields__]
        key = next(key for key in value if key not in fields)
        near = difflib.get_close_matches(str(key), fields, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(fields)}"
        return f"{join(path, key)}: unknown key; {hint}"
    if text.startswith("Object missing required field"):
        key = re.findall("`(.*?)`", text)[0]
        return f"{join(path, key)}: missing; expected {_expected(_child(kind, key, value))}"
    return f"{prefix}expected {_expected(kind)}, found {_found(value)}"


def _fits(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def _options(kind: Any) -> list[Any]:
    """Return the members of a union, without annotations; other types are one option."""
    if typing.get_origin(kind) is Annotated:
        return _options(typing.get_args(kind)[0])
    if typing.get_origin(kind) in (Union, types.UnionType):
        return [option for member in typing.get_args(kind) for option in _options(member)]
    return [kind]


def _record_of(kind: Any, value: Mapping[Any, Any]) -> Any:
    """Return the record type among the options that a mapping is meant to be, or None."""
    records = [option for option in _options(kind) if hasattr(option, "__struct_config__")]
    for record in records:
        config = record.__struct_config__
        # msgspec does not require the tag of a record that has no alternative.
        default = config.tag if len(records) == 1 else None
        if config.tag_field is None or value.get(config.tag_field, default) == config.tag:
            return record
    return None


def _child(kind: Any, key: Any, value: Any) -> Any:
    """Return the type of one entry of a mapping or list."""
    if isinstance(value, dict):
        if record := _record_of(kind, value):
            names = dict(
                zip(record.__struct_encode_fields__, record.__struct_fields__, strict=True)
            )
            hints = typing.get_type_hints(record, include_extras=True)
            return hints[names[key]] if key in names else str
        configs = [getattr(option, "__struct_config__", None) for option in _options(kind)]
        if tags := tuple(config.tag for config in configs if config):
            return Literal[tags]
    for option in _options(kind):
        origin, arguments = typing.get_origin(option), typing.get_args(option)
        if isinstance(value, dict) and len(arguments) == 2 and issubclass(origin, Mapping):
            return arguments[1]
        if isinstance(value, list | tuple) and arguments and issubclass(origin, Sequence):
            fixed = origin is tuple and arguments[-1] is not Ellipsis
            return arguments[key] if fixed else arguments[0]
    return Any


def _expected(kind: Any) -> str:
    """Describe a type: `null or an integer of 1 or more`, `'rgb' or 'flow'`."""
    import msgspec.inspect as inspection

    info = inspection.type_info(kind)
    members = info.types if isinstance(info, inspection.UnionType) else (info,)
    described = sorted(map(_describe, members), key="null".__ne__)
    return " or ".join(dict.fromkeys(described))


def _describe(info: Any) -> str:
    """Describe a type of msgspec.inspect that is not a union."""
    if description := (getattr(info, "extra_json_schema", None) or {}).get("description"):
        return str(description)
    info = getattr(info, "type", info)  # of an annotation
    name = type(info).__name__
    if name == "LiteralType":
        return " or ".join(map(_found, info.values))
    if name == "TupleType":
        return f"a list of {len(info.item_types)}"
    limits = {key: getattr(info, key, None) for key in _LIMITS}
    words = [_LIMITS[key].format(limit) for key, limit in limits.items() if limit is not None]
    if limits["ge"] is not None and limits["le"] is not None:
        words = [f"from {limits['ge']} to {limits['le']}"]
    return f"{_WORDS.get(name, 'a value of another type')} {' and '.join(words)}".rstrip()


def _found(value: Any) -> str:
    """Describe a value: a short one as it is written, of a mapping or list the size."""
    if isinstance(value, dict | list | tuple):
        return f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return shorten(repr(value))
