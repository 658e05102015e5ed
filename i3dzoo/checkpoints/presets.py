"""Presets: the input and the network of projects that distribute I3D weights.

The same tensors compute other numbers with another input, BatchNorm epsilon, padding or pooling,
and most files of weights do not say which. A preset is a file `converters/presets/NAME.toml`.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from i3dzoo.checkpoints.metadata import Input, Metadata, Stream, default_input, explicit_input
from i3dzoo.errors import UnknownNameError
from i3dzoo.network.architecture import DEEPMIND, Variant
from i3dzoo.records import Record, convert, parse_toml, read_toml
from i3dzoo.resources import data

DEFAULT: Final = "deepmind"
"""The preset of layouts that do not belong to one project."""


class Recognise(Record, frozen=True):
    """What makes it likely that a file is of a project: its layout, and maybe its classes."""

    layout: str
    classes: tuple[int, ...] = ()  # any number if empty


class Preset(Record, frozen=True, kw_only=True):
    """The input and the network of a project."""

    title: str
    source: str
    variant: Variant = DEEPMIND
    rgb: Input | None = None
    flow: Input | None = None
    recognise: Recognise | None = None
    note: str | None = None  # what is assumed that the files of the project do not say

    @property
    def inputs(self) -> Mapping[Stream, Input]:
        """The input of each stream that the project has."""
        inputs: dict[Stream, Input | None] = {"rgb": self.rgb, "flow": self.flow}
        return {stream: spec for stream, spec in inputs.items() if spec is not None}


@functools.cache
def names() -> tuple[str, ...]:
    """Return the names of the presets, in alphabetical order."""
    files = (entry.name for entry in (data("converters") / "presets").iterdir())
    return tuple(sorted(file.removesuffix(".toml") for file in files if file.endswith(".toml")))


@functools.cache
def preset(name: str) -> Preset:
    """Return a preset.

    Raises:
        UnknownNameError: There is no preset of this name.
    """
    if name not in names():
        raise UnknownNameError(
            f"no preset has the name {name!r}; expected one of {', '.join(names())}, or a file"
        )
    where = f"converters/presets/{name}.toml"
    text = ((data("converters") / "presets") / f"{name}.toml").read_bytes()
    return _build(parse_toml(text, where=where), where)


def load_preset(name: str | Path) -> Preset:
    """Return a preset that ships, by name, or read a TOML file.

    Raises:
        UnknownNameError: There is no preset and no file of this name.
        MetadataError: The file has unknown or wrong keys.
    """
    if str(name) in names() or not Path(name).is_file():
        return preset(str(name))
    return _build(read_toml(name), str(name))


def _build(document: dict[str, Any], where: str) -> Preset:
    for stream in document.keys() & {"rgb", "flow"}:
        document[stream] = explicit_input(document[stream])
    return convert(document, Preset, where)


def likely_presets(metadata: Metadata) -> tuple[str, ...]:
    """Return the presets that may describe a checkpoint better than its metadata does.

    There are none for published checkpoints and those made from them, and none once an input or a
    variant was chosen.
    """
    chosen = metadata.variant != DEEPMIND or metadata.input != default_input(metadata.stream)
    if metadata.origin or chosen:
        return ()
    return tuple(name for name in names() if _fits(preset(name), metadata))


def _fits(candidate: Preset, metadata: Metadata) -> bool:
    rule = candidate.recognise
    return (
        rule is not None
        and rule.layout == metadata.source.layout
        and (not rule.classes or metadata.num_classes in rule.classes)
        and metadata.stream in candidate.inputs
    )
