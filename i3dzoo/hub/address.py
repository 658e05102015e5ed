"""Addresses of repositories on the Hub, of their revisions and files."""

import os
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

from i3dzoo.errors import UnknownNameError

MAIN: Final = "main"  # the branch of an address without a revision
WEIGHTS: Final = "model.safetensors"  # the checkpoint in a repository that i3dzoo made
_SCHEME: Final = "hf://"
_PART: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
_SHORT: Final = re.compile(rf"({_PART}/{_PART})(?:@([^\s@]+))?")
# pathlib.Path turns two slashes into one
_LONG: Final = re.compile(rf"hf://?(?:models/)?({_PART}/{_PART})(?:@([^\s@/]+))?(?:/(\S[^\n]*))?")
# the address of a page or a file, as browsers show and copy it
_WEB: Final = re.compile(
    rf"https?://?([^/]+)/({_PART}/{_PART})"
    r"(?:/tree/([^/?#]+)|/(?:resolve|blob|raw)/(refs/[^/]+/[^/]+|[^/]+)/([^?#]+))?/?(?:[?#].*)?"
)
_HOSTS: Final = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})
# a mistyped path such as `runs/best.pt` is not a repository
_SUFFIXES: Final = frozenset(
    {".safetensors", ".pt", ".pth", ".ckpt", ".index", ".pkl", ".h5", ".hdf5", ".onnx", ".bin"}
)


@dataclass(frozen=True)
class Address:
    """A repository, a revision of it, and optionally one file.

    Attributes:
        repository: `USER/NAME`.
        revision: A branch, a tag or a commit.
        file: Path in the repository; None for the files that i3dzoo writes.
    """

    repository: str
    revision: str = MAIN
    file: str | None = None

    def __post_init__(self) -> None:
        # a revision is a path in the Hub's cache; git refuses such names too
        if {"", ".", ".."} & set(re.split(r"[/\\]", self.revision)):
            raise UnknownNameError(f"{self.revision}: is not a branch, a tag or a commit")

    def __str__(self) -> str:
        revision = "" if self.revision == MAIN else f"@{self.revision}"
        if self.file:
            revision = revision.replace("/", "%2F")
            return f"{_SCHEME}{self.repository}{revision}/{self.file}"
        return f"{self.repository}{revision}"


def is_address(text: str) -> bool:
    """Whether a model argument that is not a file can only be an address on the Hub."""
    if text.startswith("hf:/") or _match_web(text):
        return True
    return bool(_SHORT.fullmatch(text)) and PurePosixPath(text).suffix.lower() not in _SUFFIXES


def _match_web(text: str) -> re.Match[str] | None:
    match = _WEB.fullmatch(text)
    hosts = _HOSTS | {urlsplit(os.environ.get("HF_ENDPOINT", "")).netloc.rpartition("@")[2]}
    return match if match and match[1].lower() in hosts else None


def parse(text: str) -> Address:
    """Parse `USER/NAME[@REVISION]`, `hf://USER/NAME[@REVISION][/FILE]` or an address on the Hub.

    In the second form a slash in the revision is written as %2F, as in the Hub's own addresses. The
    third is that of a page or a file, such as `https://huggingface.co/USER/NAME/resolve/main/FILE`;
    its host is huggingface.co or that of HF_ENDPOINT.

    Raises:
        UnknownNameError: The text has neither form.
    """
    if match := _match_web(text):
        _, repository, tree, revision, file = match.groups()
        file = unquote(file) if file else None
        if file is None or ".." not in file.split("/"):
            return Address(repository, unquote(revision or tree or MAIN), file)
    elif match := _LONG.fullmatch(text):
        repository, revision, file = match.groups()
        if file is None or ".." not in file.split("/"):
            return Address(repository, unquote(revision or MAIN), file)
    elif match := _SHORT.fullmatch(text):
        return Address(match[1], match[2] or MAIN)
    raise UnknownNameError(
        f"{text}: is not an address on the Hub; expected USER/NAME, USER/NAME@REVISION or "
        "hf://USER/NAME@REVISION/FILE"
    )
