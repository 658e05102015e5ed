"""Remarks about a description that fits a file better than the one it has."""

from pathlib import Path

from i3dzoo.checkpoints.labels import likely_multi_label
from i3dzoo.checkpoints.metadata import Metadata
from i3dzoo.checkpoints.presets import likely_presets
from i3dzoo.cli._console import say


def remark_description(model: str | Path, metadata: Metadata) -> None:
    """Say which presets, and whether several classes at once, fit the layout and the classes."""
    if names := likely_presets(metadata):
        say(
            f"{model}: {metadata.num_classes} classes in layout {metadata.source.layout} may come "
            f"from {' or '.join(names)}, whose input or network differs from the default; if so, "
            f"run i3dzoo convert {model} FILE.safetensors --input {names[0]}"
        )
    known = likely_multi_label(metadata.num_classes, metadata.labels)
    if known and not metadata.multi_label:
        say(
            f"{model}: the {metadata.num_classes} classes may be those of {known}, where a clip "
            "can have several classes at once, but the file is described as single-label; if so, "
            f"run i3dzoo convert {model} FILE.safetensors --multi-label"
        )
