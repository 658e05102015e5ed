"""The Triton kernels of `i3dzoo.kernels.max_pool`; importing this module needs Triton.

Tensors are dense in the order [B, T, H, W, C]. A program computes `COLUMNS` positions of one row
(b, t, h) and `LANES` channels.
"""

import triton
import triton.language as tl


@triton.jit
def max_pool_forward(
    x, y, taps,
    time, height, width, channels,
    out_time, out_height, out_width,
    before_t, before_h, before_w,
    KT: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    KEEP: tl.constexpr, COLUMNS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Write the maximum of each window and, if KEEP, its position in the window."""
    row = tl.program_id(0).to(tl.int64)  # a batch may have more than 2**31 values
    h_out, rest = row % out_height, row // out_height
    t_out, b = rest % out_time, rest // out_time
    w_out = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    c = tl.program_id(2) * LANES + tl.arange(0, LANES)
    best = tl.full([COLUMNS, LANES], float("-inf"), tl.float32)
    which = tl.zeros([COLUMNS, LANES], tl.int32)
    for kt in tl.static_range(KT):
        t = t_out * ST - before_t + kt
        for kh in tl.static_range(KH):
            h = h_out * SH - before_h + kh
            inside = (t >= 0) & (t < time) & (h >= 0) & (h < height)
            line = x + ((b * time + t) * height + h) * width * channels
            for kw in tl.static_range(KW):
                w = w_out * SW - before_w + kw
                seen = inside & (w >= 0) & (w < width)
                value = tl.load(
                    line + w[:, None] * channels + c[None, :],
                    mask=seen[:, None] & (c < channels)[None, :],
                    other=float("-inf"),
                ).to(tl.float32)
                larger = (value > best) | (value != value)
                best = tl.where(larger, value, best)
                which = tl.where(larger, (kt * KH + kh) * KW + kw, which)
    at = (row * out_width + w_out)[:, None] * channels + c[None, :]
    kept = (w_out < out_width)[:, None] & (c < channels)[None, :]
    tl.store(y + at, best.to(y.dtype.element_ty), mask=kept)
    if KEEP:
        tl.store(taps + at, which.to(tl.uint8), mask=kept)


@triton.jit
def max_pool_backward(
    grad, taps, grad_x,
    time, height, width, channels,
    out_time, out_height, out_width,
    before_t, before_h, before_w,
    KT: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    COLUMNS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Gather for each input the gradients of the windows whose maximum it is."""
    row = tl.program_id(0).to(tl.int64)
    h, rest = row % height, row // height
    t, b = rest % time, rest // time
    w = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    c = tl.program_id(2) * LANES + tl.arange(0, LANES)
    total = tl.zeros([COLUMNS, LANES], tl.float32)
    for kt in tl.static_range(KT):
        t_far = t + before_t - kt
        t_out = t_far // ST
        for kh in tl.static_range(KH):
            h_far = h + before_h - kh
            h_out = h_far // SH
            inside = (t_far >= 0) & (t_far % ST == 0) & (t_out < out_time)
            inside = inside & (h_far >= 0) & (h_far % SH == 0) & (h_out < out_height)
            line = ((b * out_time + t_out) * out_height + h_out) * out_width * channels
            for kw in tl.static_range(KW):
                w_far = w + before_w - kw
                w_out = w_far // SW
                seen = inside & (w_far >= 0) & (w_far % SW == 0) & (w_out < out_width)
                at = line + w_out[:, None] * channels + c[None, :]
                valid = seen[:, None] & (c < channels)[None, :]
                tap = tl.load(taps + at, mask=valid, other=255)
                valid = valid & (tap == (kt * KH + kh) * KW + kw)
                total += tl.load(grad + at, mask=valid, other=0.0).to(tl.float32)
    at = (row * width + w)[:, None] * channels + c[None, :]
    kept = (w < width)[:, None] & (c < channels)[None, :]
    tl.store(grad_x + at, total.to(grad_x.dtype.element_ty), mask=kept)
