"""Presets of features: how each field extracts and writes them. They are YAML files.

Those that ship are in `i3dzoo/features/presets/`; anybody can write more.
"""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from i3dzoo.errors import OptionError, UnknownNameError
from i3dzoo.features.settings import FeatureSettings, make_settings
from i3dzoo.records import Record, convert, parse_yaml, read_yaml

_PRESETS: Final = files("i3dzoo.features") / "presets"


class FeaturePreset(Record, frozen=True, kw_only=True):
    """How a field or a tool extracts features.

    Attributes:
        title: One line about it.
        source: Where the facts were read.
        settings: Those fields of `FeatureSettings` that it sets.
        note: What differs from the source, or is not known.
        models: In the record of a folder, the digest of each model's file.
    """

    title: str
    source: str
    settings: dict[str, Any]
    note: str | None = None
    models: dict[str, str] | None = None


def feature_preset_names() -> tuple[str, ...]:
    """Return the names of the presets that ship, in alphabetical order."""
    names = (entry.name for entry in _PRESETS.iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def feature_preset(name: str | Path) -> FeaturePreset:
    """Read a preset that ships, by name, or a YAML file.

    Raises:
        UnknownNameError: There is no preset and no file of this name.
        OptionError: The file has unknown keys or values.
    """
    names = feature_preset_names()
    if str(name) in names:
        text = (_PRESETS / f"{name}.yaml").read_bytes()
        document = parse_yaml(text, where=f"{name}.yaml", error=OptionError)
    elif Path(name).is_file():
        document = read_yaml(name, error=OptionError)
    else:
        raise UnknownNameError(
            f"{name}: not a preset and not a file; the presets are {', '.join(names)}"
        )
    found = convert(document, FeaturePreset, str(name), OptionError)
    make_settings(found.settings, f"{name}: settings")
    return found


def settings_with(
    preset: str | Path | None = None, given: Mapping[str, Any] | None = None
) -> FeatureSettings:
    """Return the settings of a preset, replaced by those that are given.

    Args:
        preset: A name or a file; None has the defaults.
        given: Fields of `FeatureSettings`.

    Raises:
        UnknownNameError: There is no such preset.
        OptionError: A setting is unknown, not possible, or contradicts another one.
    """
    base = feature_preset(preset).settings if preset is not None else {}
    values = dict(given or {})
    where = "settings" if preset is None else f"settings with preset {preset}"
    return make_settings(base | values, where)
