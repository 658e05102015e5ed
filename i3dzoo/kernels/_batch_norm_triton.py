"""The Triton kernels of `i3dzoo.kernels.batch_norm`; importing this module needs Triton.

Activations are matrices of positions and channels, whose rows may be a part of longer ones: their
pitch in memory and their channels are multiples of 8, and are given as such. `stats` has four rows
by channel: the mean, 1 / standard deviation, and the scale and shift that normalise.
"""

import triton
import triton.language as tl


@triton.jit
def statistics(
    x, partial, rows, pitch8, channels8, chunk_rows,
    ROWS: tl.constexpr, LANES: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Write of each chunk of rows the mean, and the sum of squared distances from it."""
    chunk = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * LANES + tl.arange(0, LANES)
    channels = channels8 * 8
    is_channel = c < channels
    first = chunk * chunk_rows
    line = x + first * pitch8 * 8 + c[None, :]
    # squares of distances from a value of the chunk, so that a large mean does not cancel them
    origin = tl.load(line, mask=is_channel[None, :], other=0.0).to(ACC)
    total = tl.zeros([ROWS, LANES], ACC)
    squares = tl.zeros([ROWS, LANES], ACC)
    for start in range(0, chunk_rows, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = (row < rows - first)[:, None] & is_channel[None, :]
        at = line + row[:, None].to(tl.int64) * (pitch8 * 8)
        value = tl.load(at, mask=inside, other=0.0).to(ACC) - origin
        value = tl.where(inside, value, 0.0)
        total += value
        squares += value * value
    count = tl.minimum(rows - first, chunk_rows).to(ACC)
    total = tl.sum(total, 0)
    squares = tl.sum(squares, 0) - total * total / count
    at = partial + chunk * 2 * channels + c
    tl.store(at, tl.sum(origin, 0) + total / count, mask=is_channel)
    tl.store(at + channels, tl.maximum(squares, 0.0), mask=is_channel)


@triton.jit
def finish_statistics(
    partial, gamma, beta, running_mean, running_var, counter, stats,
    rows, pitch, channels, chunk_rows, chunks, momentum, epsilon,
    CHUNKS: tl.constexpr, LANES: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Combine the chunks into `stats`, and update the running statistics."""
    c = tl.program_id(0) * LANES + tl.arange(0, LANES)
    is_channel = c < channels
    chunk = tl.arange(0, CHUNKS)
    inside = (chunk < chunks)[:, None] & is_channel[None, :]
    at = partial + (chunk * 2 * pitch)[:, None] + c[None, :]
    means = tl.load(at, mask=inside, other=0.0)
    squares = tl.load(at + pitch, mask=inside, other=0.0)
    counts = tl.minimum(rows - chunk * chunk_rows, chunk_rows)
    counts = tl.maximum(counts, 0).to(ACC)[:, None]
    # relative to the first chunk, for the same reason
    origin = tl.load(partial + c, mask=is_channel, other=0.0)
    mean = origin + tl.sum(counts * (means - origin[None, :]), 0) / rows
    distance = tl.where(inside, means - mean[None, :], 0.0)
    squares = tl.sum(squares + counts * distance * distance, 0)
    deviation = 1 / tl.sqrt(squares / rows + epsilon)
    scale = tl.load(gamma + c, mask=is_channel, other=0.0).to(ACC) * deviation
    shift = tl.load(beta + c, mask=is_channel, other=0.0).to(ACC) - mean * scale
    tl.store(stats + c, mean, mask=is_channel)
    tl.store(stats + channels + c, deviation, mask=is_channel)
    tl.store(stats + 2 * channels + c, scale, mask=is_channel)
    tl.store(stats + 3 * channels + c, shift, mask=is_channel)
    old = tl.load(running_mean + c, mask=is_channel, other=0.0).to(ACC)
    new = old * (1 - momentum) + mean * momentum
    tl.store(running_mean + c, new.to(running_mean.dtype.element_ty), mask=is_channel)
    old = tl.load(running_var + c, mask=is_channel, other=0.0).to(ACC)
    new = old * (1 - momentum) + squares / (rows - 1) * momentum
    tl.store(running_var + c, new.to(running_var.dtype.element_ty), mask=is_channel)
    if tl.program_id(0) == 0:
        tl.store(counter, tl.load(counter) + 1)


@triton.jit
def normalise(
    x, y, stats, rows, x_pitch8, y_pitch8, channels8, blocks,
    ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Normalise and rectify."""
    pid = tl.program_id(0)
    c = (pid % blocks) * LANES + tl.arange(0, LANES)
    row = (pid // blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channels = channels8 * 8
    is_channel = c < channels
    inside = (row < rows)[:, None] & is_channel[None, :]
    scale = tl.load(stats + 2 * channels + c, mask=is_channel, other=0.0)
    shift = tl.load(stats + 3 * channels + c, mask=is_channel, other=0.0)
    value = tl.load(x + row[:, None] * (x_pitch8 * 8) + c[None, :], mask=inside, other=0.0)
    value = value.to(scale.dtype) * scale[None, :] + shift[None, :]
    value = tl.maximum(value, 0.0, propagate_nan=tl.PropagateNan.ALL)
    at = y + row[:, None] * (y_pitch8 * 8) + c[None, :]
    tl.store(at, value.to(y.dtype.element_ty), mask=inside)


@triton.jit
def gradient_sums(
    x, grad, stats, partial, rows, x_pitch8, grad_pitch8, channels8, chunk_rows,
    ROWS: tl.constexpr, LANES: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Write of each chunk of rows the sums of the gradients after the ReLU, and times x - mean."""
    chunk = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * LANES + tl.arange(0, LANES)
    channels = channels8 * 8
    is_channel = c < channels
    first = chunk * chunk_rows
    mean = tl.load(stats + c, mask=is_channel, other=0.0)[None, :]
    scale = tl.load(stats + 2 * channels + c, mask=is_channel, other=0.0)[None, :]
    shift = tl.load(stats + 3 * channels + c, mask=is_channel, other=0.0)[None, :]
    total = tl.zeros([ROWS, LANES], ACC)
    products = tl.zeros([ROWS, LANES], ACC)
    for start in range(0, chunk_rows, ROWS):
        row = first + start + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & is_channel[None, :]
        value = tl.load(x + row[:, None] * (x_pitch8 * 8) + c[None, :], mask=inside, other=0.0)
        value = value.to(ACC)
        at = grad + row[:, None] * (grad_pitch8 * 8) + c[None, :]
        slope = tl.load(at, mask=inside, other=0.0).to(ACC)
        slope = tl.where(value * scale + shift > 0, slope, 0.0)
        total += slope
        products += slope * (value - mean)
    at = partial + chunk * 2 * channels + c
    tl.store(at, tl.sum(total, 0), mask=is_channel)
    tl.store(at + channels, tl.sum(products, 0), mask=is_channel)


@triton.jit
def finish_gradient(
    partial, stats, grads, factors, rows, channels, chunks,
    CHUNKS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Write the gradients of gamma and beta, and what `gradient` needs of the sums.

    `rows` is the number of positions that the statistics were computed from.
    """
    c = tl.program_id(0) * LANES + tl.arange(0, LANES)
    is_channel = c < channels
    chunk = tl.arange(0, CHUNKS)
    inside = (chunk < chunks)[:, None] & is_channel[None, :]
    at = partial + (chunk * 2 * channels)[:, None] + c[None, :]
    total = tl.sum(tl.load(at, mask=inside, other=0.0), 0)
    products = tl.sum(tl.load(at + channels, mask=inside, other=0.0), 0)
    deviation = tl.load(stats + channels + c, mask=is_channel, other=0.0)
    scale = tl.load(stats + 2 * channels + c, mask=is_channel, other=0.0)
    products *= deviation
    tl.store(grads + c, products, mask=is_channel)
    tl.store(grads + channels + c, total, mask=is_channel)
    tl.store(factors + c, -scale * total / rows, mask=is_channel)
    tl.store(factors + channels + c, -scale * deviation * products / rows, mask=is_channel)


@triton.jit
def gradient(
    x, grad, grad_x, stats, factors,
    rows, x_pitch8, grad_pitch8, grad_x_pitch8, channels8, blocks,
    ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Write the gradient of the input of the BatchNorm from that of the ReLU's output."""
    pid = tl.program_id(0)
    c = (pid % blocks) * LANES + tl.arange(0, LANES)
    row = (pid // blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channels = channels8 * 8
    is_channel = c < channels
    inside = (row < rows)[:, None] & is_channel[None, :]
    mean = tl.load(stats + c, mask=is_channel, other=0.0)[None, :]
    scale = tl.load(stats + 2 * channels + c, mask=is_channel, other=0.0)[None, :]
    shift = tl.load(stats + 3 * channels + c, mask=is_channel, other=0.0)[None, :]
    constant = tl.load(factors + c, mask=is_channel, other=0.0)[None, :]
    factor = tl.load(factors + channels + c, mask=is_channel, other=0.0)[None, :]
    value = tl.load(x + row[:, None] * (x_pitch8 * 8) + c[None, :], mask=inside, other=0.0)
    value = value.to(mean.dtype)
    at = grad + row[:, None] * (grad_pitch8 * 8) + c[None, :]
    slope = tl.load(at, mask=inside, other=0.0).to(mean.dtype)
    slope = tl.where(value * scale + shift > 0, slope, 0.0) * scale
    slope += (value - mean) * factor + constant
    at = grad_x + row[:, None] * (grad_x_pitch8 * 8) + c[None, :]
    tl.store(at, slope.to(grad_x.dtype.element_ty), mask=inside)
