"""What was measured on this machine, kept in the cache by the setting that it holds for."""

import hashlib
import json
from pathlib import Path
from typing import Any, Protocol, TypeVar

from i3dzoo.errors import I3DZooError
from i3dzoo.files import atomic_write, make_folder
from i3dzoo.records import Record, read_json
from i3dzoo.zoo.registry import cache_dir


class Measurement(Protocol):
    """A record with the setting that it holds for."""

    @property
    def setting(self) -> Record:
        """What the measurement depends on."""

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain data."""


M = TypeVar("M", bound=Measurement)


def read(folder: str, setting: Record, kind: type[M]) -> M | None:
    """Return the measurement of a setting, or None if there is none that can be read."""
    try:
        measurement = read_json(_path(folder, setting), kind)
    except I3DZooError:
        return None
    return measurement if measurement.setting == setting else None


def keep(folder: str, measurement: Measurement) -> Path | None:
    """Write a measurement to a folder of the cache; return None if that cannot be written."""
    path = _path(folder, measurement.setting)
    try:
        make_folder(path.parent)
        with atomic_write(path) as file:
            file.write(json.dumps(measurement.to_dict(), indent=1).encode())
    except I3DZooError:
        return None
    return path


def _path(folder: str, setting: Record) -> Path:
    text = json.dumps(setting.to_dict(), sort_keys=True)
    return cache_dir() / folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
