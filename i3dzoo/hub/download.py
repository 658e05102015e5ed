"""From an address on the Hub to files on this disk that are what the Hub says they are.

Files lie in the Hub's standard cache, where other programs find them and may have put them. Which
of them were verified is noted beside the zoo's cache, with size and time of change, so that each is
hashed once and again when it changed or when it is asked for.
"""

import contextlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from i3dzoo import __version__
from i3dzoo._files import atomic_write
from i3dzoo.errors import ChecksumError, FetchError, OfflineError, OutputError
from i3dzoo.hub import client
from i3dzoo.hub.address import Address
from i3dzoo.hub.client import UnreachableError, understood
from i3dzoo.hub.package import SUMS, WEIGHTS, file_digest, read_sums
from i3dzoo.progress import Progress, Quiet

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

__all__ = ["Snapshot", "pull"]

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_MAX_SIZE: Final = 1 << 30
# what describes the weights; pictures and other formats come only when all is asked for
_NEEDED: Final = frozenset(
    {WEIGHTS, SUMS, "config.json", "preprocessor_config.json", "labels.txt", "README.md"}
)


@dataclass(frozen=True)
class Snapshot:
    """Verified files of one commit of a repository.

    Attributes:
        address: What was asked for.
        commit: The commit that it meant.
        folder: Where the files are; in the Hub's cache.
        files: Their paths in the repository.
        weights: The checkpoint.
    """

    address: Address
    commit: str
    folder: Path
    files: tuple[str, ...]
    weights: Path


@dataclass(frozen=True)
class _Wanted:
    """A file as the Hub lists it: `sha256:…` of what is in LFS, `git-blob:…` of the rest."""

    name: str
    size: int
    digest: str


def pull(
    address: Address,
    *,
    offline: bool = False,
    force: bool = False,
    verify: bool = False,
    everything: bool = False,
    token: str | bool | None = None,
    cache: Path | None = None,
    max_size: int = _MAX_SIZE,
    progress: Progress | None = None,
) -> Snapshot:
    """Return a repository's files, fetched where they are not cached, each one verified.

    Args:
        address: Repository, revision, and perhaps one file.
        offline: Use the cache only.
        force: Fetch what is cached again.
        verify: Hash again what was verified before; what differs is an error, not fetched again.
        everything: Fetch pictures and other formats too.
        token: Of the Hub; None takes that of this machine, False none.
        cache: Folder of the Hub's cache; None takes the standard one.
        max_size: Bytes of the largest file that is fetched.
        progress: Told of the bytes that come, and of what happens.

    Raises:
        FetchError: The repository, the revision or a file is not there or may not be read.
        OfflineError: It is not cached and the network is not allowed.
        ChecksumError: A file is not what the Hub or SHA256SUMS says, even when fetched again.
        FormatError: SHA256SUMS is malformed.
    """
    job = _Job(address, token, progress or Quiet(), verify, cache)
    if not (offline or client.is_offline()):
        known = _COMMIT.fullmatch(address.revision) and not (force or everything)
        # what is cached and corrupt is fetched again, unless it was to be verified
        with contextlib.suppress(*() if verify else (ChecksumError,)):
            if known and (found := job.cached()):
                return found
        try:
            return job.fetched(force, everything, max_size)
        except UnreachableError as error:
            found = None if force else job.cached()
            if found is None:
                raise
            job.progress.say(f"{error}; using the cached commit {found.commit[:8]}")
            return found
    if found := job.cached():
        return found
    raise OfflineError(
        f"{address}: is not in the Hub's cache, and the network was not allowed; "
        f"run `i3dzoo pull {address}` with a network once"
    )


class _Job:
    """One pull."""

    def __init__(
        self,
        address: Address,
        token: str | bool | None,
        progress: Progress,
        verify: bool,
        cache: Path | None,
    ) -> None:
        self.address = address
        self.token = token
        self.progress = progress
        self.verify = verify
        self.cache = cache
        self.main = address.file or WEIGHTS

    def fetched(self, force: bool, everything: bool, max_size: int) -> Snapshot:
        """Ask the Hub what there is, fetch it, verify it."""
        repository = self.address.repository
        with understood(str(self.address), FetchError):
            info = client.api(self.token).model_info(
                repository, revision=self.address.revision, files_metadata=True
            )
        commit = info.sha or ""
        wanted = self._wanted(info, everything, max_size)
        note = _Note(repository, commit)
        paths = [self._file(commit, each, note, force) for each in wanted]
        folder = paths[0]
        for _ in Path(wanted[0].name).parts:
            folder = folder.parent
        self._check_sums(folder, [each.name for each in wanted], note)
        self._remember(folder, commit)
        note.write()
        names = tuple(each.name for each in wanted)
        return Snapshot(self.address, commit, folder, names, folder / self.main)

    def cached(self) -> Snapshot | None:
        """Return what the cache has of this revision, verified, or None."""
        from huggingface_hub import try_to_load_from_cache

        repository, revision = self.address.repository, self.address.revision
        found = try_to_load_from_cache(
            repository, self.main, cache_dir=self.cache, revision=revision
        )
        if not isinstance(found, str):
            return None
        folder = Path(found)
        for _ in Path(self.main).parts:
            folder = folder.parent
        names = [self.main]
        if self.address.file is None:
            names = sorted(
                path.relative_to(folder).as_posix()
                for path in folder.rglob("*")
                if path.is_file() and path.relative_to(folder).as_posix() in _NEEDED
            )
        note = _Note(repository, folder.name)
        for name in names:
            path = folder / name
            digest = note.digest(name) or _name_as_digest(path)
            if digest and (self.verify or not note.covers(name, path)):
                _check(self.address, name, path, digest)
                note.add(name, path, digest)
        self._check_sums(folder, names, note)
        note.write()
        return Snapshot(self.address, folder.name, folder, tuple(names), folder / self.main)

    def _wanted(self, info: "ModelInfo", everything: bool, max_size: int) -> list[_Wanted]:
        """Choose files, those that are cheap to refuse first."""
        listed: dict[str, _Wanted] = {}
        for file in info.siblings or []:
            digest = f"sha256:{file.lfs.sha256}" if file.lfs else f"git-blob:{file.blob_id}"
            listed[file.rfilename] = _Wanted(file.rfilename, file.size or 0, digest)
        if self.main not in listed:
            what = (
                f"has no file {self.address.file}"
                if self.address.file
                else f"has no {WEIGHTS}, so i3dzoo did not make it; "
                f"name a file of it: hf://{self.address.repository}/FILE"
            )
            raise FetchError(f"{self.address}: {what}")
        names = set(listed) if everything else set(_NEEDED & set(listed))
        if self.address.file:
            names = {self.main}
        for name in names:
            if {"..", ""} & set(re.split(r"[/\\]", name)):
                raise FetchError(
                    f"{self.address}: lists a file {name!r}, which leads out of the repository; "
                    "nothing was fetched"
                )
        chosen = sorted((listed[name] for name in names), key=lambda each: each.size)
        if chosen[-1].size > max_size:
            raise FetchError(
                f"{self.address}: {chosen[-1].name} has {chosen[-1].size} bytes, "
                f"expected at most {max_size}"
            )
        return chosen

    def _file(self, commit: str, wanted: _Wanted, note: "_Note", force: bool) -> Path:
        """Bring one file into the cache and verify it; what is corrupt is fetched once more."""
        cached = None if force else self._in_cache(commit, wanted.name)
        if cached is not None:
            if note.covers(wanted.name, cached) and not self.verify:
                return cached
            try:
                _check(self.address, wanted.name, cached, wanted.digest)
            except ChecksumError as error:
                if self.verify:
                    raise
                self.progress.say(f"{error}; fetching it again")
            else:
                note.add(wanted.name, cached, wanted.digest)
                return cached
        path = self._download(commit, wanted, force or cached is not None)
        try:
            _check(self.address, wanted.name, path, wanted.digest)
        except ChecksumError as error:
            _remove(path)
            self.progress.say(f"{error}; fetching it again")
            path = self._download(commit, wanted, True)
            try:
                _check(self.address, wanted.name, path, wanted.digest)
            except ChecksumError:
                _remove(path)
                raise
        note.add(wanted.name, path, wanted.digest)
        return path

    def _in_cache(self, commit: str, name: str) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(
            self.address.repository, name, cache_dir=self.cache, revision=commit
        )
        return Path(found) if isinstance(found, str) else None

    def _download(self, commit: str, wanted: _Wanted, force: bool) -> Path:
        from huggingface_hub import hf_hub_download

        self.progress.start(wanted.name, wanted.size)
        with understood(str(self.address), FetchError):
            found = hf_hub_download(
                self.address.repository,
                wanted.name,
                revision=commit,
                token=self.token,
                cache_dir=self.cache,
                force_download=force,
                library_name="i3dzoo",
                library_version=__version__,
                tqdm_class=_bar(self.progress),
            )
        return Path(found)

    def _check_sums(self, folder: Path, names: list[str], note: "_Note") -> None:
        """Compare files with the repository's own SHA256SUMS, where it has one."""
        if SUMS not in names:
            return
        sums = read_sums(folder / SUMS)
        for name in names:
            if name not in sums:
                continue
            known = note.digest(name) or ""
            found = known if known.startswith("sha256:") else file_digest(folder / name, "sha256")
            if found != f"sha256:{sums[name]}":
                raise ChecksumError(
                    f"{self.address}: {name} has {found.replace(':', ' ')}, expected {sums[name]} "
                    f"as {SUMS} says; it was changed without i3dzoo, name an earlier revision or "
                    "push it again"
                )
            if found != known:
                note.add(name, folder / name, found)

    def _remember(self, folder: Path, commit: str) -> None:
        """Note which commit a branch or tag was, as the Hub's client does, for times offline."""
        if self.address.revision != commit:
            ref = folder.parent.parent / "refs" / self.address.revision
            with contextlib.suppress(OSError):
                ref.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(ref) as file:
                    file.write(commit.encode())


class _Note:
    """Which files of a commit were verified: digest, size and time of change of each."""

    def __init__(self, repository: str, commit: str) -> None:
        from i3dzoo.zoo import cache_dir

        self.path = cache_dir() / "hub" / repository.replace("/", "--") / f"{commit}.json"
        self.changed = False
        try:
            self.files: dict[str, Any] = json.loads(self.path.read_text("utf-8"))
        except (OSError, ValueError):
            self.files = {}

    def digest(self, name: str) -> str | None:
        entry = self.files.get(name)
        return str(entry[0]) if entry else None

    def covers(self, name: str, path: Path) -> bool:
        """Whether this file was verified and has not been touched since."""
        entry = self.files.get(name)
        return entry is not None and entry[1:] == _state(path)

    def add(self, name: str, path: Path, digest: str) -> None:
        self.files[name] = [digest, *_state(path)]
        self.changed = True

    def write(self) -> None:
        """Keep the note; where that cannot be, files are verified each time."""
        if self.changed:
            with contextlib.suppress(OSError, OutputError):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(self.path) as file:
                    file.write(json.dumps(self.files, indent=1).encode())


def _state(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _name_as_digest(path: Path) -> str | None:
    """Return the digest that the Hub's cache gives to content as its name, where it has links."""
    name = path.resolve().name
    if path.is_symlink() and re.fullmatch(r"[0-9a-f]+", name):
        return {64: f"sha256:{name}", 40: f"git-blob:{name}"}.get(len(name))
    return None


def _check(address: Address, name: str, path: Path, digest: str) -> None:
    """Compare a file with the digest that the Hub lists.

    Raises:
        ChecksumError: It has another one.
    """
    kind, _, expected = digest.partition(":")
    found = file_digest(path, kind)
    if found != digest:
        raise ChecksumError(
            f"{address}: {name} has {found.replace(':', ' ')}, expected {expected} as the Hub "
            "lists it; it was damaged on its way or on this disk, "
            f"i3dzoo pull {address} --force fetches it again"
        )


def _remove(path: Path) -> None:
    """Take a corrupt file out of the cache, so that no program uses it."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _bar(progress: Progress) -> Any:
    """Return a class that the Hub's client takes for a progress bar."""

    class Bar:
        def __init__(self, *_: object, initial: int = 0, **__: object) -> None:
            self.done = initial

        def __enter__(self) -> "Bar":
            return self

        def __exit__(self, *_: object) -> None:
            """The next file begins a bar of its own."""

        def update(self, count: float = 1) -> None:
            self.done += int(count)
            progress.update(self.done)

        def close(self) -> None:
            """Nothing is open."""

    return Bar
