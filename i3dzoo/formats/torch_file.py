"""PyTorch files: state dicts, bare or inside a training checkpoint, read with `weights_only=True`.

Both of PyTorch's containers are read: the zip archive of today and the plain pickle that versions
before 1.6 wrote. Nothing in the file is run.
"""

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from i3dzoo._files import atomic_write
from i3dzoo.arrays import Array, Tensors, bfloat16
from i3dzoo.errors import FormatError, UnsafeFileError
from i3dzoo.formats.container import MAX_TENSORS, Container

if TYPE_CHECKING:
    import torch

__all__ = ["read", "write"]

_STATE_DICTS: Final = ("state_dict", "model_state_dict", "model", "net")


def read(path: Path) -> Container:
    """Read a state dict; of a training checkpoint, the state dict that it holds.

    Raises:
        UnsafeFileError: The file asks for code to be run, or unpacks to more than its size.
        FormatError: It is truncated, corrupt, or holds no state dict.
    """
    state = _state_dict(path, _load(path))
    if len(state) > MAX_TENSORS:
        raise FormatError(f"{path}: holds {len(state)} tensors; expected at most {MAX_TENSORS}")
    return Container("torch", path, {name: _array(tensor) for name, tensor in state.items()})


def _load(path: Path) -> Any:
    zipped = zipfile.is_zipfile(path)
    if zipped:
        _check_archive(path)
    import torch

    try:
        with warnings.catch_warnings():
            # a TorchScript archive warns before it fails, and the failure says the same
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        if "nsupported" in str(error):
            raise UnsafeFileError(
                f"{path}: the file holds more than tensors ({_reason(error)}); i3dzoo runs no code "
                "from files: save its state_dict() alone with torch.save and convert that"
            ) from error
        raise FormatError(f"{path}: is truncated or corrupt: {_reason(error)}") from error
    except Exception as error:  # torch.load has no error of its own: corrupt files raise anything
        raise FormatError(f"{path}: is truncated or corrupt: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    # torch's advice to load without weights_only is the one thing that must not be passed on
    lines = [line.strip() for line in str(error).splitlines() if "nsupported" in line]
    return (lines or [str(error).partition("\n")[0] or type(error).__name__])[0][:200]


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise FormatError(f"{path}: is truncated or corrupt: {error}") from error
    size = path.stat().st_size
    if total > size:
        raise UnsafeFileError(
            f"{path}: unpacks to {total} bytes from {size}; PyTorch stores tensors uncompressed"
        )


def _state_dict(path: Path, content: Any) -> "dict[str, torch.Tensor]":
    import torch

    for key in _STATE_DICTS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise FormatError(f"{path}: holds {type(content).__name__}; expected a state dict")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise FormatError(
                f"{path}: holds {type(value).__name__} under {name!r}; expected a state dict, or a "
                f"checkpoint with one under {', '.join(_STATE_DICTS)}"
            )
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            raise FormatError(f"{path}: {name} is no plain dense tensor")
    return dict(content)


def _array(tensor: "torch.Tensor") -> Array:
    import torch

    tensor = tensor.detach()
    if tensor.dtype is torch.bfloat16:
        return tensor.view(torch.uint16).numpy().view(bfloat16())
    return tensor.resolve_neg().resolve_conj().numpy()


def write(path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> None:  # noqa: ARG001
    """Write a bare state dict, as `torch.save(model.state_dict(), path)` does.

    Args:
        path: The file.
        tensors: Arrays by name.
        metadata: Not written: loaders such as TAO's take a state dict and nothing else.

    Raises:
        OutputError: The file cannot be written.
    """
    import torch

    with atomic_write(path) as file:
        torch.save({name: _tensor(array) for name, array in tensors.items()}, file)


def _tensor(array: Array) -> "torch.Tensor":
    import torch

    contiguous = np.require(array, requirements=["C", "W", "O"])
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(contiguous.view("u2")).view(torch.bfloat16)
    return torch.from_numpy(contiguous)
