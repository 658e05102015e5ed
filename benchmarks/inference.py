"""Clips through I3D on this machine: the common port's way beside what `i3dzoo predict` runs.

    python benchmarks/inference.py rgb_scratch [--batch 1 --batch 4] [--json inference.json]

Medians of 5 runs in turn, one process for all, from float clips in memory to logits there; largest
difference of a logit from the common port's, of its largest. `i3dzoo bench` has more engines.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from common_port import CommonPort

from i3dzoo import kernels
from i3dzoo.engines import device_of, load_engine
from i3dzoo.loading import load

RUNS = 5


def ways(model: str) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return what runs clips [B, C, T, H, W], by what it is called."""
    onnxruntime, torch_engine = load_engine(model, "onnxruntime"), load_engine(model, "torch")
    device = device_of(torch_engine)
    port = CommonPort(load(model).to(device).eval())
    return {
        "common port": lambda clips: port(clips.to(device)),
        "i3dzoo, PyTorch": lambda clips: torch_engine.step_logits(clips.to(device)).mean(1),
        "i3dzoo, onnxruntime": lambda clips: onnxruntime.step_logits(clips).mean(1),
    }


def main() -> None:
    """Measure each batch."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--batch", type=int, action="append")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = []
    there = ways(given.model)
    print(f"{torch.get_num_threads()} threads, PyTorch {torch.__version__}")
    for batch in given.batch or [1, 4]:
        clips = torch.rand((batch, 3, 64, 224, 224), generator=torch.manual_seed(0)) * 2 - 1
        times: dict[str, list[float]] = {name: [] for name in there}
        found: dict[str, Tensor] = {}
        for number in range(RUNS + 1):  # the first is warming up
            for name, run in there.items():
                # the port has its pools from PyTorch, and its first convolution as it comes
                kernels.use(name != "common port")
                start = time.perf_counter()
                with torch.inference_mode():
                    found[name] = run(clips).float().cpu()
                if number:
                    times[name].append(time.perf_counter() - start)
        exact = found["common port"]
        for name, taken in times.items():
            error = float((found[name] - exact).abs().max() / exact.abs().max())
            row = {"engine": name, "batch": batch, "seconds": median(taken), "error": error}
            rows.append(row)
            rate = batch / row["seconds"]
            print(f"{name:20} batch {batch}: {row['seconds']:.3f} s, {rate:.2f} clips/s, ", end="")
            print(f"error {error:.1e}", flush=True)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
