"""PyTorch files, read without PyTorch: state dicts, training checkpoints, models, TorchScript.

Both of PyTorch's containers are read: the zip archive of today and the run of pickles that versions
before 1.6 wrote. Their pickles are decoded, never run, so that a model or a TorchScript archive,
which `torch.load` would have to run, gives its parameters like any state dict. Sources:
torch/serialization.py, torch/_utils.py, torch/csrc/jit/serialization/pickler.cpp.
"""

import io
import itertools
import mmap
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from i3dzoo.arrays import Array, bfloat16
from i3dzoo.errors import ChecksumError, FormatError, UnsafeFileError
from i3dzoo.formats import keras_hdf5
from i3dzoo.formats._pickle_machine import Global, Opaque, load
from i3dzoo.formats.container import MAX_NAME, MAX_TENSORS, Container, is_shape

__all__ = ["STORAGES", "read"]

STORAGES: Final = {
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "DoubleStorage": "<f8",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_STATE_DICTS: Final = ("state_dict", "model_state_dict", "model", "net")
_KERAS: Final = "model.weights.h5"  # in the .keras files of Keras 3
_MAX_DEPTH: Final = 20
_MAX_ATTRIBUTES: Final = 10 * MAX_TENSORS  # of modules; most are no tensors
_MAX_REPEATED: Final = 64 << 20  # bytes that expanded tensors have beyond their storages
_MAGIC: Final = 0x1950A86A20F9469CFC6C
_ZIP_HEADER: Final = 30


@dataclass(frozen=True)
class _Storage:
    """A run of numbers in the file, and its name there."""

    key: str
    dtype: np.dtype[Any]
    shift: int = 0


@dataclass(frozen=True)
class _Tensor:
    """A window on a storage: offset and strides count elements."""

    storage: Any
    offset: Any
    shape: Any
    strides: Any


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    return _Tensor(storage, offset, shape, strides)


def _first(value: Any = None, *_: Any) -> Any:
    return value


def _ordered_dict(items: Any = (), *_: Any) -> dict[Any, Any]:
    if not isinstance(items, list):
        return {}
    pairs = items.copy()
    items.clear()  # or a list that stands once could fill a thousand dicts
    return dict(pairs) if all(isinstance(pair[0], str) for pair in pairs) else {}


_MAKERS: Final[dict[str, Callable[..., Any]]] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch.nn.parameter.Parameter": _first,
    "collections.OrderedDict": _ordered_dict,
    "torch.Size": _first,
}


def _storage(persistent: Any) -> Any:
    """Make a storage of a persistent id: ("storage", type, key, device, size[, view])."""
    if not isinstance(persistent, tuple):
        raise TypeError("it refers to something that is no storage")
    kind, storage_type, key = persistent[:3]
    if kind == "module" and isinstance(storage_type, Global):
        return storage_type  # a class, which older files carry with its source code
    if kind != "storage" or not isinstance(storage_type, Global) or not isinstance(key, str):
        raise ValueError("it refers to something that is no storage")
    name = storage_type.name.rpartition(".")[2]
    if name not in STORAGES:
        return Opaque(storage_type.name)
    dtype = bfloat16() if name.startswith("BFloat") else np.dtype(STORAGES[name])
    view = persistent[5] if len(persistent) > 5 else None
    return _Storage(key, dtype, view[1] if view else 0)


def read(path: Path) -> Container:
    """Read the tensors of a state dict, or of the model or checkpoint that holds one.

    Raises:
        UnsafeFileError: What should be tensors would take code to make, or the file unpacks to more
            than its size.
        ChecksumError: A part of an archive does not match its CRC32.
        FormatError: It is truncated, corrupt, encrypted, or holds no state dict.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"PK"
            file.seek(0)
            if not zipped:
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    return _read_legacy(path, data)
        return _read_archive(path)
    except (FormatError, OSError):
        raise
    except Exception as error:  # zipfile has no error of its own for every kind of damage
        raise FormatError(
            f"{path}: is truncated or corrupt: {error or type(error).__name__}"
        ) from error


def _read_archive(path: Path) -> Container:
    data: Array = np.memmap(path, "u1", "r")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # zipfile's, about names that stand twice
        archive = zipfile.ZipFile(path)
    with archive:
        members = {member.filename: member for member in archive.infolist()}
    roots = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(roots) != 1:
        if _KERAS in members:
            _check_sizes(path, data.size, {_KERAS: members[_KERAS]})
            return keras_hdf5.read(path, _member(path, data, members[_KERAS]))
        raise FormatError(
            f"{path}: is a zip archive, but neither PyTorch's (no data.pkl) nor that of Keras (no "
            f"{_KERAS}); name a file that torch.save or Keras wrote"
        )
    prefix = roots[0].removesuffix("data.pkl")
    wanted = {
        name.removeprefix(prefix): member
        for name, member in members.items()
        if name.startswith((f"{prefix}data.pkl", f"{prefix}data/", f"{prefix}byteorder"))
    }
    _check_sizes(path, data.size, wanted)
    parts = {name: _member(path, data, member) for name, member in wanted.items()}
    root = load(path, io.BytesIO(parts["data.pkl"].tobytes()), _MAKERS, _storage)
    if bytes(parts.get("byteorder", b"little")) != b"little":
        raise FormatError(f"{path}: holds big-endian tensors; i3dzoo reads little-endian ones")
    scripted = any(name.startswith(f"{prefix}code/") for name in members)
    storages = {name.removeprefix("data/"): raw for name, raw in parts.items()}
    return _container(path, "torchscript" if scripted else "torch", root, storages, checked=True)


def _check_sizes(path: Path, size: int, members: Mapping[str, zipfile.ZipInfo]) -> None:
    for member in members.values():
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise UnsafeFileError(
                f"{path}: {member.filename} unpacks to {member.file_size} bytes from "
                f"{member.compress_size}; tensors are stored as they are: save it again with "
                "torch.save or Keras"
            )
    total = sum(member.file_size for member in members.values())
    if total > size:
        raise UnsafeFileError(f"{path}: has {size} bytes, and its parts claim {total}")


def _member(path: Path, data: Array, member: zipfile.ZipInfo) -> Array:
    """Return the bytes of an archive's member, as a view of the mapped file."""
    header = data[member.header_offset : member.header_offset + _ZIP_HEADER]
    name, extra = (int.from_bytes(header[at : at + 2].tobytes(), "little") for at in (26, 28))
    start = member.header_offset + _ZIP_HEADER + name + extra
    raw = data[start : start + member.file_size]
    if raw.size != member.file_size:
        raise FormatError(f"{path}: is truncated: {member.filename} runs past the end of the file")
    if zlib.crc32(raw.data) != member.CRC:
        raise ChecksumError(
            f"{path}: {member.filename} has CRC32 {zlib.crc32(raw.data):08x}, expected "
            f"{member.CRC:08x}; the file is corrupt, fetch it again"
        )
    return raw


def _read_legacy(path: Path, data: mmap.mmap) -> Container:
    magic, _, system = (load(path, data, _MAKERS) for _ in range(3))
    if magic != _MAGIC or not isinstance(system, Mapping):
        raise FormatError(f"{path}: is no PyTorch file: its magic number is wrong")
    if not system.get("little_endian", True):
        raise FormatError(f"{path}: holds big-endian tensors; i3dzoo reads little-endian ones")
    found: dict[str, np.dtype[Any]] = {}

    def storage(persistent: Any) -> Any:
        result = _storage(persistent)
        if isinstance(result, _Storage):
            found[result.key] = result.dtype
        return result

    root = load(path, data, _MAKERS, storage)
    keys = load(path, data, _MAKERS)
    content: Array = np.memmap(path, "u1", "r")
    storages, at = {}, data.tell()
    for key in keys:
        count = int.from_bytes(content[at : at + 8].tobytes(), "little")
        if not isinstance(key, str) or key not in found:  # hashing other things may never end
            what = repr(key) if isinstance(key, str) else f"that a {type(key).__name__} names"
            raise FormatError(f"{path}: the storage {what} is of a type that i3dzoo does not read")
        size = count * found[key].itemsize
        storages[key] = content[at + 8 : at + 8 + size]
        if storages[key].size != size:
            raise FormatError(f"{path}: is truncated: a storage of {size} bytes does not end")
        at += 8 + size
    return _container(path, "torch", root, storages, checked=False)


def _container(
    path: Path, kind: str, root: Any, storages: Mapping[str, Array], checked: bool
) -> Container:
    if isinstance(root, Mapping) and root.get("state_dict_encrypted"):
        raise FormatError(
            f"{path}: is a checkpoint that NVIDIA TAO encrypted, which only its key opens; export "
            "it unencrypted with TAO (train or export without a key) and convert that"
        )
    tensors: dict[str, Array] = {}
    repeated = 0
    for name, value in _tensors(path, root):
        if len(tensors) >= MAX_TENSORS:
            raise FormatError(f"{path}: holds more than {MAX_TENSORS} tensors, which is no I3D")
        if name in tensors or len(name) > MAX_NAME:
            raise FormatError(f"{path}: {name[:MAX_NAME]} stands twice, or is too long a name")
        array = tensors[name] = _array(path, name, value, storages)
        repeated += max(array.nbytes - storages[value.storage.key].nbytes, 0)
        if repeated > _MAX_REPEATED:
            raise FormatError(
                f"{path}: {name} of shape {array.shape} repeats a small storage without end; save "
                "expanded tensors as contiguous ones"
            )
    if not tensors:
        raise FormatError(f"{path}: holds no tensors; expected a state dict")
    return Container(kind, path, tensors, checked=checked)


def _tensors(path: Path, root: Any) -> Iterator[tuple[str, Any]]:
    """Yield names and tensors of a state dict, or of the one that a checkpoint or model holds."""
    for key in _STATE_DICTS:
        if isinstance(root, Mapping) and isinstance(root.get(key), Mapping | Opaque):
            root = root[key]
    if isinstance(root, Mapping):
        distinct = {id(value): value for value in root.values()}  # each is looked at once
        states = {number for number, value in distinct.items() if _is_state_dict(value)}
        inner = [value for value in root.values() if id(value) in states]
        if len(inner) == 1 and not any(isinstance(value, _Tensor) for value in root.values()):
            root = inner[0]
    if isinstance(root, Opaque) and isinstance(root.state, Mapping):
        yield from _module_tensors(path, root, "", itertools.count())
        return
    if isinstance(root, Opaque):
        raise _unsafe(path, root.name)
    if not isinstance(root, Mapping) or not root:
        raise FormatError(f"{path}: holds {type(root).__name__}; expected a state dict")
    for name, value in root.items():
        if isinstance(value, Opaque | Global):
            raise _unsafe(path, f"{value.name} under {name!r}")
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise FormatError(
                f"{path}: holds {type(value).__name__} under {name!r}; expected a state dict, or a "
                f"checkpoint with one under {', '.join(_STATE_DICTS)}"
            )
        yield name, value


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(name, str) and isinstance(each, _Tensor) for name, each in value.items())
    )


def _unsafe(path: Path, what: str) -> UnsafeFileError:
    return UnsafeFileError(
        f"{path}: the file holds more than tensors ({what}); i3dzoo runs no code from files: save "
        "its state_dict() alone with torch.save and convert that"
    )


def _module_tensors(
    path: Path, module: Opaque, prefix: str, visits: Iterator[int], depth: int = 0
) -> Iterator[tuple[str, _Tensor]]:
    """Yield the tensors below a module; those of a TorchScript module are its attributes."""
    attributes = module.state
    if "_modules" in attributes:
        parts = [attributes.get(key) for key in ("_parameters", "_buffers", "_modules")]
        attributes = {k: v for part in parts if isinstance(part, Mapping) for k, v in part.items()}
    for name, value in attributes.items():
        if depth > _MAX_DEPTH or next(visits) > _MAX_ATTRIBUTES or len(prefix) > MAX_NAME:
            raise _unsafe(path, "modules within one another without end")
        if isinstance(value, _Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, Opaque) and isinstance(value.state, Mapping):
            yield from _module_tensors(path, value, f"{prefix}{name}.", visits, depth + 1)


def _array(path: Path, name: str, tensor: _Tensor, storages: Mapping[str, Array]) -> Array:
    storage = tensor.storage
    if not isinstance(storage, _Storage):
        kind = storage.name if isinstance(storage, Opaque) else type(storage).__name__
        raise FormatError(f"{path}: {name} is no plain dense tensor ({kind})")
    raw = storages.get(storage.key)
    if raw is None:
        raise FormatError(f"{path}: {name} lies in storage {storage.key}, which is missing")
    size = storage.dtype.itemsize
    if not all(map(is_shape, (tensor.shape, tensor.strides, [tensor.offset]))):
        raise FormatError(f"{path}: {name} has an impossible shape, stride or offset")
    try:
        return np.ndarray(
            tensor.shape,
            storage.dtype,
            buffer=raw,
            offset=(tensor.offset + storage.shift) * size,
            strides=tuple(stride * size for stride in tensor.strides),
        )
    except (ValueError, TypeError) as error:
        raise FormatError(
            f"{path}: {name} of shape {tensor.shape} runs past its storage of {raw.size} bytes"
        ) from error
