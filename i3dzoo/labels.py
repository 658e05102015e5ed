"""The label sets: names of classes in the order of the logits."""

import functools
from pathlib import Path

from i3dzoo._resources import data
from i3dzoo.errors import MetadataError, UnknownNameError

__all__ = ["label_sets", "labels", "read_labels"]


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


def read_labels(name: str) -> tuple[str, ...]:
    """Return the class names of a label set, or of a file with one a line.

    Raises:
        UnknownNameError: It is neither a label set nor a file.
        MetadataError: The file is no text, is empty, or has a name twice.
    """
    path = Path(name)
    if name in label_sets() or not path.is_file():
        return labels(name)
    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise MetadataError(f"{path}: cannot be read as a list of labels: {error}") from error
    found = tuple(line for line in lines if line)
    twice = sorted({label for label in found if found.count(label) > 1})
    if twice or not found:
        what = f"has the label {twice[0]!r} twice" if twice else "holds no label"
        raise MetadataError(f"{path}: {what}; expected each class once, one a line")
    return found
