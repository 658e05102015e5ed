"""Time a training step, compared with the common port, and the wait for data.

    python benchmarks/train.py step [--batch 8 --batch 16] [--json step.json]
    torchrun --nproc-per-node 2 benchmarks/train.py scale --batch 32 [--json scale.json]
    python benchmarks/train.py wait RUN_DIR [--json wait.json]

`step` times the train step (`i3dzoo.training.train_step`: forward, loss, backward, optimiser, and
the sums that the progress bar shows) and a plain loop on a network that computes as the common
ports do, on the same clips. `scale` times the train step for one batch divided among the processes;
run it with one process too, and compare. `wait` reads a run of `i3dzoo finetune` and prints the
share of the time that the device waited for data, by epoch.
"""

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from msgspec.structs import replace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from common_port import CommonPort

from i3dzoo.pretrained import InceptionI3d
from i3dzoo.training.metric_logger import read_metric_lines
from i3dzoo.training.recipe import Recipe, load_recipe
from i3dzoo.training.streams import Streams
from i3dzoo.training.train_step import TrainStep, make_accelerator
from i3dzoo.video import Batch

CLASSES = 51
FRAMES, EDGE = 64, 224


@dataclass(frozen=True)
class Labels:
    """What the train step needs of the clips: the classes and the labels."""

    classes: tuple[str, ...] = tuple(f"class {number}" for number in range(CLASSES))
    labels: tuple[int, ...] = tuple(range(CLASSES))


def recipe(precision: str, channels_last: bool, batch: int) -> Recipe:
    """Return NVIDIA TAO's recipe in another precision."""
    base = load_recipe("tao")
    loop = replace(base.loop, precision=precision, channels_last=channels_last, batch_size=batch)
    return replace(base, loop=loop)


def clips(batch: int, device: torch.device, channels_last: bool) -> Iterator[Batch]:
    """Yield two random batches in turn, made in advance so that making them is not timed."""
    generator = torch.Generator(device).manual_seed(0)
    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    batches = []
    for _ in range(2):
        shape = (batch, 3, FRAMES, EDGE, EDGE)
        clip = torch.rand(shape, generator=generator, device=device).mul_(2).sub_(1)
        labels = torch.randint(CLASSES, (batch,), generator=generator, device=device)
        clips_by_stream = {"rgb": clip.contiguous(memory_format=layout)}
        batches.append(Batch(clips_by_stream, labels, tuple(range(batch)), (1,) * batch))
    while True:
        yield from batches


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


def train_step(given: Recipe, share: int) -> Callable[[], object]:
    """Return a train step on `share` clips in this process."""
    accelerator = make_accelerator(given)
    torch.manual_seed(0)
    streams = Streams({"rgb": InceptionI3d(CLASSES)})
    step = TrainStep(given, streams, Labels(), accelerator)  # type: ignore[arg-type] # all it uses
    batches = clips(share, accelerator.device, given.loop.channels_last)
    count = iter(range(10**9))
    return lambda: step([next(batches)], next(count), 1e-3)


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
    """Return the ways to take a step on one GPU, by name."""
    return {
        "common port, fp32": lambda: common_step("fp32", batch),
        "common port, fp16 AMP": lambda: common_step("fp16", batch),
        "i3dzoo, fp32": lambda: train_step(recipe("fp32", True, batch), batch),
        "i3dzoo, fp16": lambda: train_step(recipe("fp16", True, batch), batch),
        "i3dzoo, bf16": lambda: train_step(recipe("bf16", True, batch), batch),
    }


def step_table(batches: list[int], steps: int) -> list[dict[str, Any]]:
    """Time every way for every batch on one GPU."""
    rows: list[dict[str, Any]] = []
    for batch in batches:
        for name, make in ways(batch).items():
            gc.collect()  # what was timed before must not count as memory
            torch.cuda.empty_cache()
            result = timed(make(), 5, steps)
            rate = 1e3 * batch / result["median_ms"]
            rows.append({"way": name, "batch": batch, "clips_per_second": rate, **result})
            print(
                f"{name:24} batch {batch:3}  {rate:7.1f} clips/s  {result['median_ms']:7.1f} ms  "
                f"{result['peak_gb']:5.1f} GB",
                flush=True,
            )
    return rows


def scale(batch: int, precision: str, steps: int) -> dict[str, Any]:
    """Time a batch that is divided among the processes of this run."""
    given = recipe(precision, channels_last=True, batch=batch)
    world = make_accelerator(given).num_processes
    result = timed(train_step(given, batch // world), 5, steps)
    rate = 1e3 * batch / result["median_ms"]
    return {
        "gpus": world,
        "batch": batch,
        "precision": precision,
        "clips_per_second": rate,
        **result,
    }


def wait(folder: Path) -> list[dict[str, float]]:
    """Return the share of the time that the device waited, and the clips per second, by epoch."""
    epochs: dict[int, list[dict[str, Any]]] = {}
    for line in read_metric_lines(folder / "metrics.jsonl"):
        if line.get("kind") == "step":
            epochs.setdefault(int(line["epoch"] - 1e-6), []).append(line)
    rows = []
    for epoch, lines in sorted(epochs.items()):
        # the share of the sums, so that a step counts by its duration
        seconds = [1 / line["clips_per_second"] for line in lines]
        waited = [
            duration * line["data_wait"] for duration, line in zip(seconds, lines, strict=True)
        ]
        rows.append(
            {
                "epoch": epoch + 1,
                "data_wait": sum(waited) / sum(seconds),
                "clips_per_second": len(seconds) / sum(seconds),
            }
        )
    return rows


def main() -> None:
    """Run a measurement and print it."""
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
