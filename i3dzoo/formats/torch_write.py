"""Write PyTorch files without PyTorch, as the zip archive of `torch.save`.

A state dict is one pickle, `data.pkl`, that refers to the storages `data/0` and so on, each stored
uncompressed at a multiple of 64 bytes. Source: torch/serialization.py,
caffe2/serialize/inline_container.cc.
"""

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from i3dzoo.arrays import Array, Tensors, flat_bytes
from i3dzoo.errors import OutputError
from i3dzoo.files import atomic_write
from i3dzoo.formats import _pickle_write as opcodes
from i3dzoo.formats.torch_file import STORAGES

_ROOT: Final = "archive"
_ALIGNMENT: Final = 64
_HEADER: Final = 30
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # so that equal tensors give equal files
_LIGHTNING: Final = "2.0.0"
_STORAGE_OF: Final = {dtype.lstrip("<"): name for name, dtype in STORAGES.items()}


def write(path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> None:  # noqa: ARG001
    """Write a bare state dict without metadata; loaders such as TAO's accept only this."""
    _write(path, tensors, _state_dict(path, tensors))


def write_lightning(path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> None:  # noqa: ARG001
    """Write a Lightning checkpoint: the state dict, and the version that its loader requires."""
    content = [
        ("epoch", opcodes.integer(0)),
        ("global_step", opcodes.integer(0)),
        ("pytorch-lightning_version", opcodes.text(_LIGHTNING)),
        ("state_dict", _state_dict(path, tensors)),
    ]
    _write(path, tensors, opcodes.dictionary(content))


def _write(path: Path, tensors: Tensors, content: bytes) -> None:
    members: dict[str, bytes | Array] = {
        "data.pkl": b"\x80\x02" + content + opcodes.STOP,
        "byteorder": b"little",
        **{f"data/{number}": array for number, array in enumerate(tensors.values())},
        "version": b"3\n",
    }
    with atomic_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            member = zipfile.ZipInfo(f"{_ROOT}/{name}", _EPOCH)
            start = file.tell() + _HEADER + len(member.filename) + 4  # 4 bytes precede the padding
            padding = -start % _ALIGNMENT
            member.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
            archive.writestr(member, data if isinstance(data, bytes) else flat_bytes(data).data)


def _state_dict(path: Path, tensors: Tensors) -> bytes:
    return opcodes.dictionary(
        (name, _tensor(path, name, array, number))
        for number, (name, array) in enumerate(tensors.items())
    )


def _tensor(path: Path, name: str, array: Array, number: int) -> bytes:
    dtype = array.dtype
    storage = _STORAGE_OF.get(dtype.name if dtype.kind == "V" else dtype.str.lstrip("<|"))
    if storage is None:
        raise OutputError(f"{path}: {name} has dtype {dtype}, which PyTorch does not have")
    reference = opcodes.tuple_of(
        [
            opcodes.text("storage"),
            opcodes.glob("torch", storage),
            opcodes.text(str(number)),
            opcodes.text("cpu"),
            opcodes.integer(array.size),
        ]
    )
    strides = [math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim)]
    return opcodes.call(
        "torch._utils",
        "_rebuild_tensor_v2",
        reference + b"Q",
        opcodes.integer(0),
        opcodes.tuple_of(map(opcodes.integer, array.shape)),
        opcodes.tuple_of(map(opcodes.integer, strides)),
        opcodes.FALSE,
        opcodes.call("collections", "OrderedDict"),
    )
