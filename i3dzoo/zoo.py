"""The published checkpoints: what exists, and how to get one.

A model is fetched from its manifest's sources in order, every tensor is compared with the checksum
that DeepMind published, and the canonical file is kept in the cache. Nothing unverified gets there.
"""

import contextlib
import dataclasses
import difflib
import functools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from i3dzoo._resources import data
from i3dzoo.errors import (
    ChecksumError,
    FetchError,
    FormatError,
    I3DZooError,
    ManifestError,
    MappingError,
    MetadataError,
    OfflineError,
    OutputError,
    UnknownNameError,
    UnreachableError,
)
from i3dzoo.labels import label_sets, labels
from i3dzoo.manifest import Files, Manifest, PackageIndex, Source, parse

if TYPE_CHECKING:
    from i3dzoo.checkpoint import Checkpoint
    from i3dzoo.fetch import Client, Policy
    from i3dzoo.progress import Progress

__all__ = [
    "Files",
    "Manifest",
    "PackageIndex",
    "cache_dir",
    "cached_path",
    "label_sets",
    "labels",
    "load_manifest",
    "manifest",
    "names",
    "pull",
    "pull_manifest",
]


@functools.cache
def names() -> tuple[str, ...]:
    """Return the names of the published checkpoints, in alphabetical order."""
    files = (entry.name for entry in data("manifests").iterdir())
    return tuple(sorted(file.removesuffix(".toml") for file in files if file.endswith(".toml")))


@functools.cache
def manifest(name: str) -> Manifest:
    """Return the manifest of a published checkpoint.

    Raises:
        UnknownNameError: There is none of this name; names near it are suggested.
    """
    if name not in names():
        near = difflib.get_close_matches(name.lower(), names(), n=2, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UnknownNameError(
            f"{name}: no zoo model has this name; {hint}the zoo has {', '.join(names())}"
        )
    text = (data("manifests") / f"{name}.toml").read_text("utf-8")
    return parse(name, text, f"manifests/{name}.toml")


def load_manifest(path: Path) -> Manifest:
    """Read a manifest of the user's own.

    Raises:
        ManifestError: It cannot be read, or an entry is unknown, missing or malformed.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot be read as a manifest: {error}") from error
    return parse(path.stem, text, str(path))


def cache_dir() -> Path:
    """Return the folder of the cache: `I3DZOO_CACHE`, else where this system keeps caches."""
    if chosen := os.environ.get("I3DZOO_CACHE"):
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("i3dzoo", appauthor=False))


def cached_path(name: str) -> Path:
    """Return where the canonical file of a model is, or will be."""
    return cache_dir() / "models" / f"{name}.safetensors"


def pull(
    name: str, *, offline: bool = False, force: bool = False, progress: "Progress | None" = None
) -> Path:
    """Return the canonical file of a published checkpoint, fetching it if it is not cached.

    Args:
        name: One of `names()`, or a repository on the Hub (see `i3dzoo.hub.parse`).
        offline: Do not touch the network.
        force: Fetch it even if it is cached.
        progress: Told of the bytes that come, and of what happens.

    Raises:
        UnknownNameError: No model has this name.
        FetchError: No source could deliver it; the message has the reason of each.
        OfflineError: It is not cached and `offline` is set.
        OutputError: The cache cannot be written.
    """
    if name not in names():
        from i3dzoo import hub

        if hub.is_address(name):
            address = hub.parse(name)
            return hub.pull(address, offline=offline, force=force, progress=progress).weights
    return pull_manifest(manifest(name), offline=offline, force=force, progress=progress)


def adopt(name: str, file: Path, *, progress: "Progress | None" = None) -> Path:
    """Put a copy of a published checkpoint that came by other means into the cache.

    Args:
        name: One of `names()`.
        file: Any file that `manifest(name).sources` list, or another of the same tensors.
        progress: Told of what happens.

    Returns:
        The canonical file, as of `pull`.

    Raises:
        UnknownNameError: No model has this name.
        ChecksumError: A tensor is not the published one; or, where nobody published checksums of
            the tensors, the file is not the published one.
        FormatError: The file is none that i3dzoo reads, or is damaged.
        OutputError: The cache cannot be written.
    """
    from i3dzoo.fetch import Client

    model, target = manifest(name), cached_path(name)
    with Client(progress) as client, _locked(model, client):
        _adopt(model, None, file, target)
    return target


def pull_manifest(
    model: Manifest,
    *,
    offline: bool = False,
    force: bool = False,
    progress: "Progress | None" = None,
    policy: "Policy | None" = None,
) -> Path:
    """Do as `pull` does, for any manifest and with any patience."""
    target = cached_path(model.name)
    if not force and _is_good(model, target, None):
        return target
    if offline:
        problem = "is not in the cache as" if not target.exists() else "cannot be used from"
        raise OfflineError(
            f"{model.name}: {problem} {target}, and the network was not allowed; "
            f"run `i3dzoo pull {model.name}` with a network once"
        )
    from i3dzoo.fetch import Client

    with Client(progress, policy) as client, _locked(model, client):
        if force or not _is_good(model, target, client):
            _fetch(model, target, client)
    return target


def _is_good(model: Manifest, target: Path, client: "Client | None") -> bool:
    """Whether the cached file is there and is the published checkpoint to the last tensor."""
    if not target.exists():
        return False
    from i3dzoo.checkpoint import read_checkpoint

    try:
        checkpoint = read_checkpoint(target, "canonical")
        _check(model, str(target), checkpoint)
        if checkpoint.metadata.zoo != model.name:
            raise ChecksumError(f"{target}: does not say that it is {model.name}")
    except (FormatError, MappingError, MetadataError) as error:
        if client:
            client.progress.say(f"{error}; fetching it again")
        return False
    return True


def _check(model: Manifest, where: str, checkpoint: "Checkpoint") -> None:
    """Refuse a checkpoint that differs from the published one in any tensor.

    Where nobody published checksums of the tensors, the digest of the file was checked when it
    came, and the canonical file has its name and checksums of its own.
    """
    from i3dzoo.fingerprint import match, tensor_crcs

    found_kind = (checkpoint.metadata.stream, checkpoint.metadata.num_classes)
    if found_kind != (model.stream, model.num_classes):
        raise ChecksumError(
            f"{where}: is {found_kind[0]} with {found_kind[1]} classes; {model.name} is "
            f"{model.stream} with {model.num_classes}"
        )
    if not model.crc32c:
        return
    found = match(model.name, model.crc32c, tensor_crcs(checkpoint.tensors))
    if not found.exact:
        some = ", ".join(found.differing[:3])
        more = ", …" if len(found.differing) > 3 else ""
        raise ChecksumError(
            f"{where}: {len(found.differing)} of {found.total} tensors are not those of "
            f"{model.name}: {some}{more}"
        )


@contextlib.contextmanager
def _locked(model: Manifest, client: "Client") -> Iterator[None]:
    """Let one process at a time fetch a model; the lock goes with the process that holds it."""
    import filelock

    from i3dzoo.fetch import writing

    path = cache_dir() / "locks" / f"{model.name}.lock"
    lock = filelock.FileLock(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        cached_path(model.name).parent.mkdir(exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            client.progress.say(f"{model.name}: another process is fetching it; waiting")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch(model: Manifest, target: Path, client: "Client") -> None:
    """Try the sources in order until one has brought the checkpoint."""
    from i3dzoo import sources
    from i3dzoo.fetch import writing

    downloads = cache_dir() / "downloads" / model.name
    failures: list[tuple[Source, I3DZooError]] = []
    for leftover in target.parent.glob(f".{target.name}.*.part"):
        leftover.unlink()  # of a process that was killed while it wrote
    for number, source in enumerate(model.sources, 1):
        folder = downloads / f"{number}-{source.layout}"
        client.progress.say(f"{model.name}: from {sources.describe(source)}")
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            _adopt(model, source.layout, sources.fetch(client, source, folder), target)
        except OutputError:
            _tidy(folder)
            raise
        except I3DZooError as error:
            _tidy(folder)
            failures.append((source, error))
            dead = isinstance(error, UnreachableError)
            reason = f"{sources.asked(source)} cannot be reached" if dead else str(error)
            client.progress.say(f"{model.name}: {source.title}: {reason}")
        else:
            shutil.rmtree(downloads, ignore_errors=True)
            return
    raise _undelivered(model, failures)


def _undelivered(model: Manifest, failures: "list[tuple[Source, I3DZooError]]") -> FetchError:
    """Return the error about a model that no source delivered."""
    from i3dzoo import sources

    if all(isinstance(error, UnreachableError) for _, error in failures):
        hosts = " and ".join(dict.fromkeys(sources.asked(source) for source, _ in failures))
        return UnreachableError(
            f"{model.name}: cannot be fetched: {hosts} cannot be reached; is this machine online? "
            f"Any file that `i3dzoo info {model.name}` lists will do, brought by other means: "
            f"i3dzoo pull {model.name} --file FILE"
        )
    listed = "\n".join(
        f"  {number}. {source.title}: {error}" for number, (source, error) in enumerate(failures, 1)
    )
    return FetchError(
        f"{model.name}: no source could deliver it; run the command again to go on with what has "
        f"come, the reasons were\n{listed}"
    )


def _adopt(model: Manifest, layout: str | None, path: Path, target: Path) -> None:
    """Check a downloaded checkpoint to the last tensor and write it as the canonical file.

    Where no layout is given nobody has checked the digest of the file.
    """
    from i3dzoo.checkpoint import Checkpoint, read_checkpoint, write_checkpoint

    checkpoint = read_checkpoint(path, layout)
    _check(model, path.name, checkpoint)
    if layout is None and not model.crc32c and checkpoint.metadata.zoo != model.name:
        raise ChecksumError(
            f"{path}: is not the published file of {model.name}, whose digest is all that was "
            "published; fetch that file"
        )
    metadata = dataclasses.replace(
        checkpoint.metadata,
        labels=labels(model.labels),
        input=model.input,
        zoo=model.name,
        base=None,
    )
    write_checkpoint(target, Checkpoint(checkpoint.tensors, metadata), force=True)


def _tidy(folder: Path) -> None:
    """Remove what a failed source has left, unless a later process can go on with it."""
    if not any(folder.glob("*.part")):
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.parent.rmdir()
