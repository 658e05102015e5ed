"""What a folder of features holds: `features.yaml` for the folder, and a JSON for each video.

`features.yaml` is also a preset, so that `--preset FOLDER/features.yaml` makes the same features.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from i3dzoo.digests import sha256
from i3dzoo.errors import OutputError
from i3dzoo.features.presets import FeaturePreset
from i3dzoo.features.settings import FeatureSettings
from i3dzoo.files import open_input
from i3dzoo.files.stores import Store
from i3dzoo.records import Record, parse_json, parse_yaml
from i3dzoo.version import __version__
from i3dzoo.video import frames_digest

NAME: Final = "features.yaml"

_QUICK_BYTES: Final = 1 << 20
_SIDECAR_BYTES: Final = 256 << 20  # of a row for each frame of a day


class VideoRecord(Record, frozen=True, kw_only=True):
    """The video of a file of features.

    Attributes:
        path: Where it was.
        sha256: Digest of the file; of a folder, of the names and sizes of its files.
        quick_digest: Digest of the size and the first MiB, by which the same video is recognised.
    """

    path: str
    sha256: str
    quick_digest: str


class FolderRecord:
    """The record of a store, to which several processes may add the features of their videos.

    A process that finds its own models or settings replaced by those of another process stops.

    Args:
        store: Where the features are.
        settings: How the features are made.
        models: Digest of the model's file by stream.

    Raises:
        OutputError: The store holds features of other models or of other settings.
    """

    def __init__(self, store: Store, settings: FeatureSettings, models: Mapping[str, str]) -> None:
        self.store = store
        self.settings, self.models = settings, dict(models)
        with store.claim(NAME, _wait):
            found = self._read()
            # a run that wrote no features does not claim the folder
            if found is not None and not self._is_own(found) and self._has_features():
                raise self._other_features()
            if found is None or not self._is_own(found):
                with store.write(NAME) as output:
                    output.write(self._text())

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Check that the record still has these models and settings, and hold it."""
        with self.store.claim(NAME, _wait):
            found = self._read()
            if found is None or not self._is_own(found):
                raise self._other_features()
            yield

    def _text(self) -> bytes:
        document = FeaturePreset(
            title="The features in this folder",
            source=f"i3dzoo {__version__}",
            settings=changed_settings(self.settings),
            models=self.models,
        )
        return yaml.safe_dump(document.to_dict(), sort_keys=False, allow_unicode=True).encode()

    def _is_own(self, found: FeaturePreset) -> bool:
        own = changed_settings(self.settings)
        return (found.settings, found.models) == (own, self.models)

    def _read(self) -> FeaturePreset | None:
        if not self.store.exists(NAME):
            return None
        try:
            where = self.store.location(NAME)
            return parse_yaml(self.store.read(NAME), FeaturePreset, where, error=OutputError)
        except OutputError as error:
            raise OutputError(f"{error}; remove the file, or name another folder") from error

    def _other_features(self) -> OutputError:
        return OutputError(
            f"{self.store.location()}: holds features of another model or of other options, as "
            f"{NAME} there says; name another folder"
        )

    def _has_features(self) -> bool:
        return any(name.endswith(".json") for name in self.store.names())


def changed_settings(settings: FeatureSettings) -> dict[str, Any]:
    """Return the settings that differ from the defaults, as plain data."""
    default = FeatureSettings().to_dict()
    return {key: value for key, value in settings.to_dict().items() if value != default[key]}


def video_record(video: str | Path) -> VideoRecord:
    """Return the record of a video file, or of a folder of images."""
    path = Path(video)
    if not path.is_file():
        digest = frames_digest(path)
        return VideoRecord(path=str(video), sha256=digest, quick_digest=digest)
    return VideoRecord(path=str(video), sha256=sha256(path), quick_digest=quick_digest(path))


def quick_digest(path: Path) -> str:
    """Return a digest of a file's size and first MiB, or of the names and sizes of a folder."""
    if not path.is_file():
        return frames_digest(path)
    with open_input(path) as file:
        start = file.read(_QUICK_BYTES)
    return hashlib.sha256(b"%d " % path.stat().st_size + start).hexdigest()


def check_finished(store: Store, name: str, video: str) -> None:
    """Check that a JSON of features is of a video.

    Raises:
        OutputError: It is of another video, or not of features.
    """
    sidecar = store.location(name)
    document = parse_json(
        store.read(name), dict[str, Any], sidecar, error=OutputError, limit=_SIDECAR_BYTES
    )
    found = document.get("video")
    digest = found.get("quick_digest") if isinstance(found, dict) else None
    if not isinstance(digest, str):
        raise OutputError(
            f"{sidecar}: expected the JSON of features, with the digest of a video, found another "
            "file; name another folder"
        )
    if digest != quick_digest(Path(video)):
        raise OutputError(
            f"{sidecar}: describes the features of another video than {video}; remove it, or name "
            "another folder"
        )


def _wait(remark: str) -> None:
    """Wait without a remark, because the record is never held for long."""
