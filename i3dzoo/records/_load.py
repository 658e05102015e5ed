"""Load JSON, YAML and TOML as plain data, within limits of time and memory."""

import json
import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from i3dzoo.text import shorten

if TYPE_CHECKING:
    import yaml

MAX_DEPTH: Final = 64
_MAX_YAML_NODES: Final = 50_000
_MAX_NUMBER_LENGTH: Final = 400  # characters
# A TOML key of n dotted parts takes tomllib n**2 steps and bytes.
_LONG_TOML_KEY: Final = re.compile(
    r"""(?:^|[\[{,])[ \t]*+"""
    r"""(?:(?:[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+)"""
    f"{{{MAX_DEPTH}}}",
    re.MULTILINE,
)
# PyYAML follows YAML 1.1, where a float needs a point: in YAML 1.2 and in JSON, 1e-7 is a float.
_YAML_FLOAT: Final = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$")


class InvalidError(Exception):
    """Text that cannot be accepted; the message goes after the name of the file."""


def load_json(text: str) -> Any:
    """Load JSON; NaN, infinity and repeated keys are refused."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            _check_unique(key for key, _ in pairs)
        return result

    def refuse(constant: str) -> None:
        raise InvalidError(f"expected finite numbers, found {constant}")

    return json.loads(text, object_pairs_hook=unique, parse_constant=refuse)


def load_toml(text: str) -> Any:
    """Load TOML; long keys are refused before tomllib takes gigabytes for them."""
    if _LONG_TOML_KEY.search(text):
        raise InvalidError(f"has a key of more than {MAX_DEPTH} parts")
    return tomllib.loads(text)


def load_yaml(text: str) -> Any:
    """Load one YAML document with the types of JSON."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # PyYAML can be built without libyaml

    class Loader(base):  # type: ignore[misc, unused-ignore]
        yaml_implicit_resolvers: ClassVar = {
            first: [pair for pair in pairs if not pair[0].endswith("timestamp")]
            for first, pairs in base.yaml_implicit_resolvers.items()
        }

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _YAML_FLOAT, list("-+.0123456789"))
    loader = Loader(text)
    try:
        _check_events(yaml.parse(text, base))
        root = loader.get_single_node()
        if root is None:
            return None
        _check_nodes(root)
        return loader.construct_document(root)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{place}{problem.problem}") from problem
    except yaml.YAMLError as problem:  # a character that YAML does not allow
        raise ValueError(str(problem).splitlines()[0]) from problem
    except (AttributeError, IndexError, KeyError, TypeError) as problem:  # `!!bool x`
        raise ValueError("a value is not of the type that its tag names") from problem
    finally:
        loader.dispose()


def _check_events(events: "Iterable[yaml.Event]") -> None:
    """Refuse YAML that nests too deep, for which libyaml's loader overflows the stack."""
    import yaml

    depth = 0
    for count, event in enumerate(events):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise InvalidError(f"is nested more than {MAX_DEPTH} levels deep")
        if count > 2 * _MAX_YAML_NODES:
            raise InvalidError(f"has more than {_MAX_YAML_NODES} values")


def _check_nodes(root: "yaml.Node") -> None:
    """Refuse YAML whose aliases expand without bound, and numbers that take long to compute."""
    import yaml

    count = 0

    def visit(node: yaml.Node, depth: int) -> None:
        nonlocal count
        count += 1
        if depth > MAX_DEPTH:
            raise InvalidError(
                f"has aliases that refer to themselves or nest more than {MAX_DEPTH} deep"
            )
        if count > _MAX_YAML_NODES:
            raise InvalidError(f"has more than {_MAX_YAML_NODES} values with its aliases expanded")
        if isinstance(node, yaml.MappingNode):
            _check_unique(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
            for pair in node.value:
                for child in pair:
                    visit(child, depth + 1)
        elif isinstance(node, yaml.SequenceNode):
            for child in node.value:
                visit(child, depth + 1)
        elif node.tag.endswith((":int", ":float")) and len(node.value) > _MAX_NUMBER_LENGTH:
            raise InvalidError(f"has a number of {len(node.value)} characters")

    visit(root, 0)


def _check_unique(keys: Iterable[str]) -> None:
    seen = set()
    for key in keys:
        if key in seen:
            raise InvalidError(f"has the key {shorten(key)!r} twice in one mapping; remove one")
        seen.add(key)


def check_plain(value: Mapping[Any, Any] | Sequence[Any], path: str | None, depth: int) -> None:
    """Refuse nesting, numbers, texts and types that JSON could not hold."""
    if depth > MAX_DEPTH + 1:
        raise InvalidError(f"is nested more than {MAX_DEPTH} levels deep")
    for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
        kind = type(item)
        reason = ""
        if isinstance(key, str) and not _is_unicode(key):
            reason = "expected a key in Unicode, found half of a surrogate pair"
        elif kind is float:
            reason = "" if math.isfinite(item) else f"expected a finite number, found {item}"
        elif kind is int:
            fits = -(1 << 63) <= item < 1 << 64
            reason = "" if fits else "expected an integer of at most 64 bits, found a larger one"
        elif kind is str:
            reason = "" if _is_unicode(item) else "expected Unicode, found half of a surrogate pair"
        elif isinstance(item, dict | list | tuple):
            check_plain(item, "" if path is None else join(path, key), depth + 1)
        elif item is not None and kind is not bool:
            reason = f"expected text or a number, found {kind.__name__}"
        if reason:
            name = "" if path is None else join(path, key)
            raise InvalidError(f"{name}: {reason}" if name else reason)


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def join(path: str, key: Any) -> str:
    """Append a key to a path, as people write it: `source[0].size`, `labels."brush hair"`."""
    if isinstance(key, int) and not isinstance(key, bool):
        return f"{path}[{key}]"
    name = str(key) if re.fullmatch(r"[\w{}-]{1,60}", str(key)) else f'"{shorten(str(key))}"'
    name = name.encode(errors="replace").decode()
    return f"{path}.{name}" if path else name
