"""List what is kept, with its size and with what is lost if it is removed."""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from huggingface_hub import constants

from i3dzoo import zoo
from i3dzoo.errors import UnknownNameError
from i3dzoo.files.temporary import in_use, made_here
from i3dzoo.hub.address import parse
from i3dzoo.video.cache import FRAMES_PREFIX
from i3dzoo.zoo.manifest import HubFile

Kind = Literal["model", "download", "hub", "frames", "other"]

_CONFIG_BYTES: Final = 1 << 20
_MODELS: Final = "models--"  # what the Hub's cache puts before the name of a repository of weights
_KNOWN: Final = frozenset({"models", "downloads", "locks"})  # folders of the zoo's cache
_LOSSES: Final = {
    "engines": "the fastest engine of each model is measured again",
    "tiles": "the engine fused is tuned again for this GPU",
}


@dataclass(frozen=True)
class Entry:
    """One thing that is kept.

    Attributes:
        kind: `model` is a converted model of the zoo, `download` an unfinished one, `hub` a
            repository in the Hub's cache, `frames` are decoded frames of a training run, `other`
            are further files, such as the fastest engine of each model.
        name: The name by which it is removed.
        path: The file or folder.
        root: The cache that it belongs to; nothing outside of it is removed.
        size: Bytes on the disk; links count nothing.
        loss: What is lost if it is removed.
        busy: Whether a process uses it now.
    """

    kind: Kind
    name: str
    path: Path
    root: Path
    size: int
    loss: str
    busy: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of `i3dzoo cache ls --json`."""
        return {
            "kind": self.kind,
            "name": self.name,
            "path": str(self.path),
            "size": self.size,
            "lost_if_removed": self.loss,
            "in_use": self.busy,
        }


def entries() -> list[Entry]:
    """Return all that is kept: of the zoo's cache, of the Hub's, and of decoded frames."""
    return [*_of_zoo(), *_of_hub(), *_of_frames()]


def find_entries(names: Iterable[str]) -> list[Entry]:
    """Return the entries of these names; a model and its unfinished download share one.

    Raises:
        UnknownNameError: Nothing is kept under a name.
    """
    kept = entries()
    found = []
    for name in dict.fromkeys(names):
        plain = parse(name).repository if name.startswith("hf:/") else name
        matches = [entry for entry in kept if entry.name == plain]
        if not matches:
            known = ", ".join(dict.fromkeys(entry.name for entry in kept)) or "nothing"
            others = {path.name for path in others_in_hub_cache()}
            hint = "; the Hub's cache has it, but not from i3dzoo: use hf cache rm"
            raise UnknownNameError(
                f"{name}: nothing in the cache has this name"
                f"{hint if _MODELS + plain.replace('/', '--') in others else f'; found {known}'}"
            )
        found += matches
    return found


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of the files in a folder; links are not followed."""
    if path.is_symlink() or not path.is_dir():
        return 0 if path.is_symlink() else _bytes(path)
    folders = os.walk(path, followlinks=False)
    files = (Path(folder) / name for folder, _, names in folders for name in names)
    return sum(_bytes(file) for file in files if not file.is_symlink())


def _bytes(file: Path) -> int:
    try:
        return file.lstat().st_size
    except OSError:  # it was removed in the meantime
        return 0


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _of_zoo() -> Iterator[Entry]:
    root = zoo.cache_dir()
    for path in _children(root / "models"):
        if path.suffix == ".safetensors" and not path.name.startswith("."):
            loss = "a file that is not a zoo model"
            if path.stem in zoo.names():
                source = zoo.manifest(path.stem).sources[0]
                loss = f"a download of {source.total_size / 1e6:.0f} MB ({source.title})"
            yield Entry("model", path.stem, path, root, size_of(path), loss)
    for path in _children(root / "downloads"):
        loss = "the download starts again"
        yield Entry("download", path.name, path, root, size_of(path), loss)
    for path in _children(root):
        if path.name not in _KNOWN and not path.name.startswith("."):
            loss = _LOSSES.get(path.name, "files of another version of i3dzoo")
            yield Entry("other", path.name, path, root, size_of(path), loss)


def hub_root() -> Path:
    """Return the Hub's cache of this machine."""
    return Path(constants.HF_HUB_CACHE)


def _repositories() -> Iterator[tuple[Path, str, bool]]:
    """Yield each folder of a repository of weights, its name, and whether i3dzoo uses it."""
    sources = {
        source.repository
        for name in zoo.names()
        for source in zoo.manifest(name).sources
        if isinstance(source, HubFile)
    }
    for path in _children(hub_root()):
        if path.name.startswith(_MODELS) and path.is_dir():
            name = path.name.removeprefix(_MODELS).replace("--", "/", 1)
            yield path, name, name in sources or _is_ours(path)


def _of_hub() -> Iterator[Entry]:
    for path, name, ours in _repositories():
        if ours:
            loss = f"a download of {name} from the Hub, for other programs too"
            yield Entry("hub", name, path, hub_root(), size_of(path), loss)


def others_in_hub_cache() -> list[Path]:
    """Return the folders of the Hub's cache that i3dzoo did not make: it leaves them alone."""
    ours = {path for path, _, is_ours in _repositories() if is_ours}
    return [path for path in _children(hub_root()) if "--" in path.name and path not in ours]


def _is_ours(repository: Path) -> bool:
    """Whether a commit of a repository has a config.json that i3dzoo wrote."""
    for snapshot in _children(repository / "snapshots"):
        try:
            with (snapshot / "config.json").open("rb") as file:
                document = json.loads(file.read(_CONFIG_BYTES))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(document, dict) and "i3dzoo" in document:
            return True
    return False


def _of_frames() -> Iterator[Entry]:
    root = Path(tempfile.gettempdir())
    for path in _children(root):
        if path.name.startswith(f"{FRAMES_PREFIX}-") and path.is_dir() and not path.is_symlink():
            busy = made_here(path) and in_use(path / ".lock")
            loss = "the run that uses it fails" if busy else "nothing: its run has ended"
            if not made_here(path):  # its lock may not reach from one machine to another
                loss = "a run fails if it uses it, on another machine"
            yield Entry("frames", path.name, path, root, size_of(path), loss, busy)
