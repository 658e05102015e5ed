"""Parse JSON, YAML and TOML from outside, and check it into records.

All untrusted text goes through this module:

    class Source(Record, frozen=True, kw_only=True):
        url: Annotated[str, Meta(pattern="^https://", description="an https address")]
        size: Annotated[int, Meta(ge=1)]

    source = read_toml(path, Source, error=ManifestError)
    source = parse_json(text, Source, where=str(path), error=MetadataError)
    source = convert({"url": url, "size": 1}, Source, where="--set", error=RecipeError)
    document = read_json(path)  # without a type: checked plain data

- The type is a `Record`, or anything else that msgspec knows: `tuple[Source, ...]`,
  `dict[str, int]`, `Literal["rgb", "flow"]`, and tagged unions (`Record, tag_field="kind",
  tag="file"`). `msgspec.Meta` sets ranges, lengths and patterns; its `description` replaces the
  generated text after "expected" in error messages.
- Write `frozen=True` again in every subclass of `Record` (type checkers require it), and
  `kw_only=True` where fields should be named. Unknown keys are refused already.
- Rules about several fields go into `__post_init__`, which raises a ValueError; its message is
  reported with the file and the key path of the record. `__post_init__` also runs on construction
  and on `replace`; types and `Meta` are checked here only.
- Every error is of the class that the caller passes, and one sentence such as
  `manifests/x.toml: source[0].size: expected an integer of 1 or more, found 0`.

Limits hold before a type is checked: the size in bytes, 64 levels of nesting, finite numbers,
integers within 64 bits, valid Unicode. A key must not occur twice. In YAML, dates stay text, `1e-7`
is a number, and an alias counts as often as it expands. Files must be regular files; a byte order
mark is skipped.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import msgspec

from i3dzoo.errors import I3DZooError, MetadataError
from i3dzoo.files import open_input
from i3dzoo.records._explain import explain
from i3dzoo.records._load import (
    MAX_DEPTH,
    InvalidError,
    check_plain,
    load_json,
    load_toml,
    load_yaml,
)
from i3dzoo.text import decode, shorten

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    T = TypeVarWithDefault("T", default=Any)  # plain data where no type is given
else:
    T = TypeVar("T")

__all__ = [
    "Record",
    "convert",
    "parse_json",
    "parse_toml",
    "parse_yaml",
    "read_json",
    "read_toml",
    "read_yaml",
]

_Error = type[I3DZooError]
_PLAIN: Final[Any] = Any
_BYTES: Final = 16 << 20
_YAML_BYTES: Final = 256 << 10  # YAML takes a hundred times as long and as much memory as JSON


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A frozen record that refuses unknown keys; the base of all records read from outside."""

    def replace(self, **changes: Any) -> Self:
        """Return a copy with other values; `__post_init__` checks it."""
        return msgspec.structs.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain data, as JSON takes it."""
        document: dict[str, Any] = msgspec.to_builtins(self)
        return document


def read_json(
    path: str | Path, kind: type[T] = _PLAIN, *, error: _Error = MetadataError, limit: int = _BYTES
) -> T:
    """Read a JSON file.

    Args:
        path: The file.
        kind: Type of the result; without it, plain data.
        error: Class of the error to raise.
        limit: Largest size in bytes.

    Raises:
        I3DZooError: Of the class `error`: the file cannot be read, is not JSON, or does not fit
            the type. The message names the file and the key.
    """
    return parse_json(_read(path, error, limit), kind, str(path), error=error, limit=limit)


def read_yaml(path: str | Path, kind: type[T] = _PLAIN, *, error: _Error = MetadataError) -> T:
    """Read a YAML file of at most 256 KiB; see `read_json`."""
    return parse_yaml(_read(path, error, _YAML_BYTES), kind, str(path), error=error)


def read_toml(path: str | Path, kind: type[T] = _PLAIN, *, error: _Error = MetadataError) -> T:
    """Read a TOML file of at most 16 MiB; see `read_json`."""
    return parse_toml(_read(path, error, _BYTES), kind, str(path), error=error)


def parse_json(
    data: bytes | str,
    kind: type[T] = _PLAIN,
    where: str = "",
    *,
    error: _Error = MetadataError,
    limit: int = _BYTES,
) -> T:
    """Parse JSON; see `read_json`. `where` names the file, or what else holds the text."""
    return convert(_parse(load_json, data, where, error, limit), kind, where, error)


def parse_yaml(
    data: bytes | str, kind: type[T] = _PLAIN, where: str = "", *, error: _Error = MetadataError
) -> T:
    """Parse one YAML document; see `parse_json`. An empty one is None."""
    return convert(_parse(load_yaml, data, where, error, _YAML_BYTES), kind, where, error)


def parse_toml(
    data: bytes | str, kind: type[T] = _PLAIN, where: str = "", *, error: _Error = MetadataError
) -> T:
    """Parse TOML; see `parse_json`."""
    return convert(_parse(load_toml, data, where, error, _BYTES), kind, where, error)


def convert(
    value: Any, kind: type[T] = _PLAIN, where: str = "", error: _Error = MetadataError
) -> T:
    """Check plain data, and return it as a type; see `parse_json`."""
    try:
        check_plain([value], None, 0)
        try:
            result: T = msgspec.convert(value, kind)
        except msgspec.ValidationError as problem:
            raise InvalidError(explain(problem, value, kind)) from problem
    except InvalidError as invalid:
        raise _error(error, where, str(invalid)) from invalid.__cause__
    return result


def _error(error: _Error, where: str | Path, reason: str) -> I3DZooError:
    return error(f"{where}: {reason}" if where else reason)


def _read(path: str | Path, error: _Error, limit: int) -> bytes:
    """Return a regular file's bytes, at most one more than `limit`."""
    with open_input(path, error, missing=error) as file:
        return file.read(limit + 1)


def _parse(
    load: Callable[[str], Any], data: bytes | str, where: str, error: _Error, limit: int
) -> Any:
    name = load.__name__.removeprefix("load_").upper()
    try:
        if len(data) > limit:
            raise InvalidError(f"expected at most {limit} bytes of {name}, found more")
        text = decode(data, name) if isinstance(data, bytes) else data
        return load(text.removeprefix("\ufeff"))
    except UnicodeEncodeError:  # text of a command line
        reason = f"expected {name} in UTF-8, found other bytes"
    except UnicodeError as problem:
        reason = str(problem)
    except RecursionError:
        reason = f"is nested more than {MAX_DEPTH} levels deep"
    except InvalidError as problem:
        reason = str(problem)
    except ValueError as problem:  # JSONDecodeError, TOMLDecodeError, and numbers that int refuses
        reason = f"is not valid {name}: {shorten(str(problem).partition('; use sys.')[0], 200)}"
    raise _error(error, where, reason)
