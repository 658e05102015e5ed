"""Turn frames into the input of the network, by the steps of a protocol."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from i3dzoo.errors import ShapeError
from i3dzoo.fvd.protocol import EDGE, CentreCrop, Kernel, Protocol, Round, ShortSide, Squash
from i3dzoo.fvd.resize import resize_tf1
from i3dzoo.limits import MAX_PIXELS


def to_input(frames: Tensor, protocol: Protocol) -> Tensor:
    """Return frames [..., 3, H, W] in 0..255 as input of the network, float32 [..., 3, 224, 224].

    Raises:
        ShapeError: The steps do not lead to 224x224, or to too large a frame on the way.
    """
    values = frames.to(torch.float32)
    for step in protocol.steps:
        if isinstance(step, Squash):
            values = _resize(values, (step.edge, step.edge), step.kernel)
        elif isinstance(step, ShortSide):
            values = _resize(values, _short_side(values, step.edge), step.kernel)
        elif isinstance(step, CentreCrop):
            values = _crop(values, step.edge)
        else:
            values = values.round() if isinstance(step, Round) else values.trunc()
    if values.shape[-2:] != (EDGE, EDGE):
        raise ShapeError(
            f"the steps of the protocol make frames of {values.shape[-1]}x{values.shape[-2]} "
            f"pixels; expected {EDGE}x{EDGE}: add a step squash or centre-crop with edge = {EDGE}"
        )
    return values * 2 / 255 - 1


def _short_side(frames: Tensor, edge: int) -> tuple[int, int]:
    """Return the size at which the short side is `edge`, computed in floats as the tools do."""
    height, width = frames.shape[-2:]
    scale = edge / min(height, width)
    if height < width:
        return edge, math.ceil(width * scale)
    return math.ceil(height * scale), edge


def _resize(frames: Tensor, size: tuple[int, int], kernel: Kernel) -> Tensor:
    if size[0] * size[1] > MAX_PIXELS:
        held = f"{frames.shape[-1]}x{frames.shape[-2]}"
        raise ShapeError(
            f"frames of {held} pixels would become {size[1]:,}x{size[0]:,}; expected at most "
            f"{MAX_PIXELS:,} pixels: crop them first"
        )
    if kernel == "tf1":
        return resize_tf1(frames, size)
    flat = frames.reshape(-1, *frames.shape[-3:])
    resized = F.interpolate(
        flat, size, mode="bilinear", align_corners=False, antialias=kernel == "antialias"
    )
    return resized.reshape(*frames.shape[:-2], *size)


def _crop(frames: Tensor, edge: int) -> Tensor:
    height, width = frames.shape[-2:]
    if min(height, width) < edge:
        raise ShapeError(
            f"frames of {width}x{height} pixels are smaller than the protocol's crop of {edge}; "
            "resize them before the crop"
        )
    top, left = (height - edge) // 2, (width - edge) // 2
    return frames[..., top : top + edge, left : left + edge]
