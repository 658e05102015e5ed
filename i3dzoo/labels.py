"""The label sets: names of classes in the order of the logits."""

import functools
from pathlib import Path

from i3dzoo._resources import data
from i3dzoo.errors import FormatError, UnknownNameError

__all__ = ["find_labels", "label_set_of", "label_sets", "labels", "read_labels"]


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


def label_set_of(names: tuple[str, ...]) -> str | None:
    """Return the first label set that has all of these names, in any order; None if none has."""
    return next((known for known in label_sets() if set(names) <= set(labels(known))), None)


def read_labels(path: Path) -> tuple[str, ...]:
    """Read class names of the user's own: a text file, one name a line in the logits' order.

    Spaces around a name are no part of it.

    Raises:
        FormatError: The file is no text, is empty, or has a blank line or a name twice.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: cannot be read as UTF-8 text with one label a line") from error
    if not lines:
        raise FormatError(f"{path}: is empty; expected one label a line")
    first: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        name = line.strip()
        if not name:
            raise FormatError(f"{path}: line {number} is blank; expected one label a line")
        if name in first:
            raise FormatError(
                f"{path}: line {number} repeats {name!r} of line {first[name]}; "
                "every class needs a name of its own"
            )
        first[name] = number
    return tuple(first)


def find_labels(name: str | Path) -> tuple[str, ...]:
    """Return the class names of a label set, or of a file of the user's own.

    Raises:
        UnknownNameError: It is neither.
        FormatError: The file is no list of labels.
    """
    if str(name) in label_sets():
        return labels(str(name))
    path = Path(name)
    if path.is_file():
        return read_labels(path)
    raise UnknownNameError(
        f"{name}: is neither a label set nor a file; there are {', '.join(label_sets())}, or give "
        "a text file with one label a line"
    )
