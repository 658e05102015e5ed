"""Read PyTorch files without PyTorch: state dicts, training checkpoints, models and TorchScript.

Both containers are read: the zip archive, and the sequence of pickles that versions before 1.6
write. Pickles are decoded, never executed, so the parameters of a pickled model or a TorchScript
archive are read like those of a state dict. Sources: torch/serialization.py, torch/_utils.py,
torch/csrc/jit/serialization/pickler.cpp.
"""

import contextlib
import io
import itertools
import mmap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from i3dzoo.arrays import Array, bfloat16
from i3dzoo.errors import FormatError, UnsafeFileError
from i3dzoo.formats import flax_pickle, keras
from i3dzoo.formats._pickle_machine import Global, Opaque, load
from i3dzoo.formats._state_dicts import USUAL, Tensor, find_states, is_tensor, usual
from i3dzoo.formats.container import Container, by_name, is_shape, mapped
from i3dzoo.formats.limits import MAX_HEADER, MAX_NAME, MAX_PICKLE, MAX_REPEATED, MAX_TENSORS
from i3dzoo.formats.zip_archive import ZipArchive
from i3dzoo.text import shorten

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
_KERAS: Final = "model.weights.h5"  # in the .keras files of Keras 3
_MAX_DEPTH: Final = 20
_MAX_ATTRIBUTES: Final = 10 * MAX_TENSORS  # of modules; most are not tensors
_MAGIC: Final = 0x1950A86A20F9469CFC6C


@dataclass(frozen=True)
class _Storage:
    """A contiguous array of numbers in the file, and its key."""

    key: str
    dtype: np.dtype[Any]
    shift: int = 0


def _first(value: Any = None, *_: Any) -> Any:
    return value


def _ordered_dict(items: Any = (), *_: Any) -> dict[Any, Any]:
    if not isinstance(items, list):
        return {}
    pairs = items.copy()
    items.clear()  # otherwise one list could fill thousands of dicts
    return dict(pairs) if all(isinstance(pair[0], str) for pair in pairs) else {}


_MAKERS: Final[dict[str, Callable[..., Any]]] = {
    "torch._utils._rebuild_tensor": Tensor,
    "torch._utils._rebuild_tensor_v2": lambda *arguments: Tensor(*arguments[:4]),
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch.nn.parameter.Parameter": _first,
    "collections.OrderedDict": _ordered_dict,
    "torch.Size": _first,
}


def _makers(size: int) -> dict[str, Callable[..., Any]]:
    return {**_MAKERS, **flax_pickle.array_makers(size)}


def _storage(persistent: Any) -> Any:
    """Return the storage of a persistent id: ("storage", type, key, device, size[, view])."""
    kind, storage_type, key = persistent[:3] if isinstance(persistent, tuple) else [None] * 3
    if kind == "module" and isinstance(storage_type, Global):
        return storage_type  # a class, which older files store with its source code
    if kind != "storage" or not isinstance(storage_type, Global) or not isinstance(key, str):
        raise ValueError("it refers to something that is not a storage")
    name = storage_type.name.rpartition(".")[2]
    if name not in STORAGES:
        return Opaque(storage_type.name)
    dtype = bfloat16() if name.startswith("BFloat") else np.dtype(STORAGES[name])
    view = persistent[5] if len(persistent) > 5 else None
    return _Storage(key, dtype, view[1] if view else 0)


def read(path: Path) -> Container:
    """Read the tensors of a state dict, or of a model or checkpoint that contains one."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read_archive(path) if data[:2] == b"PK" else _read_legacy(path, data)
    except (FormatError, OSError):
        raise
    except Exception as error:  # zipfile raises many kinds of errors for damaged files
        raise FormatError(
            f"{path}: is truncated or corrupt: {error or type(error).__name__}"
        ) from error


def _read_archive(path: Path) -> Container:
    archive = ZipArchive(path)
    roots = [name for name in archive.names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(roots) != 1:
        if _KERAS in archive.names:
            start, end = archive.spans(_KERAS.__eq__)[_KERAS]
            return keras.read(path, (start, end - start))
        if any(name.endswith("archive_format") for name in archive.names):
            raise FormatError(
                f"{path}: is an archive of torch.export, whose weights are not read; convert the "
                "checkpoint that it was exported from, or its TorchScript export"
            )
        raise FormatError(
            f"{path}: is a zip archive, but not of PyTorch (no data.pkl) or Keras (no {_KERAS}); "
            "give a file that torch.save or Keras wrote"
        )
    prefix = roots[0].removesuffix("data.pkl")
    root, storages = read_root(archive, prefix)
    kind = "torchscript" if any(n.startswith(f"{prefix}code/") for n in archive.names) else "torch"
    container = _container(path, kind, root, storages, checked=True)
    return replace(container, metadata=_extra_files(archive, f"{prefix}extra/"))


def _extra_files(archive: ZipArchive, prefix: str) -> dict[str, str]:
    """Return the extra files of a TorchScript archive that are texts, by name."""
    texts: dict[str, str] = {}
    room = MAX_HEADER
    for name, (start, end) in archive.spans(lambda name: name.startswith(prefix)).items():
        room -= end - start
        if room < 0:
            raise FormatError(
                f"{archive.path}: has extra files of more than {MAX_HEADER} bytes; save it "
                "without them"
            )
        with contextlib.suppress(UnicodeDecodeError):  # another program's data
            texts[name.removeprefix(prefix)] = archive.data[start:end].tobytes().decode()
    return texts


def read_root(archive: ZipArchive, prefix: str) -> tuple[Any, dict[str, Array]]:
    """Return the object of a PyTorch archive, and its storages by key.

    `prefix` begins the names of the members.
    """
    path, data = archive.path, archive.data
    wanted = (f"{prefix}data.pkl", f"{prefix}data/", f"{prefix}byteorder")
    spans = archive.spans(lambda name: name.startswith(wanted))
    parts = {name.removeprefix(prefix): data[slice(*span)] for name, span in spans.items()}
    pickle = parts["data.pkl"]
    if pickle.size > MAX_PICKLE:
        raise UnsafeFileError(
            f"{path}: data.pkl has {pickle.size} bytes besides the tensors; expected at "
            f"most {MAX_PICKLE}: save only the state_dict() with torch.save"
        )
    root = load(path, io.BytesIO(pickle.tobytes()), _makers(pickle.size), _storage)
    if parts.get("byteorder", np.frombuffer(b"little", "u1")).tobytes() != b"little":
        raise FormatError(f"{path}: holds big-endian tensors; i3dzoo reads little-endian ones")
    return root, {name.removeprefix("data/"): raw for name, raw in parts.items()}


def _read_legacy(path: Path, data: mmap.mmap) -> Container:
    magic, _, system = (load(path, data, _MAKERS) for _ in range(3))
    if magic != _MAGIC or not isinstance(system, Mapping):
        raise FormatError(f"{path}: is not a PyTorch file: its magic number is wrong")
    if not system.get("little_endian", True):
        raise FormatError(f"{path}: holds big-endian tensors; i3dzoo reads little-endian ones")
    dtypes: dict[str, np.dtype[Any]] = {}

    def storage(persistent: Any) -> Any:
        result = _storage(persistent)
        if isinstance(result, _Storage):
            dtypes[result.key] = result.dtype
        return result

    root = load(path, data, _makers(len(data)), storage)
    keys = load(path, data, _MAKERS)
    content = mapped(path)
    storages, at = {}, data.tell()
    for key in keys:
        count = int.from_bytes(content[at : at + 8].tobytes(), "little")
        if not isinstance(key, str) or key not in dtypes:  # hashing other types may not end
            label = repr(key) if isinstance(key, str) else f"of key type {type(key).__name__}"
            raise FormatError(f"{path}: the storage {label} has an unknown or unsupported type")
        size = count * dtypes[key].itemsize
        storages[key] = content[at + 8 : at + 8 + size]
        if storages[key].size != size:
            raise FormatError(
                f"{path}: is truncated: a storage of {size} bytes is longer than the file"
            )
        at += 8 + size
    return _container(path, "torch", root, storages, checked=False)


def _container(
    path: Path, kind: str, root: Any, storages: Mapping[str, Array], checked: bool
) -> Container:
    if isinstance(root, Mapping) and root.get("state_dict_encrypted"):
        raise FormatError(
            f"{path}: is a checkpoint that NVIDIA TAO encrypted, and only its key opens it; export "
            "it unencrypted with TAO (train or export without a key) and convert that file"
        )
    key, node = usual(root)
    states = find_states(root, key, node)
    fitting = [name for name in states if f"{name}.".startswith(f"{key}." if key else "")]
    if not fitting:
        with contextlib.suppress(UnsafeFileError):
            if arrays := flax_pickle.arrays(path, node):
                return Container(kind, path, arrays, checked=checked)
        return Container(kind, path, _named(path, node, storages), checked=checked)
    if len(states) == 1:
        return Container(kind, path, _named(path, states[fitting[0]], storages), checked=checked)
    main = key if key in fitting else fitting[0] if len(fitting) == 1 else None
    parts = {}
    for name, state in states.items():
        try:
            parts[name] = _named(path, state, storages)
        except FormatError:
            if main in (None, name):  # the others may be of a kind that cannot be read
                raise
    tensors = {} if main is None else parts[main]
    return Container(kind, path, tensors, checked=checked, parts=parts, main=main)


def _named(path: Path, state: Any, storages: Mapping[str, Array]) -> dict[str, Array]:
    """Return the arrays of a state dict or a module."""
    arrays = _arrays(path, _tensors(path, state), storages)
    return by_name(path, arrays, "has no tensors; expected a state dict")


def _arrays(
    path: Path, tensors: Iterator[tuple[str, Any]], storages: Mapping[str, Array]
) -> Iterator[tuple[str, Array]]:
    reader = ArrayReader(path, storages)
    for name, tensor in tensors:
        yield name, reader.array(name, tensor)


def _tensors(path: Path, state: Any) -> Iterator[tuple[str, Any]]:
    """Yield the names and tensors of a state dict or a model."""
    if isinstance(state, Opaque) and isinstance(state.state, Mapping):
        yield from _module_tensors(path, state, "", itertools.count())
        return
    if isinstance(state, Opaque):
        raise _unsafe(path, state.name)
    if not isinstance(state, Mapping) or not state:
        raise FormatError(f"{path}: contains {type(state).__name__}; expected a state dict")
    for name, value in state.items():
        if isinstance(value, Opaque | Global):
            raise _unsafe(path, f"{value.name} under {name!r}")
        if not isinstance(name, str) or not is_tensor(value):
            raise FormatError(
                f"{path}: contains {type(value).__name__} under {name!r}; expected a state dict, "
                f"or a checkpoint with one under {', '.join(USUAL)}"
            )
        yield name, value


def _unsafe(path: Path, what: str) -> UnsafeFileError:
    return UnsafeFileError(
        f"{path}: the file contains more than tensors ({what}), and i3dzoo does not run code from "
        "files; save only the state_dict() with torch.save and convert that file"
    )


def _module_tensors(
    path: Path, module: Opaque, prefix: str, visits: Iterator[int], depth: int = 0
) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a module and its submodules; in TorchScript they are attributes."""
    attributes = module.state
    if "_modules" in attributes:
        parts = [attributes.get(key) for key in ("_parameters", "_buffers", "_modules")]
        attributes = {k: v for part in parts if isinstance(part, Mapping) for k, v in part.items()}
    for name, value in attributes.items():
        if depth > _MAX_DEPTH or next(visits) > _MAX_ATTRIBUTES or len(prefix) > MAX_NAME:
            raise _unsafe(path, "too many or too deeply nested modules")
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, Opaque) and isinstance(value.state, Mapping):
            yield from _module_tensors(path, value, f"{prefix}{name}.", visits, depth + 1)


class ArrayReader:
    """Makes arrays of tensors; they expand their storages by at most MAX_REPEATED bytes in all."""

    def __init__(self, path: Path, storages: Mapping[str, Array]) -> None:
        self.path = path
        self.storages = storages
        self.repeated = 0

    def array(self, name: str, tensor: Any) -> Array:
        """Return a view of the storage of a tensor, or an array that was saved as one."""
        if (saved := flax_pickle.as_array(tensor)) is not None:
            return saved
        path, label, storage = self.path, shorten(name), tensor.storage
        if not isinstance(storage, _Storage):
            kind = storage.name if isinstance(storage, Opaque) else type(storage).__name__
            raise FormatError(f"{path}: {label} is not a dense tensor ({kind})")
        raw = self.storages.get(storage.key)
        if raw is None:
            raise FormatError(
                f"{path}: {label} is in storage {shorten(storage.key)}, which is missing"
            )
        if not all(map(is_shape, (tensor.shape, tensor.strides, [tensor.offset]))):
            raise FormatError(f"{path}: {label} has an impossible shape, stride or offset")
        size = storage.dtype.itemsize
        offset, strides = (tensor.offset + storage.shift) * size, [n * size for n in tensor.strides]
        try:
            array = np.ndarray(tensor.shape, storage.dtype, raw, offset, tuple(strides))
        except (ValueError, TypeError) as error:
            raise FormatError(
                f"{path}: {label} of shape {tensor.shape} exceeds its storage of {raw.size} bytes"
            ) from error
        self.repeated += max(array.nbytes - raw.nbytes, 0)
        if self.repeated > MAX_REPEATED:
            raise FormatError(
                f"{path}: {label} of shape {array.shape} expands a small storage to an absurd "
                "size; save expanded tensors as contiguous tensors"
            )
        return array
