"""Files of other projects that are known by their git blob, whatever their layout."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from i3dzoo.digests import git_blob

_MOST_BYTES: Final = 1 << 28


@dataclass(frozen=True)
class KnownFile:
    """A file that a project distributes.

    Attributes:
        name: Its name and its project.
        same_as: The published checkpoint whose weights it holds.
        note: What it is used for.
    """

    name: str
    same_as: str
    note: str


KNOWN_FILES: Final[Mapping[str, KnownFile]] = {
    "93daef59c7ae0e9e8f76225521407e60cbafa6aa": KnownFile(
        "i3d_torchscript.pt of StyleGAN-V",
        "rgb_scratch",
        "the network of FVD as TorchScript: i3dzoo fvd --protocol styleganv or common",
    ),
    "a867b87ac3a9097d200598b1d48a1b890d8ec744": KnownFile(
        "i3d_pretrained_400.pt of VideoGPT, TATS and cd-fvd",
        "rgb_scratch",
        "the network of FVD under piergiaj's names: i3dzoo fvd --protocol videogpt or cdfvd",
    ),
}
"""By git blob, the SHA-1 by which the projects' repositories name their content."""


def known_file(path: Path) -> KnownFile | None:
    """Return what is known about a file; only PyTorch files of a network's size are read."""
    if path.suffix.lower() not in (".pt", ".pth") or not path.is_file():
        return None
    return KNOWN_FILES.get(git_blob(path)) if path.stat().st_size <= _MOST_BYTES else None
