"""The state of the tests' Hub: repositories, commits, and blobs by their sha256."""

import hashlib
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LFS_SUFFIXES = (".safetensors", ".onnx", ".png", ".pt")


@dataclass(eq=False)
class RefusalError(Exception):
    """An error response: status, message, and the header X-Error-Code."""

    status: int
    message: str
    code: str | None = None


@dataclass(frozen=True)
class User:
    """The user of a token, and whether it may write."""

    name: str
    writes: bool = True


@dataclass(frozen=True)
class File:
    """One file of a commit; `git` is its blob id, or that of its LFS pointer."""

    sha256: str
    size: int
    git: str
    lfs: bool


@dataclass(frozen=True)
class Commit:
    """A commit: its tree, parent, title and author."""

    parent: str | None
    tree: Mapping[str, File]
    title: str
    author: str


@dataclass
class Repository:
    """A repository; its name is the key in the Hub."""

    name: str
    private: bool = False
    gated: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)

    @property
    def owner(self) -> str:
        """The user or organisation before the slash."""
        return self.name.partition("/")[0]

    @property
    def head(self) -> str:
        """The commit of main."""
        return self.branches["main"]

    @property
    def tree(self) -> Mapping[str, File]:
        """The files of main."""
        return self.commits[self.head].tree

    def resolve(self, revision: str) -> str:
        """Return the commit of a branch, tag or commit id."""
        commit = self.branches.get(revision) or self.tags.get(revision) or revision
        if commit not in self.commits:
            raise RefusalError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit


@dataclass
class Hub:
    """The whole Hub, and the faults to produce.

    Attributes:
        root: Folder of the blobs.
        users: By token.
        repositories: By name.
        log: Method, path and Range header of each request.
        cut: Bytes after which the next downloads of a blob are cut, by sha256.
        flip: How many downloads of a blob come with a flipped last byte, by sha256.
        lies: Keys of the answers and headers that are replaced, by repository; those about a file
            in the answers about labels.txt.
        replies: Other answers by action, such as "commit": the bytes, or a function that makes them
            of the document.
        headers: Further headers of the answers by action.
        leaks: Paths of requests that sent a token to another host.
        busy: How many uploads of blobs are refused with 503.
        wait: What such a refusal says about waiting, as Retry-After or RateLimit has it.
        hold: Whether uploads of blobs stop half way until `released`.
        held: Set when an upload has stopped.
        barrier: A barrier at which commits wait for each other.
        address: `http://127.0.0.1:<port>`.
    """

    root: Path
    users: dict[str, User] = field(default_factory=dict)
    repositories: dict[str, Repository] = field(default_factory=dict)
    log: list[tuple[str, str, str | None]] = field(default_factory=list)
    cut: dict[str, list[int]] = field(default_factory=dict)
    flip: dict[str, int] = field(default_factory=dict)
    lies: dict[str, dict[str, object]] = field(default_factory=dict)
    replies: dict[str, bytes | Callable[[Any], bytes]] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    leaks: list[str] = field(default_factory=list)
    busy: int = 0
    wait: str = ""
    hold: bool = False
    held: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    barrier: threading.Barrier | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)
    address: str = ""

    def blob(self, sha256: str) -> Path:
        """Return the path of a blob."""
        return self.root / sha256

    def store(self, chunks: Iterable[bytes], expected: str | None = None) -> tuple[str, int]:
        """Store a blob under its sha256, which must be the expected one; return it and its size."""
        part = self.root / f"part-{uuid.uuid4().hex}"
        digest, size = hashlib.sha256(), 0
        try:
            with part.open("wb") as file:
                for chunk in chunks:
                    digest.update(chunk)
                    size += len(chunk)
                    file.write(chunk)
            if expected not in (None, digest.hexdigest()):
                raise RefusalError(400, "the bytes are not those that were announced")
            part.replace(self.blob(digest.hexdigest()))
        finally:
            part.unlink(missing_ok=True)
        return digest.hexdigest(), size

    def regular(self, content: bytes) -> File:
        """Store a file outside of LFS."""
        sha256, size = self.store([content])
        return File(sha256, size, git_blob(content), lfs=False)

    def large(self, sha256: str) -> File:
        """Return the entry of a file in LFS, whose blob is stored."""
        size = self.blob(sha256).stat().st_size
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
        return File(sha256, size, git_blob(pointer.encode()), lfs=True)

    def commit(
        self, repository: Repository, tree: Mapping[str, File], title: str, author: str
    ) -> str:
        """Create a commit and move main to it."""
        parent = repository.branches.get("main")
        name = hashlib.sha1(uuid.uuid4().bytes, usedforsecurity=False).hexdigest()
        repository.commits[name] = Commit(parent, dict(tree), title, author)
        repository.branches["main"] = name
        return name

    def create(self, name: str, private: bool = False, gated: bool = False) -> Repository:
        """Create a repository with the file that the Hub adds."""
        repository = self.repositories[name] = Repository(name, private, gated)
        attributes = self.regular(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n")
        self.commit(repository, {".gitattributes": attributes}, "initial commit", repository.owner)
        return repository

    def put(self, repository: Repository, folder: Path) -> str:
        """Commit all files of a folder, as a push would."""
        tree = dict(repository.tree)
        for path in filter(Path.is_file, folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.suffix in LFS_SUFFIXES:
                tree[name] = self.large(self.store([path.read_bytes()])[0])
            else:
                tree[name] = self.regular(path.read_bytes())
        return self.commit(repository, tree, "put", repository.owner)

    def history(self, repository: Repository) -> list[str]:
        """Return the titles of the commits of main, newest first."""
        titles, name = [], repository.head
        while name:
            commit = repository.commits[name]
            titles.append(commit.title)
            name = commit.parent or ""
        return titles

    def requests(self, part: str) -> list[str]:
        """Return method and path of the requests whose path contains a text."""
        return [f"{method} {path}" for method, path, _ in self.log if part in path]

    def ranges(self, sha256: str) -> list[str | None]:
        """Return the Range headers of the requests for a blob."""
        requests = [entry for entry in self.log if sha256 in entry[1]]
        return [header for method, _, header in requests if method == "GET"]


def git_blob(content: bytes) -> str:
    """Return git's blob id of a content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
