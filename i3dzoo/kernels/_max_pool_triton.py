"""The Triton kernels of `i3dzoo.kernels.max_pool`; importing this module needs Triton.

Tensors are dense in the order [B, T, H, W, C]. A program computes `COLUMNS` positions of a row and
`LANES` channels.
"""

import triton
import triton.language as tl


@triton.jit
def _plane_maximum(
    line, t, h, w, c, scale, shift,
    time, height, width, channels,
    KH: tl.constexpr, KW: tl.constexpr, NORMALISE: tl.constexpr,
):  # fmt: skip
    """Return the maximum over KH x KW positions from (h, w) of step t, and which of them it is.

    With NORMALISE, inputs are scaled, shifted and rectified first, and the input is returned, too.
    """
    raw = tl.full([w.shape[0], c.shape[0]], float("-inf"), line.dtype.element_ty)
    best = raw.to(scale.dtype) if NORMALISE else raw
    which = tl.zeros([w.shape[0], c.shape[0]], tl.int32)
    for kh in tl.static_range(KH):
        row = h + kh
        inside = (t >= 0) & (t < time) & (row >= 0) & (row < height)
        at = line + (t * height + row).to(tl.int64) * width * channels
        for kw in tl.static_range(KW):
            valid = inside & (w + kw >= 0) & (w + kw < width)
            value = tl.load(
                at + (w + kw)[:, None] * channels + c[None, :],
                mask=valid[:, None] & (c < channels)[None, :],
                other=0.0 if NORMALISE else float("-inf"),
            )
            normalised = value
            if NORMALISE:
                normalised = value.to(scale.dtype) * scale[None, :] + shift[None, :]
                normalised = tl.where(valid[:, None], normalised, float("-inf"))
            larger = normalised > best
            which = tl.where(larger, kh * KW + kw, which)
            if NORMALISE:
                raw = tl.where(larger, value, raw)
            best = tl.maximum(best, normalised, propagate_nan=tl.PropagateNan.ALL)
    return best, which, raw


@triton.jit
def _larger(first, second):
    """Return the larger of two results of `_plane_maximum`; the first if they are equal."""
    best, which, raw = first
    other, other_which, other_raw = second
    is_larger = other > best
    return (
        tl.maximum(best, other, propagate_nan=tl.PropagateNan.ALL),
        tl.where(is_larger, other_which, which),
        tl.where(is_larger, other_raw, raw),
    )


@triton.jit
def max_pool_forward(
    x, y, taps, inputs, stats,
    time, height, width, channels,
    out_time, out_height, out_width,
    before_t, before_h, before_w, chunks,
    KT: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    KEEP: tl.constexpr, NORMALISE: tl.constexpr,
    CHUNK: tl.constexpr, COLUMNS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Write the maximum of each window and, if KEEP, its position in the window.

    With NORMALISE, inputs are normalised by `stats` and rectified; `inputs` gets them as they were
    where the maxima are. A program computes CHUNK steps of one row: with stride 1 along T, it takes
    the maximum over each step once, for the three outputs that see it.
    """
    row = tl.program_id(0).to(tl.int64)  # a batch may have more than 2**31 values
    h_out, rest = row % out_height, row // out_height
    first, b = (rest % chunks) * CHUNK, rest // chunks
    w_out = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    c = tl.program_id(2) * LANES + tl.arange(0, LANES)
    h, w = h_out * SH - before_h, w_out * SW - before_w
    line = x + b * time * height * width * channels
    size = (time, height, width, channels)
    kept = (w_out < out_width)[:, None] & (c < channels)[None, :]
    at = (b * out_time + first) * out_height + h_out
    at = at * out_width * channels + w_out[:, None] * channels + c[None, :]
    scale, shift = c, c
    if NORMALISE:
        scale = tl.load(stats + 2 * channels + c, mask=c < channels, other=0.0)
        shift = tl.load(stats + 3 * channels + c, mask=c < channels, other=0.0)
    ROLLING: tl.constexpr = KT == 3 and ST == 1 and not NORMALISE
    if ROLLING:
        t = first - before_t
        before, before_which, _raw = _plane_maximum(
            line, t, h, w, c, scale, shift, *size, KH, KW, False
        )
        now, now_which, _raw = _plane_maximum(
            line, t + 1, h, w, c, scale, shift, *size, KH, KW, False
        )
        for number in range(CHUNK):
            after, after_which, _after_raw = _plane_maximum(
                line, t + number + 2, h, w, c, scale, shift, *size, KH, KW, False
            )
            best, which, _first_raw = _larger(
                (before, before_which, before), (now, KH * KW + now_which, now)
            )
            best, which, _second_raw = _larger(
                (best, which, best), (after, 2 * KH * KW + after_which, after)
            )
            inside = kept & (first + number < out_time)
            tl.store(y + at, best.to(y.dtype.element_ty), mask=inside)
            if KEEP:
                tl.store(taps + at, which.to(tl.uint8), mask=inside)
            at += out_height * out_width * channels
            before, before_which = now, now_which
            now, now_which = after, after_which
    else:
        for number in range(CHUNK):
            t = (first + number) * ST - before_t
            best, which, raw = _plane_maximum(
                line, t, h, w, c, scale, shift, *size, KH, KW, NORMALISE
            )
            for kt in tl.static_range(1, KT):
                other, other_which, other_raw = _plane_maximum(
                    line, t + kt, h, w, c, scale, shift, *size, KH, KW, NORMALISE
                )
                best, which, raw = _larger(
                    (best, which, raw), (other, kt * KH * KW + other_which, other_raw)
                )
            if NORMALISE:
                best = tl.maximum(best, 0.0, propagate_nan=tl.PropagateNan.ALL)
            inside = kept & (first + number < out_time)
            tl.store(y + at, best.to(y.dtype.element_ty), mask=inside)
            if KEEP:
                tl.store(taps + at, which.to(tl.uint8), mask=inside)
            if NORMALISE:
                tl.store(inputs + at, raw, mask=inside)
            at += out_height * out_width * channels


@triton.jit
def max_pool_backward(
    grad, taps, grad_x, x, stats, factors,
    time, height, width, channels,
    out_time, out_height, out_width,
    before_t, before_h, before_w, cells_t, cells_h,
    KT: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    ADD: tl.constexpr, NORMALISE: tl.constexpr, ACC: tl.constexpr,
    COLUMNS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Gather for each input the gradients of the windows whose maximum it is.

    A program computes the inputs of a row of cells as large as the stride: cell i is seen by window
    i and those before it, and which of them see an input of the cell depends on its place in the
    cell. With ADD, the gradients are added to those in `grad_x`; with NORMALISE, they go on through
    the ReLU and the BatchNorm with `stats` and `factors` of the input `x`.
    """
    row = tl.program_id(0).to(tl.int64)
    cell_h, rest = row % cells_h, row // cells_h
    cell_t, b = rest % cells_t, rest // cells_t
    cell_w = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    c = tl.program_id(2) * LANES + tl.arange(0, LANES)
    is_channel = c < channels
    if NORMALISE:
        mean = tl.load(stats + c, mask=is_channel, other=0.0)
        scale = tl.load(stats + 2 * channels + c, mask=is_channel, other=0.0)
        shift = tl.load(stats + 3 * channels + c, mask=is_channel, other=0.0)
        constant = tl.load(factors + c, mask=is_channel, other=0.0)
        slope = tl.load(factors + channels + c, mask=is_channel, other=0.0)
    for pt in tl.static_range(ST):
        for ph in tl.static_range(SH):
            for pw in tl.static_range(SW):
                t, h = cell_t * ST + pt - before_t, cell_h * SH + ph - before_h
                w = cell_w * SW + pw - before_w
                total = tl.zeros([COLUMNS, LANES], ACC)
                for kt in tl.static_range(pt, KT, ST):
                    for kh in tl.static_range(ph, KH, SH):
                        t_out, h_out = cell_t - kt // ST, cell_h - kh // SH
                        inside = (t_out >= 0) & (t_out < out_time)
                        inside = inside & (h_out >= 0) & (h_out < out_height)
                        line = ((b * out_time + t_out) * out_height + h_out) * out_width
                        for kw in tl.static_range(pw, KW, SW):
                            w_out = cell_w - kw // SW
                            seen = inside & (w_out >= 0) & (w_out < out_width)
                            at = line * channels + w_out[:, None] * channels + c[None, :]
                            valid = seen[:, None] & is_channel[None, :]
                            tap = tl.load(taps + at, mask=valid, other=255)
                            # not masked by the tap, which would load one value at a time
                            value = tl.load(grad + at, mask=valid, other=0.0).to(ACC)
                            total += tl.where(tap == (kt * KH + kh) * KW + kw, value, 0.0)
                kept = (t >= 0) & (t < time) & (h >= 0) & (h < height) & (w >= 0) & (w < width)
                kept = kept[:, None] & is_channel[None, :]
                at = ((b * time + t) * height + h) * width * channels
                at = at + w[:, None] * channels + c[None, :]
                if ADD:
                    total += tl.load(grad_x + at, mask=kept, other=0.0).to(ACC)
                if NORMALISE:
                    value = tl.load(x + at, mask=kept, other=0.0).to(ACC)
                    is_positive = value * scale[None, :] + shift[None, :] > 0
                    total = tl.where(is_positive, total, 0.0) * scale[None, :]
                    total += (value - mean[None, :]) * slope[None, :] + constant[None, :]
                tl.store(grad_x + at, total.to(grad_x.dtype.element_ty), mask=kept)
