"""Where a manifest says that a checkpoint can be had: one record a kind of source."""

from dataclasses import dataclass

__all__ = ["Files", "HubFile", "PackageIndex", "RemoteFile", "Source"]


@dataclass(frozen=True)
class RemoteFile:
    """A file somewhere on the web, pinned by its digest where it has one.

    Attributes:
        name: Under which it is stored.
        url: Where it is.
        digest: `sha256:<hex>`, or `git-blob:<hex>`, the id that git gives to its content; `none`
            where nobody published one, so that the checksums of the tensors alone decide.
        size: Bytes; None where nobody published it.
        max_size: Bytes beyond which a download is broken off.
    """

    name: str
    url: str
    digest: str
    size: int | None
    max_size: int


@dataclass(frozen=True)
class Files:
    """A source that is one checkpoint of one or several files; the first is the one to read.

    Attributes:
        title: What people call it.
        layout: Name of the converter table that reads it.
        licence: SPDX identifier under which this source gives it.
        files: In the order to fetch them.
    """

    title: str
    layout: str
    licence: str
    files: tuple[RemoteFile, ...]

    @property
    def total_size(self) -> int:
        """Bytes to download, at most."""
        return sum(file.max_size for file in self.files)

    @property
    def exact(self) -> bool:
        """Whether it is just so many bytes, and not at most."""
        return all(file.size is not None for file in self.files)


@dataclass(frozen=True)
class PackageIndex:
    """A source that is one member of a source distribution on the Python package index.

    Attributes:
        title: What people call it.
        layout: Name of the converter table that reads it.
        licence: SPDX identifier under which this source gives it.
        project: Name on the index.
        version: Of the project.
        file: Name of the source distribution, a .tar.gz.
        sha256: Of the source distribution.
        size: Of the source distribution in bytes.
        member: Path of the checkpoint inside it.
        member_sha256: Of the checkpoint.
        member_size: Of the checkpoint in bytes.
    """

    title: str
    layout: str
    licence: str
    project: str
    version: str
    file: str
    sha256: str
    size: int
    member: str
    member_sha256: str
    member_size: int

    @property
    def total_size(self) -> int:
        """Bytes to download."""
        return self.size

    @property
    def exact(self) -> bool:
        """Whether it is just so many bytes, and not at most."""
        return True


@dataclass(frozen=True)
class HubFile:
    """A source that is one file of a repository on the Hugging Face Hub.

    It needs no digest, and whoever owns it no trust: the checksums of the tensors decide.

    Attributes:
        title: What people call it.
        layout: Name of the converter table that reads it.
        licence: SPDX identifier under which this source gives it.
        repository: `USER/NAME`.
        revision: A branch, a tag or a commit.
        file: Path in the repository.
        max_size: Bytes beyond which it is not fetched.
    """

    title: str
    layout: str
    licence: str
    repository: str
    revision: str
    file: str
    max_size: int

    @property
    def total_size(self) -> int:
        """Bytes to download, at most."""
        return self.max_size

    @property
    def exact(self) -> bool:
        """Whether it is just so many bytes, and not at most."""
        return False


Source = Files | PackageIndex | HubFile
