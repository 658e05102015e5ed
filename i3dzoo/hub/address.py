"""How a repository of the Hub, a revision of it or a file in it is named."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import unquote

from i3dzoo.errors import UnknownNameError

__all__ = ["MAIN", "Address", "is_address", "parse"]

MAIN: Final = "main"
"""The branch that is meant where no revision is named."""

_SCHEME: Final = "hf://"
_PART: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
_SHORT: Final = re.compile(rf"({_PART}/{_PART})(?:@([^\s@]+))?")
# a Path makes one slash of two
_LONG: Final = re.compile(rf"hf://?(?:models/)?({_PART}/{_PART})(?:@([^\s@/]+))?(?:/(\S+))?")
# a mistyped path such as `runs/best.pt` is no repository
_FILES: Final = frozenset(
    {".safetensors", ".pt", ".pth", ".ckpt", ".index", ".pkl", ".h5", ".hdf5", ".onnx", ".bin"}
)


@dataclass(frozen=True)
class Address:
    """A repository, a revision of it, and perhaps one file.

    Attributes:
        repository: `USER/NAME`.
        revision: A branch, a tag or a commit.
        file: Path in the repository; None means what i3dzoo puts there.
    """

    repository: str
    revision: str = MAIN
    file: str | None = None

    def __str__(self) -> str:
        if self.file:
            revision = "" if self.revision == MAIN else f"@{self.revision}"
            return f"{_SCHEME}{self.repository}{revision}/{self.file}"
        return self.repository if self.revision == MAIN else f"{self.repository}@{self.revision}"


def is_address(text: str) -> bool:
    """Whether a model argument that is no file can only mean the Hub."""
    if text.startswith("hf:/"):
        return True
    found = _SHORT.fullmatch(text)
    return bool(found) and PurePosixPath(text).suffix.lower() not in _FILES


def parse(text: str) -> Address:
    """Read `USER/NAME[@REVISION]` or `hf://USER/NAME[@REVISION][/FILE]`.

    A slash in the revision of the second form is written %2F, as the Hub's own addresses have it.

    Raises:
        UnknownNameError: It is neither.
    """
    if found := _LONG.fullmatch(text):
        repository, revision, file = found.groups()
        if file is None or ".." not in file.split("/"):
            return Address(repository, unquote(revision or MAIN), file)
    elif found := _SHORT.fullmatch(text):
        return Address(found.group(1), found.group(2) or MAIN)
    raise UnknownNameError(
        f"{text}: is no address on the Hub; expected USER/NAME, USER/NAME@REVISION or "
        "hf://USER/NAME@REVISION/FILE"
    )
