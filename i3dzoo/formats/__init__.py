"""Containers: each format is read into named arrays and written from them, names unseen.

`read` looks at a file's bytes, not at its name.
"""

import importlib
from pathlib import Path
from typing import Any, Final

from i3dzoo.arrays import Array, Tensors
from i3dzoo.errors import FormatError, MissingFileError, OutputError
from i3dzoo.formats.container import Container
from i3dzoo.formats.tensorflow_bundle import index_path

__all__ = ["Array", "Container", "Tensors", "read", "write"]

_MODULES: Final = {
    "tensorflow": "tensorflow_bundle",
    "torch": "torch_file",
    "flax": "flax_pickle",
    "safetensors": "safetensors_file",
}
_TORCH_LEGACY: Final = bytes.fromhex("8a0a6cfc9c46f9206aa85019")  # LONG1 of PyTorch's magic number


def read(path: Path) -> Container:
    """Read a file of any format.

    Raises:
        MissingFileError: There is no such file.
        FormatError: Its format is unknown, or it breaks its format.
    """
    bundle = index_path(path)
    if bundle is None and not path.exists():
        raise MissingFileError(f"{path}: there is no such file")
    name = "tensorflow" if bundle else _sniff(path)
    try:
        container: Container = _module(name).read(bundle or path)
    except PermissionError as error:
        raise FormatError(f"{path}: no permission to read it") from error
    return container


def write(format_name: str, path: Path, tensors: Tensors, metadata: dict[str, str]) -> None:
    """Write a file of the format of that name, whole or not at all.

    Raises:
        OutputError: It cannot be written, or i3dzoo only reads this format.
    """
    module = _module(format_name)
    if not hasattr(module, "write"):
        raise OutputError(f"{path}: i3dzoo reads files of format {format_name}, it writes none")
    module.write(path, tensors, metadata)


def _module(name: str) -> Any:
    return importlib.import_module(f"i3dzoo.formats.{_MODULES[name]}")


def _sniff(path: Path) -> str:
    if path.is_dir():
        raise FormatError(f"{path}: is a folder without a TensorFlow checkpoint (no .index file)")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except PermissionError as error:
        raise FormatError(f"{path}: no permission to read it") from error
    if head.startswith(b"PK\x03\x04") or _TORCH_LEGACY in head[:16]:
        return "torch"
    if len(head) > 8 and head[8:9] == b"{":
        return "safetensors"
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        return "flax"
    raise FormatError(
        f"{path}: is no format that i3dzoo reads (its first bytes: {head[:8].hex() or 'none'}); "
        "expected a TensorFlow checkpoint, a PyTorch file, safetensors or a Flax pickle"
    )
