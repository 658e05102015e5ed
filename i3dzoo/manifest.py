"""Manifests: one TOML a published checkpoint, loaded into frozen records that are checked whole."""

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from i3dzoo._section import Section
from i3dzoo.architecture import HEAD, UNITS
from i3dzoo.errors import ManifestError, MetadataError
from i3dzoo.labels import label_sets, labels
from i3dzoo.metadata import Input, Stream
from i3dzoo.source_records import Files, HubFile, PackageIndex, RemoteFile, Source

__all__ = [
    "TENSORS",
    "Files",
    "HubFile",
    "Manifest",
    "Metric",
    "PackageIndex",
    "RemoteFile",
    "Source",
    "parse",
]

TENSORS: Final = (
    *(
        f"{unit.name}.{part}"
        for unit in UNITS
        for part in ("conv.weight", "bn.bias", "bn.running_mean", "bn.running_var")
    ),
    f"{HEAD}.conv.weight",
    f"{HEAD}.conv.bias",
)
"""The 230 canonical tensors that DeepMind stores, and that a manifest has checksums of."""

_TENSORS: Final = frozenset(TENSORS)
_CRC: Final = re.compile(r"[0-9a-f]{8}")
_SPDX: Final = r"[A-Za-z0-9][A-Za-z0-9.+-]*"
_URL: Final = r"https?://[^\s/]+/\S*"
_FILE: Final = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"
_SHA256: Final = r"[0-9a-f]{64}"
_DIGEST: Final = r"sha256:[0-9a-f]{64}|git-blob:[0-9a-f]{40}|none"


@dataclass(frozen=True)
class Metric:
    """A published result of the checkpoint as it is, without fine-tuning.

    Attributes:
        dataset: Such as Kinetics-400.
        split: Such as test.
        top1: Top-1 accuracy in percent.
        top5: Top-5 accuracy in percent.
        source: Where it was published.
    """

    dataset: str
    split: str
    top1: float
    top5: float
    source: str


@dataclass(frozen=True)
class Manifest:
    """All that is published about one checkpoint.

    Attributes:
        name: Its name in the zoo, `stream_pretraining`.
        title: One line about it.
        stream: `rgb` or `flow`.
        pretraining: What it was trained on before, or `none`.
        licence: SPDX identifier of the weights.
        labels: Name of its label set.
        origin: Where it was first published.
        paper: That describes it.
        input: How clips become input.
        metrics: Published results.
        sources: Where it can be had, in the order to try them.
        crc32c: Masked CRC32C of each tensor of `TENSORS`, as in DeepMind's layout; empty where
            nobody published them, so that the digests of the files alone decide.
        note: What its user should know, or None.
    """

    name: str
    title: str
    stream: Stream
    pretraining: str
    licence: str
    labels: str
    origin: str
    paper: str
    input: Input
    metrics: tuple[Metric, ...]
    sources: tuple[Source, ...]
    crc32c: Mapping[str, int]
    note: str | None = None

    @property
    def num_classes(self) -> int:
        """Classes of the head."""
        return len(labels(self.labels))


def parse(name: str, text: str, where: str) -> Manifest:
    """Read a manifest.

    Args:
        name: What its file is called, without `.toml`.
        text: Its TOML.
        where: How errors call the file.

    Raises:
        ManifestError: An entry is unknown, missing or malformed; it names file and key.
    """
    try:
        section = Section(where, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ManifestError(f"{where}: is no TOML: {error}") from error
    if section.text("name") != name:
        raise section.wrong("name", f"differs from the name of the file, {name!r}")
    stream: Any = section.text("stream", "rgb|flow")
    label_set = section.text("labels")
    if label_set not in label_sets():
        raise section.wrong("labels", f"is {label_set!r}; there are {', '.join(label_sets())}")
    manifest = Manifest(
        name=name,
        title=section.text("title"),
        stream=stream,
        pretraining=section.text("pretraining"),
        licence=section.text("licence", _SPDX),
        labels=label_set,
        origin=section.text("origin", _URL),
        paper=section.text("paper", _URL),
        input=_input(section, stream),
        metrics=tuple(_metric(item) for item in section.sections("metric")),
        sources=tuple(_source(item) for item in section.sections("source")),
        crc32c=_crcs(section),
        note=section.text("note") if "note" in section.values else None,
    )
    section.close()
    if not manifest.sources:
        raise section.wrong("source", "is missing; name at least one [[source]]")
    if not manifest.crc32c and _undigested(manifest.sources):
        raise section.wrong("crc32c", "is missing, and so is a digest of a file: nothing is pinned")
    return manifest


def _undigested(sources: tuple[Source, ...]) -> bool:
    """Whether a source has a file without a digest."""
    return any(
        file.digest == "none"
        for source in sources
        if isinstance(source, Files)
        for file in source.files
    )


def _input(parent: Section, stream: str) -> Input:
    section = Section(parent.where, parent.take("input", dict), "input.")
    channels: Any = section.text("channels", {"rgb": "rgb", "flow": "xy"}[stream])
    try:
        result = Input(
            channels=channels,
            mean=section.numbers("mean"),
            std=section.numbers("std"),
            resize=section.take("resize", int, None),
            crop=section.take("crop", int),
            frames=section.take("frames", int),
            fps=section.take("fps", float, None),
            flow_bound=section.take("flow_bound", float, None),
        )
    except MetadataError as error:
        raise ManifestError(f"{parent.where}: {error}") from error
    section.close()
    return result


def _metric(section: Section) -> Metric:
    metric = Metric(
        dataset=section.text("dataset"),
        split=section.text("split"),
        top1=section.take("top1", float),
        top5=section.take("top5", float),
        source=section.text("source"),
    )
    section.close()
    if not 0 <= metric.top1 <= metric.top5 <= 100:
        raise section.wrong("top1", f"is {metric.top1}, top5 {metric.top5}; expected percents")
    return metric


def _source(section: Section) -> Source:
    read: dict[str, Callable[[Section], Source]] = {
        "package-index": _package_index,
        "files": _files,
        "hub": _hub_file,
    }
    kind = section.text("kind")
    if kind not in read:
        raise section.wrong("kind", f"is {kind!r}; expected {' or '.join(read)}")
    source = read[kind](section)
    section.close()
    return source


def _package_index(section: Section) -> PackageIndex:
    return PackageIndex(
        title=section.text("title"),
        layout=section.text("layout"),
        licence=section.text("licence", _SPDX),
        project=section.text("project", _FILE),
        version=section.text("version", _FILE),
        file=section.text("file", _FILE + r"\.tar\.gz"),
        sha256=section.text("sha256", _SHA256),
        size=section.size("size"),
        member=section.text("member"),
        member_sha256=section.text("member_sha256", _SHA256),
        member_size=section.size("member_size"),
    )


def _files(section: Section) -> Files:
    files = tuple(_remote_file(item) for item in section.sections("file"))
    if not files:
        raise section.wrong("file", "is missing; name at least one [[source.file]]")
    if len({file.name for file in files}) < len(files):
        raise section.wrong("file", "has one name twice")
    return Files(
        title=section.text("title"),
        layout=section.text("layout"),
        licence=section.text("licence", _SPDX),
        files=files,
    )


def _hub_file(section: Section) -> HubFile:
    return HubFile(
        title=section.text("title"),
        layout=section.text("layout"),
        licence=section.text("licence", _SPDX),
        repository=section.text("repository", f"{_FILE}/{_FILE}"),
        revision=section.text("revision"),
        file=section.text("file", rf"{_FILE}(/{_FILE})*"),
        max_size=section.size("max_size"),
    )


def _remote_file(section: Section) -> RemoteFile:
    size = section.size("size", None)
    max_size = section.size("max_size", None)
    if (size is None) == (max_size is None):
        raise section.wrong("size", "and max_size: give one of the two")
    file = RemoteFile(
        name=section.text("name", _FILE),
        url=section.text("url", _URL),
        digest=section.text("digest", _DIGEST),
        size=size,
        max_size=max_size if size is None else size,
    )
    section.close()
    return file


def _crcs(parent: Section) -> dict[str, int]:
    """Read the checksums, which are one text because a TOML key each takes ten times as long."""
    if "crc32c" not in parent.values:
        return {}
    section = Section(parent.where, parent.take("crc32c", dict), "crc32c.")
    text = section.take("tensors", str)
    section.close()
    crcs: dict[str, int] = {}
    for line in text.split("\n"):
        if line:
            digits, _, name = line.partition("  ")
            if name not in _TENSORS or name in crcs:
                raise section.wrong(name or line, "is an unknown tensor, or stands twice")
            if not _CRC.fullmatch(digits):
                raise section.wrong(name, f"is {digits!r}; expected 8 hexadecimal digits")
            crcs[name] = int(digits, 16)
    missing = _TENSORS - crcs.keys()
    if missing:
        raise section.wrong(min(missing), "is missing")
    return {name: crcs[name] for name in TENSORS}
