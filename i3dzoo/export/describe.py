"""What an exported network says of itself, as texts by key."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from i3dzoo import __version__
from i3dzoo.checkpoint import Checkpoint
from i3dzoo.checksums import crc32c
from i3dzoo.errors import MetadataError
from i3dzoo.export.options import ExportOptions
from i3dzoo.metadata import Metadata

__all__ = ["check_features", "describe", "digest", "read_description"]

DESCRIPTION: Final = {"rgb": "i3dzoo.rgb", "flow": "i3dzoo.flow"}
EXPORT: Final = "i3dzoo.export"


def describe(checkpoints: Sequence[Checkpoint], options: ExportOptions) -> dict[str, str]:
    """Return the metadata of an exported network, texts by key.

    `i3dzoo.rgb` and `i3dzoo.flow` hold the checkpoints' own descriptions; `i3dzoo.export` how the
    network was exported. `labels` (one a line), `input` and `source_sha256` repeat the most wanted
    for readers that know nothing of i3dzoo.
    """
    first = checkpoints[0].metadata
    texts = {DESCRIPTION[c.metadata.stream]: c.metadata.to_json() for c in checkpoints}
    document: dict[str, Any] = dataclasses.asdict(options) | {
        "writer": f"i3dzoo {__version__}",
        "weights_crc32c": {c.metadata.stream: digest(c) for c in checkpoints},
    }
    texts[EXPORT] = json.dumps(document)
    if first.labels is not None:
        texts["labels"] = "\n".join(" ".join(label.splitlines()) for label in first.labels)
    texts["input"] = "; ".join(str(c.metadata.input) for c in checkpoints)
    texts["source_sha256"] = " ".join(c.metadata.source.sha256 for c in checkpoints)
    return texts


def read_description(where: str, texts: Mapping[str, str]) -> tuple[list[Metadata], ExportOptions]:
    """Read what `describe` wrote.

    Args:
        where: The file, for messages.
        texts: The metadata of the exported network.

    Raises:
        MetadataError: It holds none of i3dzoo's, or it is malformed.
    """
    if EXPORT not in texts or not set(DESCRIPTION.values()) & set(texts):
        raise MetadataError(
            f"{where}: carries no description by i3dzoo, so its input and labels are unknown; "
            "make it with i3dzoo export"
        )
    try:
        streams = [Metadata.from_json(texts[k]) for k in DESCRIPTION.values() if k in texts]
        document = json.loads(texts[EXPORT])
        names = [field.name for field in dataclasses.fields(ExportOptions)]
        fields = {name: document[name] for name in names if name in document}
        for key, value in fields.items():
            fields[key] = tuple(value) if isinstance(value, list) else value
        return streams, ExportOptions(**fields)
    except (KeyError, TypeError, ValueError) as error:
        raise MetadataError(f"{where}: its description is malformed: {error}") from error


def check_features(where: str, options: ExportOptions, num_classes: int) -> None:
    """Refuse to give features that an export does not have; without a head it has no others.

    Raises:
        MetadataError: It was exported without them.
    """
    if num_classes and not options.features:
        raise MetadataError(f"{where}: gives no features; export it with --features")


def digest(checkpoint: Checkpoint) -> str:
    """Return one digest of all weights: the CRC32C of the CRC32C of each tensor, in order."""
    crcs = [crc32c(np.asarray(array)) for _, array in sorted(checkpoint.tensors.items())]
    return f"{crc32c(np.array(crcs, 'u4')):08x}"
