"""Checkpoints with small clips, and their exports, for the tests of exporting."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from helpers.checkpoints import described, tensors_of
from torch import Tensor

from i3dzoo.arrays import Array
from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.checkpoints.metadata import Input, Metadata, Source, Stream
from i3dzoo.engines.onnxruntime import OnnxEngine
from i3dzoo.exporters.job import ExportJob, Parity, ParityOptions
from i3dzoo.exporters.parity import Runner, check_parity
from i3dzoo.onnx.model import build_model
from i3dzoo.onnx.options import ExportOptions, Size
from i3dzoo.pretrained import InceptionI3d, build


def noisy(stream: Stream, classes: int, seed: int = 0) -> Checkpoint:
    """A seeded network whose BatchNorm does something, with clips of 16 frames of 32x32."""
    torch.manual_seed(seed)
    model = InceptionI3d(classes, 3 if stream == "rgb" else 2)
    generator = np.random.default_rng(seed)
    tensors = dict(tensors_of(model))
    for name, array in tensors.items():
        if ".bn." in name:
            low, high = (0.5, 1.5) if name.endswith(("weight", "running_var")) else (-0.3, 0.3)
            tensors[name] = generator.uniform(low, high, array.shape).astype("f4")
    middle = (0.5,) * (3 if stream == "rgb" else 2)
    spec = Input("rgb" if stream == "rgb" else "xy", middle, middle, 36, 32, 16)
    labels = tuple(f"action {number}" for number in range(classes)) if classes else None
    metadata = Metadata(stream, classes, labels, spec, Source("canonical", "0" * 64))
    return Checkpoint(tensors, metadata)


def responsive(stream: Stream, classes: int) -> Checkpoint:
    """The network of `noisy` with BatchNorm's statistics of noise.

    Its outputs depend on the input; those of `noisy` hardly do, after 57 layers.
    """
    checkpoint = noisy(stream, classes)
    model = build(checkpoint).train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.momentum = 1.0
    noise = torch.rand(6, model.in_channels, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(noise, (16, 32, 32), mode="trilinear")
    with torch.no_grad():
        model(smooth * 2 - 1)
    return Checkpoint(tensors_of(model), checkpoint.metadata)


def small(checkpoint: Checkpoint, crop: int = 64, frames: int = 16) -> Checkpoint:
    """The same weights for smaller clips."""
    return with_input(checkpoint, crop=crop, frames=frames, resize=crop * 8 // 7)


def with_input(checkpoint: Checkpoint, **changes: Any) -> Checkpoint:
    """The same weights for other clips."""
    return described(checkpoint, input=checkpoint.metadata.input.replace(**changes))


def pytorch_logits(checkpoint: Checkpoint, clips: Tensor | Array) -> Array:
    """PyTorch's logits of float clips [B, C, T, H, W]."""
    with torch.inference_mode():
        logits: Array = build(checkpoint)(torch.as_tensor(clips)).numpy()
    return logits


def onnx_engine(checkpoints: Sequence[Checkpoint], options: ExportOptions) -> OnnxEngine:
    """Export to ONNX in memory, and load it."""
    return OnnxEngine(build_model(checkpoints, options).SerializeToString(), threads=2)


def compare(
    run: Runner,
    checkpoints: Sequence[Checkpoint],
    options: ExportOptions,
    batches: list[tuple[int, Size]] | None = None,
    clip: Path | None = None,
    atol: float | None = None,
) -> Parity:
    """Compare an export with PyTorch."""
    parity = ParityOptions(clip=clip, atol=atol)
    job = ExportJob(tuple(checkpoints), "onnx", Path("x.onnx"), options, parity=parity)
    return check_parity(job, run, "onnxruntime", batches)


def compare_onnx(
    checkpoints: Sequence[Checkpoint],
    options: ExportOptions,
    tolerance: float = 1e-4,
    clip: Path | None = None,
) -> OnnxEngine:
    """Export to ONNX in memory, compare it with PyTorch, and return the engine.

    `tolerance` is a part of the largest logit. On `clip`, a real video, the first classes must be
    the same; None is noise.
    """
    engine = onnx_engine(checkpoints, options)
    parity = compare(engine.run, checkpoints, options, clip=clip)
    assert len(parity.cases) == (3 if options.dynamic else 2)
    for case in parity.cases:
        assert case.error <= tolerance * case.largest, str(case)
        assert case.same_top or clip is None
    return engine
