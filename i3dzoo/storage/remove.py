"""Remove what is kept, inside of its cache only."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import filelock

from i3dzoo import zoo
from i3dzoo.errors import OutputError
from i3dzoo.files.temporary import in_use, made_here
from i3dzoo.storage.entries import Entry, entries, hub_root, size_of


def remove(entry: Entry) -> None:
    """Remove one entry.

    A link is removed itself, never what it leads to.

    Raises:
        OutputError: A process uses it, a folder on the way to it is a link that leads out of its
            cache, or the system refuses.
    """
    if not entry.path.parent.resolve().is_relative_to(entry.root.resolve()):
        raise OutputError(
            f"{entry.path.parent}: leads out of the cache {entry.root}; nothing was removed"
        )
    if entry.busy:
        raise OutputError(f"{entry.path}: a process uses it; nothing was removed")
    try:
        with _locked(entry):
            if entry.path.is_dir() and not entry.path.is_symlink():
                shutil.rmtree(entry.path)  # does not follow links
            else:
                entry.path.unlink(missing_ok=True)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{entry.path}: cannot be removed: {error.strerror}") from error


@contextlib.contextmanager
def _locked(entry: Entry) -> Iterator[None]:
    """Hold the lock of a pull of this model."""
    lock = zoo.cache_dir() / "locks" / f"{entry.name}.lock"
    if entry.kind not in ("model", "download") or not lock.is_file():
        yield
        return
    try:
        with filelock.FileLock(lock, timeout=0):
            yield
    except filelock.Timeout:
        raise OutputError(
            f"{entry.path}: another process is fetching it; nothing was removed"
        ) from None


def unused() -> list[Entry]:
    """Return what no process needs: unfinished downloads, and what killed processes left."""
    kept = [entry for entry in entries() if entry.kind == "download" or _is_abandoned(entry)]
    models = zoo.cache_dir() / "models"
    for path in sorted(models.glob(".*.part")):
        if made_here(path) and not in_use(path):
            kept.append(_leftover(path, zoo.cache_dir(), "nothing"))
    for path in sorted(hub_root().glob("models--*/blobs/*.incomplete")):
        kept.append(_leftover(path, hub_root(), "the download starts again"))
    return kept


def _is_abandoned(entry: Entry) -> bool:
    return entry.kind == "frames" and made_here(entry.path) and not entry.busy


def _leftover(path: Path, root: Path, loss: str) -> Entry:
    return Entry("other", path.name, path, root, size_of(path), loss)
