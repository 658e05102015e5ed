"""Resize frames with TensorFlow 1's bilinear interpolation."""

import torch
from torch import Tensor


def resize_tf1(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize float32 [..., H, W] to [..., height, width] as `tf.compat.v1.image.resize_bilinear`.

    Output pixel i lies at i * (in / out) of the input, so the corners at the top left coincide and
    pixel centres do not (`half_pixel_centers=False`, `align_corners=False`). There is no
    antialiasing. The operations and their order are those of TensorFlow's
    core/kernels/image/resize_bilinear_op.cc, in float32.
    """
    if size == tuple(frames.shape[-2:]):
        return frames
    top, bottom, down = _weights(frames.shape[-2], size[0], frames.device)
    left, right, across = _weights(frames.shape[-1], size[1], frames.device)
    columns = frames[..., left] + (frames[..., right] - frames[..., left]) * across
    upper, lower = columns[..., top, :], columns[..., bottom, :]
    return upper + (lower - upper) * down[:, None]


def _weights(held: int, wanted: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return the lower and the upper source index of each output, and the weight of the upper."""
    scale = torch.tensor(held, dtype=torch.float32) / wanted
    places = torch.arange(wanted, dtype=torch.float32) * scale
    lower = places.floor()
    indices = lower.long().clamp(max=held - 1)
    above = places.ceil().long().clamp(max=held - 1)
    return indices.to(device), above.to(device), (places - lower).to(device)
