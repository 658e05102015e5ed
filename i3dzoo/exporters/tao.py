"""Export weights for NVIDIA TAO's action_recognition with the backbone I3D, and its spec's lines.

A spec has `model_config` and so on in TAO 3 and 4, and `model` and so on since TAO 5, whose schema
is nvidia_tao_pytorch/cv/action_recognition/config/default_config.py.
"""

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from i3dzoo.checkpoints.checkpoint import read_checkpoint, write_checkpoint
from i3dzoo.checkpoints.metadata import Metadata
from i3dzoo.errors import FormatError, MetadataError
from i3dzoo.exporters.job import Export, ExportJob
from i3dzoo.network.architecture import DEEPMIND

_MOST_LABELS = 51  # longer label maps do not belong in a spec
_SAMPLE_STRATEGY = {"consecutive": "consecutive", "interval": "random_interval"}


def export_tao(job: ExportJob) -> Export:
    """Write a state dict under piergiaj's names, which TAO loads, after reading it back."""
    (checkpoint,) = job.checkpoints
    if not checkpoint.metadata.num_classes:
        raise MetadataError(
            f"{job.path}: TAO loads weights with a head only, and the checkpoint has none; add one "
            "with i3dzoo convert --num-classes N"
        )
    _check_network(job.path, checkpoint.metadata)
    _spec_labels(checkpoint.metadata)
    with TemporaryDirectory() as folder:
        file = write_checkpoint(Path(folder) / "weights.pt", checkpoint, "piergiaj")
        tensors = read_checkpoint(file).tensors
        data = file.read_bytes()
    for name, array in checkpoint.tensors.items():
        if not np.array_equal(tensors[name], array):
            raise FormatError(f"{job.path}: was not written: {name} was read back altered")
    return job.write({job.path: data}, None, remarks=("Every tensor was read back unchanged.",))


def _check_network(path: Path, metadata: Metadata) -> None:
    """Refuse a network or an input that TAO does not have."""
    if metadata.variant != DEEPMIND:
        raise MetadataError(
            f"{path}: TAO's network has {DEEPMIND}, and this one has {metadata.variant}, so TAO "
            "would compute other numbers; export to onnx, or convert the tensors alone, to train "
            "them further, with i3dzoo convert --to piergiaj"
        )
    if metadata.input.channels == "bgr":
        raise MetadataError(
            f"{path}: TAO reads RGB frames, and this network takes BGR; export to onnx"
        )


def tao_spec(path: Path, metadata: Metadata, *, legacy: bool = False) -> str:
    """Return the lines of a TAO spec, in YAML, that load an exported file.

    `legacy` uses the names of TAO 3 and 4.
    """
    stream = "rgb" if metadata.stream == "rgb" else "of"
    spec = metadata.input
    lines = [
        "model_config:" if legacy else "model:",
        f"  model_type: {stream}",
        '  input_type: "3d"',
        "  backbone: i3d",
        f"  {stream}_seq_length: {spec.frames}",
        f"  {stream}_pretrained_model_path: {json.dumps(str(path.resolve()), ensure_ascii=False)}",
        f"  {stream}_pretrained_num_classes: {metadata.num_classes}",
        f"  sample_strategy: {_SAMPLE_STRATEGY[spec.sampling]}",
        "  sample_rate: 1",
    ]
    if not legacy:
        lines += [f"  input_height: {spec.crop}", f"  input_width: {spec.crop}"]
    lines.append("dataset_config:" if legacy else "dataset:")
    if labels := _spec_labels(metadata):
        lines.append("  label_map:")
        lines += [f"    {_yaml_key(label)}: {number}" for number, label in enumerate(labels)]
    if legacy:
        lines += ["  output_shape:", f"  - {spec.crop}", f"  - {spec.crop}"]
    lines += [
        "  augmentation_config:",
        f"    {stream}_input_mean: {list(spec.mean)}",
        f"    {stream}_input_std: {list(spec.std)}",
        f"    val_center_crop: {spec.resize_mode == 'short'}",
    ]
    if not legacy:
        lines.append(f"    crop_smaller_edge: {spec.resize or spec.crop}")
    return "\n".join(lines)


def _spec_labels(metadata: Metadata) -> tuple[str, ...]:
    """Return the labels for the spec, if they are known and few."""
    if metadata.labels is None or metadata.num_classes > _MOST_LABELS:
        return ()
    for label in metadata.labels:
        if metadata.labels.count(label) > 1:
            raise MetadataError(
                f"labels: two classes have the label {label!r}, and a TAO spec maps each label to "
                "one class; rename them with i3dzoo convert --labels"
            )
    return metadata.labels


def _yaml_key(label: str) -> str:
    """Return a label as a YAML key, in quotes if YAML could take it for something else."""
    words = {"yes", "no", "on", "off", "true", "false", "null", "y", "n"}
    plain = re.fullmatch(r"[A-Za-z][\w ]*\w", label) and label.lower() not in words
    return label if plain else json.dumps(label, ensure_ascii=False)
