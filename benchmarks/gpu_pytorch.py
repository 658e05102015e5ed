"""Times on a GPU, and PyTorch's own times and errors, for the benchmarks of engines."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch


def differences(logits: Any, exact: Any) -> dict[str, list[float]]:
    """Return the largest difference in the logits of each clip, also as a part of them.

    Engines are judged by the part of the norm: rounding changes all logits of a clip alike, and the
    largest logit depends on how certain the network is.
    """
    apart = np.abs(logits - exact).max(1)
    return {
        "largest_difference": apart.tolist(),
        "of_the_largest_logit": (apart / np.abs(exact).max(1)).tolist(),
        "of_the_norm": (apart / np.linalg.norm(exact, axis=1)).tolist(),
    }


def time_on_gpu(run: Callable[[], object], runs: int) -> list[float]:
    """Return the milliseconds of each run on the current stream, after 10 runs to warm up."""
    times = []
    for number in range(runs + 10):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        if number >= 10:
            times.append(begin.elapsed_time(end))
    return times


def time_pytorch(network: Any, clips: Any, runs: int) -> list[dict[str, Any]]:
    """Time plain PyTorch in float32, TF32 and half precision, with the input on the GPU.

    Differences are from float32.
    """
    rows: list[dict[str, Any]] = []
    exact = None
    for name, dtype, tf32 in (
        ("fp32", torch.float32, False),
        ("tf32", torch.float32, True),
        ("fp16 channels-last", torch.float16, False),
    ):
        torch.backends.cudnn.allow_tf32 = tf32
        last = torch.channels_last_3d if dtype is torch.float16 else torch.contiguous_format
        model = network.to(dtype).to(memory_format=last)
        with torch.inference_mode():
            logits = torch.cat([model(clip[None].to("cuda", dtype)).float() for clip in clips])
        exact = logits if exact is None else exact
        apart = differences(logits.cpu().numpy(), exact.cpu().numpy())
        for batch in (1, 8):
            repeated = clips[:1].expand(batch, -1, -1, -1, -1).to("cuda", dtype)
            repeated = repeated.contiguous(memory_format=last)
            with torch.inference_mode():
                times = time_on_gpu(partial(model, repeated), runs)
            median = sorted(times)[len(times) // 2]
            rate = 1e3 * batch / median
            speed = {"median_ms": median, "clips_per_second": rate}
            rows.append({"mode": name, "batch": batch, **speed, **apart})
    return rows
