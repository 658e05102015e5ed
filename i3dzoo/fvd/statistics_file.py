"""Save statistics with all settings that they depend on, as a safetensors file, and read them."""

import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from i3dzoo.errors import FormatError, OptionError
from i3dzoo.formats import safetensors_file
from i3dzoo.fvd.statistics import LARGEST, MAX_DIMENSIONS, SAMPLE, Statistics
from i3dzoo.records import Record, parse_json

_KEY: Final = "i3dzoo_fvd"
_TENSORS: Final = ("mean", "scatter", "sample", "keys")


class Settings(Record, frozen=True, kw_only=True):
    """What features depend on.

    Attributes:
        weights: SHA-256 of the network's weights.
        inputs: `Protocol.inputs`: steps and sampling.
        source: Digest of the videos.
        videos: Number of videos.
        precision: Precision of the network's computation.
    """

    weights: str
    inputs: dict[str, Any]
    source: str
    videos: int
    precision: str = "fp32"

    def check(self, where: str | Path, other: "Settings", source: bool = False) -> None:
        """Check that other statistics have the same settings, and maybe the same videos.

        Raises:
            OptionError: A setting differs.
        """
        pairs: list[tuple[str, Any, Any]] = [("the network's weights", self.weights, other.weights)]
        keys = sorted(self.inputs.keys() | other.inputs.keys())
        pairs += [(key, self.inputs.get(key), other.inputs.get(key)) for key in keys]
        pairs.append(("the precision", self.precision, other.precision))
        if source:
            pairs.append(("the videos (names and sizes)", self.source, other.source))
        for name, held, expected in pairs:
            if held != expected:
                raise OptionError(
                    f"{where}: holds statistics with other settings: {name}: expected "
                    f"{_shown(expected)}, found {_shown(held)}; use the same protocol and options, "
                    "or compute the statistics again into another file"
                )


class _Document(Record, frozen=True, kw_only=True):
    settings: Settings
    counts: dict[str, int]  # number of features by the number of frames


def write_statistics(path: Path, statistics: dict[int, Statistics], settings: Settings) -> None:
    """Write the statistics of a set, by the number of frames of a clip."""
    arrays = {
        f"{frames}.{name}": np.ascontiguousarray(getattr(of_length, name))
        for frames, of_length in statistics.items()
        for name in _TENSORS
    }
    counts = {str(frames): of_length.count for frames, of_length in statistics.items()}
    document = _Document(settings=settings, counts=counts).to_dict()
    safetensors_file.write(path, arrays, {_KEY: json.dumps(document)})


def read_statistics(path: Path) -> tuple[dict[int, Statistics], Settings] | None:
    """Read statistics, or return None if the file holds something else.

    Raises:
        FormatError: The file is damaged.
    """
    container = safetensors_file.read(path)
    text = container.metadata.get(_KEY)
    if text is None:
        return None
    document = parse_json(text, _Document, str(path), error=FormatError)
    statistics = {}
    for frames, count in document.counts.items():
        arrays = {name: container.tensors.get(f"{frames}.{name}") for name in _TENSORS}
        size = len(arrays["mean"]) if arrays["mean"] is not None else 0
        shapes = {name: None if array is None else array.shape for name, array in arrays.items()}
        kept = min(count, SAMPLE)
        expected = {"mean": (size,), "scatter": (size, size), "sample": (kept, size)}
        if (
            not frames.isdigit()
            or not 0 < size <= MAX_DIMENSIONS
            or count < 1
            or shapes != expected | {"keys": (kept,)}
        ):
            raise FormatError(
                f"{path}: its arrays are not statistics of {count} features: {shapes}"
            )
        mean, scatter, sample, keys = (np.array(array, "f8") for array in arrays.values())
        bounds = ((mean, LARGEST), (sample, LARGEST), (scatter, count * LARGEST**2))
        if not all(np.abs(array).max() <= bound for array, bound in bounds):
            raise FormatError(f"{path}: its statistics are not finite, or too large")
        statistics[int(frames)] = Statistics(count, mean, scatter, sample, keys)
    if not statistics:
        raise FormatError(f"{path}: holds no statistics")
    return statistics, document.settings


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
