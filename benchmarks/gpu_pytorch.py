"""PyTorch's own times and errors on a GPU, for the benchmarks that set engines beside it."""

from typing import Any

import numpy as np
import torch


def differences(found: Any, exact: Any) -> dict[str, list[float]]:
    """Return the largest difference in the logits of each clip, and how much that is of them.

    The norm is what engines are judged by: rounding moves all logits of a clip alike, and how large
    the largest is depends on how sure the network is.
    """
    apart = np.abs(found - exact).max(1)
    return {
        "largest_difference": apart.tolist(),
        "of_the_largest_logit": (apart / np.abs(exact).max(1)).tolist(),
        "of_the_norm": (apart / np.linalg.norm(exact, axis=1)).tolist(),
    }


def time_pytorch(network: Any, clips: Any, runs: int) -> list[dict[str, Any]]:
    """Time PyTorch as it comes, in float32, TF32 and half precision, input on the GPU already.

    Differences are from float32.
    """
    found: list[dict[str, Any]] = []
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
            given = clips[:1].expand(batch, -1, -1, -1, -1).to("cuda", dtype)
            given = given.contiguous(memory_format=last)
            times = []
            with torch.inference_mode():
                for number in range(runs + 10):
                    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                    begin.record()
                    model(given)
                    end.record()
                    end.synchronize()
                    if number >= 10:
                        times.append(begin.elapsed_time(end))
            median = sorted(times)[len(times) // 2]
            rate = 1e3 * batch / median
            speed = {"median_ms": median, "clips_per_second": rate}
            found.append({"mode": name, "batch": batch, **speed, **apart})
    return found
