"""Read what torch.save wrote of plain data: dicts, lists, numbers, texts and tensors.

Training snapshots are read with it. Nothing is executed, and reading is bounded as in
`i3dzoo.formats.torch_file`, where torch.load would unpack and hash whatever the file holds.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from i3dzoo.errors import FormatError
from i3dzoo.formats._state_dicts import Tensor
from i3dzoo.formats.limits import MAX_OPCODES
from i3dzoo.formats.torch_file import ArrayReader, read_root
from i3dzoo.formats.zip_archive import ZipArchive

_MAX_DEPTH: Final = 20


def read_snapshot(path: Path) -> Any:
    """Return the object of a file that torch.save wrote, with arrays in place of tensors."""
    archive = ZipArchive(path)
    roots = [name for name in archive.names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(roots) != 1:
        raise FormatError(f"{path}: is not a file of torch.save: it has no data.pkl")
    root, storages = read_root(archive, roots[0].removesuffix("data.pkl"))
    return _plain(root, ArrayReader(path, storages), itertools.count(), 0)


def _plain(value: Any, reader: ArrayReader, visits: Iterator[int], depth: int) -> Any:
    """Copy plain data; dicts may contain one another repeatedly, or themselves."""
    if depth > _MAX_DEPTH or next(visits) > MAX_OPCODES:
        raise FormatError(f"{reader.path}: is nested too deeply or has too many items")
    if isinstance(value, Tensor):
        return reader.array("a tensor", value)
    if isinstance(value, dict):
        return {key: _plain(item, reader, visits, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item, reader, visits, depth + 1) for item in value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise FormatError(f"{reader.path}: contains {type(value).__name__}; expected plain data")
