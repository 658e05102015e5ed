"""Label sets: the names of classes in the order of the logits."""

import functools
from pathlib import Path
from typing import Final

from i3dzoo.checkpoints.label_file import read_labels
from i3dzoo.errors import ShapeError, UnknownNameError
from i3dzoo.resources import data

MULTI_LABEL_SETS: Final = ("charades",)
"""Label sets of which a clip can have several classes at once."""


@functools.cache
def labels(name: str) -> tuple[str, ...]:
    """Return the class names of a label set, in the order of the logits."""
    if name not in label_sets():
        known = ", ".join(label_sets())
        raise UnknownNameError(f"no label set has the name {name!r}; expected one of {known}")
    return tuple((data("manifests") / "labels" / f"{name}.txt").read_text("utf-8").splitlines())


@functools.cache
def label_sets() -> tuple[str, ...]:
    """Return the names of the label sets, in alphabetical order."""
    files = (entry.name for entry in (data("manifests") / "labels").iterdir())
    return tuple(sorted(file.removesuffix(".txt") for file in files if file.endswith(".txt")))


def label_set_of(names: tuple[str, ...]) -> str | None:
    """Return the first label set that contains all of these names, or None."""
    return next((known for known in label_sets() if set(names) <= set(labels(known))), None)


def likely_multi_label(num_classes: int, names: tuple[str, ...] | None) -> str | None:
    """Return the multi-label set that a head has by its names or, without names, by its size."""
    for known in MULTI_LABEL_SETS:
        if names == labels(known) or (names is None and num_classes == len(labels(known))):
            return known
    return None


def find_labels(name: str | Path) -> tuple[str, ...]:
    """Return the class names of a label set or of a file; see `read_labels`."""
    if str(name) in label_sets():
        return labels(str(name))
    path = Path(name)
    if path.exists() and not path.is_dir():
        return read_labels(path)
    raise UnknownNameError(
        f"{name}: expected a label set ({', '.join(label_sets())}) or a file with the names of "
        "the classes"
    )


def check_labels(name: str | Path, names: tuple[str, ...], num_classes: int) -> None:
    """Check that a label set or a file names each class of a head that is kept."""
    if len(names) != num_classes:
        raise ShapeError(
            f"{name}: has {len(names)} names, but the head has {num_classes} classes; expected one "
            "name per class"
        )
