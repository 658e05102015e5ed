"""Surgery on the trunk: another stream, another number format; a checkpoint in, a checkpoint out.

The head has a file of its own, head.py.
"""

import dataclasses
from typing import Any, Literal, get_args

import numpy as np

from i3dzoo.architecture import STEM
from i3dzoo.arrays import Array, bfloat16
from i3dzoo.checkpoint import Checkpoint
from i3dzoo.convert import continued
from i3dzoo.errors import FormatError, ShapeError, UnknownNameError
from i3dzoo.metadata import Input, Metadata, Stream, default_input

__all__ = ["DType", "average_channels", "change_dtype", "change_stream"]

DType = Literal["float16", "bfloat16", "float32"]

_STEM = f"{STEM[0].name}.conv.weight"


def average_channels(weight: Array, channels: int) -> Array:
    """Return a convolution's weight for another number of input channels.

    Every new channel has the mean over the old ones, times old / new: the kernels that Wang et
    al. start their flow networks from ("Temporal Segment Networks", arXiv:1608.00859, section 3.2,
    cross modality pre-training: the weights are averaged across the RGB channels and repeated for
    each channel of flow), rescaled as Carreira and Zisserman rescale what they repeat
    (arXiv:1705.07750, section 2.4). An input whose channels are all alike then gives the response
    that it gave before, which is what the BatchNorm statistics after it were measured on.

    Args:
        weight: [O, I, T, H, W], of any float dtype, which is kept.
        channels: New I.
    """
    old = weight.shape[1]
    mean = weight.mean(axis=1, keepdims=True, dtype="f8") * (old / channels)
    result: Array = np.repeat(mean, channels, axis=1).astype(weight.dtype)
    return result


def change_stream(checkpoint: Checkpoint, in_channels: int) -> Checkpoint:
    """Return a checkpoint for the other stream: RGB to flow, or flow to RGB.

    Only the first convolution changes (see `average_channels`). Values, channel order and flow
    bound of the input become the published ones of the new stream; size, frames and rate stay.

    Args:
        checkpoint: What to change.
        in_channels: 3 for RGB, 2 for flow; the one that it has already changes nothing.

    Raises:
        ShapeError: It is neither 2 nor 3.
    """
    if in_channels not in (2, 3):
        raise ShapeError(f"in_channels is {in_channels}; expected 3 (RGB) or 2 (flow)")
    old = checkpoint.metadata
    stream: Stream = "rgb" if in_channels == 3 else "flow"
    if stream == old.stream:
        return checkpoint
    before = checkpoint.tensors[_STEM]
    tensors = {**checkpoint.tensors, _STEM: average_channels(before, in_channels)}
    step = (
        f"{old.stream} to {stream}: first kernels averaged over {before.shape[1]} channels, "
        f"repeated for {in_channels}, times {before.shape[1]}/{in_channels}"
    )
    metadata = _changed(old, step, stream=stream, input=_input(old.input, stream))
    conversion = continued(checkpoint.conversion, tensors, "averaged over its channels")
    return dataclasses.replace(
        checkpoint, tensors=tensors, metadata=metadata, conversion=conversion
    )


def change_dtype(checkpoint: Checkpoint, dtype: DType) -> Checkpoint:
    """Return a checkpoint whose tensors are of another float format, rounded to nearest even.

    Args:
        checkpoint: What to change.
        dtype: The one that it has already changes nothing.

    Raises:
        UnknownNameError: It is none of the three.
        FormatError: A value lies beyond the range of float16, which ends at 65504.
    """
    if dtype not in get_args(DType):
        raise UnknownNameError(
            f"no number format is called {dtype!r}; there are {', '.join(get_args(DType))}"
        )
    target = bfloat16() if dtype == "bfloat16" else np.dtype(dtype)
    found = {array.dtype.name for array in checkpoint.tensors.values()}
    if found == {dtype}:
        return checkpoint
    tensors = {name: _cast(name, array, target) for name, array in checkpoint.tensors.items()}
    step = f"{', '.join(sorted(found))} to {dtype}"
    metadata = _changed(checkpoint.metadata, step)
    conversion = continued(checkpoint.conversion, tensors, f"rounded to {dtype}")
    return dataclasses.replace(
        checkpoint, tensors=tensors, metadata=metadata, conversion=conversion
    )


def _cast(name: str, array: Array, dtype: np.dtype[Any]) -> Array:
    with np.errstate(over="ignore"):  # what overflows is found below, and named
        cast: Array = array.astype(dtype)
    if not np.isfinite(np.sum(cast, dtype="f8")):
        largest = float(np.abs(array.astype("f4")).max())
        raise FormatError(
            f"{name}: holds {largest:g}, beyond the range of {dtype.name}; use bfloat16, which has "
            "the range of float32"
        )
    return cast


def _input(old: Input, stream: Stream) -> Input:
    return dataclasses.replace(
        default_input(stream), resize=old.resize, crop=old.crop, frames=old.frames, fps=old.fps
    )


def _changed(old: Metadata, step: str, **fields: Any) -> Metadata:
    """Return metadata of what is no published checkpoint any more, but is made from one."""
    base = old.zoo or old.base
    history = (*old.history, step + (f", of {base}" if base else ""))
    return dataclasses.replace(old, zoo=None, base=base, history=history, **fields)
