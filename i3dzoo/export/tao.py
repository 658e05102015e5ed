"""The lines of a TAO spec that go with exported weights: `action_recognition`, backbone I3D.

Names: `model_config` and so on in specs for TAO 3 and 4, `model` and so on since TAO 5, whose
schema is nvidia_tao_pytorch/cv/action_recognition/config/default_config.py.
"""

import json
import re
from pathlib import Path

from i3dzoo.errors import MetadataError
from i3dzoo.metadata import Metadata

__all__ = ["listed_labels", "spec"]


def spec(path: Path, metadata: Metadata, *, legacy: bool = False) -> str:
    """Return the lines, YAML, that make TAO load a file that `i3dzoo export --to tao` wrote.

    Args:
        path: The file.
        metadata: Of the checkpoint.
        legacy: With the names of TAO 3 and 4.

    Raises:
        MetadataError: Two of the labels are the same.
    """
    stream = "rgb" if metadata.stream == "rgb" else "of"
    given = metadata.input
    lines = [
        "model_config:" if legacy else "model:",
        f"  model_type: {stream}",
        '  input_type: "3d"',
        "  backbone: i3d",
        f"  {stream}_seq_length: {given.frames}",
        f"  {stream}_pretrained_model_path: {json.dumps(str(path.resolve()), ensure_ascii=False)}",
        f"  {stream}_pretrained_num_classes: {metadata.num_classes}",
        "  sample_strategy: consecutive",
        "  sample_rate: 1",
    ]
    if not legacy:
        lines += [f"  input_height: {given.crop}", f"  input_width: {given.crop}"]
    lines.append("dataset_config:" if legacy else "dataset:")
    if labels := listed_labels(metadata):
        lines.append("  label_map:")
        lines += [f"    {_key(label)}: {number}" for number, label in enumerate(labels)]
    if legacy:
        lines += ["  output_shape:", f"  - {given.crop}", f"  - {given.crop}"]
    resize = [] if legacy else [f"    crop_smaller_edge: {given.resize or given.crop}"]
    lines += [
        "  augmentation_config:",
        f"    {stream}_input_mean: {list(given.mean)}",
        f"    {stream}_input_std: {list(given.std)}",
        "    val_center_crop: True",
        *resize,
    ]
    return "\n".join(lines)


def listed_labels(metadata: Metadata) -> tuple[str, ...]:
    """Return the labels that a spec lists, which are few and known, or none.

    Raises:
        MetadataError: Two of them are the same, and a spec maps each to one class.
    """
    if metadata.labels is None or metadata.num_classes > 51:
        return ()
    for label in metadata.labels:
        if metadata.labels.count(label) > 1:
            raise MetadataError(
                f"two classes are labelled {label!r}, and a spec of TAO maps each label to one; "
                "convert with other --labels"
            )
    return metadata.labels


def _key(label: str) -> str:
    """Return a label as a key of YAML, in quotes where bare it would be something else."""
    words = {"yes", "no", "on", "off", "true", "false", "null", "y", "n"}
    bare = re.fullmatch(r"[A-Za-z][\w ]*\w", label) and label.lower() not in words
    return label if bare else json.dumps(label, ensure_ascii=False)
