"""Which classes of two label sets are the same: by name, or by a table that people reviewed."""

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from i3dzoo._resources import data
from i3dzoo.errors import ManifestError
from i3dzoo.labels import label_set_of, labels

__all__ = ["LabelMap", "Matching", "label_map", "match_labels", "parse_label_map"]

RELATIONS: Final = ("same", "narrower", "broader")
"""How sources relate to their target: the same action, kinds of it, or more than it."""


@dataclass(frozen=True)
class LabelMap:
    """A reviewed table from one label set to another.

    Attributes:
        name: Of its file, `source_to_target`.
        sources: For each class of the target set that has a counterpart, those of the source set.
        relations: For each of these classes, one of `RELATIONS`.
    """

    name: str
    sources: Mapping[str, tuple[str, ...]]
    relations: Mapping[str, str]


@dataclass(frozen=True)
class Matching:
    """Where the rows of a new head come from.

    Attributes:
        rows: For each new class, the indices of the old classes that it takes after; often none.
        old: Names of the old classes.
        new: Names of the new classes.
        table: Name of the reviewed table that was used; None where names alone decided.
    """

    rows: tuple[tuple[int, ...], ...]
    old: tuple[str, ...]
    new: tuple[str, ...]
    table: str | None

    @property
    def carried(self) -> dict[str, tuple[str, ...]]:
        """The new classes that have counterparts, with these."""
        return {
            name: tuple(self.old[index] for index in rows)
            for name, rows in zip(self.new, self.rows, strict=True)
            if rows
        }

    @property
    def fresh(self) -> tuple[str, ...]:
        """The new classes that have none."""
        return tuple(name for name, rows in zip(self.new, self.rows, strict=True) if not rows)


def match_labels(old: tuple[str, ...], new: tuple[str, ...]) -> Matching:
    """Find the counterparts of new classes among old ones.

    A reviewed table decides where there is one for the two label sets, or the sets that these are
    parts of; a class that it does not name, and every class of other sets, is matched with an old
    one of exactly the same name.
    """
    source, target = label_set_of(old), label_set_of(new)
    table = label_map(source, target) if source and target else None
    index = {name: number for number, name in enumerate(old)}
    known = table.sources if table else {}
    rows = []
    for name in new:
        names = known.get(name, (name,))
        rows.append(tuple(index[each] for each in names if each in index))
    return Matching(tuple(rows), old, new, table.name if table else None)


@functools.cache
def label_map(source: str, target: str) -> LabelMap | None:
    """Return the reviewed table between two label sets, or None where nobody has made one.

    Raises:
        ManifestError: It breaks its own law.
    """
    name = f"{source}_to_{target}"
    file = data("manifests") / "labels" / f"{name}.toml"
    if not file.is_file():
        return None
    return parse_label_map(name, file.read_text("utf-8"), f"manifests/labels/{name}.toml")


def parse_label_map(name: str, text: str, where: str) -> LabelMap:
    """Read a table between two label sets.

    Args:
        name: What its file is called, without `.toml`.
        text: Its TOML.
        where: How errors call the file.

    Raises:
        ManifestError: A key is unknown, a class is in neither set, or one is used twice.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ManifestError(f"{where}: is no TOML: {error}") from error
    source, target = document.pop("source", None), document.pop("target", None)
    if f"{source}_to_{target}" != name:
        raise ManifestError(f"{where}: is from {source!r} to {target!r}; expected {name}")
    olds, news = set(labels(str(source))), set(labels(str(target)))
    sources: dict[str, tuple[str, ...]] = {}
    relations: dict[str, str] = {}
    for relation, entries in document.items():
        if relation not in RELATIONS or not isinstance(entries, dict):
            raise ManifestError(
                f"{where}: {relation} is unknown; expected tables {', '.join(RELATIONS)}"
            )
        for new, found in entries.items():
            if new not in news or new in sources:
                problem = "is in two tables" if new in sources else f"is no class of {target}"
                raise ManifestError(f"{where}: {relation}.{new} {problem}")
            _check_sources(f"{where}: {relation}.{new}", found, olds, str(source))
            olds.difference_update(found)
            sources[new], relations[new] = tuple(found), relation
    return LabelMap(name, sources, relations)


def _check_sources(where: str, found: object, left: set[str], source: str) -> None:
    """Refuse names that are no classes, or that another class has taken already.

    One row under two names would give both classes the same logit, and nothing to learn apart.
    """
    if not isinstance(found, list) or not found:
        raise ManifestError(f"{where} is {found!r}; expected names of {source}")
    for name in found:
        if name not in left:
            raise ManifestError(
                f"{where} holds {name!r}, which is no class of {source} or is taken already"
            )
    if len(set(found)) < len(found):
        raise ManifestError(f"{where} holds a name twice")
