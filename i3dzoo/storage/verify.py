"""Check what is kept against the published checksums and the digests of the Hub."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from i3dzoo import zoo
from i3dzoo.checkpoints.checkpoint import read_checkpoint
from i3dzoo.digests import file_digest
from i3dzoo.errors import ChecksumError, I3DZooError
from i3dzoo.hub.cache import blob_digest
from i3dzoo.progress import SILENT, Progress
from i3dzoo.storage.entries import Entry
from i3dzoo.zoo.identify import check_published


@dataclass(frozen=True)
class Checked:
    """The result for one entry.

    Attributes:
        entry: The model or the repository.
        what: What was compared.
        error: What is wrong; None if all is well.
    """

    entry: Entry
    what: str
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of `i3dzoo cache verify --json`."""
        return {**self.entry.to_dict(), "verified": self.what, "error": self.error}


def verify(kept: list[Entry], progress: Progress = SILENT) -> Iterator[Checked]:
    """Check the models and the repositories among the entries, and yield a result for each."""
    checked = [entry for entry in kept if entry.kind in ("model", "hub")]
    progress.start("models", len(checked), "items")
    for number, entry in enumerate(checked, 1):
        check = _check_model if entry.kind == "model" else _check_repository
        try:
            yield Checked(entry, check(entry))
        except (I3DZooError, OSError) as error:
            yield Checked(entry, "", str(error))
        progress.update(number)


def _check_model(entry: Entry) -> str:
    """Compare a model of the zoo with the published checksums, as `i3dzoo pull` does."""
    checkpoint = read_checkpoint(entry.path, "canonical")
    if entry.name not in zoo.names():
        return "the checksums in the file; it is not a zoo model"
    model = zoo.manifest(entry.name)
    if checkpoint.metadata.zoo != entry.name:
        raise ChecksumError(
            f"{entry.path}: its description names {checkpoint.metadata.zoo}, expected {entry.name}"
        )
    if check_published(checkpoint, model, str(entry.path)):
        return f"all {len(model.crc32c)} published tensors"
    return "the checksums in the file; none of its tensors were published"


def _check_repository(entry: Entry) -> str:
    """Compare each file with the digest after which the Hub's cache names it."""
    names: set[Path] = set()
    for path in sorted((entry.path / "snapshots").rglob("*")):
        digest = blob_digest(path)
        if not digest or not path.resolve().is_relative_to(entry.path.resolve()):
            continue
        if (actual := file_digest(path, digest.partition(":")[0])) != digest:
            raise ChecksumError(f"{path}: has {actual}, expected {digest}")
        names.add(path.resolve())
    if not names:
        return "nothing: this cache has no links, so no digests"
    return f"{len(names)} files by the digests of the Hub"
