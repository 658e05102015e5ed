"""The label sets: names of classes in the order of the logits."""

import functools

from i3dzoo._resources import data
from i3dzoo.errors import UnknownNameError

__all__ = ["label_sets", "labels"]


@functools.cache
def labels(name: str) -> tuple[str, ...]:
    """Return the class names of a label set, in the order of the logits.

    Raises:
        UnknownNameError: There is no such label set.
    """
    if name not in label_sets():
        known = ", ".join(label_sets())
        raise UnknownNameError(f"no label set is called {name!r}; there are {known}")
    return tuple((data("manifests") / "labels" / f"{name}.txt").read_text("utf-8").splitlines())


@functools.cache
def label_sets() -> tuple[str, ...]:
    """Return the names of the label sets, in alphabetical order."""
    files = (entry.name for entry in (data("manifests") / "labels").iterdir())
    return tuple(sorted(file.removesuffix(".txt") for file in files if file.endswith(".txt")))
