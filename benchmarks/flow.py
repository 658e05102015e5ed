"""Measure the methods of optical flow: pairs of frames per second, and their error.

The frames have 256 x 341 pixels: a random texture that moves by (3, -2) pixels per frame. OpenCV's
methods run on one core, and `torch` runs on the GPU in batches, if there is one:

    python benchmarks/flow.py [--pairs 64] [--json results.json]
"""

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from i3dzoo.errors import DependencyError
from i3dzoo.video.flow import FlowMethod, flows, load_cv2

SIZE = (256, 341)


def frames(count: int) -> list[npt.NDArray[np.uint8]]:
    """Cut frames from a smooth random texture."""
    height, width = SIZE[0] + 2 * count, SIZE[1] + 3 * count
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(width), np.fft.fftfreq(height)))
    noise = np.random.default_rng(0).standard_normal((height, width))
    smooth = np.fft.ifft2(np.fft.fft2(noise) * np.exp(-50 * frequency**2)).real
    grey = np.clip(128 + 45 * smooth / smooth.std(), 0, 255).astype(np.uint8)
    return [grey[2 * i :, 3 * (count - i) :][: SIZE[0], : SIZE[1]].copy() for i in range(count)]


def measure(method: FlowMethod, pairs: int, device: str) -> dict[str, float]:
    """Return pairs a second and the median and mean error in pixels."""
    given = frames(pairs + 1)
    list(flows(given[:3], method, device))  # warms up
    start = time.perf_counter()
    computed = np.stack(list(flows(given, method, device)))
    seconds = time.perf_counter() - start
    error = np.linalg.norm(computed - np.array([3.0, -2.0]), axis=-1)
    return {
        "pairs_per_second": pairs / seconds,
        "median_error": float(np.median(error)),
        "mean_error": float(error.mean()),
    }


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    print(f"PyTorch {torch.__version__} on {name}; OpenCV on one core")
    result = {}
    methods: dict[FlowMethod, int] = {"tvl1": 8, "farneback": 32, "torch": arguments.pairs}
    for method, pairs in methods.items():
        try:
            if method != "torch":
                load_cv2().setNumThreads(1)
            result[method] = measure(method, pairs, device)
        except DependencyError as error:
            print(f"  {method}: {error}")
            continue
        words = ", ".join(f"{key} {value:.4g}" for key, value in result[method].items())
        print(f"  {method:10} {words}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
