"""Receive a file that the Hub lists into the Hub's cache, verified."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import huggingface_hub

from i3dzoo import transfer
from i3dzoo.digests import file_digest
from i3dzoo.errors import ChecksumError, UnreachableError
from i3dzoo.hub.address import Address
from i3dzoo.hub.answers import check_headers
from i3dzoo.hub.cache import Cache
from i3dzoo.hub.client import Token, open_answer
from i3dzoo.hub.forms import ListedFile
from i3dzoo.progress import Progress
from i3dzoo.transfer import LostConnectionError, Part, Remote


@dataclass(frozen=True)
class Receiver:
    """Receives files of one repository; with `verify`, a corrupt cached file is an error."""

    address: Address
    token: Token
    store: Cache  # of the repository
    progress: Progress
    verify: bool = False
    kind: Literal["model", "dataset"] = "model"

    def get(self, file: ListedFile, commit: str, force: bool = False) -> Path:
        """Return a verified file; a corrupt one is downloaded once more."""
        blob, path = self.store.blob(file.digest), self.store.snapshot(commit, file.name)
        cached = None if force else next(filter(Path.is_file, (path, blob)), None)
        try:
            if cached is None:
                self._download(file, commit, blob, force)
            else:
                self._check(file, cached)
        except ChecksumError as error:
            if cached and self.verify:
                raise
            self.progress.message(f"{error}; fetching it again")
            for corrupt in (path, blob):  # a link is removed, never what it leads to
                corrupt.unlink(missing_ok=True)
            cached = None
            self._download(file, commit, blob, force)
        if cached != path:
            self.store.link(path, blob)
        return path

    def _download(self, file: ListedFile, commit: str, blob: Path, force: bool) -> None:
        """Download a file, and give it its name in the cache after it was verified."""
        url = huggingface_hub.hf_hub_url(
            self.address.repository, file.name, revision=commit, repo_type=self.kind
        )
        opener = partial(open_answer, url, self.token)
        where = f"{self.address}: {file.name}"
        remote = Remote(file.name, where, url, file.size, file.size, opener)
        blob.parent.mkdir(parents=True, exist_ok=True)
        with self.store.locked(blob, self.progress):
            if blob.is_file() and not force:  # from the process that had the lock
                self._check(file, blob)
                return
            self.progress.start(file.name, file.size)
            check_headers(self.address, file, commit, url, self.token)
            part = Part(self.store.part(blob), url)
            try:
                transfer.download(remote, part, partial(self._check, file), self.progress)
            except LostConnectionError as error:
                raise UnreachableError(f"{where}: {error}; run the command again later") from error
            part.path.replace(blob)
            part.remove()

    def _check(self, file: ListedFile, path: Path) -> None:
        """Compare a file with the digest that the Hub lists."""
        check_digest(self.address, file.name, path, file.digest, self.kind)


def check_digest(
    address: Address,
    name: str,
    path: Path,
    digest: str,
    kind: Literal["model", "dataset"] = "model",
) -> None:
    """Raise ChecksumError if a file of a repository does not have its digest."""
    actual = file_digest(path, digest.partition(":")[0])
    if actual != digest:
        remedy = f"i3dzoo pull {address} --force downloads it again"
        raise ChecksumError(
            f"{address}: {name} has {actual}, expected {digest}, as the Hub lists it; it was "
            "damaged during the download or on this disk; "
            f"{remedy if kind == 'model' else 'run the command again'}"
        )
