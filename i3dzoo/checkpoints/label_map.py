"""Match the classes of two label sets, by a reviewed table or by equal names."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta, field

from i3dzoo.checkpoints.labels import label_set_of, label_sets, labels
from i3dzoo.errors import ManifestError
from i3dzoo.records import Record, parse_toml
from i3dzoo.resources import data

_Sources = dict[str, Annotated[tuple[str, ...], Meta(min_length=1)]]


class LabelMap(Record, frozen=True, kw_only=True):
    """A reviewed table from one label set to another."""

    source: str
    target: str
    same: _Sources = field(default_factory=dict)  # source classes of the same action
    narrower: _Sources = field(default_factory=dict)  # source classes that are kinds of the action
    broader: _Sources = field(default_factory=dict)  # source classes that include the action

    def __post_init__(self) -> None:
        for name in (self.source, self.target):
            if name not in label_sets():
                raise ManifestError(
                    f"expected label sets of {', '.join(label_sets())}, found {name!r}"
                )
        unused, targets = set(labels(self.source)), set(labels(self.target))
        for relation in ("same", "narrower", "broader"):
            for target, sources in getattr(self, relation).items():
                where = f"{relation}.{target}"
                if target not in targets:
                    raise ManifestError(
                        f"{where}: expected a class of {self.target} that is not in another table"
                    )
                targets.remove(target)
                for source in sources:
                    # one row for two classes would give both the same logit
                    if source not in unused:
                        raise ManifestError(
                            f"{where}: expected classes of {self.source} that are not used "
                            f"elsewhere, found {source!r}"
                        )
                    unused.remove(source)

    @property
    def name(self) -> str:
        """Name of the table and of its file."""
        return f"{self.source}_to_{self.target}"

    @property
    def sources(self) -> Mapping[str, tuple[str, ...]]:
        """For each target class that has counterparts, the source classes."""
        return self.same | self.narrower | self.broader


@dataclass(frozen=True)
class LabelMatch:
    """The old classes that each new class corresponds to."""

    rows: tuple[tuple[int, ...], ...]  # for each new class, the indices of its old classes
    old: tuple[str, ...]
    new: tuple[str, ...]
    label_map: str | None  # name of the reviewed table; None if only equal names match

    @property
    def carried(self) -> dict[str, tuple[str, ...]]:
        """The new classes that have old classes, with these."""
        return {
            name: tuple(self.old[index] for index in rows)
            for name, rows in zip(self.new, self.rows, strict=True)
            if rows
        }

    @property
    def fresh(self) -> tuple[str, ...]:
        """The new classes that have no old class."""
        return tuple(name for name, rows in zip(self.new, self.rows, strict=True) if not rows)


def match_labels(old: tuple[str, ...], new: tuple[str, ...]) -> LabelMatch:
    """Find the old classes that new classes correspond to.

    If there is a reviewed table for the label sets that contain the classes, it decides. Classes
    that are not in the table match an old class of the same name.
    """
    source, target = label_set_of(old), label_set_of(new)
    table = label_map(source, target) if source and target else None
    sources = table.sources if table else {}
    index = {name: number for number, name in enumerate(old)}
    rows = tuple(
        tuple(index[source] for source in sources.get(name, (name,)) if source in index)
        for name in new
    )
    return LabelMatch(rows, old, new, table.name if table else None)


@functools.cache
def label_map(source: str, target: str) -> LabelMap | None:
    """Return the reviewed table between two label sets, or None if there is none."""
    name = f"{source}_to_{target}"
    file = data("manifests") / "labels" / f"{name}.toml"
    if not file.is_file():
        return None
    return parse_label_map(name, file.read_bytes(), f"manifests/labels/{name}.toml")


def parse_label_map(name: str, text: str | bytes, where: str) -> LabelMap:
    """Parse the table in the file `name`.toml; no class may be used twice."""
    table = parse_toml(text, LabelMap, where, error=ManifestError)
    if table.name != name:
        raise ManifestError(f"{where}: expected a table {name}, found {table.name}")
    return table
