"""Check a clip before the network runs on it, and say what to pass instead of a wrong one."""

from typing import Final

import torch
from torch import Tensor

from i3dzoo.errors import InputTypeError, ShapeError

_LARGEST: Final = 16.0
"""Larger than any normalised pixel, and smaller than the brightest of almost any clip in 0..255."""

_PREPROCESS: Final = "pass uint8 [T, H, W, C] to model.preprocess, and its result as clip[None]"


def as_input(x: Tensor, channels: int, min_frames: int, weight: Tensor, training: bool) -> Tensor:
    """Return a clip on the device of the network's weights, and in their type.

    Under autocast, PyTorch chooses the type. The values of a clip are checked in eval mode only,
    because a GPU has to be waited for.

    Args:
        x: Float [B, C, T, H, W].
        channels: C: 3 for RGB, 2 for flow.
        min_frames: The smallest T.
        weight: A weight of the network.
        training: Whether the network is in training mode.

    Raises:
        InputTypeError: It is not a tensor, or a tensor of integers.
        ShapeError: It has other axes or channels, is too short, or its values are not normalised.
    """
    if not isinstance(x, Tensor):
        raise InputTypeError(
            f"the input is a {type(x).__module__}.{type(x).__qualname__}; expected a torch.Tensor: "
            f"{_PREPROCESS}, or use torch.from_numpy"
        )
    if not x.is_floating_point():
        raise InputTypeError(
            f"the input is {x.dtype}; expected a float clip [B, {channels}, T, H, W] with "
            f"normalised values: {_PREPROCESS}"
        )
    check_shape(tuple(x.shape), channels, min_frames)
    if not training and _has_values(x) and x.numel():
        low, high = (float(value) for value in torch.aminmax(x.detach()))
        if max(-low, high) > _LARGEST:
            raise ShapeError(
                f"the input has values from {low:.4g} to {high:.4g}; expected normalised ones, "
                f"about -1 to 1: {_PREPROCESS}"
            )
    device = weight.device.type
    autocast = device != "meta" and torch.is_autocast_enabled(device) and x.dtype != torch.float64
    return x.to(weight.device, x.dtype if autocast else weight.dtype)


def check_shape(shape: tuple[int, ...], channels: int, min_frames: int) -> None:
    """Check the shape of a clip; see `as_input`."""
    if len(shape) != 5 or shape[1] != channels:
        raise ShapeError(
            f"the input has shape {shape}; expected [B, {channels}, T, H, W]"
            f"{_remedy(shape, channels)}"
        )
    if shape[2] < min_frames:
        raise ShapeError(
            f"the clip has {shape[2]} frames; I3D takes {min_frames} or more: repeat them"
        )


def _remedy(shape: tuple[int, ...], channels: int) -> str:
    """Return what to do if the axes are those of a common layout."""
    if len(shape) == 4 and shape[0] == channels:
        return ": add the batch axis with clip[None]"
    if len(shape) == 4 and shape[3] == channels:
        return f": {_PREPROCESS}"
    if len(shape) != 5:
        return ""
    if shape[4] == channels:
        return ": it looks like [B, T, H, W, C], so pass clips.permute(0, 4, 1, 2, 3)"
    if shape[2] == channels:
        return ": it looks like [B, T, C, H, W], so pass clips.transpose(1, 2)"
    kinds = {3: "RGB", 2: "optical flow"}
    if shape[1] in kinds:
        return f": the network takes {kinds[channels]}, and this is {kinds[shape[1]]}"
    return ""


def _has_values(x: Tensor) -> bool:
    """Whether values can be looked at now: not while PyTorch traces, compiles or captures."""
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call] # a public function
    if x.is_meta or tracing or torch.compiler.is_compiling():
        return False
    return not (x.is_cuda and torch.cuda.is_current_stream_capturing())
