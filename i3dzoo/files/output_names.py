"""Name outputs after inputs, so that no two inputs have the same output."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePath


def name_key(name: str) -> str:
    """Return what is equal for names that a file system may take for one.

    Some systems ignore case, and macOS writes accents as characters of their own.
    """
    return unicodedata.normalize("NFC", name).lower()


def drop_suffixes(names: Sequence[str]) -> list[str]:
    """Return different names, or paths, without their suffixes; where two are the same, with them.

    `a/x.mp4`, `a/x.avi` and `a/y.mp4` become `a/x.mp4`, `a/x.avi` and `a/y`.
    """
    outputs = [str(PurePath(name).with_name(PurePath(name).stem)) for name in names]
    while equal := _repeated(outputs):
        outputs = [
            name if name_key(output) in equal else output
            for name, output in zip(names, outputs, strict=True)
        ]
        if equal == _repeated(outputs):  # different names that differ in case or accents only
            break
    return outputs


def name_outputs(inputs: Sequence[str], keep_folders: bool = False) -> list[str]:
    """Return a name without suffix, or a path inside a folder, for each of several different paths.

    The folders of the inputs are kept if inputs of different folders have the same name, or if
    `keep_folders` is set: `a/x.mp4` becomes `a/x`, and `/data/x.mp4` becomes `data/x`.
    """
    paths = [PurePath(os.path.abspath(path)) for path in inputs]  # noqa: PTH100 - not of links
    places = {(name_key(path.stem), path.parent) for path in paths}
    if keep_folders or len({stem for stem, _ in places}) < len(places):
        return drop_suffixes([_inside(path) for path in inputs])
    return drop_suffixes([path.name for path in paths])


def without_repeats(paths: Iterable[str]) -> list[str]:
    """Return each of the paths once, in order, however it is written."""
    firsts: dict[str, str] = {}
    for path in paths:
        firsts.setdefault(os.path.abspath(path), path)  # noqa: PTH100 - not of links
    return list(firsts.values())


def _repeated(outputs: Iterable[str]) -> set[str]:
    return {key for key, count in Counter(map(name_key, outputs)).items() if count > 1}


def _inside(path: str) -> str:
    """Return a path without its root; a path that leads upwards becomes absolute first."""
    plain = PurePath(os.path.normpath(path))
    if plain.is_absolute() or ".." in plain.parts or not plain.name:
        plain = PurePath(os.path.abspath(path))  # noqa: PTH100
    return str(plain.relative_to(plain.anchor))
