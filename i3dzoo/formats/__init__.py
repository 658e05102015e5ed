"""Read and write checkpoint files of any format as arrays by name.

`read` recognises the format by the first bytes of a file, not by its name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from i3dzoo.arrays import Array, Tensors
from i3dzoo.errors import FormatError, I3DZooError, MissingFileError, OutputError, UnsafeFileError
from i3dzoo.files import is_special
from i3dzoo.formats import (
    flax_pickle,
    keras,
    mxnet_params,
    onnx_file,
    safetensors_file,
    sharded_safetensors,
    tensorflow_bundle,
    tensorflow_graph,
    tensorflow_v1,
    tensorflow_write,
    torch_file,
    torch_write,
)
from i3dzoo.formats.container import Container

__all__ = ["FORMATS", "Array", "Container", "Format", "Tensors", "outputs", "read", "write"]


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        name: The name that converter tables use.
        suffix: The usual end of a file name.
        read: Reads a file.
        write: Writes arrays by name and text metadata to a file; None if i3dzoo only reads the
            format.
    """

    name: str
    suffix: str
    read: Callable[[Path], Container]
    write: Callable[[Path, Tensors, Mapping[str, str]], None] | None


_ALL: Final = (
    Format("tensorflow", ".index", tensorflow_bundle.read, tensorflow_write.write),
    Format("torch", ".pt", torch_file.read, torch_write.write),
    Format("torchscript", ".ts", torch_file.read, None),
    Format("lightning", ".ckpt", torch_file.read, torch_write.write_lightning),
    Format("flax", ".pkl", flax_pickle.read, flax_pickle.write),
    Format("safetensors", ".safetensors", safetensors_file.read, safetensors_file.write),
    Format("keras", ".h5", keras.read, keras.write),
    Format("keras3", ".weights.h5", keras.read, keras.write_keras3),
    Format("onnx", ".onnx", onnx_file.read, None),
    Format("graphdef", ".pb", tensorflow_graph.read, None),
    Format("mxnet", ".params", mxnet_params.read, None),
)
FORMATS: Final = {format_.name: format_ for format_ in _ALL}
"""The formats that a converter table can name."""

_TORCH_LEGACY: Final = bytes.fromhex("8a0a6cfc9c46f9206aa85019")  # LONG1 of PyTorch's magic number
_NOT_CHECKPOINTS: Final = {
    b"version https://git-lfs": "a Git LFS pointer; run git lfs pull to get the file",
    b"\x1f\x8b": "a compressed archive; unpack it, and give the file or folder inside",
    b"<!DOCTYPE": "a web page, not a checkpoint; download the file that the page links to",
    b"<html": "a web page, not a checkpoint; download the file that the page links to",
}
"""Files that are often mistaken for checkpoints, by their first bytes, with a remedy."""
_ENCRYPTED: Final = (".tlt", ".etlt")


def read(path: Path) -> Container:
    """Read a file of any format.

    Raises:
        MissingFileError: The file does not exist.
        FormatError: The format is unknown, or the file is malformed or not a regular file.
    """
    try:
        bundle = tensorflow_bundle.index_path(path)
        if bundle is None and not path.exists():
            raise MissingFileError(f"{path}: there is no such file")
        if is_special(bundle or path):
            raise FormatError(f"{bundle or path}: is not a regular file; save it to one first")
        if bundle is None and (shards := sharded_safetensors.index_path(path)):
            return sharded_safetensors.read(shards)
        if bundle is None and tensorflow_v1.is_checkpoint(path):
            return tensorflow_v1.read(path)
        return FORMATS["tensorflow" if bundle else _sniff(path)].read(bundle or path)
    except FormatError as error:
        if path.suffix in _ENCRYPTED and not isinstance(error, UnsafeFileError):
            raise FormatError(
                f"{path}: is a model that NVIDIA TAO encrypted, and only its key opens it; export "
                "it unencrypted with TAO (as .pth, or as a checkpoint saved without a key) and "
                "convert that file"
            ) from error
        raise
    except I3DZooError:
        raise
    except PermissionError as error:
        raise FormatError(f"{path}: no permission to read it") from error
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error}") from error
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise FormatError(f"{path}: is truncated or corrupt: {error}; download it again") from error


def outputs(format_name: str, path: Path) -> tuple[Path, ...]:
    """Return the files that writing a format to `path` creates, the one that names them first."""
    return tensorflow_write.outputs(path) if format_name == "tensorflow" else (path,)


def write(format_name: str, path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> None:
    """Write a file in the format of this name, whole or not at all.

    Raises:
        OutputError: The file cannot be written, or i3dzoo only reads this format.
    """
    write_file = FORMATS[format_name].write
    if write_file is None:
        raise OutputError(
            f"{path}: i3dzoo reads files of format {format_name}, but does not write them"
        )
    write_file(path, tensors, metadata)


def _sniff(path: Path) -> str:
    if path.is_dir():
        raise FormatError(
            f"{path}: is a folder without a checkpoint of TensorFlow (.index) or safetensors "
            f"(*{sharded_safetensors.SUFFIX}); give a file in it"
        )
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"PK\x03\x04") or _TORCH_LEGACY in head[:16]:
        return "torch"
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "keras"
    if len(head) > 8 and head[8:9] == b"{":
        return "safetensors"
    # a pickle starts with its protocol, and an ONNX protobuf with the field ir_version, a small int
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        return "flax"
    if head[:1] == b"\x08" and 1 <= (head[1:2] or b"\0")[0] < 32:
        return "onnx"
    if head.startswith(mxnet_params.MAGIC):
        return "mxnet"
    if tensorflow_graph.is_graph(head):
        return "graphdef"
    for start, what in _NOT_CHECKPOINTS.items():
        if head[: len(start)].lower() == start.lower():
            raise FormatError(f"{path}: is {what}")
    raise FormatError(
        f"{path}: has an unknown format (first bytes: {head[:8].hex() or 'none'}); "
        "expected a TensorFlow checkpoint or frozen graph, a PyTorch file or TorchScript archive, "
        "Keras HDF5, safetensors, a Flax pickle, MXNet parameters or ONNX"
    )
