"""Load the models that people choose on the page, and say where each comes from."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from i3dzoo import hub, zoo
from i3dzoo.app.settings import Settings
from i3dzoo.checkpoints.metadata import Metadata
from i3dzoo.checkpoints.networks import split_key
from i3dzoo.engines.base import Engine, load_engine
from i3dzoo.errors import MetadataError, OptionError
from i3dzoo.fetch.find import digest, find, is_local
from i3dzoo.progress import SILENT, Progress
from i3dzoo.zoo.manifest import Manifest

_KEPT: Final = 2  # models in memory at once: those of a comparison


@dataclass(frozen=True, eq=False)
class Model:
    """A model that is ready to run.

    Attributes:
        name: As it was chosen; of a file, its name and that of its folder.
        engine: Runs it.
        metadata: The description of the checkpoint.
        path: Its file.
        sha256: The digest of the file.
    """

    name: str
    engine: Engine
    metadata: Metadata
    path: Path
    sha256: str

    @property
    def manifest(self) -> Manifest | None:
        """The published checkpoint that it is, or was made from."""
        origin = self.metadata.origin
        return zoo.manifest(origin) if origin in zoo.names() else None


class Models:
    """The models in memory."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._loaded: OrderedDict[tuple[str, str, int], Model] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, name: str, progress: Progress = SILENT) -> Model:
        """Return a model by a zoo name, a file or an address on the Hub.

        Raises:
            OptionError: No model is chosen, or it is a file that other people may not name.
            I3DZooError: See `find` and `load_engine`.
        """
        name = name.strip()
        if not name:
            raise OptionError("no model is selected; choose a zoo model, a file, or USER/NAME")
        check_name(name, self.settings)
        with self._lock:
            progress.start(f"loading {name}", None, "items")
            path = find(name, progress=progress)
            file = Path(split_key(path)[0])
            key = (name, str(path), file.stat().st_mtime_ns if file.exists() else 0)
            if key not in self._loaded:
                self._loaded[key] = self._open(name, path, progress)
                while len(self._loaded) > _KEPT:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(key)
            return self._loaded[key]

    def _open(self, name: str, path: Path, progress: Progress) -> Model:
        own = self.settings
        engine = load_engine(
            path, own.engine, own.device, precision=own.precision, progress=progress
        )
        if engine.metadata is None:
            raise MetadataError(f"{name}: has no description, so its input is not known")
        if engine.num_classes == 0:
            raise MetadataError(f"{name}: has no classification head; choose a model that has one")
        file = is_local(name) and name not in zoo.names()
        title = "/".join(Path(name).parts[-2:]) if file else name
        return Model(title, engine, engine.metadata, path, digest(path))


def check_name(name: str, settings: Settings) -> None:
    """Check that a model may be named on this page.

    Raises:
        OptionError: It is a file, and other people can reach the page.
    """
    if settings.local or name in zoo.names():
        return
    # `find` takes a file of this name before the repository
    if hub.is_address(name) and not is_local(name):
        return
    raise OptionError(
        f"{name}: is not a zoo model, and not USER/NAME of the Hub; files of this machine cannot "
        f"be named while the page listens on {settings.host}, where other people can reach it"
    )


def check_path(name: str, what: str, settings: Settings) -> Path:
    """Return a path that was typed.

    Raises:
        OptionError: It is empty, or other people can reach the page.
    """
    if not settings.local:
        raise OptionError(
            f"{what} of this machine cannot be named while the page listens on {settings.host}, "
            "where other people can reach it; start i3dzoo app without --host"
        )
    if not name.strip():
        raise OptionError(f"no {what} is given; enter its path")
    return Path(name.strip()).expanduser()
