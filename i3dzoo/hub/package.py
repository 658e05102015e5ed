"""The files of a repository: weights, configuration, labels, pictures, digests and a model card."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from i3dzoo.checkpoints.checkpoint import Checkpoint, write_checkpoint
from i3dzoo.checkpoints.metadata import Input, Metadata
from i3dzoo.errors import ChecksumError, FormatError, MetadataError
from i3dzoo.files import atomic_write
from i3dzoo.formats.onnx_file import read_graph
from i3dzoo.hub.address import WEIGHTS
from i3dzoo.hub.card import write_card
from i3dzoo.hub.facts import About, collect_facts
from i3dzoo.hub.sums import write_sums
from i3dzoo.onnx.description import weights_digest, weights_digests
from i3dzoo.zoo.identify import check_claim

ONNX: Final = "model.onnx"

# file names beside a checkpoint, as NAME or CHECKPOINT.NAME; the first that exists is used
PICTURES: Final = {
    "training_curves.png": ("training_curves.png", "curves.png"),
    "confusion_matrix.png": ("confusion_matrix.png", "confusion.png"),
}


@dataclass(frozen=True)
class Package:
    """A folder that is ready to be pushed."""

    folder: Path
    files: tuple[tuple[str, int, str], ...]  # name, size in bytes and sha256 of each file
    card: str  # the text of README.md
    licence: str  # SPDX identifier
    metadata: Metadata


def prepare(
    checkpoint: Checkpoint,
    folder: Path,
    about: About | None = None,
    source: Path | None = None,
    force: bool = False,
) -> Package:
    """Write all files of a repository into a folder.

    Args:
        checkpoint: The weights; they need labels.
        folder: An existing folder.
        about: What the user states about the checkpoint.
        source: File of the checkpoint; pictures of its training beside it are included.
        force: Replace weights that exist.

    Raises:
        MetadataError: The licence or the labels are missing, the results are malformed, or the
            metadata names a published checkpoint whose classes have other names.
        ChecksumError: The metadata names a published checkpoint with other tensors, or the ONNX
            file has other weights.
        MissingFileError: The ONNX file does not exist.
        FormatError: A picture is not a PNG, or the ONNX file is not ONNX.
        OutputError: The folder cannot be written.
    """
    about = about or About()
    metadata, where = checkpoint.metadata, str(source or "the model")
    if metadata.labels is None:
        raise MetadataError(
            f"{where}: its {metadata.num_classes} classes have no names, and nothing is pushed "
            "without them; pass --labels, a label set or a file with one name per line"
        )
    check_claim(checkpoint, where)
    facts = collect_facts(metadata, about, where)
    extras = _find_pictures(source)
    if about.onnx:
        _check_onnx(about.onnx, checkpoint)
        extras[ONNX] = about.onnx
    write_checkpoint(folder / WEIGHTS, checkpoint, force=force)
    for name, path in extras.items():
        shutil.copyfile(path, folder / name)
    card = write_card(metadata, facts, tuple(extras))
    texts = {
        "README.md": card,
        "config.json": _to_json(config(metadata)),
        "preprocessor_config.json": _to_json(preprocessor(metadata.input)),
        "labels.txt": "".join(f"{label}\n" for label in metadata.labels),
    }
    for name, text in texts.items():
        with atomic_write(folder / name) as file:
            file.write(text.encode())
    files = write_sums(folder, [WEIGHTS, *extras, *texts])
    return Package(folder, files, card, facts.licence, metadata)


def config(metadata: Metadata) -> dict[str, Any]:
    """Return config.json, with the keys of transformers and, under `i3dzoo`, the metadata."""
    labels = metadata.labels or ()
    description = metadata.to_dict()
    del description["labels"], description["num_classes"]  # as id2label and num_classes
    return {
        "architectures": ["InceptionI3d"],
        "model_type": metadata.architecture,
        "num_classes": metadata.num_classes,
        "problem_type": f"{'multi' if metadata.multi_label else 'single'}_label_classification",
        "in_channels": len(metadata.input.mean),
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
        "image_size": metadata.input.crop,
        "num_frames": metadata.input.frames,
        "i3dzoo": description,
    }


def preprocessor(spec: Input) -> dict[str, Any]:
    """Return preprocessor_config.json, in the format of transformers.

    `VideoMAEImageProcessor` reads the one for RGB. The frame rate, BGR and optical flow have no
    keys in transformers; the keys for them are i3dzoo's own.
    """
    is_squashed = spec.resize_mode == "squash"
    edges = {"height": spec.crop, "width": spec.crop}
    document: dict[str, Any] = {
        "do_resize": is_squashed or spec.resize is not None,
        "size": edges if is_squashed else {"shortest_edge": spec.resize or spec.crop},
        "resample": 2,  # bilinear
        "do_center_crop": True,
        "crop_size": edges,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
        "num_frames": spec.frames,
        "frame_rate": spec.fps,
        "channels": spec.channels,
    }
    if spec.channels == "rgb":
        return {"image_processor_type": "VideoMAEImageProcessor", **document}
    return {**document, "flow_bound": spec.flow_bound}


def _check_onnx(path: Path, checkpoint: Checkpoint) -> None:
    """Check that an ONNX file was exported from these weights, as its properties state."""
    try:
        recorded = weights_digests(str(path), read_graph(path).properties)
    except MetadataError as error:
        raise ChecksumError(
            f"{path}: does not state which weights it was exported from, so they could be others; "
            "make it with i3dzoo export --to onnx"
        ) from error
    actual, expected = recorded.get(checkpoint.metadata.stream), weights_digest(checkpoint)
    if actual != expected:
        raise ChecksumError(
            f"{path}: was exported from weights with checksum {actual}, expected {expected}; "
            "export it again"
        )


def _find_pictures(source: Path | None) -> dict[str, Path]:
    """Return the pictures beside a checkpoint, by their names in a repository."""
    pictures: dict[str, Path] = {}
    if source is None:
        return pictures
    for name, spellings in PICTURES.items():
        candidates = [f"{source.stem}.{spelling}" for spelling in spellings] + [*spellings]
        path = next(filter(Path.is_file, map(source.with_name, candidates)), None)
        if path is None:
            continue
        with path.open("rb") as file:
            if file.read(8) != b"\x89PNG\r\n\x1a\n":
                problem = "is not a PNG, so the Hub would not show it; draw it again"
                raise FormatError(f"{path}: {problem}")
        pictures[name] = path
    return pictures


def _to_json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
