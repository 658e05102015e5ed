"""Convert YUV 4:2:0 to RGB on a device, with the same result as FFmpeg's swscale on x86.

swscale computes in 16-bit integers and drops the fraction of every product (libswscale/x86,
yuv_2_rgb.asm; the coefficients are those of ISO/IEC 23091-2). Each chroma sample stands for a
square of four pixels. The result is the same in every bit there; on ARM, swscale may differ by 3 of
255.
"""

from typing import Final

import torch
from torch import Tensor

# of V in R, U in B, U in G, V in G: in 1/65536
_MATRICES: Final = {
    "bt601": (104597, 132201, -25675, -53279),
    "bt709": (117489, 138438, -13975, -34925),
}


def yuv_to_rgb(planes: Tensor, colours: str) -> Tensor:
    """Convert frames to RGB.

    Args:
        planes: uint8 [n, H * 3 / 2, W]: the planes Y, U and V of each frame, one after the other;
            U and V have half the height and half the width.
        colours: `bt601` or `bt709`, of limited range; or `bt601-full` or `bt709-full`.

    Returns:
        uint8 [n, H, W, 3], on the device of `planes`.
    """
    count, rows, width = planes.shape
    height = rows * 2 // 3
    matrix, _, full = colours.partition("-")
    flat = planes.reshape(count, -1)
    luma = flat[:, : height * width].reshape(count, height, width).int()
    chroma = flat[:, height * width :].reshape(count, 2, height // 2, width // 2).int()
    chroma = (chroma - 128) * 8
    scaled = [int(c * 224 / 255) if full else c for c in _MATRICES[matrix]]
    red_v, blue_u, green_u, green_v = (_rounded(value) for value in scaled)
    gain = _rounded(1 << 16 if full else (1 << 16) * 255 // 219)
    y = ((luma * 8 - (0 if full else 128)) * gain) >> 16
    u, v = chroma[:, 0], chroma[:, 1]
    parts = (
        (v * red_v) >> 16,
        ((u * green_u) >> 16) + ((v * green_v) >> 16),
        (u * blue_u) >> 16,
    )
    colour = torch.stack(parts, dim=-1)
    colour = colour.repeat_interleave(2, 1).repeat_interleave(2, 2)
    return (y[..., None] + colour).clamp_(0, 255).to(torch.uint8)


def _rounded(value: int) -> int:
    """Return a coefficient in 1/8192, as swscale rounds it."""
    return (value * (1 << 13) + (1 << 15)) >> 16
