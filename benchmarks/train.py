"""A training step beside the common port's, on one GPU and on several, and the wait for data.

    python benchmarks/train.py step [--batch 8 --batch 16] [--json step.json]
    torchrun --nproc-per-node 2 benchmarks/train.py scale --batch 32 [--json scale.json]
    python benchmarks/train.py wait RUN_DIR [--json wait.json]

`step` times steps of the real engine (`i3dzoo.training.engine`: forward, loss, backward, optimiser,
and the sums that the progress bar shows) and of a plain loop on a network that computes as the
common ports do, all in one run on the same clips. `scale` times the engine's step for one batch
divided over the processes; run it with one process too, and compare. `wait` reads a run of
`i3dzoo finetune` and tells which part of the time its device waited for data, epoch by epoch.
"""

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from common_port import CommonPort

from i3dzoo.model import InceptionI3d
from i3dzoo.training.clips import Batch
from i3dzoo.training.engine import Engine, make_accelerator
from i3dzoo.training.journal import read_lines
from i3dzoo.training.network import Streams
from i3dzoo.training.recipe import Recipe, load_recipe

CLASSES = 51
FRAMES, EDGE = 64, 224


@dataclass(frozen=True)
class Labels:
    """What the engine asks of clips: classes, and how often each occurs."""

    classes: tuple[str, ...] = tuple(f"class {number}" for number in range(CLASSES))
    labels: tuple[int, ...] = tuple(range(CLASSES))


def recipe(precision: str, channels_last: bool, batch: int) -> Recipe:
    """Return NVIDIA TAO's recipe in another precision."""
    base = load_recipe("tao")
    loop = replace(base.loop, precision=precision, channels_last=channels_last, batch_size=batch)
    return replace(base, loop=loop)


def clips(batch: int, device: torch.device, channels_last: bool) -> Iterator[Batch]:
    """Yield ever other random clips, made beforehand so that making them is not timed."""
    generator = torch.Generator(device).manual_seed(0)
    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    made = []
    for _ in range(2):
        shape = (batch, 3, FRAMES, EDGE, EDGE)
        clip = torch.rand(shape, generator=generator, device=device).mul_(2).sub_(1)
        labels = torch.randint(CLASSES, (batch,), generator=generator, device=device)
        made.append(Batch({"rgb": clip.contiguous(memory_format=layout)}, labels))
    while True:
        yield from made


def timed(step: Callable[[], object], warm_up: int, steps: int) -> dict[str, float]:
    """Return the median of a step in milliseconds, its spread, and the peak of the memory."""
    torch.cuda.reset_peak_memory_stats()
    for _ in range(warm_up):
        step()
    times = []
    for _ in range(steps):
        torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    return {
        "median_ms": statistics.median(times),
        "slowest_ms": max(times),
        "fastest_ms": min(times),
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9,
    }


def engine_step(given: Recipe, share: int) -> Callable[[], object]:
    """Return a step of the real engine on `share` clips in this process."""
    accelerator = make_accelerator(given)
    torch.manual_seed(0)
    streams = Streams({"rgb": InceptionI3d(CLASSES)})
    engine = Engine(given, streams, Labels(), accelerator)  # type: ignore[arg-type] # all it asks
    batches = clips(share, accelerator.device, given.loop.channels_last)
    count = iter(range(10**9))
    return lambda: engine.step([next(batches)], next(count), 1e-3)


def common_step(precision: str, batch: int) -> Callable[[], object]:
    """Return a step of a plain loop on the common port; fp16 by autocast and a gradient scaler."""
    device = torch.device("cuda")
    torch.manual_seed(0)
    network = CommonPort(InceptionI3d(CLASSES)).to(device).train()
    optimizer = torch.optim.SGD(network.parameters(), 1e-5, momentum=0.9, weight_decay=1e-7)
    half = precision == "fp16"
    scaler = torch.amp.GradScaler("cuda", enabled=half)
    batches = clips(batch, device, channels_last=False)

    def step() -> None:
        given = next(batches)
        with torch.autocast("cuda", torch.float16, enabled=half):
            logits = network(given.clips["rgb"])
        loss = F.cross_entropy(logits.float(), given.labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    return step


def ways(batch: int) -> dict[str, Callable[[], Callable[[], object]]]:
    """Return how steps on one GPU can be made, by name."""
    return {
        "common port, fp32": lambda: common_step("fp32", batch),
        "common port, fp16 AMP": lambda: common_step("fp16", batch),
        "i3dzoo, fp32": lambda: engine_step(recipe("fp32", True, batch), batch),
        "i3dzoo, fp16": lambda: engine_step(recipe("fp16", True, batch), batch),
        "i3dzoo, bf16": lambda: engine_step(recipe("bf16", True, batch), batch),
    }


def step_table(batches: list[int], steps: int) -> list[dict[str, Any]]:
    """Time every way for every batch on one GPU."""
    found: list[dict[str, Any]] = []
    for batch in batches:
        for name, make in ways(batch).items():
            gc.collect()  # what was timed before must not count as memory
            torch.cuda.empty_cache()
            result = timed(make(), 5, steps)
            rate = 1e3 * batch / result["median_ms"]
            found.append({"way": name, "batch": batch, "clips_per_second": rate, **result})
            print(
                f"{name:24} batch {batch:3}  {rate:7.1f} clips/s  {result['median_ms']:7.1f} ms  "
                f"{result['peak_gb']:5.1f} GB",
                flush=True,
            )
    return found


def scale(batch: int, precision: str, steps: int) -> dict[str, Any]:
    """Time one batch divided over the processes of this run."""
    given = recipe(precision, channels_last=True, batch=batch)
    world = make_accelerator(given).num_processes
    result = timed(engine_step(given, batch // world), 5, steps)
    rate = 1e3 * batch / result["median_ms"]
    return {
        "gpus": world,
        "batch": batch,
        "precision": precision,
        "clips_per_second": rate,
        **result,
    }


def wait(folder: Path) -> list[dict[str, float]]:
    """Return the share of the time that the device waited, by epoch, and the clips a second."""
    epochs: dict[int, list[dict[str, Any]]] = {}
    for line in read_lines(folder / "metrics.jsonl"):
        if line.get("kind") == "step":
            epochs.setdefault(int(line["epoch"] - 1e-6), []).append(line)
    found = []
    for epoch, lines in sorted(epochs.items()):
        # of the sums: a step that waits long counts as long as it waits
        seconds = [1 / line["clips_per_second"] for line in lines]
        waited = [each * line["data_wait"] for each, line in zip(seconds, lines, strict=True)]
        found.append(
            {
                "epoch": epoch + 1,
                "data_wait": sum(waited) / sum(seconds),
                "clips_per_second": len(seconds) / sum(seconds),
            }
        )
    return found


def main() -> None:
    """Run one measurement and print it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["step", "scale", "wait"])
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--batch", type=int, action="append")
    parser.add_argument("--precision", default="bf16", choices=["fp32", "fp16", "bf16"])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    results: list[Any]
    if given.what == "wait":
        if given.run is None:
            parser.error("wait needs the folder of a run")
        results = wait(given.run)
    elif given.what == "step":
        results = step_table(given.batch or [8, 16], given.steps)
    else:
        results = [scale(batch, given.precision, given.steps) for batch in given.batch or [16, 32]]
    first = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
    if first:
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
        document = {"device": device, "torch": torch.__version__, "results": results}
        if given.what != "step":
            print(json.dumps(document, indent=1))
        if given.json:
            given.json.write_text(json.dumps(document, indent=1))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
