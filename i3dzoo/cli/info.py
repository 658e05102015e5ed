"""`i3dzoo info`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from i3dzoo.cli._console import json_option, print_json, say

if TYPE_CHECKING:
    from i3dzoo.manifest import Manifest, Source


@click.command()
@click.argument("model", metavar="NAME_OR_FILE")
@json_option
def command(model: str, as_json: bool) -> None:
    """Tell where a zoo model comes from, or what a file says of itself.

    \b
    Examples:
      i3dzoo info rgb_scratch
      i3dzoo info mine.safetensors
      i3dzoo info USER/i3d-hmdb51@v1
      i3dzoo info rgb_scratch --json
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    from i3dzoo import hub, zoo
    from i3dzoo.loading import find, is_local

    if model not in zoo.names() and is_local(model):
        document, lines = _file(find(model))
    elif model not in zoo.names() and hub.is_address(model):
        document, lines = _file(hub.pull(hub.parse(model)).weights)
    else:
        document, lines = _manifest(zoo.manifest(model))
    if as_json:
        print_json(document)
        return
    for key, value in lines:
        click.echo(f"{key:<12} {value}" if key else f"{'':<12} {value}")
    _say_next(model, document)


def _manifest(model: "Manifest") -> tuple[dict[str, Any], list[tuple[str, str]]]:
    from i3dzoo import zoo
    from i3dzoo.cli._progress import megabytes

    path = zoo.cached_path(model.name)
    document = dataclasses.asdict(model)
    document["num_classes"] = model.num_classes
    document["crc32c"] = {name: f"{crc:08x}" for name, crc in model.crc32c.items()}
    document["cached"] = str(path) if path.exists() else None
    lines = [
        ("name", model.name),
        ("title", model.title),
        ("stream", model.stream),
        ("classes", _classes(model.num_classes, zoo.labels(model.labels), model.labels)),
        ("input", str(model.input)),
        ("pretraining", model.pretraining),
        ("licence", model.licence),
        ("origin", model.origin),
        ("paper", model.paper),
    ]
    for metric in model.metrics:
        lines.append(
            (
                "published",
                f"{metric.dataset} {metric.split}: top-1 {metric.top1} %, top-5 {metric.top5} %",
            )
        )
        lines.append(("", metric.source))
    for number, source in enumerate(model.sources, 1):
        size = ("" if source.exact else "up to ") + megabytes(source.total_size)
        what = f"{number}. {source.title}: {source.layout} layout, {size}, {source.licence}"
        lines.append(("sources" if number == 1 else "", what))
        lines += [("", f"   {url}") for url in _addresses(source)]
    if model.note:
        lines.append(("note", model.note))
    lines.append(("checksums", _checksums(model)))
    lines.append(("cached", str(path) if path.exists() else "no"))
    return document, lines


def _addresses(source: "Source") -> list[str]:
    """Return where the files of a source are, for those who fetch them by other means."""
    from i3dzoo.manifest import Files, HubFile

    if isinstance(source, Files):
        return [file.url for file in source.files]
    if isinstance(source, HubFile):
        return [f"hf://{source.repository}@{source.revision}, {source.file}"]
    return [f"{source.member} of {source.project} {source.version}, from the package index"]


def _checksums(model: "Manifest") -> str:
    if model.crc32c:
        return f"CRC32C of {len(model.crc32c)} tensors, as DeepMind published them"
    return "of the file only; nobody published any of its tensors"


def _file(path: Path) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    from i3dzoo.checkpoint import read_checkpoint

    checkpoint = read_checkpoint(path)
    metadata = checkpoint.metadata
    document = {"path": str(path), "tensors": len(checkpoint.tensors)}
    document |= dataclasses.asdict(metadata)
    lines = [
        ("file", str(path)),
        ("stream", metadata.stream),
        ("classes", _classes(metadata.num_classes, metadata.labels, "")),
        ("input", str(metadata.input)),
        ("source", f"{metadata.source.layout} layout, sha256 {metadata.source.sha256}"),
        ("zoo name", metadata.zoo or "none: it is no published checkpoint"),
    ]
    if metadata.base:
        lines.append(("made from", metadata.base))
    lines += [("history" if not at else "", step) for at, step in enumerate(metadata.history)]
    lines.append(("writer", metadata.writer or "not i3dzoo"))
    return document, lines


def _classes(count: int, labels: tuple[str, ...] | None, label_set: str) -> str:
    if not count:
        return "none: there is no head"
    if not labels:
        return f"{count}, without names"
    some = ", ".join(labels[:3])
    return f"{count}{f' of {label_set}' if label_set else ''}: {some}{', …' if count > 3 else ''}"


def _say_next(model: str, document: dict[str, Any]) -> None:
    say("\nNow what:")
    if "sources" in document and not document["cached"]:
        say(f"  i3dzoo pull {model}")
    elif document["stream"] == "rgb":
        say(f"  i3dzoo predict clip.mp4 --model {model}")
    say(f"  i3dzoo convert {model} mine.safetensors --labels hmdb51")
