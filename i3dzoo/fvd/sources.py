"""What is compared: videos, features, or saved statistics, found out from a path or an object."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from i3dzoo.errors import FormatError, InputTypeError, MissingFileError
from i3dzoo.files import missing_error
from i3dzoo.formats import safetensors_file
from i3dzoo.fvd.array_file import ArrayFile
from i3dzoo.fvd.statistics import Statistics
from i3dzoo.fvd.statistics_file import Settings, read_statistics
from i3dzoo.fvd.video_sets import (
    ArrayOfVideos,
    FolderOfVideos,
    Layout,
    ValueRange,
    VideoSet,
)


@dataclass(frozen=True, eq=False)
class Known:
    """Features that need no network: of a file, of an array, or saved statistics.

    Attributes:
        name: What messages call it.
        statistics: By the number of frames of a clip; by 0 if it is unknown.
        settings: What the features depend on; None if it is unknown.
    """

    name: str
    statistics: dict[int, Statistics]
    settings: Settings | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """How it was read."""
        if self.settings is not None:
            return (f"{self.name}: saved statistics of {self.settings.videos} videos",)
        first = next(iter(self.statistics.values()))
        return (
            f"{self.name}: {first.count} features of {first.dimensions} numbers, taken as they are",
        )


def open_source(
    source: Any,
    name: str = "",
    layout: Layout | None = None,
    value_range: ValueRange | None = None,
) -> VideoSet | Known:
    """Return the videos or the features that a path or an object stands for.

    Args:
        source: A folder of videos; a .npy or .npz file of videos [N, T, H, W, 3] or
            [N, 3, T, H, W] or of features [N, D]; a .safetensors file of saved statistics or of
            `features`; or an array, a tensor or `Statistics`.
        name: What messages call an object.
        layout: Order of the axes of an array; None finds the axis of 3.
        value_range: What floats stand for; None finds it out if the values leave no doubt.

    Raises:
        MissingFileError: The path does not exist.
        FormatError: It is none of these.
    """
    if isinstance(source, Statistics):
        return Known(name, {0: source})
    if not isinstance(source, str | Path):
        shape = getattr(source, "shape", None)
        if shape is None:
            raise InputTypeError(
                f"{name}: is of type {type(source).__name__}; expected a path, an array or a tensor"
            )
        if len(shape) == 2:
            return _features(name, [source.cpu() if hasattr(source, "cpu") else source])
        return ArrayOfVideos(name, source, layout, value_range)
    path = Path(source)
    try:
        if path.is_dir():
            return FolderOfVideos(path)
        if not path.exists():
            raise missing_error(path)
    except OSError as error:
        if isinstance(error, MissingFileError):
            raise
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from error
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        array = ArrayFile(path)
        if len(array.shape) == 2:
            return _features(str(path), array.blocks())
        return ArrayOfVideos(str(path), array, layout, value_range)
    if suffix == ".safetensors":
        if saved := read_statistics(path):
            return Known(str(path), *saved)
        features = safetensors_file.read(path).tensors.get("features")
        if features is not None:
            return _features(str(path), [features])
        raise FormatError(f"{path}: holds neither statistics of FVD nor the tensor features")
    raise FormatError(
        f"{path}: is not a set of videos; expected a folder of videos, a .npy or .npz array of "
        "videos or of features, or a .safetensors file of statistics"
    )


def _features(name: str, parts: Any) -> Known:
    statistics = Statistics()
    try:
        for part in parts:
            statistics.update(np.asarray(part))
    except (FormatError, ValueError) as error:
        raise FormatError(f"{name}: {error}") from error
    return Known(name, {0: statistics})
