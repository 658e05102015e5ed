"""From checkpoints to an exported file: made, proved, and only then given its name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import numpy as np

from i3dzoo._files import atomic_write, check_output, output_error
from i3dzoo.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from i3dzoo.engines import SUFFIXES
from i3dzoo.errors import FormatError, MetadataError, OutputError
from i3dzoo.export.options import ExportOptions, main_output
from i3dzoo.export.tao import listed_labels

if TYPE_CHECKING:
    from i3dzoo.export.prove import Proof, Runner
    from i3dzoo.export.rounding import Rounding

__all__ = ["TARGETS", "Export", "check_path", "export", "is_plain"]

TARGETS: Final = ("onnx", "tensorrt", "tao", "torchscript", "pt2")


@dataclass(frozen=True)
class Export:
    """An exported file.

    Attributes:
        path: The file.
        target: Of `TARGETS`.
        proof: How it was compared with PyTorch; None where only tensors were compared.
        nodes: Of an ONNX graph.
        remarks: What else there is to know, one sentence each.
        runs_here: Whether this machine runs it.
        plain: Whether it takes one stream of float clips, as the commands that run it give.
    """

    path: Path
    target: str
    proof: "Proof | None"
    nodes: int | None = None
    remarks: tuple[str, ...] = ()
    runs_here: bool = True
    plain: bool = True


def export(
    checkpoints: Sequence[Checkpoint],
    target: str,
    path: Path,
    options: ExportOptions,
    *,
    rounding: "Mapping[str, Rounding] | None" = None,
    clip: Path | None = None,
    seed: int = 0,
    atol: float | None = None,
    force: bool = False,
) -> Export:
    """Export a network to onnx, torchscript, pt2 or tao; `i3dzoo.export.tensorrt` makes engines.

    Args:
        checkpoints: One, or for onnx one of each stream.
        target: What to make.
        path: Where; the name is taken only by a file that was compared with PyTorch.
        options: What the network takes and gives.
        rounding: For int8, from `i3dzoo.export.calibrate`.
        clip: A video for the comparison; None takes seeded noise.
        seed: Of the noise.
        atol: Largest difference that passes, in logits; None: see `i3dzoo.export.prove.TOLERANCE`.
        force: Replace the file if it exists.

    Raises:
        FormatError: The export differs from PyTorch by more than is allowed.
        MetadataError: The target has no such option, or takes one stream.
        OutputError: The file exists or cannot be written.
    """
    check_path(path, target, force)
    if target == "tao":
        options.refuse("tao", "dynamic", "keep_bn", "features", "steps", "pixels")
        return _tao(checkpoints, path, force)
    nodes = None
    remarks: tuple[str, ...] = ()
    if target == "onnx":
        data, run, runner, nodes, remarks = _onnx(checkpoints, options, rounding)
    else:
        data, run, runner = _torch(checkpoints, target, options)
    from i3dzoo.export.prove import prove

    proof = prove(str(path), run, runner, checkpoints, options, clip=clip, seed=seed, atol=atol)
    with atomic_write(path) as file:
        file.write(data)
    plain = is_plain(checkpoints, options)
    return Export(path, target, proof, nodes, remarks, plain=plain)


def is_plain(checkpoints: Sequence[Checkpoint], options: ExportOptions) -> bool:
    """Whether what is exported takes one stream of float clips."""
    return len(checkpoints) == 1 and options.pixels is None


def check_path(path: Path, target: str, force: bool) -> None:
    """Refuse, before the long work, an output that cannot be written, or whose name tells nothing.

    Raises:
        OutputError: It exists, its folder does not, or no engine would know it by its suffix.
    """
    runner = {"onnx": "onnxruntime", "tensorrt": "tensorrt"}.get(target)
    known = [suffix for suffix, name in SUFFIXES.items() if name == runner]
    if known and path.suffix.lower() not in known:
        raise OutputError(
            f"{path}: ends in none of {', '.join(known)}, by which other commands know what runs "
            "it; name it so"
        )
    check_output(path, force)


def _onnx(
    checkpoints: Sequence[Checkpoint],
    options: ExportOptions,
    rounding: "Mapping[str, Rounding] | None",
) -> "tuple[bytes, Runner, str, int, tuple[str, ...]]":
    from i3dzoo.export import onnx

    model = onnx.build(checkpoints, options, rounding)
    from i3dzoo.export.runtime import OnnxEngine

    data = model.SerializeToString(deterministic=True)
    if options.precision != "bf16":
        return data, OnnxEngine(data).run, "onnxruntime", len(model.graph.node), ()
    wide = onnx.widened(model).SerializeToString()
    remark = (
        "onnxruntime has no bfloat16 convolution: what was compared is this graph, its weights "
        "rounded to bfloat16, computed in float32"
    )
    return data, OnnxEngine(wide).run, "onnxruntime", len(model.graph.node), (remark,)


def _torch(
    checkpoints: Sequence[Checkpoint], target: str, options: ExportOptions
) -> "tuple[bytes, Runner, str]":
    from i3dzoo.export import portable
    from i3dzoo.export.describe import describe

    (checkpoint,) = _one(checkpoints, target)
    texts = describe(checkpoints, options)
    output = main_output(checkpoint.metadata)
    if target == "pt2":
        data = portable.pt2(checkpoint, options, texts)
        return data, portable.load_pt2(data, output), "torch.export"
    data = portable.torchscript(checkpoint, options, texts)
    return data, portable.load_torchscript(data, output), "TorchScript"


def _tao(checkpoints: Sequence[Checkpoint], path: Path, force: bool) -> Export:
    """Write piergiaj's names, and read them back to the bit before the file takes its name."""
    (checkpoint,) = _one(checkpoints, "tao")
    if not checkpoint.metadata.num_classes:
        raise MetadataError(
            f"{path}: TAO loads with strict names, and the checkpoint has no head; give it one "
            "with i3dzoo convert --num-classes N"
        )
    listed_labels(checkpoint.metadata)
    try:
        with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            part = write_checkpoint(Path(folder) / path.name, checkpoint, "piergiaj", force)
            back = read_checkpoint(part).tensors
            for name, array in checkpoint.tensors.items():
                if not np.array_equal(back[name], array):
                    raise FormatError(f"{path}: was not written: {name} came back altered")
            part.replace(path)
    except OSError as error:
        raise output_error(path, error) from error
    return Export(path, "tao", None, remarks=("every tensor was read back and is the same",))


def _one(checkpoints: Sequence[Checkpoint], target: str) -> Sequence[Checkpoint]:
    if len(checkpoints) != 1:
        raise MetadataError(
            f"{target} takes one stream; export each by itself, or both to onnx, which fuses them"
        )
    return checkpoints
