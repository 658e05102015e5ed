"""The folder of a repository in the Hub's standard cache, which other programs share."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import filelock
import huggingface_hub

from i3dzoo.errors import FetchError, OutputError
from i3dzoo.files import atomic_write
from i3dzoo.hub.failures import translate_errors
from i3dzoo.hub.session import utils
from i3dzoo.progress import Progress

_INCOMPLETE = ".incomplete"  # the suffix of a download, for the Hub's client too


@dataclass(frozen=True)
class Cache:
    """The blobs, snapshots and refs of one repository.

    What is written or removed is inside of the folder. A link in the cache can lead anywhere; it is
    removed or replaced itself, never what it leads to.
    """

    folder: Path

    def blob(self, digest: str) -> Path:
        """Return the path of a file by its digest."""
        return self._inside(self.folder / "blobs" / digest.partition(":")[2])

    def snapshot(self, commit: str, name: str) -> Path:
        """Return the path of a file of a commit."""
        return self._inside(self.folder / "snapshots" / commit / name)

    def part(self, blob: Path) -> Path:
        """Return the path of an unfinished download; the lock of the blob must be held."""
        return blob.with_name(f"{blob.name}{_INCOMPLETE}")

    @contextlib.contextmanager
    def locked(self, blob: Path, progress: Progress) -> Iterator[None]:
        """Let one process at a time download a blob, and wait for the Hub's client too."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._lock(blob.name, timeout=0.1))
            except filelock.Timeout:
                progress.message(f"another process is downloading {blob.name[:12]}; waiting")
                stack.enter_context(self._lock(blob.name, timeout=None))
            yield

    def sweep(self, wanted: Iterable[Path]) -> None:
        """Remove what killed processes left, except parts of the blobs that are wanted now."""
        kept = {self.part(blob).name for blob in wanted if not blob.exists()}
        with contextlib.suppress(OSError):
            for leftover in self._inside(self.folder / "blobs" / "x").parent.glob("*.incomplete*"):
                if leftover.name.removesuffix(".etag") not in kept:
                    name = leftover.name.partition(".")[0]
                    with contextlib.suppress(filelock.Timeout), self._lock(name, timeout=0.1):
                        leftover.unlink(missing_ok=True)

    def link(self, path: Path, blob: Path) -> None:
        """Make a file of a snapshot a link to its blob, or a copy where links are not allowed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        try:
            path.symlink_to(os.path.relpath(blob, path.parent))
        except FileExistsError:
            """Another process was faster."""
        except OSError:
            shutil.copyfile(blob, path)

    def remember(self, revision: str, commit: str) -> None:
        """Record the commit of a branch or tag, for offline use."""
        if revision != commit:
            ref = self._inside(self.folder / "refs" / revision)
            with contextlib.suppress(OSError):
                ref.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(ref) as file:
                    file.write(commit.encode())

    @contextlib.contextmanager
    def _lock(self, name: str, timeout: float | None) -> Iterator[None]:
        """Hold the lock of a blob, which the Hub's client uses too."""
        path = self._inside(self.folder.parent / ".locks" / self.folder.name / f"{name}.lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        with utils().WeakFileLock(path, timeout=timeout):
            yield

    def _inside(self, path: Path) -> Path:
        """Return a path whose folder is not a link that leads out of the cache."""
        if not path.parent.resolve().is_relative_to(self.folder.parent.resolve()):
            raise OutputError(
                f"{path.parent}: leads out of the Hub's cache; remove this link, or choose another "
                "cache with HF_HOME"
            )
        return path


def open_cache(
    repository: str, folder: Path | None, kind: Literal["model", "dataset"] = "model"
) -> Cache:
    """Return the folder of a repository in the Hub's cache, the standard one or another."""
    from huggingface_hub.file_download import repo_folder_name

    with translate_errors(repository, FetchError):
        name = repo_folder_name(repo_id=repository, repo_type=kind)
    return Cache(Path(folder or huggingface_hub.constants.HF_HUB_CACHE) / name)


def blob_digest(path: Path) -> str:
    """Return the digest after which the Hub's cache names a file; empty where it has no links."""
    name = path.resolve().name
    if path.is_symlink() and re.fullmatch(r"[0-9a-f]+", name):
        return {64: f"sha256:{name}", 40: f"git-blob:{name}"}.get(len(name), "")
    return ""
