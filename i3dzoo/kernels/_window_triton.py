"""The Triton kernel of `i3dzoo.kernels.window_conv`; importing this module needs Triton."""

import triton
import triton.language as tl


@triton.jit
def windows(
    x, y,
    time, height, width, groups, frames, pairs,
    stride_n, stride_c, stride_t, stride_h, stride_w,
    before_t, before_h, before_w,
    CHANNELS: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    """Write windows [N, frames, pairs, groups, 2, 32]; what lies outside of the clip is 0."""
    pid = tl.program_id(0).to(tl.int64)
    pair, rest = pid % pairs, pid // pairs
    t, n = rest % frames - before_t, rest // frames
    group = tl.program_id(1) * GROUPS + tl.arange(0, GROUPS)
    lane = tl.arange(0, 64)
    h = 2 * pair + lane // 32 - before_h
    pixel = lane % 32 // CHANNELS
    w = 4 * group[:, None] - before_w + pixel[None, :]
    inside = (t >= 0) & (t < time) & (h >= 0) & (h < height) & (pixel < 9)
    inside = inside[None, :] & (w >= 0) & (w < width)
    line = x + n * stride_n + t * stride_t
    line = line + (h * stride_h + lane % 32 % CHANNELS * stride_c)[None, :]
    value = tl.load(line + w * stride_w, mask=inside, other=0.0)
    out = y + pid * groups * 64 + group[:, None] * 64 + lane[None, :]
    tl.store(out, value.to(y.dtype.element_ty), mask=(group < groups)[:, None])
