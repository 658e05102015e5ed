"""Metadata embedded in exported models."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.checkpoints.embedded import EXPORT_DESCRIPTIONS
from i3dzoo.checkpoints.metadata import Metadata
from i3dzoo.digests import crc32c
from i3dzoo.errors import MetadataError
from i3dzoo.onnx.options import ExportOptions
from i3dzoo.records import Record, parse_json
from i3dzoo.version import __version__

EXPORT_KEY: Final = "i3dzoo.export"


class _Export(Record, frozen=True, kw_only=True):
    """The JSON under `EXPORT_KEY`."""

    options: ExportOptions
    weights_crc32c: dict[str, str]
    writer: str


def describe(checkpoints: Sequence[Checkpoint], options: ExportOptions) -> dict[str, str]:
    """Return the metadata of an exported model, as text by key.

    `i3dzoo.rgb` and `i3dzoo.flow` hold the checkpoints' own descriptions, and `i3dzoo.export` the
    options of the export and a digest of the weights. `labels` (one per line), `scores` (`softmax`
    or `sigmoid`), `input` and `source_sha256` repeat the most important parts for programs that do
    not know i3dzoo.
    """
    export = _Export(
        options=options,
        weights_crc32c={c.metadata.stream: weights_digest(c) for c in checkpoints},
        writer=f"i3dzoo {__version__}",
    )
    texts = {EXPORT_DESCRIPTIONS[c.metadata.stream]: c.metadata.to_json() for c in checkpoints}
    texts[EXPORT_KEY] = msgspec.json.encode(export).decode()
    labels = checkpoints[0].metadata.labels
    if labels is not None:
        texts["labels"] = "\n".join(" ".join(label.splitlines()) for label in labels)
    texts["scores"] = checkpoints[0].metadata.scores
    texts["input"] = "; ".join(str(c.metadata.input) for c in checkpoints)
    texts["source_sha256"] = " ".join(c.metadata.source.sha256 for c in checkpoints)
    return texts


def read_description(where: str, texts: Mapping[str, str]) -> tuple[list[Metadata], ExportOptions]:
    """Read what `describe` wrote: the metadata of each stream's checkpoint, and the options.

    `where` is the name of the file, for messages.
    """
    streams = [texts[key] for key in EXPORT_DESCRIPTIONS.values() if key in texts]
    if EXPORT_KEY not in texts or not streams:
        raise MetadataError(
            f"{where}: the model has no description by i3dzoo, so its input and labels are "
            "unknown; export it with i3dzoo export"
        )
    metadata = [Metadata.from_json(text, where) for text in streams]
    return metadata, _read_export(where, texts).options


def weights_digests(where: str, texts: Mapping[str, str]) -> dict[str, str]:
    """Return the `weights_digest` of each stream of an exported model."""
    return _read_export(where, texts).weights_crc32c


def _read_export(where: str, texts: Mapping[str, str]) -> _Export:
    return parse_json(texts.get(EXPORT_KEY, "{}"), _Export, f"{where}: {EXPORT_KEY}")


def weights_digest(checkpoint: Checkpoint) -> str:
    """Return one digest of all tensors: the CRC32C of their CRC32Cs, in the order of names."""
    crcs = [crc32c(np.asarray(array)) for _, array in sorted(checkpoint.tensors.items())]
    return f"{crc32c(np.array(crcs, 'u4')):08x}"
