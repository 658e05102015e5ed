"""Pull a published checkpoint: download it, check every tensor, and cache the canonical file.

Sources are tried in the order of the manifest. Nothing unchecked reaches the cache.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import filelock

from i3dzoo import hub
from i3dzoo.checkpoints.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from i3dzoo.checkpoints.head import change_head
from i3dzoo.checkpoints.inflation import inflate
from i3dzoo.checkpoints.metadata import Source
from i3dzoo.checkpoints.presets import DEFAULT
from i3dzoo.digests import digest_like, sha256
from i3dzoo.errors import (
    ChecksumError,
    FetchError,
    I3DZooError,
    OfflineError,
    OutputError,
    UnreachableError,
)
from i3dzoo.fetch import sources
from i3dzoo.fetch.download import Client, translate_write_errors
from i3dzoo.files import make_folder
from i3dzoo.progress import SILENT, Progress
from i3dzoo.transfer import Policy
from i3dzoo.zoo.identify import check_published, published_file
from i3dzoo.zoo.manifest import Files, Manifest
from i3dzoo.zoo.registry import cache_dir, cached_path, manifest, names


def pull(
    name: str, *, offline: bool = False, force: bool = False, progress: Progress = SILENT
) -> Path:
    """Return the canonical file of a published checkpoint, and download it if it is not cached.

    Examples:
        >>> import i3dzoo
        >>> i3dzoo.pull("rgb_scratch", offline=True).name  # it is cached
        'rgb_scratch.safetensors'

    Args:
        name: One of `zoo.names()`, or a repository on the Hub (see `i3dzoo.hub.parse`).
        offline: Do not use the network.
        force: Download it even if it is cached.
        progress: Receives the progress of each download, and messages.

    Raises:
        UnknownNameError: No model has this name.
        FetchError: No source could deliver it; the message lists the reason of each.
        UnreachableError: No source could be reached; the message says how to import a file.
        OfflineError: It is not cached and `offline` is set.
        OutputError: The cache cannot be written.
    """
    if name not in names() and hub.is_address(name):
        address = hub.parse(name)
        return hub.pull(address, offline=offline, force=force, progress=progress).weights
    return pull_manifest(manifest(name), offline=offline, force=force, progress=progress)


def import_file(name: str, file: Path, *, progress: Progress = SILENT) -> Path:
    """Put a copy of a published checkpoint, obtained by other means, into the cache.

    The file is any that the sources of the manifest list, or another one with the same tensors.
    """
    model, target = manifest(name), cached_path(name)
    with _locked(model, progress):
        _convert(model, None, file, target)
    return target


def pull_manifest(
    model: Manifest,
    *,
    offline: bool = False,
    force: bool = False,
    progress: Progress = SILENT,
    policy: Policy | None = None,
) -> Path:
    """Do the same as `pull`, for any manifest and with any retry policy."""
    target = cached_path(model.name)
    if not force and _is_cached(model, target):
        return target
    if offline:
        problem = "is not in the cache as" if not target.exists() else "cannot be used from"
        raise OfflineError(
            f"{model.name}: {problem} {target}, and the network was not allowed; "
            f"run `i3dzoo pull {model.name}` with a network once"
        )
    with _locked(model, progress):
        if force or not _is_cached(model, target, progress):
            with Client(progress, policy) as client:
                _fetch(model, target, client)
    return target


def _is_cached(model: Manifest, target: Path, progress: Progress = SILENT) -> bool:
    """Whether the cached file exists and is the published checkpoint."""
    if not target.exists():
        return False
    try:
        checkpoint = read_checkpoint(target, "canonical")
        if checkpoint.metadata.zoo != model.name:
            raise ChecksumError(
                f"{target}: its description names {checkpoint.metadata.zoo}, expected {model.name}"
            )
        check_published(checkpoint, model, str(target))
    except I3DZooError as error:
        progress.message(f"{error}; fetching it again")
        return False
    return True


@contextlib.contextmanager
def _locked(model: Manifest, progress: Progress) -> Iterator[None]:
    """Let one process at a time fetch a model; a lock ends with the process that holds it."""
    path = cache_dir() / "locks" / f"{model.name}.lock"
    lock = filelock.FileLock(path)
    with translate_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        cached_path(model.name).parent.mkdir(exist_ok=True)
        try:
            held = lock.acquire(timeout=0)
        except filelock.Timeout:
            progress.message(f"{model.name}: another process is fetching it; waiting")
            held = lock.acquire()
    with held:
        yield


def _fetch(model: Manifest, target: Path, client: Client) -> None:
    """Try the sources in order until one delivers the checkpoint."""
    downloads = cache_dir() / "downloads" / model.name
    failures: list[tuple[str, str, I3DZooError]] = []
    for leftover in target.parent.glob(f".{target.name}.*.part"):
        leftover.unlink()  # of a process that was killed while it wrote
    for number, source in enumerate(model.sources, 1):
        folder = downloads / f"{number}-{source.layout}"
        place = sources.location(source)
        client.progress.message(f"{model.name}: from {source.title} ({place})")
        make_folder(folder)
        try:
            _convert(model, source.layout, sources.fetch(client, source, folder), target)
        except I3DZooError as error:
            if not any(folder.glob("*.part")):  # no later process can resume the download
                shutil.rmtree(folder, ignore_errors=True)
                with contextlib.suppress(OSError):
                    downloads.rmdir()
            if isinstance(error, OutputError):
                raise
            failures.append((source.title, place, error))
            unreachable = isinstance(error, UnreachableError)
            reason = f"{place} cannot be reached" if unreachable else error
            client.progress.message(f"{model.name}: {source.title}: {reason}")
        else:
            shutil.rmtree(downloads, ignore_errors=True)
            return
    if all(isinstance(error, UnreachableError) for *_, error in failures):
        hosts = " and ".join(dict.fromkeys(place for _, place, _ in failures))
        raise UnreachableError(
            f"{model.name}: cannot be fetched, because {hosts} cannot be reached; is this machine "
            f"online? You can also bring any file that `i3dzoo info {model.name}` lists from "
            f"another machine: i3dzoo pull {model.name} --file FILE"
        )
    reasons = "\n".join(
        f"  {number}. {title}: {error}" for number, (title, _, error) in enumerate(failures, 1)
    )
    raise FetchError(
        f"{model.name}: no source could deliver it; run the command again to resume. The reasons "
        f"were:\n{reasons}"
    )


def _convert(model: Manifest, layout: str | None, path: Path, target: Path) -> None:
    """Check and write the canonical file; without a layout, the file's digest is unchecked."""
    checkpoint = _inflated(model, path) if model.images else read_checkpoint(path, layout)
    compared = check_published(checkpoint, model, path.name)
    if layout is None and not compared and not model.images:
        file = published_file(path, model.stream, model.num_classes)
        if model.name not in (file, checkpoint.metadata.zoo):
            raise ChecksumError(
                f"{path}: is not the published file of {model.name}, and no checksums of its "
                "tensors were published; fetch the file itself"
            )
    source = checkpoint.metadata.source
    if checkpoint.described:  # a mirror can write anything about itself
        source = Source("canonical", sha256(path))
    metadata = checkpoint.metadata.replace(
        source=source,
        history=(),
        labels=model.class_names,
        input=model.input,
        variant=model.variant,
        multi_label=model.multi_label,
        zoo=model.name,
        base=None,
    )
    write_checkpoint(target, Checkpoint(checkpoint.tensors, metadata), force=True)


def _inflated(model: Manifest, path: Path) -> Checkpoint:
    """Inflate the published 2D network, and drop its head: its classes are not of clips."""
    files = [file for source in model.sources if isinstance(source, Files) for file in source.files]
    digests = {digest_like(path, file.digest) for file in files if file.digest != "none"}
    if digests.isdisjoint(file.digest for file in files):
        raise ChecksumError(
            f"{path}: is not the published file of {model.name} ({files[0].name}); fetch the file "
            "itself, or inflate this one with i3dzoo inflate"
        )
    # the manifest describes the network, so the preset does not matter
    return change_head(inflate(path, input_preset=DEFAULT), None, head="drop")
