"""Download a repository of the Hub and verify each file.

The files are in the Hub's standard cache, where other programs find them and can have put them.
Every file is therefore hashed on every pull, whether it was downloaded or cached.
"""

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import huggingface_hub

from i3dzoo.digests import file_digest
from i3dzoo.errors import ChecksumError, FetchError, OfflineError, UnreachableError
from i3dzoo.hub.address import WEIGHTS, Address
from i3dzoo.hub.answers import read_repository
from i3dzoo.hub.cache import Cache, blob_digest, open_cache
from i3dzoo.hub.client import Token
from i3dzoo.hub.failures import translate_errors
from i3dzoo.hub.forms import ListedFile
from i3dzoo.hub.receiver import Receiver, check_digest
from i3dzoo.hub.sums import SUMS, read_sums
from i3dzoo.progress import SILENT, Progress

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_MAX_SIZE: Final = 1 << 30
_MAX_FILES: Final = 1000
# other files, such as pictures, are downloaded only with `everything`
_NEEDED: Final = frozenset(
    {WEIGHTS, SUMS, "config.json", "preprocessor_config.json", "labels.txt", "README.md"}
)


@dataclass(frozen=True)
class Snapshot:
    """Verified files of one commit of a repository."""

    address: Address
    commit: str
    folder: Path  # in the Hub's cache
    files: tuple[str, ...]  # their paths in the repository
    weights: Path


def pull(
    address: Address,
    *,
    offline: bool = False,
    force: bool = False,
    verify: bool = False,
    everything: bool = False,
    token: Token = None,
    cache: Path | None = None,
    max_size: int = _MAX_SIZE,
    progress: Progress = SILENT,
) -> Snapshot:
    """Return a repository's files, verified, and download those that are not cached.

    Args:
        address: Repository, revision, and optionally one file.
        offline: Use only the cache.
        force: Download cached files again.
        verify: Fail if a cached file is corrupt, instead of downloading it again.
        everything: Download pictures and other formats too.
        token: Token for the Hub; None uses the one of this machine, False none.
        cache: Folder of the Hub's cache; None uses the standard one.
        max_size: Size in bytes of the files to download, together.
        progress: Receives the progress of each download, and messages.

    Raises:
        FetchError: The repository, the revision or a file does not exist or cannot be read.
        UnreachableError: The Hub cannot be reached, and the files are not cached.
        OfflineError: The files are not cached and the network is not allowed.
        ChecksumError: A file differs from what the Hub or SHA256SUMS lists, even after another
            download.
        FormatError: SHA256SUMS is malformed.
    """
    store = open_cache(address.repository, cache)
    snapshots = _Snapshots(address, token, cache, store, verify, progress)
    if offline or huggingface_hub.is_offline_mode():
        if snapshot := snapshots.cached():
            return snapshot
        raise OfflineError(
            f"{address}: is not in the Hub's cache, and the network was not allowed; "
            f"run `i3dzoo pull {address}` with a network once"
        )
    if _COMMIT.fullmatch(address.revision) and not (force or everything):
        # a corrupt cached file is downloaded again below, unless `verify` is set
        with contextlib.suppress(*() if verify else (ChecksumError,)):
            if snapshot := snapshots.cached():
                return snapshot
    try:
        return snapshots.download(force, everything, max_size)
    except UnreachableError as error:
        snapshot = None if force else snapshots.cached()
        if snapshot is None:
            raise
        progress.message(f"{error}; using the cached commit {snapshot.commit[:8]}")
        return snapshot


@dataclass(frozen=True)
class _Snapshots:
    """Gets snapshots of one repository; see `pull`."""

    address: Address
    token: Token
    cache: Path | None
    store: Cache  # of the repository
    verify: bool
    progress: Progress

    @property
    def main(self) -> str:
        """Path of the checkpoint in the repository."""
        return self.address.file or WEIGHTS

    def cached(self) -> Snapshot | None:
        """Return the verified snapshot of the revision in the cache, or None."""
        main = self._find_cached(self.main, self.address.revision)
        if main is None:
            return None
        folder = _root(main, self.main)
        names = [self.main]
        if self.address.file is None:
            names = [name for name in sorted(_NEEDED) if (folder / name).is_file()]
        digests = {name: blob_digest(folder / name) for name in names}
        for name, digest in digests.items():
            if digest:
                check_digest(self.address, name, folder / name, digest)
        self._check_sums(folder, digests)
        return Snapshot(self.address, folder.name, folder, tuple(names), main)

    def download(self, force: bool, everything: bool, max_size: int) -> Snapshot:
        """Return the snapshot that the Hub has, downloaded where it is not cached."""
        repository, listed = read_repository(self.address, self.token)
        commit = repository.sha
        files = self._select(listed, everything, max_size)
        folder = self.store.folder / "snapshots" / commit
        self.store.sweep(self.store.blob(file.digest) for file in files)
        receiver = Receiver(self.address, self.token, self.store, self.progress, self.verify)
        with translate_errors(str(self.address), FetchError):
            paths = {file.name: receiver.get(file, commit, force) for file in files}
        self._check_sums(folder, {file.name: file.digest for file in files})
        self.store.remember(self.address.revision, commit)
        return Snapshot(self.address, commit, folder, tuple(paths), paths[self.main])

    def _select(
        self, listed: dict[str, ListedFile], everything: bool, max_size: int
    ) -> list[ListedFile]:
        """Return the files to download, the smallest first, so that errors come early."""
        if self.main not in listed:
            if self.address.file:
                raise FetchError(f"{self.address}: has no file {self.address.file}")
            raise FetchError(
                f"{self.address}: has no {WEIGHTS}, so it was not made by i3dzoo; name one of its "
                f"files: hf://{self.address.repository}/FILE"
            )
        names = set(listed) if everything else _NEEDED & set(listed)
        if self.address.file:
            names = {self.main}
        files = sorted((listed[name] for name in names), key=lambda file: file.size)
        total, raise_it = sum(file.size for file in files), "i3dzoo pull --max-size allows more"
        if files[-1].size > max_size:
            raise FetchError(
                f"{self.address}: {files[-1].name} has {files[-1].size} bytes, "
                f"expected at most {max_size}; {raise_it}"
            )
        if total > max_size or len(files) > _MAX_FILES:
            raise FetchError(
                f"{self.address}: has {len(files)} files of {total} bytes, expected at most "
                f"{_MAX_FILES} files of {max_size} bytes; {raise_it}, and "
                f"hf://{self.address.repository}/FILE downloads one file"
            )
        return files

    def _find_cached(self, name: str, revision: str) -> Path | None:
        path = huggingface_hub.try_to_load_from_cache(
            self.address.repository, name, cache_dir=self.cache, revision=revision
        )
        return Path(path) if isinstance(path, str) else None

    def _check_sums(self, folder: Path, digests: dict[str, str]) -> None:
        """Compare files with the repository's own SHA256SUMS, if it has one.

        A `sha256:…` among the given digests was checked already and is not computed again.
        """
        sums = read_sums(folder / SUMS) if SUMS in digests else {}
        for name, expected in sums.items():
            digest = digests.get(name, f"sha256:{expected}")
            if not digest.startswith("sha256:"):
                digest = file_digest(folder / name, "sha256")
            if digest != f"sha256:{expected}":
                raise ChecksumError(
                    f"{self.address}: {name} has {digest}, expected {expected}, as {SUMS} lists "
                    "it; it was changed without i3dzoo; name an earlier revision or push it again"
                )


def _root(path: Path, name: str) -> Path:
    """Return the folder of a snapshot, from the path and the name of one of its files."""
    return path.parents[len(Path(name).parts) - 1]
