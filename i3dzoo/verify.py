"""Is a checkpoint what it says it is?"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from i3dzoo.checkpoint import read_checkpoint
from i3dzoo.errors import ChecksumError
from i3dzoo.fingerprint import best_match, without_checksums
from i3dzoo.metadata import Stream

__all__ = ["Report", "verify"]


@dataclass(frozen=True)
class Report:
    """What was found to be in order.

    Attributes:
        path: The file.
        layout: Its layout.
        checksums: Whether the file carries a checksum of every tensor, and all were right.
        published: The nearest published checkpoint, or None where no tensor is shared.
        matched: How many tensors are that checkpoint's, to the bit.
        total: How many it has.
        checks: All that was checked, in words.
    """

    path: str
    layout: str
    checksums: bool
    published: str | None
    matched: int
    total: int
    checks: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON takes it."""
        return asdict(self)


def verify(path: Path, stream: Stream | None = None) -> Report:
    """Check a checkpoint of any layout.

    Args:
        path: The file.
        stream: The network to check of a file that holds two.

    Raises:
        I3DZooError: The first thing that is wrong with it.
    """
    checkpoint = read_checkpoint(path, stream=stream)
    metadata, tensors = checkpoint.metadata, checkpoint.tensors
    match = best_match(tensors)
    known = not without_checksums(metadata.zoo)
    if metadata.zoo and known and not (match.exact and match.name == metadata.zoo):
        raise ChecksumError(
            f"{path}: says that it is {metadata.zoo}, but its tensors are not: {match}; "
            f"pull it again with i3dzoo pull {metadata.zoo} --force"
        )
    layout = checkpoint.conversion.layout if checkpoint.conversion else ""
    kind = f"{metadata.stream}, {metadata.num_classes or 'no'} classes, layout {layout}"
    checks = (
        f"structure: I3D, {kind}, {len(tensors)} tensors",
        "numbers: all finite, no negative variance",
        "checksums: the file's own, of every tensor"
        if checkpoint.checked
        else "checksums: none in this file; a canonical copy has them (i3dzoo convert)",
        f"fingerprint: {match}"
        if known
        else f"fingerprint: it says that it is {metadata.zoo}, of which no tensor was published",
    )
    return Report(
        path=str(path),
        layout=layout,
        checksums=checkpoint.checked,
        published=match.name if match.matched else None,
        matched=match.matched,
        total=match.total,
        checks=checks,
    )
