"""Read safetensors that are spread over several files, with an index, as huggingface_hub does.

`NAME.safetensors.index.json` holds `weight_map`: the file of each tensor, in the same folder.
"""

from pathlib import Path
from typing import Annotated, Any, Final

from msgspec import Meta

from i3dzoo.arrays import Array
from i3dzoo.errors import FormatError, MissingFileError
from i3dzoo.formats import safetensors_file
from i3dzoo.formats.container import Container
from i3dzoo.formats.limits import MAX_HEADER
from i3dzoo.records import Record, read_json
from i3dzoo.text import shorten

SUFFIX: Final = ".safetensors.index.json"
_MAX_FILES: Final = 100
_FileName = Annotated[str, Meta(pattern=r"^[^/\\\0:]{1,250}\.safetensors$", description="a file")]


class _Index(Record, frozen=True):
    weight_map: dict[str, _FileName]
    metadata: dict[str, Any] | None = None


def index_path(path: Path) -> Path | None:
    """Return the index at a path, a file or a folder with exactly one; None if there is none."""
    if not path.is_dir():
        return path if path.name.endswith(SUFFIX) else None
    indexes = sorted(path.glob(f"*{SUFFIX}"))
    if len(indexes) > 1:
        names = ", ".join(file.name for file in indexes)
        raise FormatError(f"{path}: holds several checkpoints ({names}); give one of them")
    return indexes[0] if indexes else None


def read(path: Path) -> Container:
    """Read a checkpoint by its index. Each file must have the tensors that the index names."""
    listed = _read_index(path)
    tensors: dict[str, Array] = {}
    metadata: dict[str, str] = {}
    checked = True
    for file, names in listed.items():
        part = _read_part(path, file)
        if wrong := sorted(names ^ part.tensors.keys()):
            where = "the index" if wrong[0] in part.tensors else file
            raise FormatError(
                f"{path}: {shorten(wrong[0])} is missing from {where}; the files do not belong "
                "together: download them again"
            )
        tensors |= part.tensors
        metadata |= part.metadata
        checked = checked and part.checked
    return Container("safetensors", path, tensors, metadata, checked)


def files(path: Path) -> tuple[Path, ...]:
    """Return the files of a checkpoint, its index first."""
    return (path, *(path.with_name(name) for name in _read_index(path)))


def _read_index(path: Path) -> dict[str, set[str]]:
    """Return the names of the tensors in each file."""
    index = read_json(path, _Index, error=FormatError, limit=MAX_HEADER)
    listed: dict[str, set[str]] = {}
    for tensor, file in index.weight_map.items():
        listed.setdefault(file, set()).add(tensor)
    if not 0 < len(listed) <= _MAX_FILES:
        raise FormatError(f"{path}: names {len(listed)} files; expected 1 to {_MAX_FILES}")
    return listed


def _read_part(path: Path, name: str) -> Container:
    file = path.with_name(name)
    if not file.exists():
        raise MissingFileError(f"{file}: is missing; {path.name} names it")
    return safetensors_file.read(file)
