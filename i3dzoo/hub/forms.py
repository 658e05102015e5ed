"""The form of everything that a Hub or a mirror answers.

What does not fit is refused before it names a path, is sent to, or is shown. Keys that are not used
here may be anything.
"""

import re
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

MAX_BYTES: Final = 16 << 20  # of an answer that is not a file
_PART: Final = r"(?!\.{1,2}(?:/|\Z))[^/\\\x00-\x1f\x7f]{1,255}"

Sha1 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{40}\Z", description="40 hexadecimal digits")]
Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z", description="64 hexadecimal digits")]
Count = Annotated[int, Meta(ge=0, le=1 << 53, description="a number of 0 or more")]
Url = Annotated[
    str,
    Meta(
        pattern=r"\Ahttps?://[^\s/\x00-\x1f\x7f]+(?:/[^\s\x00-\x1f\x7f]*)?\Z",
        max_length=8192,
        description="an http(s) address",
    ),
]
Name = Annotated[
    str,
    Meta(
        pattern=rf"\A(?![A-Za-z]:){_PART}(?:/{_PART})*\Z",
        max_length=1024,
        description="a path inside of the repository",
    ),
]


class Lfs(msgspec.Struct, frozen=True):
    """What the Hub lists of a file in LFS."""

    sha256: Sha256


class ListedFile(msgspec.Struct, frozen=True, rename={"name": "rfilename", "blob_id": "blobId"}):
    """A file as the Hub lists it."""

    name: Name
    size: Annotated[int, Meta(ge=0)]
    blob_id: Sha1
    lfs: Lfs | None = None

    @property
    def digest(self) -> str:
        """`sha256:…` of a file in LFS, else `git-blob:…`."""
        return f"sha256:{self.lfs.sha256}" if self.lfs else f"git-blob:{self.blob_id}"


class Repository(msgspec.Struct, frozen=True):
    """A repository with its files, each of which is checked as a ListedFile."""

    sha: Sha1
    siblings: list[dict[str, Any]]
    private: bool = False


class Tag(msgspec.Struct, frozen=True, rename="camel"):
    """A tag of a repository."""

    name: str
    target_commit: Sha1


class Refs(msgspec.Struct, frozen=True):
    """The refs of a repository."""

    tags: list[Tag] = []


class Commit(msgspec.Struct, frozen=True, rename="camel"):
    """A new commit."""

    commit_oid: Sha1
    commit_url: Url


class _Created(msgspec.Struct, frozen=True):
    url: Url


class _Message(msgspec.Struct, frozen=True):
    message: str


class _Validated(msgspec.Struct, frozen=True):
    errors: list[_Message] = []
    warnings: list[_Message] = []


class _Upload(msgspec.Struct, frozen=True, rename="camel"):
    path: Name
    upload_mode: Annotated[str, Meta(pattern=r"\A(lfs|regular)\Z", description="lfs or regular")]
    should_ignore: bool
    oid: str | None = None

    def __post_init__(self) -> None:
        if self.should_ignore:
            raise ValueError(f"the .gitignore of the repository leaves out {self.path}; change it")


class _Uploads(msgspec.Struct, frozen=True):
    files: list[_Upload]


class _Action(msgspec.Struct, frozen=True):
    href: Url
    header: Annotated[dict[str, str | int], Meta(max_length=10_000)] | None = None


class _Actions(msgspec.Struct, frozen=True):
    upload: _Action
    verify: _Action | None = None


class _LfsError(msgspec.Struct, frozen=True):
    code: int
    message: str


class _Object(msgspec.Struct, frozen=True):
    oid: Sha256
    size: Count
    actions: _Actions | msgspec.UnsetType = msgspec.UNSET  # the Hub's client fails with null
    error: _LfsError | msgspec.UnsetType = msgspec.UNSET


class _Batch(msgspec.Struct, frozen=True):
    objects: Annotated[list[_Object], Meta(max_length=1000)]
    transfer: str | None = None


_NAME: Final = r"[^/]+/[^/]+"
_OF_POST: Final[tuple[tuple[re.Pattern[str], Any], ...]] = (
    (re.compile(r"/api/repos/create"), _Created),
    (re.compile(r"/api/validate-yaml"), _Validated),
    (re.compile(rf"/api/models/{_NAME}/preupload/.+"), _Uploads),
    (re.compile(rf"/{_NAME}\.git/info/lfs/objects/batch"), _Batch),
    (re.compile(rf"/api/models/{_NAME}/commit/.+"), Commit),
)


def form_of(path: str) -> Any:
    """Return the type of the answer to a POST request; None if the answer is not used."""
    return next((form for pattern, form in _OF_POST if pattern.fullmatch(path)), None)
