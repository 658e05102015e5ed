"""A table of a TOML file whose keys are a closed vocabulary."""

import re
from typing import Any, Final

from i3dzoo.errors import ManifestError

__all__ = ["Section"]

_REQUIRED: Final = object()


class Section:
    """A TOML table whose keys are taken one by one; those left over are unknown."""

    def __init__(self, where: str, values: Any, path: str = "") -> None:
        if not isinstance(values, dict):
            raise ManifestError(f"{where}: {path[:-1]} is {values!r}; expected a table")
        self.where = where
        self.path = path
        self.values = dict(values)

    def wrong(self, key: str, problem: str) -> ManifestError:
        """Return the error about a key, which names file and key."""
        return ManifestError(f"{self.where}: {self.path}{key} {problem}")

    def take(self, key: str, kind: type, default: Any = _REQUIRED) -> Any:
        """Take a value of a type; an int is also a float, but a bool is never an int."""
        if key not in self.values:
            if default is _REQUIRED:
                raise self.wrong(key, "is missing")
            return default
        value = self.values.pop(key)
        kinds = (int, float) if kind is float else kind
        if not isinstance(value, kinds) or (isinstance(value, bool) and kind is not bool):
            raise self.wrong(key, f"is {value!r}; expected a value of type {kind.__name__}")
        return value

    def text(self, key: str, pattern: str = r"\S(.*\S)?") -> str:
        """Take a text that matches a pattern whole."""
        value: str = self.take(key, str)
        if not re.fullmatch(pattern, value):
            raise self.wrong(key, f"is {value!r}; expected text that matches {pattern}")
        return value

    def size(self, key: str, default: Any = _REQUIRED) -> Any:
        """Take a positive number of bytes."""
        value = self.take(key, int, default)
        if value is not default and value <= 0:
            raise self.wrong(key, f"is {value}; expected a positive number of bytes")
        return value

    def numbers(self, key: str) -> tuple[float, ...]:
        """Take an array of numbers."""
        values = tuple(self.take(key, list))
        for value in values:
            if not isinstance(value, float):
                raise self.wrong(key, f"holds {value!r}; expected numbers such as 0.5")
        return values

    def sections(self, key: str) -> list["Section"]:
        """Take an array of tables."""
        items = self.take(key, list, [])
        return [
            Section(self.where, item, f"{self.path}{key}[{number}].")
            for number, item in enumerate(items)
        ]

    def close(self) -> None:
        """Refuse what was not taken."""
        if self.values:
            raise self.wrong(next(iter(self.values)), "is an unknown key; manifests/README.md")
