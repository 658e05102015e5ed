"""Containers: each format is read into named arrays and written from them, names unseen.

`read` looks at a file's bytes, not at its name.
"""

import importlib
from pathlib import Path
from typing import Any, Final

from i3dzoo._files import is_special
from i3dzoo.arrays import Array, Tensors
from i3dzoo.errors import (
    FormatError,
    I3DZooError,
    MissingFileError,
    OutputError,
    UnsafeFileError,
)
from i3dzoo.formats.container import Container
from i3dzoo.formats.tensorflow_bundle import index_path

__all__ = ["FORMATS", "Array", "Container", "Tensors", "outputs", "read", "write"]

_READERS: Final = {
    "tensorflow": "tensorflow_bundle",
    "torch": "torch_file",
    "flax": "flax_pickle",
    "safetensors": "safetensors_file",
    "keras": "keras_hdf5",
    "onnx": "onnx_file",
}
_WRITERS: Final = {
    "tensorflow": "tensorflow_write",
    "torch": "torch_write",
    "lightning": "torch_write",
    "flax": "flax_pickle",
    "safetensors": "safetensors_file",
    "keras": "keras_hdf5",
    "keras3": "keras_hdf5",
}
FORMATS: Final = {
    "tensorflow": ".index",
    "torch": ".pt",
    "lightning": ".ckpt",
    "flax": ".pkl",
    "safetensors": ".safetensors",
    "keras": ".h5",
    "keras3": ".weights.h5",
    "onnx": ".onnx",
}
"""The formats that a layout may be of, and how their files' names end."""

_TORCH_LEGACY: Final = bytes.fromhex("8a0a6cfc9c46f9206aa85019")  # LONG1 of PyTorch's magic number
_OTHERS: Final = {
    b"version https://git-lfs": "a pointer of Git LFS in place of a file; run git lfs pull",
    b"\x1f\x8b": "a compressed archive; unpack it, and name the file or folder that was in it",
    b"<!DOCTYPE": "a web page and no checkpoint; fetch the file that the page offers",
    b"<html": "a web page and no checkpoint; fetch the file that the page offers",
}
"""What people take for a checkpoint, by its first bytes, and what to do with it."""
_ENCRYPTED: Final = (".tlt", ".etlt")


def read(path: Path) -> Container:
    """Read a file of any format.

    Raises:
        MissingFileError: There is no such file.
        FormatError: Its format is unknown, it breaks its format, or it is no regular file.
    """
    try:
        bundle = index_path(path)
        if bundle is None and not path.exists():
            raise MissingFileError(f"{path}: there is no such file")
        if is_special(bundle or path):
            raise FormatError(f"{bundle or path}: is no regular file; save it to one first")
        name = "tensorflow" if bundle else _sniff(path)
        container: Container = _module(_READERS[name]).read(bundle or path)
    except FormatError as error:
        if path.suffix in _ENCRYPTED and not isinstance(error, UnsafeFileError):
            raise FormatError(
                f"{path}: is a model that NVIDIA TAO encrypted, which only its key opens; export "
                "it unencrypted with TAO (a .pth, or a checkpoint saved without a key) and convert "
                "that"
            ) from error
        raise
    except I3DZooError:
        raise
    except PermissionError as error:
        raise FormatError(f"{path}: no permission to read it") from error
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error}") from error
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise FormatError(f"{path}: is truncated or corrupt: {error}; fetch it again") from error
    return container


def outputs(format_name: str, path: Path) -> tuple[Path, ...]:
    """Return the files that writing a format to `path` makes, the one that names them first."""
    if format_name == "tensorflow":
        files: tuple[Path, ...] = _module(_WRITERS[format_name]).outputs(path)
        return files
    return (path,)


def write(format_name: str, path: Path, tensors: Tensors, metadata: dict[str, str]) -> None:
    """Write a file of the format of that name, whole or not at all.

    Raises:
        OutputError: It cannot be written, or i3dzoo only reads this format.
    """
    if format_name not in _WRITERS:
        raise OutputError(f"{path}: i3dzoo reads files of format {format_name}, it writes none")
    module = _module(_WRITERS[format_name])
    getattr(module, _FUNCTIONS.get(format_name, "write"))(path, tensors, metadata)


_FUNCTIONS: Final = {"lightning": "write_lightning", "keras3": "write_keras3"}


def _module(name: str) -> Any:
    return importlib.import_module(f"i3dzoo.formats.{name}")


def _sniff(path: Path) -> str:
    if path.is_dir():
        raise FormatError(f"{path}: is a folder without a TensorFlow checkpoint (no .index file)")
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"PK\x03\x04") or _TORCH_LEGACY in head[:16]:
        return "torch"
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "keras"
    if len(head) > 8 and head[8:9] == b"{":
        return "safetensors"
    # a pickle begins with its protocol; a protobuf of ONNX with the field ir_version, a small int
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        return "flax"
    if head[:1] == b"\x08" and 1 <= (head[1:2] or b"\0")[0] < 32:
        return "onnx"
    for start, what in _OTHERS.items():
        if head[: len(start)].lower() == start.lower():
            raise FormatError(f"{path}: is {what}")
    raise FormatError(
        f"{path}: is no format that i3dzoo reads (its first bytes: {head[:8].hex() or 'none'}); "
        "expected a TensorFlow checkpoint, a PyTorch file or TorchScript archive, Keras HDF5, "
        "safetensors, a Flax pickle or ONNX"
    )
