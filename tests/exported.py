"""Checkpoints with small clips, and their exports, for the tests of exporting."""

import dataclasses

import numpy as np
import torch

from i3dzoo.arrays import Tensors
from i3dzoo.checkpoint import Checkpoint
from i3dzoo.metadata import Input, Metadata, Source, Stream
from i3dzoo.model import InceptionI3d

__all__ = ["noisy", "small", "tensors_of"]


def tensors_of(model: InceptionI3d) -> Tensors:
    """The canonical tensors of a network."""
    state = model.state_dict().items()
    return {name: t.numpy() for name, t in state if not name.endswith("num_batches_tracked")}


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


def small(checkpoint: Checkpoint, crop: int = 64, frames: int = 16) -> Checkpoint:
    """The same weights for smaller clips."""
    spec = checkpoint.metadata.input
    spec = dataclasses.replace(spec, crop=crop, frames=frames, resize=crop * 8 // 7)
    metadata = dataclasses.replace(checkpoint.metadata, input=spec)
    return dataclasses.replace(checkpoint, metadata=metadata)
