"""Change the stream or the number format of a checkpoint."""

import dataclasses
from typing import Literal, get_args

import numpy as np

from i3dzoo.arrays import Array, bfloat16
from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.checkpoints.convert import add_operation, round_to
from i3dzoo.checkpoints.history import HistoryStep
from i3dzoo.checkpoints.metadata import Stream, default_input
from i3dzoo.errors import ShapeError, UnknownNameError
from i3dzoo.network.architecture import STEM_WEIGHT

DType = Literal["float16", "bfloat16", "float32"]


def average_channels(weight: Array, channels: int) -> Array:
    """Return the weight of a convolution for another number of input channels.

    Every new channel is the mean of the old ones, times old / new. Averaging over the RGB channels
    and repeating for each flow channel is the cross-modality pre-training of Wang et al. ("Temporal
    Segment Networks", arXiv:1608.00859, section 3.2). The factor is that of Carreira and Zisserman
    for repeated filters (arXiv:1705.07750, section 2.4): an input with equal channels gives the
    same response as before, so the BatchNorm statistics still fit.

    Args:
        weight: [O, I, T, H, W] of any float dtype; the result has the same dtype.
        channels: New I.
    """
    old = weight.shape[1]
    mean = weight.mean(axis=1, keepdims=True, dtype="f8") * (old / channels)
    result: Array = np.repeat(mean, channels, axis=1).astype(weight.dtype)
    return result


def change_stream(checkpoint: Checkpoint, in_channels: int) -> Checkpoint:
    """Return a checkpoint for the other stream: RGB to flow, or flow to RGB.

    Only the first convolution changes (see `average_channels`). The range of values, channel order
    and flow bound of the input become those of the new stream; size, frames and rate stay the same.

    Examples:
        >>> import i3dzoo
        >>> flow = i3dzoo.change_stream(i3dzoo.open_checkpoint("mine.safetensors"), in_channels=2)
        >>> flow.metadata.stream, flow.tensors["Conv3d_1a_7x7.conv.weight"].shape
        ('flow', (64, 2, 7, 7, 7))

    Args:
        checkpoint: The checkpoint to change.
        in_channels: 3 for RGB, 2 for flow; the current number changes nothing.

    Raises:
        ShapeError: `in_channels` is neither 2 nor 3.
    """
    if in_channels not in (2, 3):
        raise ShapeError(f"in_channels is {in_channels}; expected 3 (RGB) or 2 (flow)")
    old = checkpoint.metadata
    stream: Stream = "rgb" if in_channels == 3 else "flow"
    if stream == old.stream:
        return checkpoint
    before = checkpoint.tensors[STEM_WEIGHT]
    tensors = {**checkpoint.tensors, STEM_WEIGHT: average_channels(before, in_channels)}
    step = HistoryStep(operation="stream", base_model=old.origin, before=old.stream, after=stream)
    spec = default_input(stream).replace(
        resize=old.input.resize, crop=old.input.crop, frames=old.input.frames, fps=old.input.fps
    )
    metadata = old.changed(step, stream=stream, input=spec)
    conversion = add_operation(checkpoint.conversion, tensors, "averaged over input channels")
    return dataclasses.replace(
        checkpoint, tensors=tensors, metadata=metadata, conversion=conversion
    )


def change_dtype(checkpoint: Checkpoint, dtype: DType) -> Checkpoint:
    """Return a checkpoint in another float format, rounded to nearest even.

    Examples:
        >>> import i3dzoo
        >>> half = i3dzoo.change_dtype(i3dzoo.open_checkpoint("mine.safetensors"), "float16")
        >>> half.tensors["Conv3d_1a_7x7.conv.weight"].dtype
        dtype('float16')

    Args:
        checkpoint: The checkpoint to change.
        dtype: The new number format; the current one changes nothing.

    Raises:
        UnknownNameError: The number format is unknown.
        FormatError: A value is outside the range of float16, which ends at 65504.
    """
    if dtype not in get_args(DType):
        raise UnknownNameError(
            f"no number format has the name {dtype!r}; expected one of {', '.join(get_args(DType))}"
        )
    target = bfloat16() if dtype == "bfloat16" else np.dtype(dtype)
    old_dtypes = {array.dtype.name for array in checkpoint.tensors.values()}
    if old_dtypes == {dtype}:
        return checkpoint
    tensors = {name: round_to(name, array, target) for name, array in checkpoint.tensors.items()}
    step = HistoryStep(
        operation="dtype",
        base_model=checkpoint.metadata.origin,
        before=" and ".join(sorted(old_dtypes)),
        after=dtype,
    )
    metadata = checkpoint.metadata.changed(step)
    conversion = add_operation(checkpoint.conversion, tensors, f"rounded to {dtype}")
    return dataclasses.replace(
        checkpoint, tensors=tensors, metadata=metadata, conversion=conversion
    )
