"""The files of features of a video: arrays in several formats, and a JSON that describes them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import numpy as np

from i3dzoo.arrays import Array
from i3dzoo.errors import DependencyError, FormatError
from i3dzoo.features.extraction import Features
from i3dzoo.features.settings import SUFFIXES, FeatureSettings, Quantity
from i3dzoo.version import __version__
from i3dzoo.video.plan import CROPS

PARTS: Final = ".hdf5"
"""The folder of what is not yet in the HDF5 file."""

_KEYS: Final[dict[str, Quantity]] = {"features": "features", "spans": "spans"}


@dataclass(frozen=True)
class OutputFile:
    """A file to write: its name inside the folder, with `/` between folders, and its content."""

    name: str
    write: Callable[[BinaryIO], object]


def output_files(
    name: str, features: Features, settings: FeatureSettings, about: Mapping[str, Any]
) -> list[OutputFile]:
    """Return the files of a video in the order of writing; a video is done once the last one is.

    Args:
        name: Name of the video inside the folder, without a suffix, such as `a/x`.
        features: Its features.
        settings: How they are written.
        about: What the JSON says about the video and the models.

    Raises:
        FormatError: A feature is too large for the number type.
    """
    parts = {
        part: arrange(array, settings, f"{features.path}")
        for part, array in split(name, features, settings).items()
    }
    files = [_file(part, array, name, features, settings) for part, array in parts.items()]
    for pattern, quantity in (settings.files or {}).items():
        value = _quantity(quantity, name, features, next(iter(parts.values())))
        files.append(OutputFile(f"{pattern.format(name=name)}.npy", _saver(value)))
    arrays = {file.name: list(array.shape) for file, array in zip(files, parts.values())}  # noqa: B905 - the others have no features
    document = describe(features, settings) | dict(about)
    document["files"] = {file.name: arrays.get(file.name) for file in files}
    return [*files, OutputFile(sidecar_name(name), lambda file: file.write(to_json(document)))]


def output_names(name: str, settings: FeatureSettings) -> list[str]:
    """Return the names of the files of features of a video."""
    naming = settings.naming or "{name}"
    streams = _streams(settings) if settings.file_per_stream else ("",)
    crops = range(settings.crops) if settings.file_per_crop else (0,)
    return [
        _file_name(naming.format(name=name, stream=stream, crop=crop), settings)
        for stream in streams
        for crop in crops
    ]


def sidecar_name(name: str) -> str:
    """Return the name of the JSON beside the features of a video."""
    return f"{name}.json"


def describe(features: Features, settings: FeatureSettings) -> dict[str, Any]:
    """Return what the JSON says about features: how they were made, and the frames of each row."""
    info = features.info
    document: dict[str, Any] = {
        "i3dzoo": __version__,
        "settings": settings.to_dict(),
        "source": {
            "frames": info.frames,
            "fps": info.fps,
            "seconds": info.duration,
            "width": info.width,
            "height": info.height,
        },
        "crops": [str(crop) for crop in CROPS[settings.crops]],
        "notes": list(features.notes),
        "rows": features.rows.table(),
    }
    if features.flow is not None:
        document["optical_flow"] = features.flow
    return document


def to_json(document: Mapping[str, Any]) -> bytes:
    """Return a document as JSON, one row a line."""
    rows = document.get("rows", [])
    text = json.dumps({**document, "rows": "@"}, indent=1)
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    return text.replace('"rows": "@"', f'"rows": [\n  {lines}\n ]', 1).encode()


def split(name: str, features: Features, settings: FeatureSettings) -> dict[str, Array]:
    """Return the array [rows, crops, channels] of each file, by the name of the part."""
    naming = settings.naming or "{name}"
    streams = {str(stream): array for stream, array in features.streams.items()}
    if not settings.file_per_stream:
        ordered = [streams[stream] for stream in ("rgb", "flow") if stream in streams]
        streams = {"": np.concatenate(ordered, axis=2)}
    parts: dict[str, Array] = {}
    for stream, array in streams.items():
        if not settings.file_per_crop:
            parts[naming.format(name=name, stream=stream, crop="")] = array
            continue
        for crop in range(array.shape[1]):
            own = array[:, crop : crop + 1]
            parts[naming.format(name=name, stream=stream, crop=crop)] = own
    return parts


def arrange(array: Array, settings: FeatureSettings, where: str = "features") -> Array:
    """Return features [rows, crops, channels] with the axes and the number type of the settings.

    Raises:
        FormatError: A feature is too large for the number type.
    """
    letters = "TNC"
    if "N" not in settings.axes:
        array, letters = array[:, 0], "TC"
    axes = settings.axes.replace("1", "")
    array = array.transpose([letters.index(letter) for letter in axes])
    for place, letter in enumerate(settings.axes):
        if letter == "1":
            array = np.expand_dims(array, place)
    with np.errstate(over="ignore"):
        typed = np.ascontiguousarray(array, settings.dtype)
    if not np.isfinite(typed).all():
        raise FormatError(
            f"{where}: a feature of {np.abs(array).max():.4g} is too large for {settings.dtype}; "
            "write float32"
        )
    return typed


def _streams(settings: FeatureSettings) -> tuple[str, ...]:
    return ("rgb", "flow") if settings.streams == "both" else (settings.streams or "rgb",)


def _file_name(part: str, settings: FeatureSettings) -> str:
    return f"{PARTS}/{part}.npz" if settings.format == "hdf5" else part + SUFFIXES[settings.format]


def _file(
    part: str, array: Array, name: str, features: Features, settings: FeatureSettings
) -> OutputFile:
    kind = settings.format
    file = _file_name(part, settings)
    if kind == "npy":
        return OutputFile(file, _saver(array))
    if kind == "parquet":
        return OutputFile(file, lambda output: _write_parquet(output, array, features, settings))
    arrays = {
        key: _quantity(quantity, name, features, array)
        for key, quantity in (settings.keys or _KEYS).items()
    }
    if kind in ("npz", "hdf5"):
        return OutputFile(file, lambda output: np.savez(output, allow_pickle=False, **arrays))
    if kind == "safetensors":
        from safetensors.numpy import save

        return OutputFile(file, lambda output: output.write(save(arrays)))
    return OutputFile(file, lambda output: _write_torch(output, arrays))


def _saver(array: Array) -> Callable[[BinaryIO], object]:
    return lambda file: np.save(file, array, allow_pickle=False)


def _quantity(quantity: Quantity, name: str, features: Features, array: Array) -> Array:
    """Return what a file holds beside the features."""
    rate = np.nan if features.fps is None else features.fps
    spans = features.rows.spans
    values: dict[Quantity, Any] = {
        "features": array,
        "frames": np.array(features.frames),
        "name": np.array(name.rpartition("/")[2]),
        "fps": np.array(rate, np.float64),
        "spans": spans,
        "end_ms": spans[:, 1] * 1000,
    }
    value: Array = values[quantity]
    return value


def _write_torch(output: BinaryIO, arrays: Mapping[str, Array]) -> None:
    import torch

    torch.save(
        {
            key: str(array) if array.dtype.kind == "U" else torch.from_numpy(np.array(array))
            for key, array in arrays.items()
        },
        output,
    )


def _write_parquet(
    output: BinaryIO, array: Array, features: Features, settings: FeatureSettings
) -> None:
    """Write a table with a line for each row, or for each row and crop."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DependencyError(
            "Parquet files need the extra parquet: pip install 'i3dzoo[parquet]'"
        ) from error
    rows = features.rows
    columns: dict[str, Any] = {
        "first_frame": rows.frames[:, 0],
        "last_frame": rows.frames[:, 1],
        "start": rows.spans[:, 0],
        "end": rows.spans[:, 1],
        "padded": rows.padded,
    }
    letters = settings.axes.replace("1", "")
    sizes = [n for n, axis in zip(array.shape, settings.axes, strict=True) if axis != "1"]
    flat = array.reshape(sizes).transpose([letters.index(a) for a in "TNC" if a in letters])
    if flat.ndim == 3:
        columns = {key: np.repeat(values, flat.shape[1]) for key, values in columns.items()}
        columns["crop"] = np.tile(np.arange(flat.shape[1]), flat.shape[0])
    values = pyarrow.array(np.ascontiguousarray(flat).reshape(-1))
    columns["features"] = pyarrow.FixedSizeListArray.from_arrays(values, flat.shape[-1])
    parquet.write_table(pyarrow.table(columns), output)
