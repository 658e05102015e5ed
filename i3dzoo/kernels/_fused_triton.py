"""The Triton kernels of `i3dzoo.network.fused`; importing this module needs Triton.

Activations are dense in the order [N, T, H, W, C], in half precision, and sums are float32.

Tensors that are accessed in boxes come as descriptors of the host from Hopper on (DESCRIBED).
Before that, they come as tuples of a pointer, the shape, and the strides but for the last one; for
channels and strides, 8 numbers count as one. A kernel makes descriptors of them, which Triton turns
into pointers. It would do so with those of the host too, but without knowing the strides, and with
loads of single numbers.
"""

import triton
import triton.language as tl


@triton.jit
def _boxes(x, A: tl.constexpr, B: tl.constexpr, C: tl.constexpr, D: tl.constexpr, E: tl.constexpr,
           DESCRIBED: tl.constexpr):  # fmt: skip
    """Return the descriptor of a tensor of 5 axes, in boxes of A x B x C x D x E."""
    if DESCRIBED:
        boxes = x
    else:
        boxes = tl.make_tensor_descriptor(
            x[0],
            [x[1], x[2], x[3], x[4], x[5] * 8],
            [tl.cast(x[6], tl.int64) * 8, tl.cast(x[7], tl.int64) * 8, x[8] * 8, x[9] * 8, 1],
            [A, B, C, D, E],
        )
    return boxes


@triton.jit
def _matrix(x, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DESCRIBED: tl.constexpr):
    """Return the descriptor of a matrix, in boxes of ROWS x COLUMNS."""
    if DESCRIBED:
        boxes = x
    else:
        boxes = tl.make_tensor_descriptor(
            x[0],
            [x[1], x[2] * 8],
            [x[3] * 8, 1],
            [ROWS, COLUMNS],
        )
    return boxes


@triton.jit
def windows(
    x, y, scale, shift,
    time, height, width, groups, blocks,
    stride_n, stride_c, stride_t, stride_h, stride_w,
    before_w,
    CHANNELS: tl.constexpr, ROWS: tl.constexpr, GROUPS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Write for every pair of outputs along W the 9 pixels that they see, as 32 numbers.

    What lies outside of the frame is 0. `y` is [N, T, H, groups, 32], of which 9 * CHANNELS numbers
    are used. A program writes ROWS rows of a frame. PIXELS p become `p * scale + shift`, with two
    numbers for each channel.
    """
    pid = tl.program_id(0).to(tl.int64)  # of [N, T, blocks of rows]
    block, frame = pid % blocks, pid // blocks
    t, n = frame % time, frame // time
    group = tl.program_id(1) * GROUPS + tl.arange(0, GROUPS)
    lane = tl.arange(0, 32)
    c = lane % CHANNELS
    used = lane < 9 * CHANNELS
    w = 4 * group[:, None] - before_w + (lane // CHANNELS)[None, :]
    inside = (w >= 0) & (w < width) & used[None, :]
    kept = (group < groups)[:, None]
    if PIXELS:
        factor = tl.load(scale + c)[None, :]
        summand = tl.load(shift + c)[None, :]
    first = block * ROWS
    line = x + n * stride_n + t * stride_t + first * stride_h
    line += (c * stride_c)[None, :] + w * stride_w
    out = y + (frame * height + first) * groups * 32 + group[:, None] * 32 + lane[None, :]
    for row in range(ROWS):
        is_row = first + row < height
        if PIXELS:
            pixel = tl.load(line, mask=inside & is_row, other=0)
            value = tl.where(inside, pixel.to(tl.float32) * factor + summand, 0.0)
        else:
            value = tl.load(line, mask=inside & is_row, other=0.0)
        tl.store(out, value.to(y.dtype.element_ty), mask=kept & is_row)
        line += stride_h
        out += groups * 32


@triton.jit
def _taps(
    total, x, weight, first, n, t, h, w,
    times, TAPS: tl.constexpr, ROWS: tl.constexpr, FLIP: tl.constexpr,
):  # fmt: skip
    """Add the products of times x TAPS neighbouring taps, whose weights begin at `first`."""
    for tap in range(times * TAPS):
        a = tl.reshape(x.load([n, t + tap // TAPS, h + tap % TAPS, w, 0]), [ROWS, 32])
        if FLIP:
            total = tl.dot(weight.load([0, first + tap * 32]), a.T, total)
        else:
            total = tl.dot(a, weight.load([first + tap * 32, 0]), total)
    return total


# The length of a loop must not be known when a kernel is compiled: with three stages, the code of
# Triton 3.6 for a loop of 27 steps reads tiles before they have arrived.
@triton.jit(do_not_specialize=["times0", "times1"])
def stem(
    x00, x01, x10, x11, weight, bias, y,
    tiles_t, tiles_h, tiles_w,
    times0, times1, H0: tl.constexpr, H1: tl.constexpr,
    FIRST_T0: tl.constexpr, FIRST_T1: tl.constexpr,
    FIRST_H0: tl.constexpr, FIRST_H1: tl.constexpr, HALF: tl.constexpr,
    BT: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr,
    FLIP: tl.constexpr, DESCRIBED: tl.constexpr,
):  # fmt: skip
    """Convolve windows [N, T, H, groups, 32] with 7x7x7 and stride 2; two outputs of 64 channels.

    The boxes `xij` have every second step from i and every second row from j. The taps that read
    it are neighbours there: times0 and times1 along T, H0 and H1 along H, from FIRST_... on.
    `weight` is [49 * 32, 128] with the taps in this order, or [128, 49 * 32] with FLIP, which makes
    the weights the first factor; `y` is [N, T', H', groups, 128].
    """
    x00 = _boxes(x00, 1, BT, BH, BW, 32, DESCRIBED)
    x01 = _boxes(x01, 1, BT, BH, BW, 32, DESCRIBED)
    x10 = _boxes(x10, 1, BT, BH, BW, 32, DESCRIBED)
    x11 = _boxes(x11, 1, BT, BH, BW, 32, DESCRIBED)
    y = _boxes(y, 1, BT, BH, BW, 128, DESCRIBED)
    if FLIP:
        weight = _matrix(weight, 128, 32, DESCRIBED)
    else:
        weight = _matrix(weight, 32, 128, DESCRIBED)
    pid = tl.program_id(0)
    w0 = (pid % tiles_w) * BW
    pid = pid // tiles_w
    out_h = (pid % tiles_h) * BH
    pid = pid // tiles_h
    out_t = (pid % tiles_t) * BT
    n = pid // tiles_t
    ROWS: tl.constexpr = BT * BH * BW
    if FLIP:
        total = tl.zeros([128, ROWS], tl.float32)
    else:
        total = tl.zeros([ROWS, 128], tl.float32)
    t0, t1 = out_t + FIRST_T0, out_t + FIRST_T1
    h0, h1 = out_h + FIRST_H0, out_h + FIRST_H1
    total = _taps(total, x00, weight, 0, n, t0, h0, w0, times0, H0, ROWS, FLIP)
    first = times0 * H0 * 32
    total = _taps(total, x01, weight, first, n, t0, h1, w0, times0, H1, ROWS, FLIP)
    first += times0 * H1 * 32
    total = _taps(total, x10, weight, first, n, t1, h0, w0, times1, H0, ROWS, FLIP)
    first += times1 * H0 * 32
    total = _taps(total, x11, weight, first, n, t1, h1, w0, times1, H1, ROWS, FLIP)
    if FLIP:
        total = total.T
    total = tl.maximum(total + tl.load(bias + tl.arange(0, 128) % 64)[None, :], 0.0)
    y.store([n, out_t, out_h, w0, 0], tl.reshape(total.to(HALF), [1, BT, BH, BW, 128]))


@triton.jit
def _plane_maximum(
    line, t, h, w, c,
    time, height, width, channels, pitch,
    KH: tl.constexpr, KW: tl.constexpr,
):  # fmt: skip
    """Return the maximum over KH x KW positions from (h, w) of step t; 0 outside of the input."""
    best = tl.zeros([w.shape[0], c.shape[0]], line.dtype.element_ty)
    for kh in tl.static_range(KH):
        row = h + kh
        inside = (t >= 0) & (t < time) & (row >= 0) & (row < height)
        at = line + (t * height + row).to(tl.int64) * pitch * channels
        for kw in tl.static_range(KW):
            valid = inside & (w + kw >= 0) & (w + kw < width)
            value = tl.load(
                at + (w + kw)[:, None] * channels + c[None, :],
                mask=valid[:, None] & (c < channels)[None, :],
                other=0.0,
            )
            best = tl.maximum(best, value, propagate_nan=tl.PropagateNan.ALL)
    return best


@triton.jit
def pool(
    x, y,
    time, height, width, channels, pitch,
    out_time, out_height, out_width,
    before_t, before_h, before_w, chunks,
    KT: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    CHUNK: tl.constexpr, COLUMNS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Max-pool activations after a ReLU, which are not negative.

    A program computes CHUNK steps of one row. With stride 1 along T, it takes the maximum over each
    step once, for the three outputs that see it. `pitch` is the width of `x` in memory.
    """
    row = tl.program_id(0)
    h_out, rest = row % out_height, row // out_height
    chunk, n = rest % chunks, rest // chunks
    w_out = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    c = tl.program_id(2) * LANES + tl.arange(0, LANES)
    h, w = h_out * SH - before_h, w_out * SW - before_w
    line = x + n.to(tl.int64) * time * height * pitch * channels
    out = y + (n.to(tl.int64) * out_time * out_height + h_out) * out_width * channels
    at = w_out[:, None] * channels + c[None, :]
    kept = (w_out < out_width)[:, None] & (c < channels)[None, :]
    first = chunk * CHUNK
    size = (time, height, width, channels, pitch)
    if KT == 3 and ST == 1:
        before = _plane_maximum(line, first - 1, h, w, c, *size, KH, KW)
        now = _plane_maximum(line, first, h, w, c, *size, KH, KW)
        for number in range(CHUNK):
            t = first + number
            after = _plane_maximum(line, t + 1, h, w, c, *size, KH, KW)
            best = tl.maximum(before, now, propagate_nan=tl.PropagateNan.ALL)
            best = tl.maximum(best, after, propagate_nan=tl.PropagateNan.ALL)
            step = out + t.to(tl.int64) * out_height * out_width * channels
            tl.store(step + at, best, mask=kept & (t < out_time))
            before = now
            now = after
    else:
        for number in range(CHUNK):
            t = first + number
            best = _plane_maximum(line, t * ST - before_t, h, w, c, *size, KH, KW)
            for kt in tl.static_range(1, KT):
                other = _plane_maximum(line, t * ST - before_t + kt, h, w, c, *size, KH, KW)
                best = tl.maximum(best, other, propagate_nan=tl.PropagateNan.ALL)
            step = out + t.to(tl.int64) * out_height * out_width * channels
            tl.store(step + at, best, mask=kept & (t < out_time))


@triton.jit(do_not_specialize=["blocks"])  # see `stem`
def conv(
    x, weight, bias, y, z,
    tiles_t, tiles_h, tiles_w, tiles_c, blocks, split,
    TAPS: tl.constexpr, HALF: tl.constexpr,
    BN: tl.constexpr, BT: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr,
    COLUMNS: tl.constexpr, DEPTH: tl.constexpr, FLIP: tl.constexpr, DESCRIBED: tl.constexpr,
):  # fmt: skip
    """Convolve with 3x3x3 (27 taps) or 1x1x1 (1 tap), stride 1 and SAME padding; add bias; ReLU.

    `x`, `y` and `z` are [N, T, H, W, C]. What a box reads outside is 0, and what it writes there is
    dropped. `weight` is [TAPS * blocks * DEPTH, columns], or transposed with FLIP, which makes the
    weights the first factor of the product. Columns before `split` go to `y`, the others to `z`.
    """
    x = _boxes(x, BN, BT, BH, BW, DEPTH, DESCRIBED)
    y = _boxes(y, BN, BT, BH, BW, COLUMNS, DESCRIBED)
    z = _boxes(z, BN, BT, BH, BW, COLUMNS, DESCRIBED)
    if FLIP:
        weight = _matrix(weight, COLUMNS, DEPTH, DESCRIBED)
    else:
        weight = _matrix(weight, DEPTH, COLUMNS, DESCRIBED)
    pid = tl.program_id(0)
    first = (pid % tiles_c) * COLUMNS  # neighbouring programs read the same positions
    pid = pid // tiles_c
    w0 = (pid % tiles_w) * BW
    pid = pid // tiles_w
    h0 = (pid % tiles_h) * BH
    pid = pid // tiles_h
    t0 = (pid % tiles_t) * BT
    n = pid // tiles_t * BN
    ROWS: tl.constexpr = BN * BT * BH * BW
    if FLIP:
        total = tl.zeros([COLUMNS, ROWS], tl.float32)
    else:
        total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for step in range(TAPS * blocks):
        tap = step // blocks
        c = (step % blocks) * DEPTH
        if TAPS == 27:
            box = [n, t0 + tap // 9 - 1, h0 + tap // 3 % 3 - 1, w0 + tap % 3 - 1, c]
            a = x.load(box)
        else:
            a = x.load([n, t0, h0, w0, c])
        a = tl.reshape(a, [ROWS, DEPTH])
        if FLIP:
            total = tl.dot(weight.load([first, step * DEPTH]), a.T, total)
        else:
            total = tl.dot(a, weight.load([step * DEPTH, first]), total)
    if FLIP:
        total = total.T
    total += tl.load(bias + first + tl.arange(0, COLUMNS))[None, :]
    out = tl.maximum(total, 0.0).to(HALF)
    out = tl.reshape(out, [BN, BT, BH, BW, COLUMNS])
    if first < split:
        y.store([n, t0, h0, w0, first], out)
    else:
        z.store([n, t0, h0, w0, first - split], out)


@triton.jit
def average(
    x, y, time, steps, positions, channels,
    SPAN: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Average [N, T, H, W, C] over all positions of SPAN steps: float32 [N, T - SPAN + 1, C]."""
    row = tl.program_id(0)
    c = tl.program_id(1) * LANES + tl.arange(0, LANES)
    first = (row // steps * time + row % steps).to(tl.int64) * positions
    count = SPAN * positions
    total = tl.zeros([32, LANES], tl.float32)
    for start in range(0, count, 32):
        at = start + tl.arange(0, 32)
        inside = (at < count)[:, None] & (c < channels)[None, :]
        values = tl.load(x + (first + at)[:, None] * channels + c[None, :], mask=inside, other=0.0)
        total += values.to(tl.float32)
    tl.store(y + row * channels + c, tl.sum(total, 0) / count, mask=c < channels)


@triton.jit
def head(
    x, weight, bias, y, rows, classes, channels,
    ROWS: tl.constexpr, CLASSES: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Multiply [rows, channels] by weights [classes, channels], add the bias; all float32."""
    number = tl.program_id(0) * CLASSES + tl.arange(0, CLASSES)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    c = tl.arange(0, DEPTH)
    left = x + row[:, None] * channels + c[None, :]
    right = weight + number[:, None] * channels + c[None, :]
    total = tl.zeros([ROWS, CLASSES, DEPTH], tl.float32)
    for start in range(0, channels, DEPTH):
        inside = (start + c < channels)[None, :]
        a = tl.load(left + start, mask=inside & (row < rows)[:, None], other=0.0)
        b = tl.load(right + start, mask=inside & (number < classes)[:, None], other=0.0)
        total += a[:, None, :] * b[None, :, :]
    logits = tl.sum(total, 2) + tl.load(bias + number, mask=number < classes, other=0.0)[None, :]
    kept = (row < rows)[:, None] & (number < classes)[None, :]
    tl.store(y + row[:, None] * classes + number[None, :], logits, mask=kept)
