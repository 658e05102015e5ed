"""PyTorch files, written without PyTorch: the zip archive that `torch.save` writes today.

A state dict is one pickle, `data.pkl`, that refers to storages, `data/0` and so on, each stored
uncompressed at a multiple of 64 bytes. Source: torch/serialization.py,
caffe2/serialize/inline_container.cc.
"""

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from i3dzoo._files import atomic_write
from i3dzoo.arrays import Array, Tensors, flat_bytes
from i3dzoo.errors import OutputError
from i3dzoo.formats import _pickle_write as opcodes
from i3dzoo.formats.torch_file import STORAGES

__all__ = ["write", "write_lightning"]

_ROOT: Final = "archive"
_ALIGNMENT: Final = 64
_HEADER: Final = 30
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # so that the same tensors make the same file
_LIGHTNING: Final = "2.0.0"
_STORAGE_OF: Final = {dtype.lstrip("<"): name for name, dtype in STORAGES.items()}


def write(path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> None:  # noqa: ARG001
    """Write a bare state dict, as `torch.save(model.state_dict(), path)` does.

    Args:
        path: The file.
        tensors: Arrays by name.
        metadata: Not written: loaders such as TAO's take a state dict and nothing else.

    Raises:
        OutputError: The file cannot be written, or a dtype is none of PyTorch's.
    """
    _write(path, tensors, _state_dict(path, tensors))


def write_lightning(path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> None:  # noqa: ARG001
    """Write a checkpoint of Lightning: the state dict, and the version that its loader asks for.

    Args:
        path: The file.
        tensors: Arrays by name.
        metadata: Not written: Lightning takes hyper-parameters of its own.

    Raises:
        OutputError: The file cannot be written, or a dtype is none of PyTorch's.
    """
    content = [
        ("epoch", opcodes.integer(0)),
        ("global_step", opcodes.integer(0)),
        ("pytorch-lightning_version", opcodes.text(_LIGHTNING)),
        ("state_dict", _state_dict(path, tensors)),
    ]
    _write(path, tensors, opcodes.dictionary(content))


def _write(path: Path, tensors: Tensors, content: bytes) -> None:
    with atomic_write(path) as file, _archive(file) as add:
        add("data.pkl", b"\x80\x02" + content + opcodes.STOP)
        add("byteorder", b"little")
        for number, array in enumerate(tensors.values()):
            add(f"data/{number}", flat_bytes(array).data)
        add("version", b"3\n")


@contextmanager
def _archive(file: Any) -> Iterator[Any]:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:

        def add(name: str, content: bytes | memoryview) -> None:
            member = zipfile.ZipInfo(f"{_ROOT}/{name}", _EPOCH)
            start = file.tell() + _HEADER + len(member.filename) + 4  # four bytes head the padding
            padding = -start % _ALIGNMENT
            member.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
            archive.writestr(member, content)

        yield add


def _state_dict(path: Path, tensors: Tensors) -> bytes:
    items = []
    for number, (name, array) in enumerate(tensors.items()):
        items.append((name, _tensor(path, name, array, number)))
    return opcodes.dictionary(items)


def _tensor(path: Path, name: str, array: Array, number: int) -> bytes:
    bfloat = array.dtype.name == "bfloat16"
    storage = _STORAGE_OF.get("bfloat16" if bfloat else array.dtype.str.lstrip("<|"))
    if storage is None:
        raise OutputError(f"{path}: {name} has dtype {array.dtype}, which PyTorch does not have")
    reference = opcodes.tuple_of(
        [
            opcodes.text("storage"),
            opcodes.glob("torch", storage),
            opcodes.text(str(number)),
            opcodes.text("cpu"),
            opcodes.integer(array.size),
        ]
    )
    strides, step = [], 1
    for size in reversed(array.shape):
        strides.append(step)
        step *= size
    return opcodes.call(
        "torch._utils",
        "_rebuild_tensor_v2",
        reference + b"Q",
        opcodes.integer(0),
        opcodes.tuple_of(map(opcodes.integer, array.shape)),
        opcodes.tuple_of(map(opcodes.integer, reversed(strides))),
        opcodes.FALSE,
        opcodes.call("collections", "OrderedDict"),
    )
